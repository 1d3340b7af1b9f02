package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"backstay/agent/catalog"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

var discard = slog.New(slog.DiscardHandler)

func open(t testing.TB, dir string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func destination(t testing.TB, c *catalog.Catalog, name string) *catalog.Destination {
	t.Helper()
	d, err := c.Destination(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func acknowledge(t testing.TB, d *catalog.Destination, vs ...catalog.Version) {
	t.Helper()
	if err := d.Acknowledge(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
}

func known(t testing.TB, d *catalog.Destination, path string) *catalog.Known {
	t.Helper()
	k, err := d.Known(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func unseen(t testing.TB, k *catalog.Known) []string {
	t.Helper()
	var paths []string
	for p, err := range k.Unseen(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}

func regular(size int64) facts.Facts {
	return facts.Facts{Type: facts.Regular, Mode: 0o640, Dev: 1 << 63, Inode: 1<<64 - 1, Size: size, MTime: -5, CTime: 7}
}

func TestAcknowledgeAndReopen(t *testing.T) {
	dir := t.TempDir()
	c, err := catalog.Open(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	d := destination(t, c, "v3:a/1")
	want := catalog.Version{
		Path: "/r/odd\xff\n'\"name", State: catalog.Present, Facts: regular(12), Record: vault.ObjectID{1, 2, 3},
		Fuzzy: true, At: time.Unix(1_700_000_000, 123456789),
	}
	acknowledge(t, d, want)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	d = destination(t, open(t, dir), "v3:a/1")
	got, err := d.Version(t.Context(), want.Path)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("version %+v, want %+v", got, want)
	}
	if _, err := d.Version(t.Context(), "/r/other"); !errors.Is(err, catalog.ErrUnknown) {
		t.Errorf("unknown path: %v", err)
	}
}

func TestDestinationsAreApart(t *testing.T) {
	c := open(t, t.TempDir())
	a, b := destination(t, c, "a"), destination(t, c, "b")
	acknowledge(t, a, catalog.Version{Path: "/x", Facts: regular(1)})
	if n := known(t, b, "/").Len(); n != 0 {
		t.Errorf("a new destination knows %d paths", n)
	}
	again := destination(t, c, "a")
	if !known(t, again, "/").Match([]byte("/x"), regular(1)) {
		t.Error("going back forgot what was acknowledged")
	}
}

func TestKnown(t *testing.T) {
	c := open(t, t.TempDir())
	d := destination(t, c, "a")
	dir := facts.Facts{Type: facts.Directory, Mode: 0o755}
	acknowledge(t, d,
		catalog.Version{Path: "/r", Facts: dir},
		catalog.Version{Path: "/r/a", Facts: regular(1)},
		catalog.Version{Path: "/r/b", Facts: regular(2)},
		catalog.Version{Path: "/r/fuzzy", Facts: regular(3), Fuzzy: true},
		catalog.Version{Path: "/r/gone", Facts: regular(3)},
		catalog.Version{Path: "/r-other", Facts: regular(4)},
		catalog.Version{Path: "/r/sub/c", Facts: regular(5)},
	)
	if err := d.Retire(t.Context(), catalog.Gone, time.Now(), []string{"/r/gone", "/r/never"}); err != nil {
		t.Fatal(err)
	}
	changed := regular(1)
	changed.CTime++
	elsewhere := regular(1)
	elsewhere.Dev = 99
	tests := []struct {
		name, path string
		facts      facts.Facts
		want       bool
	}{
		{"same", "/r/a", regular(1), true},
		{"other device number", "/r/a", elsewhere, true},
		{"changed", "/r/a", changed, false},
		{"other path's facts", "/r/a", regular(2), false},
		{"fuzzy", "/r/fuzzy", regular(3), false},
		{"gone", "/r/gone", regular(3), false},
		{"new", "/r/new", regular(1), false},
		{"outside", "/r-other", regular(4), false},
		{"the root", "/r", dir, true},
	}
	k := known(t, d, "/r")
	if k.Len() != 5 {
		t.Errorf("Len() = %d, want 5", k.Len())
	}
	for _, test := range tests {
		if got := k.Match([]byte(test.path), test.facts); got != test.want {
			t.Errorf("%s: Match = %v, want %v", test.name, got, test.want)
		}
	}
	if k.Seen() != 3 {
		t.Errorf("Seen() = %d, want 3", k.Seen())
	}
	// A version acknowledged since is none of this Known's business.
	acknowledge(t, d, catalog.Version{Path: "/r/later", Facts: regular(1)})
	if got, want := unseen(t, k), []string{"/r/b", "/r/fuzzy", "/r/sub/c"}; !slices.Equal(got, want) {
		// fuzzy was seen, but a mismatch may stand for two paths and is yielded again
		t.Errorf("unseen %q, want %q", got, want)
	}

	for prefix, want := range map[string]int{"/": 7, "/r/sub": 1, "/r/sub/c": 1, "/r/su": 0, "/r-other": 1, "/none": 0} {
		if got := known(t, d, prefix).Len(); got != want {
			t.Errorf("known below %s: %d, want %d", prefix, got, want)
		}
	}
}

func TestRetireKeepsTheVersion(t *testing.T) {
	d := destination(t, open(t, t.TempDir()), "a")
	acknowledge(t, d, catalog.Version{Path: "/x", Facts: regular(9), Record: vault.ObjectID{7}})
	at := time.Unix(5, 6)
	if err := d.Retire(t.Context(), catalog.Excluded, at, []string{"/x"}); err != nil {
		t.Fatal(err)
	}
	v, err := d.Version(t.Context(), "/x")
	if err != nil || v.State != catalog.Excluded || !v.At.Equal(at) || v.Facts != regular(9) || v.Record != (vault.ObjectID{7}) {
		t.Errorf("version %+v, %v", v, err)
	}
	acknowledge(t, d, catalog.Version{Path: "/x", Facts: regular(9)})
	if v, err := d.Version(t.Context(), "/x"); err != nil || v.State != catalog.Present {
		t.Errorf("back again: %+v, %v", v, err)
	}
}

// TestTotals compares the running totals with a map, through any sequence.
func TestTotals(t *testing.T) {
	c := open(t, t.TempDir())
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		d := destination(t, c, fmt.Sprint("totals ", n))
		model := map[string]catalog.Version{}
		r.Repeat(map[string]func(*rapid.T){
			"acknowledge": func(r *rapid.T) {
				var batch []catalog.Version
				for range rapid.IntRange(1, 3).Draw(r, "n") {
					v := catalog.Version{
						Path:  rapid.SampledFrom([]string{"/a", "/b", "/c", "/d"}).Draw(r, "path"),
						State: catalog.Present, At: time.Unix(0, rapid.Int64Range(1, 9).Draw(r, "at")),
						Facts: facts.Facts{Type: facts.Type(rapid.IntRange(1, 3).Draw(r, "type")), Size: rapid.Int64Range(0, 1000).Draw(r, "size")},
						Fuzzy: rapid.Bool().Draw(r, "fuzzy"),
					}
					batch = append(batch, v)
					model[v.Path] = v
				}
				acknowledge(t, d, batch...)
			},
			"retire": func(r *rapid.T) {
				path := rapid.SampledFrom([]string{"/a", "/b", "/e"}).Draw(r, "path")
				state := catalog.State(rapid.IntRange(2, 3).Draw(r, "state"))
				if err := d.Retire(t.Context(), state, time.Unix(0, 1), []string{path}); err != nil {
					r.Fatal(err)
				}
				if v, ok := model[path]; ok {
					v.State = state
					model[path] = v
				}
			},
			"": func(r *rapid.T) {
				var want catalog.Counts
				for _, v := range model {
					switch {
					case v.State == catalog.Gone:
						want.Gone++
					case v.State == catalog.Excluded:
						want.Excluded++
					case v.Facts.Type == facts.Regular:
						want.Files++
						want.Bytes += v.Facts.Size
					default:
						want.Others++
					}
					if v.State == catalog.Present && v.Fuzzy {
						want.Fuzzy++
					}
				}
				got, err := d.Counts(t.Context())
				if err != nil {
					r.Fatal(err)
				}
				if got.Newest = (time.Time{}); got != want {
					r.Fatalf("counts %+v, want %+v", got, want)
				}
			},
		})
	})
}

func TestRecapture(t *testing.T) {
	d := destination(t, open(t, t.TempDir()), "v4:x")
	f := facts.Facts{Type: facts.Regular, Mode: 0o600, Inode: 7, Size: 100, MTime: 5, CTime: 6}
	acknowledge(t, d,
		catalog.Version{Path: "/a", Facts: f, Record: vault.ObjectID{1}}, catalog.Version{Path: "/b", Facts: f, Record: vault.ObjectID{2}},
		catalog.Version{Path: "/gone", Facts: f, Record: vault.ObjectID{3}})
	if err := d.Retire(t.Context(), catalog.Gone, time.Now(), []string{"/gone"}); err != nil {
		t.Fatal(err)
	}
	present, err := d.Recapture(t.Context(), []string{"/a", "/gone", "/never"})
	if err != nil || !slices.Equal(present, []string{"/a"}) {
		t.Fatalf("%q, %v", present, err)
	}
	k := known(t, d, "/")
	if k.Match([]byte("/a"), f) {
		t.Error("what is to be captured again counts as known")
	}
	if !k.Match([]byte("/b"), f) {
		t.Error("another path is not known any more")
	}
	// Its record is needed for the state that the next commit replaces.
	if v, err := d.Version(t.Context(), "/a"); err != nil || v.State != catalog.Present || v.Record != (vault.ObjectID{1}) {
		t.Errorf("%+v, %v", v, err)
	}
	if n, err := d.Counts(t.Context()); err != nil || n.Files != 1 || n.Others != 1 || n.Bytes != 100 || n.Gone != 1 {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestNewestAcknowledgement(t *testing.T) {
	d := destination(t, open(t, t.TempDir()), "a")
	if n, err := d.Counts(t.Context()); err != nil || !n.Newest.IsZero() {
		t.Errorf("empty: %+v, %v", n, err)
	}
	at := time.Unix(100, 5)
	acknowledge(t, d, catalog.Version{Path: "/x", At: at}, catalog.Version{Path: "/y", At: at.Add(-time.Hour)})
	if n, err := d.Counts(t.Context()); err != nil || !n.Newest.Equal(at) {
		t.Errorf("newest %v, want %v (%v)", n.Newest, at, err)
	}
}

func TestVersions(t *testing.T) {
	d := destination(t, open(t, t.TempDir()), "a")
	acknowledge(t, d, catalog.Version{Path: "/r/b"}, catalog.Version{Path: "/r"}, catalog.Version{Path: "/r/a"}, catalog.Version{Path: "/ra"})
	var got []string
	for v, err := range d.Versions(t.Context(), "/r") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v.Path)
	}
	if want := []string{"/r", "/r/a", "/r/b"}; !slices.Equal(got, want) {
		t.Errorf("versions %q, want %q", got, want)
	}
	for v, err := range d.Versions(t.Context(), "/r") { // a loop may end early
		if v.Path != "/r" || err != nil {
			t.Error(v, err)
		}
		break
	}
}

func TestVolume(t *testing.T) {
	c := open(t, t.TempDir())
	for _, want := range []uint64{0, 7, 1<<64 - 1} {
		if want != 0 {
			if err := c.SetVolume(t.Context(), "/r", want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := c.Volume(t.Context(), "/r"); err != nil || got != want {
			t.Errorf("volume %d, %v; want %d", got, err, want)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	c := open(t, t.TempDir())
	d := destination(t, c, "a")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if err := d.Acknowledge(t.Context(), []catalog.Version{{Path: fmt.Sprintf("/%d/%d", i, j), Facts: regular(1)}}); err != nil {
					t.Error(err)
				}
				if k, err := d.Known(t.Context(), fmt.Sprintf("/%d", i)); err != nil || k.Len() != j+1 {
					t.Error("known:", err)
				}
			}
		})
	}
	wg.Wait()
	// A write while a read is under way, and a second read in it.
	for range known(t, d, "/").Unseen(t.Context()) {
		acknowledge(t, d, catalog.Version{Path: "/late", Facts: regular(1)})
		if _, err := d.Counts(t.Context()); err != nil {
			t.Error(err)
		}
		break
	}
}

func TestContextEndsACall(t *testing.T) {
	d := destination(t, open(t, t.TempDir()), "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Acknowledge(ctx, []catalog.Version{{Path: "/x"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Acknowledge: %v", err)
	}
	if _, err := d.Known(ctx, "/"); !errors.Is(err, context.Canceled) {
		t.Errorf("Known: %v", err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := otherVersion(t, 1000)
	file := filepath.Join(dir, catalog.FileName)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Open(t.Context(), dir, discard); !errors.Is(err, catalog.ErrNewer) {
		t.Fatalf("Open: %v", err)
	}
	if _, err := catalog.Read(t.Context(), dir); !errors.Is(err, catalog.ErrNewer) {
		t.Fatalf("Read: %v", err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Error("the file of a newer version was touched")
	}
}

func TestOlderSchemaIsNotRead(t *testing.T) {
	if _, err := catalog.Read(t.Context(), otherVersion(t, 1)); !errors.Is(err, catalog.ErrOlder) {
		t.Fatal(err)
	}
}

// otherVersion makes a catalog that says it is of a version, and returns its folder.
func otherVersion(t *testing.T, version int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	c, err := catalog.Open(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, catalog.FileName)
	conn, err := sqlite.OpenConn(file, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteTransient(conn, fmt.Sprint("PRAGMA user_version = ", version), nil); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDamagedIsMovedAside(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, file string)
		names  bool // they survive
	}{
		{"not a database", func(t *testing.T, file string) { overwrite(t, file, 0, 4096) }, false},
		{"damaged in use", func(t *testing.T, file string) {
			if err := os.WriteFile(file+".damaged", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"a page damaged, end unclean", func(t *testing.T, file string) {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, file, info.Size()-4096, 4096) // versions were written last
			if err := os.WriteFile(file+"-wal", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			c, err := catalog.Open(t.Context(), dir, discard)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.NamesV3(t.Context(), "/r", []string{"/r/A.txt", "/r/a.txt"}); err != nil {
				t.Fatal(err)
			}
			d := destination(t, c, "a")
			acknowledge(t, d, manyPages()...)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			test.damage(t, filepath.Join(dir, catalog.FileName))

			var log bytes.Buffer
			c, err = catalog.Open(t.Context(), dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := destination(t, c, "a").Counts(t.Context()); err != nil || n.Files != 0 {
				t.Errorf("not started anew: %+v, %v", n, err)
			}
			if !strings.Contains(log.String(), "catalog was damaged") || !strings.Contains(log.String(), ".damaged-") {
				t.Errorf("log: %s", &log)
			}
			if aside, _ := filepath.Glob(filepath.Join(dir, catalog.FileName+".damaged-*")); len(aside) == 0 {
				t.Error("the damaged file is not there")
			}
			// Asked in the other order: without the old names A.txt would not get it.
			names, err := c.NamesV3(t.Context(), "/r", []string{"/r/a.txt", "/r/A.txt"})
			if err != nil || test.names != (names[1] == "r_A.txt") {
				t.Errorf("names %q, %v", names, err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			log.Reset()
			if c, err = catalog.Open(t.Context(), dir, slog.New(slog.NewTextHandler(&log, nil))); err != nil || log.Len() > 0 {
				t.Fatal("damaged for ever: ", err, &log)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDamageInUse(t *testing.T) {
	dir := t.TempDir()
	c, err := catalog.Open(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	d := destination(t, c, "a")
	acknowledge(t, d, manyPages()...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, catalog.FileName)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, file, info.Size()-4096, 4096)
	if c, err = catalog.Open(t.Context(), dir, discard); err != nil {
		t.Fatal(err)
	}
	if _, err := destination(t, c, "a").Known(t.Context(), "/"); !errors.Is(err, catalog.ErrCorrupt) {
		t.Fatalf("Known on a damaged file: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := known(t, destination(t, open(t, dir), "a"), "/").Len(); n != 0 {
		t.Errorf("opened again with %d paths", n)
	}
}

// Read shows what is there while another uses the file, and changes nothing, also where
// the file is damaged.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := catalog.Read(t.Context(), dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("where none is: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Fatalf("it made %v", left)
	}
	used, err := catalog.Open(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	d := destination(t, used, "a")
	acknowledge(t, d, manyPages()...)
	c, err := catalog.Read(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	counts := func(name string) int {
		t.Helper()
		n, err := destination(t, c, name).Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n.Files
	}
	if got := counts("a"); got != len(manyPages()) {
		t.Errorf("%d files", got)
	}
	if got := counts("b"); got != 0 {
		t.Errorf("%d files of a destination that is not known", got)
	}
	if err := destination(t, c, "a").Acknowledge(t.Context(), manyPages()); err == nil {
		t.Error("it can be written to")
	}
	acknowledge(t, d, catalog.Version{Path: "/later", Facts: regular(1)})
	if got := counts("a"); got != len(manyPages())+1 {
		t.Errorf("%d files after another", got)
	}
	if err := errors.Join(c.Close(), used.Close()); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(dir, catalog.FileName)
	for name, damage := range map[string]func() error{
		"not a catalog": func() error { return os.WriteFile(file, bytes.Repeat([]byte("no database "), 1000), 0o600) },
		"found so":      func() error { return os.WriteFile(file+".damaged", nil, 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := catalog.Read(t.Context(), dir); !errors.Is(err, catalog.ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if aside, _ := filepath.Glob(file + ".damaged-*"); len(aside) > 0 {
			t.Errorf("%s: moved to %v", name, aside)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := destination(t, open(t, dir), "a").Counts(t.Context()); err != nil || got.Files != 0 {
		t.Errorf("Open leaves the damage: %+v, %v", got, err)
	}
}

// TestHeld finds what the server holds below paths, and nothing beside them.
func TestHeld(t *testing.T) {
	d := destination(t, open(t, t.TempDir()), "a")
	for _, path := range []string{"/r/d", "/r/d/a", "/r/d/b", "/r/d/c/d", "/r/d beside", "/r/d.e", "/r/e/f"} {
		acknowledge(t, d, catalog.Version{Path: path, Facts: regular(1)})
	}
	now := time.Now()
	if err := errors.Join(d.Retire(t.Context(), catalog.Gone, now, []string{"/r/d/a"}), d.Retire(t.Context(), catalog.Excluded, now, []string{"/r/d/b"})); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		paths []string
		limit int
		want  string
	}{
		{[]string{"/r/d"}, 10, "/r/d/b /r/d/c/d"},
		{[]string{"/r/d"}, 1, "/r/d/b"},
		{[]string{"/r/d", "/r/e", "/r/none"}, 10, "/r/d/b /r/d/c/d /r/e/f"},
		{nil, 10, ""},
	} {
		held, err := d.Held(t.Context(), tt.paths, tt.limit)
		var got []string
		for _, v := range held {
			got = append(got, v.Path)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("below %q: %q, %v, want %s", tt.paths, got, err, tt.want)
		}
	}
}

func manyPages() []catalog.Version {
	vs := make([]catalog.Version, 300)
	for i := range vs {
		vs[i] = catalog.Version{Path: fmt.Sprint("/", i, strings.Repeat("x", 200)), Facts: regular(1)}
	}
	return vs
}

func overwrite(t *testing.T, file string, at, n int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, int(n)), at); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyElseReadsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	d := destination(t, open(t, dir), "a")
	acknowledge(t, d, catalog.Version{Path: "/x"})
	if filepath.Separator == '\\' {
		return // rights are those of the folder
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
