package device

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backstay/protocol/info"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

func enrolled(t *testing.T) Device {
	t.Helper()
	d, err := New("desk")
	if err != nil {
		t.Fatal(err)
	}
	d.Account, d.Pin, d.Vault, d.Genesis = "anna", v4.Pin{1}, vault.ID{2}, vault.EntryHash{3}
	return d
}

func TestSaveAndLoad(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "config")
	if _, err := Load(folder); !errors.Is(err, ErrNotEnrolled) {
		t.Fatalf("nothing there: %v", err)
	}
	d := enrolled(t)
	if err := d.SaveKeys(folder); err != nil {
		t.Fatal(err)
	}
	half, err := Load(folder)
	if !errors.Is(err, ErrNotEnrolled) || half.Identity == nil || half.Seed != d.Seed {
		t.Fatalf("keys alone: %+v, %v", half, err)
	}
	if err := d.Save(folder); err != nil {
		t.Fatal(err)
	}
	got, err := Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	if got.Identity.ID() != d.Identity.ID() || got.Name != d.Name || got.Account != d.Account || got.Pin != d.Pin || got.Vault != d.Vault || got.Genesis != d.Genesis {
		t.Errorf("loaded %+v, saved %+v", got, d)
	}
	if err := os.Remove(filepath.Join(folder, MeFile)); err != nil {
		t.Fatal(err)
	}
	if d, err := Load(folder); !errors.Is(err, ErrNotEnrolled) || d.Identity != nil || !strings.Contains(err.Error(), MeFile) {
		t.Errorf("without keys: %v", err)
	}
}

func TestKeysAreNotWrittenOver(t *testing.T) {
	folder := t.TempDir()
	if err := enrolled(t).Save(folder); err != nil {
		t.Fatal(err)
	}
	me := filepath.Join(folder, MeFile)
	before, err := os.ReadFile(me)
	if err != nil {
		t.Fatal(err)
	}
	if err := enrolled(t).Save(folder); err == nil || !strings.Contains(err.Error(), "another device") {
		t.Errorf("another device's keys: %v", err)
	}
	if after, err := os.ReadFile(me); err != nil || !bytes.Equal(before, after) {
		t.Errorf("%v, or the file has changed", err)
	}
}

func TestVersion3IdentityIsKept(t *testing.T) {
	v3 := func(seed byte) []byte {
		b, err := info.Me{Name: "ada", Key: bytes.Repeat([]byte{seed}, 600)}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		kept []byte // me-v3.info before
		ok   bool
	}{
		{"none yet", nil, true},
		{"kept before", v3(1), true},
		{"another", v3(2), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			me, kept := filepath.Join(folder, MeFile), filepath.Join(folder, MeV3File)
			if err := os.WriteFile(me, v3(1), 0o600); err != nil {
				t.Fatal(err)
			}
			want := v3(1)
			if tt.kept != nil {
				want = tt.kept
				if err := os.WriteFile(kept, tt.kept, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if d, err := Load(folder); !errors.Is(err, ErrNotEnrolled) || d.Identity != nil {
				t.Errorf("before: %v", err)
			}
			d := enrolled(t)
			if err := d.Save(folder); (err == nil) != tt.ok {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %q, %v", MeV3File, got, err)
			}
			if got, err := os.ReadFile(me); err != nil || bytes.Equal(got, v3(1)) == tt.ok {
				t.Errorf("%s: %q, %v", MeFile, got, err)
			}
		})
	}
}

// A server that names the account must not add lines to what is trusted.
func TestAccountAddsNoLines(t *testing.T) {
	d := enrolled(t)
	d.Account = "a\nvault: 00"
	if err := d.Save(t.TempDir()); err == nil {
		t.Error("saved")
	}
}

func FuzzVaultInfo(f *testing.F) {
	f.Add([]byte("account: a\npin: " + strings.Repeat("01", 32) + "\n"))
	f.Add(Device{Account: "a b", Pin: v4.Pin{1}, Vault: vault.ID{2}, Genesis: vault.EntryHash{3}}.vaultInfo())
	f.Add([]byte("pin: zz\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d, again Device
		if d.parseVault("f", data) != nil {
			return
		}
		if d.Pin == (v4.Pin{}) || (d.Vault == vault.ID{}) != (d.Genesis == vault.EntryHash{}) {
			t.Fatalf("%+v", d)
		}
		if err := again.parseVault("f", d.vaultInfo()); err != nil || again != d {
			t.Fatalf("%+v, then %+v: %v", d, again, err)
		}
	})
}
