package treetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Hostile fills the folder dir with paths that are hard to back up, as far as the
// file system and the rights of the test allow; what they do not is logged. Twice
// the same: the contents are the same, too. Everything in it can be read by who
// made it.
func Hostile(t testing.TB, dir string) {
	t.Helper()
	b := &builder{t: t, dir: dir, random: rand.NewChaCha8([32]byte{1})}
	Removable(t, dir)

	b.folder("names")
	for i, name := range []string{
		"plain", ".hidden", " leading", "-dash", "--", "%20", "~1", "case", "CASE", "caf\u00e9", "cafe\u0301", "\u202eright to left",
		"\U0001f4be", "\xff\xfe not UTF-8", "half a \xe2\x82", "\ufffd", strings.Repeat("n", 255), strings.Repeat("\u00e9", 127),
	} {
		b.file("names/"+name, fmt.Appendf(nil, "content %d", i))
	}

	// The sizes around which contents are stored another way.
	b.folder("sizes")
	for _, size := range []int{0, 1, 4095, 4096, 4097, 256 << 10, 256<<10 + 1, 5 << 20} {
		b.file(fmt.Sprintf("sizes/%d", size), b.bytes(size))
	}
	b.file("sizes/zeros", make([]byte, 1<<20))
	b.folder("empty/also/empty")

	b.folder("links/folder")
	b.file("links/one", []byte("one file, three names"))
	b.link("links/one", "links/two")
	b.link("links/one", "links/folder/three")
	b.file("links/other", []byte("one file, three names"))
	b.link("links/other", "links/folder/other too")

	b.system()
}

// A builder makes one tree.
type builder struct {
	t      testing.TB
	dir    string
	random *rand.ChaCha8
}

func (b *builder) path(rel string) string { return filepath.Join(b.dir, filepath.FromSlash(rel)) }

// may logs what cannot be had here.
func (b *builder) may(what string, err error) bool {
	if err != nil {
		b.t.Logf("not in the tree: %s: %v", what, err)
	}
	return err == nil
}

func (b *builder) folder(rel string) { b.may(rel, os.MkdirAll(b.path(rel), 0o755)) }

func (b *builder) file(rel string, content []byte) bool {
	f, err := os.OpenFile(b.path(rel), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if !b.may(rel, err) {
		return false
	}
	_, err = f.Write(content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return true
}

func (b *builder) link(old, rel string) { b.may(rel, os.Link(b.path(old), b.path(rel))) }

func (b *builder) bytes(n int) []byte {
	p := make([]byte, n)
	_, _ = b.random.Read(p) // never fails
	return p
}
