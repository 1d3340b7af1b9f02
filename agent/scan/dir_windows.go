package scan

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"

	"backstay/agent/scan/facts"
)

// A dir is a folder by its path; os makes long paths work. A folder swapped for a
// symlink in the moment between two calls may be looked through: the scan only
// takes facts there, and the capture, which reads, refuses.
type dir struct{ path string }

func statRoot(path string) (facts.Facts, error) {
	info, err := os.Stat(path)
	if err != nil {
		return facts.Facts{}, err
	}
	return facts.FromInfo(info), nil
}

func openRoot(path string) (dir, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	return dir{path}, err
}

func searchRoot(path string) (dir, error) { return openRoot(path) }

func (d dir) open(name string) (dir, error) {
	f, err := d.lstat(name)
	if err == nil && f.Type != facts.Directory {
		err = syscall.ENOTDIR
	}
	return dir{filepath.Join(d.path, name)}, err
}

func (d dir) search(name string) (dir, error) { return d.open(name) }

func (d dir) facts() (facts.Facts, error) { return statRoot(d.path) }

func (d dir) lstat(name string) (facts.Facts, error) {
	info, err := os.Lstat(filepath.Join(d.path, name))
	if err != nil {
		return facts.Facts{}, err
	}
	return facts.FromInfo(info), nil
}

func (d dir) close() {}

// An entry is one line of a listing, valid until the next. Here the listing
// carries the facts with it.
type entry struct {
	name []byte
	typ  facts.Type
	line fs.DirEntry
}

func (e *entry) facts() (facts.Facts, error) {
	info, err := e.line.Info()
	if err != nil {
		return facts.Facts{}, err
	}
	return facts.FromInfo(info), nil
}

const listBuffer = 0 // the standard library has its own

// list calls f for everything in the folder. A failure to list is a *listError,
// other errors are f's.
func (d dir) list(_ []byte, f func(*entry) error) error {
	file, err := os.Open(d.path)
	if err != nil {
		return &listError{err}
	}
	defer file.Close()
	for {
		lines, err := file.ReadDir(1024)
		for _, line := range lines {
			e := entry{name: []byte(line.Name()), line: line}
			if line.IsDir() {
				e.typ = facts.Directory
			}
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

// notFolder reports the errors of a folder replaced by something else.
func notFolder(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// volume is the serial number that formatting gave to the file system.
func volume(path string, _ facts.Facts) uint64 {
	drive, err := windows.UTF16PtrFromString(filepath.VolumeName(path) + `\`)
	if err != nil {
		return 0
	}
	var serial uint32
	if err := windows.GetVolumeInformation(drive, nil, 0, &serial, nil, nil, nil, 0); err != nil {
		return 0
	}
	return uint64(serial)
}
