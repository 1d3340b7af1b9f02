package enrol

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"backstay/agent/config"
	"backstay/agent/exclude"
	"backstay/internal/durable"
	"backstay/protocol/info"
)

// AddFolders adds paths, absolute, to what transfer.info protects. Comments and
// order stay. Errors: config.ErrNotSetUp; what cannot be understood.
func AddFolders(folder string, paths []string) error {
	return editTransfer(folder, func(t *info.Transfer) error {
		return addPaths(t, folder, paths)
	})
}

// addPaths adds the paths that are not listed already, in whatever way.
func addPaths(t *info.Transfer, folder string, paths []string) error {
	for _, path := range paths {
		if slices.ContainsFunc(t.Paths(), func(listed string) bool { return Same(folder, listed, path) }) {
			continue
		}
		if _, err := t.AddPath(path); err != nil {
			return err
		}
	}
	return nil
}

// RemoveFolders takes paths, absolute, out of what transfer.info protects, however
// they are written there. It is an error, and nothing is changed, if one is not
// listed.
func RemoveFolders(folder string, paths []string) error {
	return editTransfer(folder, func(t *info.Transfer) error {
		for _, path := range paths {
			found := false
			for _, listed := range t.Paths() {
				if Same(folder, listed, path) {
					found = t.RemovePath(listed) || found
				}
			}
			if !found {
				return fmt.Errorf("%s is not listed; see: agent folder list", path)
			}
		}
		return nil
	})
}

// AddExclude adds a pattern, without the leading "!", to what transfer.info leaves
// out. Errors: an [*exclude.PatternError] for one that cannot be honoured;
// config.ErrNotSetUp.
func AddExclude(folder, pattern string) error {
	if _, err := exclude.Compile([]string{pattern}); err != nil {
		return err
	}
	return editTransfer(folder, func(t *info.Transfer) error {
		_, err := t.AddExclude(pattern)
		return err
	})
}

// RemoveExclude takes a pattern out of what transfer.info leaves out.
func RemoveExclude(folder, pattern string) error {
	return editTransfer(folder, func(t *info.Transfer) error {
		if !t.RemoveExclude(pattern) {
			return fmt.Errorf("%q is not listed", pattern)
		}
		return nil
	})
}

// Same says whether a line of the transfer.info in a folder means an absolute path,
// as it is or by a symbolic link.
func Same(folder, listed, path string) bool {
	if !filepath.IsAbs(listed) {
		listed = filepath.Join(folder, listed)
	}
	if listed = filepath.Clean(listed); listed == path {
		return true
	}
	real, err := filepath.EvalSymlinks(listed)
	if err != nil {
		return false
	}
	target, err := filepath.EvalSymlinks(path)
	return err == nil && real == target
}

// Listed returns the paths that transfer.info lists.
func Listed(folder string) ([]string, error) {
	c, err := config.Load(folder)
	return c.Roots, err
}

// editTransfer changes transfer.info in place.
func editTransfer(folder string, edit func(*info.Transfer) error) error {
	file := filepath.Join(folder, config.TransferFile)
	t, data, err := readTransfer(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no %s; join a server first: agent join INVITATION FOLDER", config.ErrNotSetUp, file)
	}
	if err != nil {
		return err
	}
	if err := edit(t); err != nil {
		return err
	}
	if changed := t.Bytes(); !bytes.Equal(changed, data) {
		return durable.WriteFile(file, changed, 0o600)
	}
	return nil
}

func readTransfer(folder string) (*info.Transfer, []byte, error) {
	data, err := os.ReadFile(filepath.Join(folder, config.TransferFile))
	if err != nil {
		return nil, nil, err
	}
	t, err := info.ParseTransfer(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s%c%w", folder, filepath.Separator, err)
	}
	return t, data, nil
}

// transfer returns the folder's transfer.info with the server and paths in it; a new
// one if there is none.
func transfer(folder, address, name string, paths []string) ([]byte, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	t, _, err := readTransfer(folder)
	if errors.Is(err, fs.ErrNotExist) {
		t, err = info.NewTransfer(host, uint16(port), name)
	}
	if err != nil {
		return nil, err
	}
	if err := t.SetServer(host, uint16(port)); err != nil {
		return nil, err
	}
	if err := addPaths(t, folder, paths); err != nil {
		return nil, err
	}
	return t.Bytes(), nil
}

// Name returns what the transfer.info of a folder calls this machine, "" if there is
// none.
func Name(folder string) (string, error) {
	t, _, err := readTransfer(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return t.Name(), nil
}
