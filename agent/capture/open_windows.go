package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"

	"backstay/agent/metadata"
)

// A handle shares the file with everyone, for deleting too: os.Root opens so.
type handle struct{ file *os.File }

func open(root, rel string) (handle, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return handle{}, err
	}
	if rel == "" {
		root, rel = filepath.Split(root)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return handle{}, err
	}
	defer r.Close()
	// os.Root stays below the root but follows symlinks there, so look first. One
	// that is put there in between leads to a file of the same root at worst, and
	// the check by name finds it.
	for i := range len(rel) + 1 {
		if i < len(rel) && !os.IsPathSeparator(rel[i]) {
			continue
		}
		info, err := r.Lstat(rel[:i])
		if err != nil {
			return handle{}, err
		}
		if i < len(rel) && !info.IsDir() || i == len(rel) && !info.Mode().IsRegular() {
			return handle{}, fmt.Errorf("%w: %s", ErrNotRegular, info.Mode())
		}
	}
	f, err := r.Open(rel)
	return handle{f}, err
}

func (h handle) of() metadata.Handle { return h.file }

func (h handle) readAt(p []byte, at int64) (int, error) {
	n, err := h.file.ReadAt(p, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// named returns the state of what the name leads to now and whether that is the
// file itself.
func (h handle) named(root, rel string, _ state) (state, bool, error) {
	other, err := open(root, rel)
	if err != nil {
		return state{}, false, err
	}
	defer other.close()
	mine, err := h.file.Stat()
	if err != nil {
		return state{}, false, err
	}
	its, err := other.file.Stat()
	if err != nil {
		return state{}, false, err
	}
	n, err := metadata.Stat(other.file)
	return stateOf(n), os.SameFile(mine, its), err
}

func (h handle) close() error { return h.file.Close() }

func notRegular(error) bool { return false } // open has said so itself

func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, windows.ERROR_DIRECTORY) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}

func inUse(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}
