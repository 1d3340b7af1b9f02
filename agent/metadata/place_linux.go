package metadata

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"backstay/protocol/vault"
)

// A place is where metadata is. Calls for extended attributes and rights refuse a
// descriptor opened with O_PATH, and the way round is its entry below /proc: that
// leads to the very thing that is open, even if that is a symlink, and no further.
type place struct {
	fd   int
	proc string // set once a call refused the descriptor
}

var errNoProc = errors.New("it takes a mounted /proc")

// The most the kernel gives: the names of one path, and one value.
const (
	listMax  = 64 << 10
	valueMax = 64 << 10
)

// detour runs call, and runs by with the path instead if call refuses fd.
func (p *place) detour(call func() error, by func(path string) error) error {
	if p.proc == "" {
		err := again(call)
		if !errors.Is(err, unix.EBADF) {
			return err
		}
		p.proc = "/proc/self/fd/" + strconv.Itoa(p.fd)
	}
	err := again(func() error { return by(p.proc) })
	if errors.Is(err, unix.ENOENT) {
		return errNoProc
	}
	return err
}

func (p *place) list() ([]string, error) {
	buf := make([]byte, 1024)
	for {
		var n int
		err := p.detour(func() (err error) {
			n, err = unix.Flistxattr(p.fd, buf)
			return err
		}, func(path string) (err error) {
			n, err = unix.Listxattr(path, buf)
			return err
		})
		switch {
		case err == nil:
			return splitNames(buf[:n]), nil
		case errors.Is(err, unix.ERANGE) && len(buf) < listMax:
			buf = make([]byte, listMax)
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS):
			return nil, nil // a file system without
		default:
			return nil, err
		}
	}
}

func (p *place) get(name string, limit int) ([]byte, error) {
	for size := 256; ; size = valueMax { // in two steps, because one that changes must not be chased
		value := make([]byte, size)
		var n int
		err := p.detour(func() (err error) {
			n, err = unix.Fgetxattr(p.fd, name, value)
			return err
		}, func(path string) (err error) {
			n, err = unix.Getxattr(path, name, value)
			return err
		})
		switch {
		case errors.Is(err, unix.ENODATA):
			return nil, errNoXattr
		case errors.Is(err, unix.ERANGE) && size < valueMax:
		case err != nil:
			return nil, err
		case n > limit:
			return nil, errTooLarge
		default:
			return value[:n:n], nil
		}
	}
}

func (p *place) set(name string, value []byte) error {
	return p.detour(
		func() error { return unix.Fsetxattr(p.fd, name, value, 0) },
		func(path string) error { return unix.Setxattr(path, name, value, 0) })
}

func (p *place) remove(name string) error {
	return p.detour(
		func() error { return unix.Fremovexattr(p.fd, name) },
		func(path string) error { return unix.Removexattr(path, name) })
}

func (p *place) stat() (Node, error) { return Stat(p.fd) }

func (p *place) chown(uid, gid int) error {
	return again(func() error { return unix.Fchownat(p.fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

func (p *place) chmod(mode uint32) error {
	return p.detour(
		func() error { return unix.Fchmod(p.fd, mode) },
		func(path string) error { return unix.Chmod(path, mode) })
}

// setTimes sets the modification time; nothing sets a time of creation here.
func (p *place) setTimes(modified, _ time.Time) error {
	ts, err := unix.TimeToTimespec(modified)
	if err != nil {
		return ErrNotHeld // 32 bits
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	return p.detour(func() error {
		// futimens: no path at all, for which the wrapper has no word.
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(p.fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}, func(path string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, path, times[:], 0) })
}

// holdsCreated: see setTimes.
const holdsCreated = false

// privilege is the extended attribute that gives a program rights of its own.
const privilege = "security.capability"

// acls are the extended attributes that a folder hands down to what is made in it.
var acls = []string{"system.posix_acl_access", "system.posix_acl_default"}

// modeless: a symlink has no rights of its own.
func modeless(t vault.FileType) bool { return t == vault.TypeSymlink }

// create makes what r says below dir.
func create(dir *os.File, fd int, name string, r *vault.Record, o Options) error {
	switch r.Type {
	case vault.TypeSymlink:
		return unix.Symlinkat(string(r.Target), fd, name)
	case vault.TypeFIFO:
		return unix.Mkfifoat(fd, name, 0o600)
	case vault.TypeCharDevice, vault.TypeBlockDevice:
		if !o.Devices || os.Geteuid() != 0 || r.Device == nil {
			return ErrNotRecreated
		}
		mode := uint32(unix.S_IFCHR)
		if r.Type == vault.TypeBlockDevice {
			mode = unix.S_IFBLK
		}
		dev := unix.Mkdev(r.Device.Major, r.Device.Minor)
		if dev != uint64(int(dev)) {
			return fmt.Errorf("device %d:%d: %w", r.Device.Major, r.Device.Minor, fs.ErrInvalid)
		}
		return unix.Mknodat(fd, name, mode|0o600, int(dev))
	}
	return ErrNotRecreated
}

// placeAt opens what was just made.
func placeAt(_ *os.File, fd int, name string) (*place, error) {
	var got int
	err := again(func() (err error) {
		got, err = unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	return &place{fd: got}, err
}

func (p *place) close() { _ = unix.Close(p.fd) } // opened for its metadata: nothing can be lost
