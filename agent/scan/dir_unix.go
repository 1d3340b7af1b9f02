//go:build unix

package scan

import (
	"errors"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
)

// A dir is an open folder. Everything in it is reached relative to it, so paths
// longer than the system's limit are ordinary and nobody can swap a folder above.
type dir struct{ fd int }

const (
	openList   = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	openSearch = searchOnly | unix.O_DIRECTORY | unix.O_CLOEXEC
)

func statRoot(path string) (facts.Facts, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Stat(path, &st) })
	return facts.FromStat(&st), err
}

// openRoot opens the root for listing, searchRoot only to pass through it.
func openRoot(path string) (dir, error)   { return openat(unix.AT_FDCWD, path, openList) }
func searchRoot(path string) (dir, error) { return openat(unix.AT_FDCWD, path, openSearch) }

// open opens a subfolder for listing, search only to pass through it. A symlink
// is no folder.
func (d dir) open(name string) (dir, error)   { return openat(d.fd, name, openList|unix.O_NOFOLLOW) }
func (d dir) search(name string) (dir, error) { return openat(d.fd, name, openSearch|unix.O_NOFOLLOW) }

func (d dir) facts() (facts.Facts, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstat(d.fd, &st) })
	return facts.FromStat(&st), err
}

func (d dir) lstat(name string) (facts.Facts, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return facts.FromStat(&st), err
}

func (d dir) close() { _ = unix.Close(d.fd) } // opened for reading: nothing can be lost

// An entry is one line of a listing, valid until the next.
type entry struct {
	name []byte
	typ  facts.Type // 0 if the listing does not say
	dir  dir
}

func (e *entry) facts() (facts.Facts, error) { return e.dir.lstat(string(e.name)) }

// notFolder reports the errors of a folder replaced by something else.
func notFolder(err error) bool { return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) }

func openat(fd int, name string, flags int) (dir, error) {
	d := dir{-1}
	err := again(func() (err error) {
		d.fd, err = unix.Openat(fd, name, flags, 0)
		return err
	})
	return d, err
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
