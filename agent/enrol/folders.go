package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"backstay/agent/config"
	"backstay/internal/durable"
	"backstay/protocol/info"
)

// AddFolders adds paths, absolute, to what transfer.info protects. Comments and
// order stay. Errors: config.ErrNotSetUp; what cannot be understood.
func AddFolders(folder string, paths []string) error {
	return editTransfer(folder, func(t *info.Transfer) error {
		for _, path := range paths {
			if _, err := t.AddPath(path); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveFolders takes paths out of what transfer.info protects. It is an error,
// and nothing is changed, if one is not listed.
func RemoveFolders(folder string, paths []string) error {
	return editTransfer(folder, func(t *info.Transfer) error {
		for _, path := range paths {
			if !t.RemovePath(path) {
				return fmt.Errorf("%s is not listed; see: agent folder list", path)
			}
		}
		return nil
	})
}

// Listed returns the paths that transfer.info lists.
func Listed(folder string) ([]string, error) {
	c, err := config.Load(folder)
	return c.Roots, err
}

// editTransfer changes transfer.info in place.
func editTransfer(folder string, edit func(*info.Transfer) error) error {
	file := filepath.Join(folder, config.TransferFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no %s; join a server first: agent join INVITATION FOLDER", config.ErrNotSetUp, file)
	}
	if err != nil {
		return err
	}
	t, err := info.ParseTransfer(data)
	if err != nil {
		return fmt.Errorf("%s%c%w", folder, filepath.Separator, err)
	}
	if err := edit(t); err != nil {
		return err
	}
	if changed := t.Bytes(); string(changed) != string(data) {
		return durable.WriteFile(file, changed, 0o600)
	}
	return nil
}

// writeTransfer makes transfer.info name the server and this machine, and adds
// paths to what it protects.
func writeTransfer(folder, address, name string, paths []string) error {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	add := func(t *info.Transfer) error {
		if err := t.SetServer(host, uint16(port)); err != nil {
			return err
		}
		for _, path := range paths {
			if _, err := t.AddPath(path); err != nil {
				return err
			}
		}
		return nil
	}
	err = editTransfer(folder, add)
	if !errors.Is(err, config.ErrNotSetUp) {
		return err
	}
	t, err := info.NewTransfer(host, uint16(port), name)
	if err == nil {
		err = add(t)
	}
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(folder, config.TransferFile), t.Bytes(), 0o600)
}
