package catalog_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNamesV3(t *testing.T) {
	long := strings.Repeat("l", 255)
	tests := []struct{ name, root, path, want string }{
		{"a root that is a file", "/home/u/notes.bin", "/home/u/notes.bin", `notes\.bin`},
		{"a file in a root", "/home/u/docs", "/home/u/docs/a.txt", `docs_a\.txt`},
		{"deeper", "/home/u/docs", "/home/u/docs/x/y z/a-b.txt", `docs_x_y z_a-b\.txt`},
		{"the root of a file system", "/", "/etc/hosts", `etc_hosts`},
		{"a root with a slash at the end", "/d/", "/d/x", `d_x`},
		{"characters replaced", "/d", "/d/grün.txt", `d_gr_n-[0-9a-f]{12}\.txt`},
		{"not UTF-8", "/d", "/d/\xff\xfe.jpg", `d___-[0-9a-f]{12}\.jpg`},
		{"a newline", "/d", "/d/a\nb", `d_a_b-[0-9a-f]{12}`},
		{"a leading dot", "/home/u/.bashrc", "/home/u/.bashrc", `_bashrc-[0-9a-f]{12}`},
		{"a dot inside", "/d", "/d/.hidden", `d_\.hidden`},
		{"a trailing dot", "/d", "/d/x.", `d_x_-[0-9a-f]{12}`},
		{"a trailing space", "/d", "/d/x ", `d_x_-[0-9a-f]{12}`},
		{"a leading space", "/s/ x", "/s/ x", `_x-[0-9a-f]{12}`},
		{"a device", "/s/nul.txt", "/s/nul.txt", `_nul-[0-9a-f]{12}\.txt`},
		{"a device and a space", "/s/Com1 .txt", "/s/Com1 .txt", `_Com1 -[0-9a-f]{12}\.txt`},
		{"no device", "/s/console", "/s/console", `console`},
		{"too long", "/d", "/d/" + long + ".tar", `d_l{231}-[0-9a-f]{12}\.tar`},
		{"no extension to keep", "/d", "/d/" + long + ". and so on", `d_l{235}-[0-9a-f]{12}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			names, err := open(t, t.TempDir()).NamesV3(t.Context(), test.root, []string{test.path})
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile("^" + test.want + "$").MatchString(names[0]) {
				t.Errorf("name %q, want %s", names[0], test.want)
			}
		})
	}
}

func TestNamesV3AreUniqueAndKept(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	paths := []string{"/d/a_b.txt", "/d/a/b.txt", "/d/A/B.txt", "/d/ä_b.txt", "/d/ö_b.txt"}
	names, err := c.NamesV3(t.Context(), "/d", paths)
	if err != nil {
		t.Fatal(err)
	}
	if names[0] != "d_a_b.txt" {
		t.Errorf("the first is called %q", names[0])
	}
	seen := map[string]string{}
	for i, n := range names {
		if other, ok := seen[strings.ToLower(n)]; ok {
			t.Errorf("%q and %q are both called %q", other, paths[i], n)
		}
		seen[strings.ToLower(n)] = paths[i]
	}
	// A file that is called what another was renamed to.
	squatter, err := c.NamesV3(t.Context(), "/s", []string{"/s/x", "/d/a/" + "é"})
	if err != nil {
		t.Fatal(err)
	}
	taken, err := c.NamesV3(t.Context(), "/q/"+squatter[1], []string{"/q/" + squatter[1]})
	if err != nil || taken[0] == squatter[1] {
		t.Errorf("%q given twice (%v)", taken[0], err)
	}

	slices.Reverse(paths)
	slices.Reverse(names)
	again, err := open(t, dir).NamesV3(t.Context(), "/other/root", paths)
	if err != nil || !slices.Equal(again, names) {
		t.Errorf("names changed: %q, before %q (%v)", again, names, err)
	}
}

var goodName = regexp.MustCompile(`^[A-Za-z0-9_-]$|^[A-Za-z0-9_-][A-Za-z0-9._ -]{0,248}[A-Za-z0-9_-]$`)

func checkName(t interface{ Errorf(string, ...any) }, path, name string) {
	device := strings.TrimRight(strings.ToUpper(strings.SplitN(name, ".", 2)[0]), " ")
	if !goodName.MatchString(name) || regexp.MustCompile(`^(CON|PRN|AUX|NUL|(COM|LPT)[0-9])$`).MatchString(device) {
		t.Errorf("%q is called %q", path, name)
	}
}

func TestNamesV3OfAnyPath(t *testing.T) {
	c := open(t, t.TempDir())
	given := map[string]string{} // by lower-case name
	component := rapid.Custom(func(r *rapid.T) string {
		s := rapid.OneOf(
			rapid.SampledFrom([]string{"con", "NUL.tar.gz", "COM1 ", ".", "..", " ", "a", "A", "a_b", "é", strings.Repeat("x", 255)}),
			rapid.StringN(1, 10, 40), rapid.StringMatching(`[aA_. ]{1,4}`),
			rapid.Custom(func(r *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(r, "bytes")) }),
		).Draw(r, "component")
		return strings.NewReplacer("/", "", "\x00", "").Replace(s) + "x"
	})
	rapid.Check(t, func(r *rapid.T) {
		path := "/" + strings.Join(rapid.SliceOfN(component, 1, 4).Draw(r, "path"), "/")
		root := path
		for range rapid.IntRange(0, 4).Draw(r, "up") {
			root = filepath.Dir(root)
		}
		names, err := c.NamesV3(t.Context(), root, []string{path})
		if err != nil {
			r.Fatal(err)
		}
		checkName(r, path, names[0])
		if other, ok := given[strings.ToLower(names[0])]; ok && other != path {
			r.Fatalf("%q and %q are both called %q", path, other, names[0])
		}
		given[strings.ToLower(names[0])] = path
	})
	t.Log(len(given), "paths")
}

func TestManyNamesOfOneKind(t *testing.T) {
	var paths []string
	for i := range 2000 {
		paths = append(paths, fmt.Sprintf("/d/%c", 0x4e00+i))
	}
	names, err := open(t, t.TempDir()).NamesV3(t.Context(), "/d", paths)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if n := len(slices.Compact(names)); n != len(paths) {
		t.Errorf("%d names for %d paths", n, len(paths))
	}
}
