package enrol

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"backstay/internal/private"
	"backstay/protocol/vault"
)

func TestKitWaitsUntilItIsConfirmed(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "config")
	if _, _, err := PendingKit(folder); !errors.Is(err, fs.ErrNotExist) || KitPending(folder) {
		t.Fatalf("before: %v", err)
	}
	id := vault.NewID()
	kit := vault.Kit{Seed: vault.NewKey(), Servers: []string{"host:1"}, Pin: &[32]byte{1}, Vault: &id}
	if err := KeepKit(folder, kit); err != nil {
		t.Fatal(err)
	}
	// It is a secret, and reads as one.
	if _, err := private.ReadFile(filepath.Join(folder, KitFile)); err != nil {
		t.Error(err)
	}
	got, since, err := PendingKit(folder)
	if err != nil || got.Seed != kit.Seed || *got.Vault != id || time.Since(since) > time.Hour || !KitPending(folder) {
		t.Errorf("kept %v, %v, %v", got.Servers, since, err)
	}
	if err := KeepKit(folder, vault.Kit{Seed: vault.NewKey()}); err == nil {
		t.Error("another kit takes its place")
	}
	if again, _, err := PendingKit(folder); err != nil || again.Seed != kit.Seed {
		t.Errorf("then there is another: %v", err)
	}
	if err := ConfirmKit(folder); err != nil || KitPending(folder) {
		t.Errorf("confirmed: %v", err)
	}
}
