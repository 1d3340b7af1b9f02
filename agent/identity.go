package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"backstay/agent/device"
	"backstay/agent/v3"
	"backstay/internal/durable"
	"backstay/protocol/info"
	wire "backstay/protocol/v3"
)

// seedSize is the length of the key in the me.info of an enrolled device.
const seedSize = 32

// identityFile keeps the version 3 identity of one config folder.
type identityFile struct {
	path string
	// name goes with the identity: the server knows the id by it.
	name string
	// id is nil before the first registration.
	id *v3.Identity
}

// loadIdentity reads the folder's identity; name is used if there is none yet. A
// file that is there but cannot be understood is an error: it holds the only copy
// of a private key and is never written over.
func loadIdentity(folder, name string, log *slog.Logger) (*identityFile, error) {
	f := &identityFile{path: filepath.Join(folder, device.MeFile), name: name}
	me, err := readMe(f.path)
	if err == nil && len(me.Key) == seedSize {
		f.path = filepath.Join(folder, device.MeV3File)
		me, err = readMe(f.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := wire.ParsePrivateKey(me.Key)
	if err != nil {
		return nil, fmt.Errorf("%s line 3: %w; restore the file from a copy, or remove it to register anew", f.path, err)
	}
	if me.Name != name {
		log.Warn("the name in transfer.info is not the registered one, which stays in use; remove the identity file to register anew",
			"registered", me.Name, "file", filepath.Base(f.path))
	}
	f.name, f.id = me.Name, &v3.Identity{ID: me.ID, Key: key}
	return f, nil
}

func readMe(path string) (info.Me, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return info.Me{}, err
	}
	me, err := info.ParseMe(data)
	if err != nil {
		return info.Me{}, fmt.Errorf("%s%c%w", filepath.Dir(path), filepath.Separator, err)
	}
	return me, nil
}

// save stores an identity that a server has just given, durably.
func (f *identityFile) save(id v3.Identity) error {
	der, err := id.Key.MarshalPKCS8()
	if err != nil {
		return err
	}
	data, err := info.Me{Name: f.name, ID: id.ID, Key: der}.Bytes()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.path, data, 0o600); err != nil {
		return err
	}
	f.id = &id
	return nil
}
