package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backstay/agent/device"
	"backstay/agent/v3"
	"backstay/protocol/info"
	wire "backstay/protocol/v3"
)

var quiet = slog.New(slog.DiscardHandler)

func newIdentity(t *testing.T) v3.Identity {
	t.Helper()
	key, err := wire.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return v3.Identity{ID: wire.NewClientID(), Key: key}
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	f, err := loadIdentity(dir, "ada", quiet)
	if err != nil || f.id != nil || f.name != "ada" {
		t.Fatalf("%+v, %v", f, err)
	}
	id := newIdentity(t)
	if err := f.save(id); err != nil {
		t.Fatal(err)
	}
	// The registered name stays in use whatever transfer.info says later.
	again, err := loadIdentity(dir, "eve", quiet)
	if err != nil || again.id == nil || again.id.ID != id.ID || again.name != "ada" {
		t.Fatalf("%+v, %v", again, err)
	}
	info, err := os.Stat(filepath.Join(dir, device.MeFile))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
}

func TestIdentityBesideAnEnrolledDevice(t *testing.T) {
	dir := t.TempDir()
	enrolled, err := info.Me{Name: "ada", ID: [16]byte{1}, Key: make([]byte, seedSize)}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, device.MeFile), enrolled, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := loadIdentity(dir, "ada", quiet)
	if err != nil || f.id != nil {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := f.save(newIdentity(t)); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, device.MeFile)); err != nil || string(now) != string(enrolled) {
		t.Fatalf("the device's me.info was changed: %v", err)
	}
	if f, err = loadIdentity(dir, "ada", quiet); err != nil || f.id == nil {
		t.Fatalf("%+v, %v", f, err)
	}
}

func TestIdentityThatCannotBeReadStays(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"no id", "ada\n", "me.info line 2"},
		{"no RSA key", "ada\n" + strings.Repeat("0", 32) + "\nAAAA\n", "me.info line 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, device.MeFile)
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := loadIdentity(dir, "ada", quiet); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
				t.Fatalf("got %v, want %q in %s", err, tt.want, dir)
			}
			if now, _ := os.ReadFile(path); string(now) != tt.content {
				t.Fatal("written over")
			}
		})
	}
}
