package restore

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"backstay/protocol/vault"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"/", nil}, {"/a", []string{"a"}}, {"/a/b c", []string{"a", "b c"}}, {`/a\b/c:d`, []string{`a\b`, "c:d"}}, {"/\xff", []string{"\xff"}},
		{"/...", []string{"..."}}, {`C:\`, []string{"C"}}, {`C:\a\b`, []string{"C", "a", "b"}}, {`\\server\share\x`, []string{"server", "share", "x"}},
	} {
		if got, err := split([]byte(tt.path)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v", tt.path, got, err)
		}
	}
	for _, path := range []string{"", "a", "./a", "/a/../b", "/a//b", "//a", "/./a", "/a\x00b", "C:", "C:a", `C:\..`, `C:\a/..\b`, `\a`, `\\..\a`} {
		if got, err := split([]byte(path)); !errors.Is(err, ErrRecord) {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for name, want := range map[string]string{
		"good": "good", "a:b": "a_b", `<>"/\|?*`: "________", "con": "_con", "NUL.txt": "_NUL.txt", "com1": "_com1", "comet": "_comet", "dot.": "dot", "space ": "space",
		"...": "_", "\xff\xfe": "_", "tab\t": "tab_", "": "_", strings.Repeat("\u00e9", 80): strings.Repeat("\u00e9", 50),
	} {
		if got := plain(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if got := suffixed(strings.Repeat("\u00e9", 127), 12); len(got) > 255 || !utf8.ValidString(got) || !strings.HasSuffix(got, " (restored 12)") {
		t.Errorf("%q", got)
	}
	if got := partName(strings.Repeat("\xbf", 255), vault.ObjectID{0xab}); got != ".part-ab000000" {
		t.Errorf("%q", got) // nothing but half characters
	}
}

// FuzzSplit looks for a path that leads anywhere but down.
func FuzzSplit(f *testing.F) {
	for _, path := range []string{"/a/b", "/", `C:\a\b`, `\\s\h`, "/a/../b", "/a//", "\x00"} {
		f.Add([]byte(path))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		parts, err := split(path)
		if err != nil {
			if parts != nil || !errors.Is(err, ErrIntegrity) {
				t.Fatal(parts, err)
			}
			return
		}
		for _, p := range parts {
			if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "/\x00") {
				t.Fatalf("%q has the part %q", path, p)
			}
			if q := plain(p); q == "" || len(q) > 101 || strings.ContainsAny(q, `<>:"/\|?*`) || !utf8.ValidString(q) {
				t.Fatalf("%q became %q", p, q)
			}
		}
		if below, inside, err := below(path, nil, "as"); err != nil || !inside || below != strings.Join(append([]string{"as"}, parts...), "/") {
			t.Fatalf("%q lies at %q, %v, %v", path, below, inside, err)
		}
	})
}
