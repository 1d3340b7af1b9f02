package disk

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"backstay/server/storage/storagetest"
)

// faultFS is the real file system with calls that fail on demand.
type faultFS struct {
	osFS
	next func(storagetest.CallKind) storagetest.Fault
}

// fault asks for the fault of a call and returns it as the error it causes.
func (f faultFS) fault(k storagetest.CallKind) (storagetest.Fault, error) {
	fault := f.next(k)
	switch fault {
	case storagetest.IOError:
		return fault, syscall.EIO
	case storagetest.NoSpace:
		return fault, errNoSpace
	}
	return fault, nil
}

func (f faultFS) OpenFile(name string, flag int) (File, error) {
	kind := storagetest.CallRead
	if flag&os.O_CREATE != 0 {
		kind = storagetest.CallGrow
	}
	if _, err := f.fault(kind); err != nil {
		return nil, err
	}
	file, err := f.osFS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return faultFile{file, f}, nil
}

func (f faultFS) ReadDir(dir string) ([]fs.FileInfo, error) {
	if _, err := f.fault(storagetest.CallRead); err != nil {
		return nil, err
	}
	return f.osFS.ReadDir(dir)
}

func (f faultFS) Remove(name string) error {
	if _, err := f.fault(storagetest.CallRead); err != nil {
		return err
	}
	return f.osFS.Remove(name)
}

func (f faultFS) SyncDir(dir string) error {
	if _, err := f.fault(storagetest.CallGrow); err != nil {
		return err
	}
	return f.osFS.SyncDir(dir)
}

type faultFile struct {
	File
	fs faultFS
}

func (f faultFile) ReadAt(b []byte, off int64) (int, error) {
	if _, err := f.fs.fault(storagetest.CallRead); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f faultFile) WriteAt(b []byte, off int64) (int, error) {
	fault, err := f.fs.fault(storagetest.CallWrite)
	switch fault {
	case storagetest.IOError:
		return 0, err
	case storagetest.NoSpace, storagetest.ShortWrite:
		n, werr := f.File.WriteAt(b[:len(b)/2], off)
		if werr != nil {
			return n, werr
		}
		return n, err
	}
	return f.File.WriteAt(b, off)
}

func (f faultFile) Close() error {
	err := f.File.Close()
	if _, ferr := f.fs.fault(storagetest.CallRead); ferr != nil {
		return ferr
	}
	return err
}

func (f faultFile) Size() (int64, error) {
	if _, err := f.fs.fault(storagetest.CallRead); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f faultFile) Truncate(size int64) error {
	if _, err := f.fs.fault(storagetest.CallRead); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f faultFile) Sync() error {
	if _, err := f.fs.fault(storagetest.CallGrow); err != nil {
		return err
	}
	return f.File.Sync()
}

func TestFaults(t *testing.T) {
	t.Parallel()
	storagetest.RunFaults(t, storagetest.FaultBackend{
		Backend: backend(nil),
		OpenFaulty: func(dir string, next func(storagetest.CallKind) storagetest.Fault) (storagetest.Store, error) {
			return backend(faultFS{next: next}).Open(dir, time.Now)
		},
	})
}
