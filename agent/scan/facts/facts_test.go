package facts_test

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"strings"
	"testing"

	"backstay/agent/scan/facts"
)

func TestSameAndFingerprint(t *testing.T) {
	base := facts.Facts{Type: facts.Regular, Mode: 0o644, Dev: 1, Inode: 2, Size: 3, MTime: 4, CTime: 5}
	tests := []struct {
		name   string
		change func(*facts.Facts)
		same   bool
	}{
		{"nothing", func(*facts.Facts) {}, true},
		{"device", func(f *facts.Facts) { f.Dev++ }, true},
		{"type", func(f *facts.Facts) { f.Type = facts.Symlink }, false},
		{"mode", func(f *facts.Facts) { f.Mode = 0o600 }, false},
		{"inode", func(f *facts.Facts) { f.Inode++ }, false},
		{"size", func(f *facts.Facts) { f.Size++ }, false},
		{"modification time", func(f *facts.Facts) { f.MTime++ }, false},
		{"change time", func(f *facts.Facts) { f.CTime-- }, false},
		{"size and time swapped", func(f *facts.Facts) { f.Size, f.MTime = f.MTime, f.Size }, false},
	}
	seed := maphash.MakeSeed()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := base
			test.change(&f)
			if base.Same(f) != test.same {
				t.Errorf("Same = %v", !test.same)
			}
			if (base.Fingerprint(seed) == f.Fingerprint(seed)) != test.same {
				t.Errorf("equal fingerprints: %v", !test.same)
			}
		})
	}
	if base.Fingerprint(seed) == base.Fingerprint(maphash.MakeSeed()) {
		t.Error("the fingerprint does not depend on the seed")
	}
}

func TestExplain(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		reason string
	}{
		{"permission", &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrPermission}, "permission denied"},
		{"something else", &fs.PathError{Op: "open", Path: "/x", Err: errors.New("odd")}, "it cannot be read: odd"},
		{"wrapped", fmt.Errorf("read: %w", os.ErrPermission), "permission denied"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := facts.Explain("/x", test.err)
			if p.Path != "/x" || p.Reason != test.reason || p.Fix == "" || !errors.Is(p, test.err) {
				t.Errorf("%#v", p)
			}
			if want := "/x: " + test.reason + "; "; !strings.HasPrefix(p.Error(), want) {
				t.Errorf("%q", p)
			}
			if again := facts.Explain("/y", fmt.Errorf("op: %w", p)); again != p {
				t.Errorf("explained twice: %v", again)
			}
		})
	}
}

func TestTypeNames(t *testing.T) {
	for typ := facts.Regular; typ < facts.Types; typ++ {
		if s := typ.String(); s == "" || strings.HasPrefix(s, "type ") {
			t.Errorf("type %d is called %q", typ, s)
		}
	}
	if s := facts.Type(77).String(); s != "type 77" {
		t.Errorf("an unknown type is called %q", s)
	}
}
