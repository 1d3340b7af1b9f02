//go:build unix && !linux

package metadata

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"backstay/protocol/vault"
)

// A place is where metadata is: an open descriptor, or for what cannot be opened a
// name in an open folder.
type place struct {
	fd   int // -1: name in dir
	dir  int
	name string
}

func (p *place) list() ([]string, error) {
	if p.fd < 0 {
		return nil, nil
	}
	buf := make([]byte, 1024)
	for range 8 { // one that grows all the time must not be chased
		var n int
		err := again(func() (err error) {
			n, err = flistxattr(p.fd, buf)
			return err
		})
		// A list that fills the buffer may have been cut off.
		if err == nil && n < len(buf) {
			return splitNames(buf[:n]), nil
		}
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil // a file system without
		}
		if err != nil && !errors.Is(err, unix.ERANGE) {
			return nil, err
		}
		buf = make([]byte, 4*len(buf))
	}
	return nil, unix.ERANGE
}

func (p *place) get(name string, limit int) ([]byte, error) {
	if p.fd < 0 {
		return nil, errNoXattr
	}
	var value []byte
	var n int
	ask := func() (err error) {
		n, err = fgetxattr(p.fd, name, value)
		return err
	}
	err := again(ask) // its size
	if err == nil && n > limit {
		return nil, errTooLarge
	}
	if err == nil && n > 0 {
		value = make([]byte, n)
		err = again(ask)
	}
	switch {
	case errors.Is(err, unix.ENOATTR):
		return nil, errNoXattr
	case err != nil:
		return nil, err
	}
	return value[:n:n], nil
}

func (p *place) set(name string, value []byte) error {
	if p.fd < 0 {
		return unix.ENOTSUP
	}
	return again(func() error { return fsetxattr(p.fd, name, value) })
}

func (p *place) remove(string) error { return unix.ENOTSUP } // only ACLs are removed, and no attribute holds them here

func (p *place) stat() (Node, error) {
	if p.fd >= 0 {
		return Stat(p.fd)
	}
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return Node{}, err
	}
	return FromStat(&st), nil
}

func (p *place) chown(uid, gid int) error {
	if p.fd >= 0 {
		return again(func() error { return unix.Fchown(p.fd, uid, gid) })
	}
	return again(func() error { return unix.Fchownat(p.dir, p.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
}

func (p *place) chmod(mode uint32) error {
	if p.fd >= 0 {
		return again(func() error { return unix.Fchmod(p.fd, mode) })
	}
	return again(func() error { return unix.Fchmodat(p.dir, p.name, mode, unix.AT_SYMLINK_NOFOLLOW) })
}

// setTimes sets the time of creation as these systems do: a modification time
// before it moves it back. So it goes first.
func (p *place) setTimes(modified, created time.Time) error {
	for _, t := range []time.Time{created, modified} {
		if t.IsZero() {
			continue
		}
		ts, err := unix.TimeToTimespec(t)
		if err != nil {
			return ErrNotHeld // 32 bits
		}
		if p.fd >= 0 {
			err = again(func() error { return futimens(p.fd, ts) })
		} else {
			now, serr := p.stat()
			if serr != nil {
				return serr
			}
			// The access time has to be given, and is the modification time so far.
			was, serr := unix.TimeToTimespec(now.meta.ModTime)
			if serr != nil {
				return ErrNotHeld
			}
			err = again(func() error {
				return unix.UtimesNanoAt(p.dir, p.name, []unix.Timespec{was, ts}, unix.AT_SYMLINK_NOFOLLOW)
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holdsCreated: see setTimes.
const holdsCreated = true

// privilege: programs have no rights by attribute here.
const privilege = ""

var acls []string

func modeless(vault.FileType) bool { return false }

// create makes what r says below dir. Devices are none outside /dev here, so they
// are not made.
func create(dir *os.File, fd int, name string, r *vault.Record, _ Options) error {
	switch r.Type {
	case vault.TypeSymlink:
		return unix.Symlinkat(string(r.Target), fd, name)
	case vault.TypeFIFO:
		return unix.Mkfifo(filepath.Join(dir.Name(), name), 0o600) // not every one has mkfifoat
	}
	return ErrNotRecreated
}

// placeAt names what was just made.
func placeAt(_ *os.File, fd int, name string) (*place, error) {
	return &place{fd: -1, dir: fd, name: name}, nil
}

func (p *place) close() {}
