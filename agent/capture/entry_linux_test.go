package capture_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/capture"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

func TestEntry(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.MkdirAll(at("folder/inner"), 0o750))
	must(t, os.WriteFile(at("file"), []byte("content"), 0o640))
	must(t, os.Symlink("/no\xff\nwhere", at("link")))
	must(t, os.Symlink("folder", at("folder link")))
	must(t, os.Symlink(strings.Repeat("t", 4095), at("long link")))
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	must(t, unix.Setxattr(at("folder"), "user.test", []byte("value"), 0))
	old := time.Date(1950, 2, 3, 4, 5, 6, 789, time.UTC)
	must(t, os.Chtimes(at("folder"), old, old))

	var scanned = make(map[string]facts.Facts)
	_, err := scan.Root(t.Context(), root, scan.Options{Found: func(es []scan.Entry) error {
		for _, e := range es {
			scanned[e.Path] = e.Facts
		}
		return nil
	}})
	must(t, err)
	tests := []struct {
		path   string
		typ    vault.FileType
		target string
	}{
		{"", vault.TypeFolder, ""}, {"folder", vault.TypeFolder, ""}, {"folder/inner", vault.TypeFolder, ""}, {"file", vault.TypeFile, ""},
		{"link", vault.TypeSymlink, "/no\xff\nwhere"}, {"folder link", vault.TypeSymlink, "folder"},
		{"long link", vault.TypeSymlink, strings.Repeat("t", 4095)},
		{"fifo", vault.TypeFIFO, ""}, {"socket", vault.TypeSocket, ""},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			path := at(test.path)
			d, err := capture.Entry(root, path)
			must(t, err)
			if d.Type != test.typ || string(d.Target) != test.target || d.Device != nil {
				t.Errorf("%+v", d)
			}
			if d.Facts != scanned[path] {
				t.Errorf("facts %+v, the scan's are %+v", d.Facts, scanned[path])
			}
			m := d.Metadata
			if m.Owner.UID != uint32(os.Geteuid()) || *m.Mode != d.Facts.Mode || m.ModTime.UnixNano() != d.Facts.MTime {
				t.Errorf("metadata %+v", m)
			}
			if test.path == "folder" && (!m.ModTime.Equal(old) || len(m.Xattrs) != 1 || string(m.Xattrs[0].Value) != "value") {
				t.Errorf("metadata %+v", m)
			}
		})
	}
	for path, want := range map[string]error{
		"nothing": capture.ErrVanished, "folder/nothing": capture.ErrVanished, "file/nothing": capture.ErrVanished,
		"folder link/inner": capture.ErrNotRegular,
	} {
		if d, err := capture.Entry(root, at(path)); !errors.Is(err, want) || d.Type != 0 {
			t.Errorf("%s: %+v, %v, want %v", path, d, err, want)
		}
	}
	if _, err := capture.Entry(root, filepath.Dir(root)); err == nil {
		t.Error("a path outside the root was described")
	}
}

// TestEntryRootBehindASymlink: the root is what it leads to.
func TestEntryRootBehindASymlink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("real", link))
	must(t, os.Symlink("x", filepath.Join(dir, "real/inner")))
	for path, want := range map[string]vault.FileType{link: vault.TypeFolder, link + "/inner": vault.TypeSymlink} {
		if d, err := capture.Entry(link, path); err != nil || d.Type != want {
			t.Errorf("%s: %+v, %v", path, d, err)
		}
	}
}

// TestEntryWithoutRights: what may not be opened is described all the same.
func TestEntryWithoutRights(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "closed")
	must(t, os.Mkdir(path, 0))
	d, err := capture.Entry(root, path)
	if err != nil || d.Type != vault.TypeFolder || *d.Metadata.Mode != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestLink(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.WriteFile(at("one"), nil, 0o600))
	must(t, os.Link(at("one"), at("two")))
	must(t, os.WriteFile(at("single"), nil, 0o600))
	one, two, single := open(t, root, at("one")), open(t, root, at("two")), open(t, root, at("single"))
	n, a := one.Link()
	m, b := two.Link()
	k, c := single.Link()
	if n != 2 || m != 2 || a != b || k != 1 || c == a {
		t.Errorf("%d %v, %d %v, %d %v", n, a, m, b, k, c)
	}
	must(t, errors.Join(one.Close(), two.Close(), single.Close()))
}

// TestMetadataIsChecked: a change of metadata alone makes a capture torn.
func TestMetadataIsChecked(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, unix.Setxattr(path, "user.a", []byte("old"), 0))
	f := open(t, root, path)
	defer f.Close()
	m, err := f.Metadata()
	must(t, err)
	if len(m.Xattrs) != 1 || string(m.Xattrs[0].Value) != "old" || *m.Mode != 0o600 || m.Created.IsZero() {
		t.Errorf("%+v", m)
	}
	must(t, f.Check())
	must(t, unix.Setxattr(path, "user.a", []byte("new"), 0))
	if err := f.Check(); !errors.Is(err, capture.ErrTorn) {
		t.Errorf("Check: %v", err)
	}
}
