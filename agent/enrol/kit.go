package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"backstay/internal/durable"
	"backstay/internal/private"
	"backstay/protocol/vault"
)

// KitFile is the recovery kit in the config folder until a person has shown that it
// is put away. While it is there the agent reports a problem.
const KitFile = "kit.pending"

// KitGrace is how long a person may put that off without being asked each time.
const KitGrace = 7 * 24 * time.Hour

// KitPending says whether the kit of a config folder waits to be put away.
func KitPending(folder string) bool {
	_, err := os.Lstat(filepath.Join(folder, KitFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// PendingKit returns the kit that waits, and since when. The error wraps
// fs.ErrNotExist if none does.
func PendingKit(folder string) (vault.Kit, time.Time, error) {
	path := filepath.Join(folder, KitFile)
	data, err := private.ReadFile(path)
	if err != nil {
		return vault.Kit{}, time.Time{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return vault.Kit{}, time.Time{}, err
	}
	kit, err := vault.ParseKit(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return kit, info.ModTime(), err
}

// KeepKit keeps a kit until it is confirmed, as [Joining].Keep does. It is an error
// if another one waits: that may be the only one of its vault.
func KeepKit(folder string, kit vault.Kit) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if KitPending(folder) {
		return fmt.Errorf("%s holds another recovery kit; put that away first", filepath.Join(folder, KitFile))
	}
	return durable.WriteFile(filepath.Join(folder, KitFile), kit.Bytes(), 0o600)
}

// ConfirmKit removes the kit: a person has it in another place.
func ConfirmKit(folder string) error {
	if err := os.Remove(filepath.Join(folder, KitFile)); err != nil {
		return err
	}
	return durable.SyncDir(folder)
}
