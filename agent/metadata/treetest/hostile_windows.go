package treetest

import (
	"os"
	"time"
)

func (b *builder) system() {
	b.folder("links/targets")
	b.may("symlink", os.Symlink("targets", b.path("links/to folder")))
	b.may("symlink", os.Symlink("nowhere", b.path("links/dangling")))
	b.folder("modes")
	if b.file("modes/readonly", []byte("r")) {
		b.may("read-only", os.Chmod(b.path("modes/readonly"), 0o444))
	}
	b.folder("times")
	for _, name := range []string{"1601", "1969", "2038", "2261"} {
		if b.file("times/"+name, nil) {
			t, err := time.Parse("2006", name)
			b.may(name, err)
			t = t.Add(24*time.Hour + 123_456_700)
			b.may(name, os.Chtimes(b.path("times/"+name), t, t))
		}
	}
}
