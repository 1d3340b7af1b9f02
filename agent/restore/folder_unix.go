//go:build unix

package restore

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
)

// modeBits are the bits of the mode in which a restored file and its record agree.
const modeBits = 0o777

// A folder is a descriptor of a folder below the target. All its names are single
// components, and none of its methods follows a symlink or replaces anything.
type folder struct {
	fd int
	f  *os.File // the same, for what wants one
}

const openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openTarget opens the folder that a person named: it alone may be a symlink.
func openTarget(path string) (*folder, error) {
	fd, err := openat(unix.AT_FDCWD, path, openFolder&^unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return newFolder(fd), nil
}

func newFolder(fd int) *folder { return &folder{fd, os.NewFile(uintptr(fd), ".")} }

// lock keeps other restores out of the folder until it is closed.
func (d *folder) lock() error {
	err := again(func() error { return unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrBusy
	}
	return nil // a file system without locks is no reason not to restore
}

func (d *folder) open(name string) (*folder, error) {
	fd, err := openat(d.fd, name, openFolder, 0)
	if err != nil {
		return nil, err
	}
	return newFolder(fd), nil
}

func (d *folder) mkdir(name string) error {
	return again(func() error { return unix.Mkdirat(d.fd, name, 0o700) })
}

func (d *folder) create(name string) (*os.File, error) {
	fd, err := openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// read opens what is to be compared; a FIFO does not block it.
func (d *folder) read(name string) (*os.File, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (d *folder) lstat(name string) (facts.Facts, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return facts.Facts{}, err
	}
	return facts.FromStat(&st), nil
}

func (d *folder) readlink(name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(d.fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

func (d *folder) link(from *folder, old, name string) error {
	return again(func() error { return unix.Linkat(from.fd, old, d.fd, name, 0) })
}

func (d *folder) remove(name string) error {
	return again(func() error { return unix.Unlinkat(d.fd, name, 0) })
}

func (d *folder) rmdir(name string) error {
	return again(func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

func (d *folder) rename(old, name string) error { return renameNew(d.fd, old, name) }

// linkAndUnlink renames without replacing where no single call does: for folders,
// which cannot be linked, it leaves a moment in which another could come between.
func linkAndUnlink(fd int, old, name string) error {
	err := unix.Linkat(fd, old, fd, name, 0)
	switch err {
	case nil:
		return unix.Unlinkat(fd, old, 0)
	case unix.EEXIST:
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != unix.ENOENT {
		if err == nil {
			err = unix.EEXIST
		}
		return err
	}
	return unix.Renameat(fd, old, fd, name)
}

// names lists the folder.
func (d *folder) names() ([]string, error) {
	fd, err := openat(d.fd, ".", openFolder, 0) // for a reading position of its own
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	names, err := f.Readdirnames(0)
	if err == io.EOF {
		err = nil
	}
	return names, err
}

// device numbers the file system.
func (d *folder) device() (uint64, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstat(d.fd, &st) })
	return uint64(st.Dev), err
}

// use calls f with the folder's descriptor.
func (d *folder) use(f func(*os.File) error) error { return f(d.f) }

func (d *folder) close() error { return d.f.Close() }

func openat(at int, name string, flags int, perm uint32) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Openat(at, name, flags, perm)
		return err
	})
	return fd, err
}

// again repeats a call that a signal interrupted, which happens on network and
// user-space file systems.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// notFolder says that something other than a folder has the name.
func notFolder(err error) bool { return err == unix.ENOTDIR || err == unix.ELOOP || err == unix.EMLINK }

// unholdable says that the file system refuses the name itself.
func unholdable(err error) bool {
	return isAny(err, unix.EILSEQ, unix.EINVAL, unix.ENAMETOOLONG)
}

// full and readOnly are the states of a file system in which nothing more can be
// restored.
func full(err error) bool     { return isAny(err, unix.ENOSPC, unix.EDQUOT) }
func readOnly(err error) bool { return isAny(err, unix.EROFS) }
