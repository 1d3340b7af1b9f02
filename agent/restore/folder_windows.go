package restore

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"

	"backstay/agent/scan/facts"
)

// modeBits: the mode says too little here to compare it.
const modeBits = 0

// syncsWhole: no call that makes a whole volume durable without administrator rights.
const syncsWhole = false

// A folder is a handle of a folder below the target. All its names are single
// components, and none of its methods follows a link or replaces anything.
type folder struct{ root *os.Root }

// openTarget opens the folder that a person named: it alone may be a link.
func openTarget(path string) (*folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &folder{root}, nil
}

// lock does nothing: a folder cannot be locked. Files being written are not shared
// for deletion by most programs, and names of parts tell their records apart.
func (d *folder) lock() error { return nil }

// open opens a folder. os.Root stays below itself but follows links there, so what
// was opened is compared with what the name stands for.
func (d *folder) open(name string) (*folder, error) {
	named, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !named.IsDir() {
		return nil, windows.ERROR_DIRECTORY
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(opened, named) {
		err = windows.ERROR_DIRECTORY
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &folder{root}, nil
}

func (d *folder) mkdir(name string) error { return d.root.Mkdir(name, 0o700) }

func (d *folder) create(name string) (*os.File, error) {
	return d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// read opens what is to be compared.
func (d *folder) read(name string) (*os.File, error) { return d.root.Open(name) }

func (d *folder) lstat(name string) (facts.Facts, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return facts.Facts{}, err
	}
	return facts.FromInfo(info), nil
}

func (d *folder) readlink(name string) (string, error) { return d.root.Readlink(name) }

func (d *folder) link(from *folder, old, name string) error {
	// os.Root links within itself only; both folders are held open, and neither
	// name follows a link.
	return os.Link(from.root.Name()+`\`+old, d.root.Name()+`\`+name)
}

func (d *folder) remove(name string) error { return d.root.Remove(name) }

func (d *folder) rmdir(name string) error { return d.root.Remove(name) }

// rename leaves a moment for folders and on FAT in which another could come
// between; files elsewhere are linked, which never replaces.
func (d *folder) rename(old, name string) error {
	err := d.root.Link(old, name)
	if err == nil {
		return d.root.Remove(old)
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := d.root.Lstat(name); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.root.Rename(old, name)
}

// names lists the folder.
func (d *folder) names() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// device is not asked for: files are synced one by one.
func (d *folder) device() (uint64, error) { return 0, nil }

// use calls f with a handle of the folder.
func (d *folder) use(f func(*os.File) error) error {
	dir, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), dir.Close())
}

func (d *folder) close() error { return d.root.Close() }

// syncFolder does nothing: NTFS journals names itself.
func syncFolder(*folder) error { return nil }

// notFolder says that something other than a folder has the name.
func notFolder(err error) bool { return errors.Is(err, windows.ERROR_DIRECTORY) }

// unholdable says that the file system refuses the name itself.
func unholdable(err error) bool {
	return isAny(err, windows.ERROR_INVALID_NAME, windows.ERROR_FILENAME_EXCED_RANGE, windows.ERROR_NO_UNICODE_TRANSLATION)
}

// full and readOnly are the states of a file system in which nothing more can be
// restored.
func full(err error) bool {
	return isAny(err, windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
func readOnly(err error) bool { return isAny(err, windows.ERROR_WRITE_PROTECT) }
