package capture

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	// openName needs no right to read and touches nothing.
	openName   = unix.O_PATH | unix.O_CLOEXEC
	openFolder = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
)

// resolve opens a path below the root, or the root itself, in one call where the
// system knows it: tiny files are bound by the number of calls.
func resolve(root, rel string, flags int) (int, error) {
	if rel == "" {
		return openat(unix.AT_FDCWD, root, flags)
	}
	dir, err := openat(unix.AT_FDCWD, root, openFolder)
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS}
	var fd int
	err = again(func() error {
		fd, err = unix.Openat2(dir, rel, &how)
		return err
	})
	_ = unix.Close(dir)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM), // not known, or a container forbids it
		errors.Is(err, unix.ENAMETOOLONG): // beyond 4,096 bytes
		return step(root, rel, flags)
	}
	return fd, err
}
