//go:build unix

package capture

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"backstay/agent/metadata"
)

// A handle is a descriptor. It is used directly, because os.File would ask the
// system several times over whether it can be polled.
type handle struct{ fd int }

// openFile never blocks: not on a FIFO without a writer, not on a lease, and does
// not make a terminal ours.
const openFile = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

func open(root, rel string) (handle, error) {
	fd, err := resolve(root, rel, openFile)
	return handle{fd}, err
}

func (h handle) of() metadata.Handle { return h.fd }

func (h handle) readAt(p []byte, at int64) (n int, err error) {
	err = again(func() error {
		n, err = unix.Pread(h.fd, p, at)
		return err
	})
	return max(n, 0), err
}

// named returns the state of what the name leads to now and whether that is the
// file itself, which was in state before.
func (h handle) named(root, rel string, before state) (state, bool, error) {
	fd, err := resolve(root, rel, openName)
	if err != nil {
		return state{}, false, err
	}
	n, err := metadata.Stat(fd)
	_ = unix.Close(fd)
	return stateOf(n), n.Facts.Dev == before.facts.Dev && n.Facts.Inode == before.facts.Inode, err
}

func (h handle) close() error { return unix.Close(h.fd) }

// step opens one component after the other, none of them a symlink but the root.
func step(root, rel string, flags int) (int, error) {
	fd, err := openat(unix.AT_FDCWD, root, openFolder)
	for err == nil {
		name, rest, more := strings.Cut(rel, "/")
		f := flags
		if more {
			f = openFolder
		}
		var next int
		next, err = openat(fd, name, f|unix.O_NOFOLLOW)
		_ = unix.Close(fd)
		if fd = next; !more {
			break
		}
		rel = rest
	}
	return fd, err
}

func openat(at int, name string, flags int) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Openat(at, name, flags, 0)
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

// notRegular: a symlink, or a socket, which cannot be opened.
func notRegular(err error) bool { return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) }

// vanished: gone, or a folder on the way is something else now.
func vanished(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// inUse: a lease, which the system is asking the holder to give up.
func inUse(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) }
