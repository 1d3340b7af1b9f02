// Package device keeps what makes this machine a device of a vault: its keys in
// me.info, and in vault.info which vault that is and which server is trusted
// (SPEC.md, "Files beside the programs").
//
// The one invariant: neither file is ever written over by something else than what
// continues it. They are the only copy of keys, and of what a server's word is
// checked against.
package device

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"backstay/internal/durable"
	"backstay/internal/private"
	"backstay/protocol/info"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Names of the files in the config folder.
const (
	MeFile    = "me.info"
	VaultFile = "vault.info"
)

// ErrNotEnrolled: the config folder holds no device of protocol version 4.
var ErrNotEnrolled = errors.New("this machine is not enrolled; join a server with the invitation it gave: agent join INVITATION FOLDER")

// Device is a machine that a server knows.
type Device struct {
	// Name is what persons call it.
	Name string
	// Seed is where all its keys come from.
	Seed vault.Key
	// Identity are the keys.
	Identity *vault.Identity
	// Account is the server's name for who pays for the space.
	Account string
	// Pin is the server's key.
	Pin v4.Pin
	// Vault and Genesis say which vault it is a member of; zero while it has
	// joined none.
	Vault   vault.ID
	Genesis vault.EntryHash
}

// New makes a device with fresh keys.
func New(name string) (Device, error) {
	d := Device{Name: name, Seed: vault.NewKey()}
	var err error
	d.Identity, err = vault.NewIdentity(vault.RoleDevice, d.Seed)
	return d, err
}

// Load reads a folder's device. Errors: [ErrNotEnrolled]; files that cannot be
// understood or that others can read. Of a machine that has keys and is not enrolled
// yet, or has lost vault.info, the keys are returned with ErrNotEnrolled.
func Load(folder string) (Device, error) {
	var d Device
	path := filepath.Join(folder, MeFile)
	data, err := private.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(folder, VaultFile)); err == nil {
			return d, fmt.Errorf("%w. %s is missing and held its keys; put it back from a copy if there is one", ErrNotEnrolled, path)
		}
		return d, ErrNotEnrolled
	}
	if err != nil {
		return d, err
	}
	me, err := info.ParseMe(data)
	if err != nil {
		return d, fmt.Errorf("%s%c%w", folder, filepath.Separator, err)
	}
	if len(me.Key) != len(d.Seed) {
		return d, fmt.Errorf("%w. %s holds the key of a version 3 client", ErrNotEnrolled, path)
	}
	id, err := vault.NewIdentity(vault.RoleDevice, vault.Key(me.Key))
	if err != nil {
		return d, err
	}
	if vault.DeviceID(me.ID) != id.ID() {
		return d, fmt.Errorf("%s: the id of line 2 is not that of the key; put the file back from a copy", path)
	}
	d.Name, d.Seed, d.Identity = me.Name, vault.Key(me.Key), id
	return d, d.loadVault(folder)
}

func (d *Device) loadVault(folder string) error {
	path := filepath.Join(folder, VaultFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w. %s is missing; joining again keeps the keys", ErrNotEnrolled, path)
	}
	if err != nil {
		return err
	}
	return d.parseVault(path, data)
}

// parseVault reads vault.info. Lines with other keys are of a newer version.
func (d *Device) parseVault(path string, data []byte) error {
	for n, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, ": ")
		var into []byte
		switch key {
		case "account":
			d.Account = value
			continue
		case "pin":
			into = d.Pin[:]
		case "vault":
			into = d.Vault[:]
		case "genesis":
			into = d.Genesis[:]
		default:
			continue
		}
		raw, err := hex.DecodeString(value)
		if err != nil || len(raw) != len(into) {
			return fmt.Errorf("%s line %d: %s needs %d bytes in hex; put the file back from a copy, or move it away and join again", path, n+1, key, len(into))
		}
		copy(into, raw)
	}
	switch {
	case d.Pin == (v4.Pin{}):
		return fmt.Errorf("%s: the pin is missing; put the file back from a copy, or move it away and join again", path)
	case (d.Vault == vault.ID{}) != (d.Genesis == vault.EntryHash{}):
		return fmt.Errorf("%s: one of vault and genesis is missing; put the file back from a copy, or move it away and join again", path)
	}
	return nil
}

// SaveKeys writes me.info, durably. One of other keys is not written over: that of a
// version 3 client is kept as me-v3.info first.
func (d Device) SaveKeys(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make the config folder: %w", err)
	}
	path := filepath.Join(folder, MeFile)
	if data, err := os.ReadFile(path); err == nil {
		old, err := info.ParseMe(data)
		if err != nil {
			return fmt.Errorf("%s%c%w", folder, filepath.Separator, err)
		}
		switch {
		case len(old.Key) != len(d.Seed):
			if err := keepV3(filepath.Join(folder, MeV3File), data); err != nil {
				return err
			}
		case vault.Key(old.Key) != d.Seed:
			return fmt.Errorf("%s holds the keys of another device; move it away first", path)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	me, err := info.Me{Name: d.Name, ID: d.Identity.ID(), Key: info.Secret(d.Seed[:])}.Bytes()
	if err != nil {
		return err
	}
	return durable.WriteFile(path, me, 0o600)
}

// keepV3 makes path hold a version 3 identity, and never another than before.
func keepV3(path string, identity []byte) error {
	kept, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.WriteFile(path, identity, 0o600)
	case err == nil && !bytes.Equal(kept, identity):
		return fmt.Errorf("%s holds another identity than %s, and both are of version 3; move the one that is not needed away", path, MeFile)
	}
	return err
}

// Save writes vault.info, and me.info as SaveKeys does, durably.
func (d Device) Save(folder string) error {
	// The account is the server's word, and must not add lines.
	if strings.ContainsFunc(d.Account, unicode.IsControl) {
		return fmt.Errorf("the server gives the account a name that no account can have: %q", d.Account)
	}
	if err := d.SaveKeys(folder); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(folder, VaultFile), d.vaultInfo(), 0o600)
}

// vaultInfo is what parseVault reads.
func (d Device) vaultInfo() []byte {
	b := fmt.Appendf(nil, "# Which server and vault this machine trusts. Written by \"agent join\"; keep it as it is.\naccount: %s\npin: %x\n", d.Account, d.Pin[:])
	if d.Vault != (vault.ID{}) {
		b = fmt.Appendf(b, "vault: %x\ngenesis: %x\n", d.Vault[:], d.Genesis[:])
	}
	return b
}

// MeV3File takes me.info's place for version 3 where me.info belongs to a device of
// version 4.
const MeV3File = "me-v3.info"

// Destination is the name under which a catalog keeps what was acknowledged to this
// device.
func (d Device) Destination() string {
	return "v4:" + d.Vault.String() + "/" + d.Identity.ID().String()
}
