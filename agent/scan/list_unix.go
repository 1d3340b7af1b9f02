//go:build unix && !linux

package scan

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
)

// searchOnly is O_RDONLY: not every one of these systems can open a folder just
// to pass through it.
const searchOnly = unix.O_RDONLY

const listBuffer = 0 // the standard library has its own

// list calls f for everything in the folder. A failure to list is a *listError,
// other errors are f's.
func (d dir) list(_ []byte, f func(*entry) error) error {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return &listError{err}
	}
	file := os.NewFile(uintptr(fd), ".")
	defer file.Close()
	for {
		names, err := file.ReadDir(1024)
		for _, n := range names {
			e := entry{name: []byte(n.Name()), typ: direntType(n.Type()), dir: d}
			if err := f(&e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &listError{err}
		}
	}
}

// direntType knows the types a scan treats apart; the others are asked for.
func direntType(mode fs.FileMode) facts.Type {
	switch mode {
	case 0:
		return facts.Regular
	case fs.ModeDir:
		return facts.Directory
	case fs.ModeSymlink:
		return facts.Symlink
	}
	return 0
}

// volume is the device number: these systems have nothing steadier.
func volume(_ string, f facts.Facts) uint64 { return f.Dev }
