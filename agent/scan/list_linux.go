package scan

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
)

// searchOnly needs no right to read the folder.
const searchOnly = unix.O_PATH

// listBuffer holds some 800 names of 20 bytes: most folders need two calls, one
// for the names and one to hear that there are no more.
const listBuffer = 32 << 10

// The offsets in struct linux_dirent64.
const (
	direntLen  = 16
	direntType = 18
	direntName = 19
)

var direntTypes = [...]facts.Type{
	unix.DT_REG: facts.Regular, unix.DT_DIR: facts.Directory, unix.DT_LNK: facts.Symlink, unix.DT_FIFO: facts.FIFO,
	unix.DT_SOCK: facts.Socket, unix.DT_CHR: facts.CharDevice, unix.DT_BLK: facts.BlockDevice,
}

// list calls f for everything in the folder. A failure to list is a *listError,
// other errors are f's.
func (d dir) list(buf []byte, f func(*entry) error) error {
	e := entry{dir: d}
	for {
		var n int
		err := again(func() (err error) {
			n, err = unix.Getdents(d.fd, buf)
			return err
		})
		if err != nil {
			return &listError{err}
		}
		if n <= 0 {
			return nil
		}
		for rest := buf[:n]; len(rest) > direntName; {
			size := int(binary.NativeEndian.Uint16(rest[direntLen:]))
			if size <= direntName || size > len(rest) {
				return &listError{unix.EIO}
			}
			e.name, _, _ = bytes.Cut(rest[direntName:size], []byte{0})
			e.typ = 0
			if t := int(rest[direntType]); t < len(direntTypes) {
				e.typ = direntTypes[t]
			}
			rest = rest[size:]
			if string(e.name) == "." || string(e.name) == ".." {
				continue
			}
			if err := f(&e); err != nil {
				return err
			}
		}
	}
}

// volume is the file system's own identity where it has one (it stays the same
// over a reboot, the device number may not), else the device number.
func volume(path string, f facts.Facts) uint64 {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Statfs(path, &st) }); err == nil {
		if id := uint64(uint32(st.Fsid.Val[0]))<<32 | uint64(uint32(st.Fsid.Val[1])); id != 0 {
			return id
		}
	}
	return f.Dev
}
