package metadata_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"backstay/agent/capture"
	"backstay/agent/metadata"
	"backstay/agent/metadata/treetest"
	"backstay/protocol/vault"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyTree makes a tree again from nothing but what capture and metadata tell.
func copyTree(t *testing.T, root, rel, dst string) {
	t.Helper()
	d, err := capture.Entry(root, filepath.Join(root, rel))
	must(t, err)
	names, err := os.ReadDir(filepath.Join(root, rel))
	must(t, err)
	to, err := os.Open(filepath.Join(dst, rel))
	must(t, err)
	defer to.Close()
	for _, e := range names {
		rel := filepath.Join(rel, e.Name())
		d, err := capture.Entry(root, filepath.Join(root, rel))
		must(t, err)
		switch d.Type {
		case vault.TypeFolder:
			must(t, os.Mkdir(filepath.Join(dst, rel), 0o700))
			copyTree(t, root, rel, dst)
		case vault.TypeFile:
			copyFile(t, root, rel, dst)
		default:
			lost, err := metadata.Make(to, e.Name(), &vault.Record{Type: d.Type, Metadata: d.Metadata, Target: d.Target}, metadata.Options{})
			if err != nil || len(lost) > 0 {
				t.Errorf("%s: %v, %v", rel, lost, err)
			}
		}
	}
	if lost := metadata.Apply(to, &d.Metadata, metadata.Options{}); len(lost) > 0 {
		t.Errorf("%q: lost %v", rel, lost)
	}
}

func copyFile(t *testing.T, root, rel, dst string) {
	f, err := capture.Open(root, filepath.Join(root, rel))
	must(t, err)
	defer f.Close()
	m, err := f.Metadata()
	must(t, err)
	if len(m.Security) == 0 || m.Created.IsZero() {
		t.Errorf("%q: %+v", rel, m)
	}
	out, err := os.Create(filepath.Join(dst, rel))
	must(t, err)
	_, err = io.Copy(out, f)
	must(t, err)
	if lost := metadata.Apply(out, &m, metadata.Options{}); len(lost) > 0 {
		t.Errorf("%q: lost %v", rel, lost)
	}
	must(t, out.Close())
}

func TestHostileTree(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	treetest.Hostile(t, src)
	copyTree(t, src, "", dst)
	treetest.Compare(t, src, dst, treetest.Options{})
}

func TestAttributesAndTimes(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(t, err)
	defer f.Close()
	n, err := metadata.Stat(f)
	must(t, err)
	m, err := metadata.Read(f, n, f.Name())
	must(t, err)
	want := uint32(windows.FILE_ATTRIBUTE_READONLY | windows.FILE_ATTRIBUTE_HIDDEN | windows.FILE_ATTRIBUTE_SYSTEM)
	m.Attributes = &want
	m.Created = time.Date(1999, 1, 2, 3, 4, 5, 600, time.UTC)
	m.ModTime = time.Date(2300, 1, 2, 3, 4, 5, 600, time.UTC)
	if lost := metadata.Apply(f, &m, metadata.Options{}); len(lost) > 0 {
		t.Error(lost)
	}
	n, err = metadata.Stat(f)
	must(t, err)
	got, err := metadata.Read(f, n, f.Name())
	must(t, err)
	if *got.Attributes != want || !got.Created.Equal(m.Created) || !got.ModTime.Equal(m.ModTime) || !bytes.Equal(got.Security, m.Security) {
		t.Errorf("%+v, want %+v; attributes %x", got, m, *got.Attributes)
	}
}

func TestMalformedSecurity(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(t, err)
	defer f.Close()
	n, err := metadata.Stat(f)
	must(t, err)
	m, err := metadata.Read(f, n, f.Name())
	must(t, err)
	for cut := range len(m.Security) {
		if lost := metadata.Apply(f, &vault.Metadata{Security: m.Security[:cut]}, metadata.Options{Owner: true}); len(lost) != 1 {
			t.Errorf("the first %d bytes of permissions: lost %v", cut, lost)
		}
	}
}

func TestLinks(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	for name, target := range map[string]string{"junction": `\??\` + dir, "relative": `..\somewhere`, "absolute": `C:\nowhere`} {
		t.Run(name, func(t *testing.T) {
			_, err := metadata.Make(d, name, &vault.Record{Type: vault.TypeSymlink, Target: []byte(target)}, metadata.Options{})
			if errors.Is(err, windows.ERROR_PRIVILEGE_NOT_HELD) || errors.Is(err, windows.ERROR_CALL_NOT_IMPLEMENTED) || errors.Is(err, windows.ERROR_INVALID_FUNCTION) {
				t.Skip(err)
			}
			must(t, err)
			got, err := capture.Entry(dir, filepath.Join(dir, name))
			if err != nil || got.Type != vault.TypeSymlink || string(got.Target) != target {
				t.Errorf("%+v, %v", got, err)
			}
			if _, err := capture.Entry(dir, filepath.Join(dir, name, "x")); !errors.Is(err, capture.ErrNotRegular) {
				t.Errorf("through the link: %v", err)
			}
		})
	}
}

func TestHoles(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	f, err := os.Create(path)
	must(t, err)
	must(t, metadata.SetSparse(f))
	must(t, f.Truncate(8<<20))
	_, err = f.WriteAt([]byte("data"), 4<<20)
	must(t, errors.Join(err, f.Close()))
	c, err := capture.Open(root, path)
	must(t, err)
	defer c.Close()
	holes, err := c.SkipHoles()
	must(t, err)
	size := int64(8 << 20)
	for _, h := range holes {
		size -= int64(h.Length)
	}
	if n, err := io.Copy(io.Discard, c); err != nil || n != size {
		t.Errorf("read %d bytes with holes %v, want %d, %v", n, holes, size, err)
	}
}
