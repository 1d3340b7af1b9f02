package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"backstay/agent/metadata"
	"backstay/agent/metadata/treetest"
	"backstay/protocol/vault"
)

// TestHostileTree restores a tree of everything that is hard, and has it compared
// by code that knows nothing of this.
func TestHostileTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "original")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	treetest.Hostile(t, dir)
	l := newLab(t)
	l.commit(l.capture(dir)...)
	to := t.TempDir()
	treetest.Removable(t, to)
	root := os.Geteuid() == 0
	o := Options{Keys: l.keys, To: to, Root: []byte(dir), Name: "copy", Metadata: metadata.Options{Owner: root, SetID: root, Devices: root}}
	for _, again := range []bool{false, true} {
		report, err := Run(context.Background(), l, l.all(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range report.Failed {
			t.Errorf("%.80q: %v", f.Path, f.Err)
		}
		treetest.Compare(t, dir, filepath.Join(to, "copy"), treetest.Options{SkipOwner: !root, SkipSetID: !root, SkipDevices: !root})
		if again && report.Bytes > 0 || !again && report.Same > 0 || len(report.Renamed) > 0 {
			t.Errorf("%d bytes written, %d there before, renamed %v", report.Bytes, report.Same, report.Renamed)
		}
		if c, err := Check(context.Background(), l, l.moment(l), CheckOptions{Keys: l.keys}); err != nil || len(c.Failed) > 0 || c.Checked != int64(l.all().Len()) {
			t.Errorf("check: %+v, %v", c, err)
		}
	}
}

// TestModel restores random histories at random moments.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLab(t)
		models := []map[string]string{{}}
		names := rapid.SampledFrom([]string{"a", "b", "c", "d e", "\xff", "a.part-00000000"})
		random := rand.NewChaCha8([32]byte{byte(rapid.IntRange(0, 255).Draw(rt, "seed"))})
		for range rapid.IntRange(1, 4).Draw(rt, "commits") {
			model := maps.Clone(models[len(models)-1])
			changed := make(map[string]change)
			remove := func(name string) {
				for p := range model {
					if p == name || strings.HasPrefix(p, name+"/") {
						delete(model, p)
						changed[p] = removed(vault.OpDelete, "/"+p)
					}
				}
			}
			for range rapid.IntRange(0, 15).Draw(rt, "changes") {
				name := path.Join(rapid.SliceOfN(names, 1, 4).Draw(rt, "path")...)
				remove(name)
				for i := range name {
					if name[i] != '/' {
						continue
					}
					if dir := name[:i]; model[dir] != "folder" {
						remove(dir)
						model[dir], changed[dir] = "folder", put("/"+dir, folderRecord())
					}
				}
				switch rapid.SampledFrom([]string{"file", "file", "file", "folder", "link", "nothing"}).Draw(rt, "what") {
				case "file":
					content := make([]byte, rapid.SampledFrom([]int{0, 1, 4096, 4097, 20_000, 100_001}).Draw(rt, "size"))
					random.Read(content)
					rec := vault.Record{Type: vault.TypeFile, Content: l.content(content, vault.FixedCutter(rapid.SampledFrom([]int{4096, 50_000}).Draw(rt, "cut")))}
					model[name], changed[name] = "= "+string(content), put("/"+name, rec)
				case "folder":
					model[name], changed[name] = "folder", put("/"+name, folderRecord())
				case "link":
					model[name], changed[name] = "-> ../..", put("/"+name, vault.Record{Type: vault.TypeSymlink, Target: []byte("../..")})
				}
			}
			models = append(models, model)
			l.commit(slices.Collect(maps.Values(changed))...)
		}
		i := rapid.IntRange(1, len(models)-1).Draw(rt, "moment")
		m, err := l.query().Open(context.Background(), l, l.log[i-1].time)
		if err != nil {
			rt.Fatal(err)
		}
		s, err := ReadState(context.Background(), l, m)
		if err != nil {
			rt.Fatal(err)
		}
		sel, err := s.All()
		if err != nil {
			rt.Fatal(err)
		}
		to := t.TempDir()
		report, err := Run(context.Background(), l, sel, Options{Keys: l.keys, To: to})
		if err != nil || len(report.Failed) > 0 || report.Files != int64(len(models[i])) {
			rt.Fatalf("%d of %d, failed %v, %v", report.Files, len(models[i]), report.Failed, err)
		}
		equalTrees(rt, contents(t, to), models[i])
		os.RemoveAll(to)
	})
}

// TestLargeFiles has contents of several windows, of lists, and of chunks that are
// shared, with holes between them.
func TestLargeFiles(t *testing.T) {
	l := newLab(t)
	content := make([]byte, 12<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	lists := vault.Record{Type: vault.TypeFile, Content: l.content(content, vault.FixedCutter(5000))}
	if lists.Content.Level == 0 {
		t.Fatal("no lists")
	}
	shared := vault.Record{Type: vault.TypeFile, Content: l.content(content[:1<<20], vault.FixedCutter(5000))}
	holes := shared
	holes.Holes = []vault.Hole{{Offset: 0, Length: 100}, {Offset: 10_100, Length: 1}, {Offset: 1<<20 + 101, Length: 50}}
	small := vault.Record{Type: vault.TypeFile, Content: vault.Content{Size: 3, Inline: []byte("abc")}, Holes: []vault.Hole{{Offset: 1, Length: 5}}}
	empty := vault.Record{Type: vault.TypeFile, Content: vault.Content{Inline: []byte{}}, Holes: []vault.Hole{{Length: 9}}}
	l.commit(put("/lists", lists), put("/shared", shared), put("/shared too", shared), put("/holes", holes), put("/small", small), put("/empty", empty))
	to := t.TempDir()
	var last Progress
	report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to, Progress: func(p Progress) { last = p }})
	if err != nil || len(report.Failed) > 0 {
		t.Fatal(report.Failed, err)
	}
	mib := string(content[:1<<20])
	equalTrees(t, contents(t, to), map[string]string{
		"lists": "= " + string(content), "shared": "= " + mib, "shared too": "= " + mib,
		"holes": "= " + strings.Repeat("\x00", 100) + mib[:10_000] + "\x00" + mib[10_000:] + strings.Repeat("\x00", 50),
		"small": "= a" + strings.Repeat("\x00", 5) + "bc", "empty": "= " + strings.Repeat("\x00", 9),
	})
	if bytes := int64(15<<20 + 3); report.Bytes != bytes || last != (Progress{6, 6, bytes, bytes}) {
		t.Errorf("%d bytes, progress %+v", report.Bytes, last)
	}
}

// TestDamage takes objects away or changes them, one at a time. Everything that
// does not need them is restored, and nothing is left of what does.
func TestDamage(t *testing.T) {
	other := func(l *lab) []byte {
		return l.objects[l.content([]byte(strings.Repeat("y", 5000)), vault.FixedCutter(5000)).Entries[0].Ref]
	}
	alter := func(l *lab, id vault.ObjectID) {
		l.objects[id] = bytes.Clone(l.objects[id])
		l.objects[id][len(l.objects[id])-1] ^= 1
	}
	tests := []struct {
		name   string
		damage func(l *lab, record vault.ObjectID, c vault.Content)
		want   error
		hidden bool
	}{
		{"record missing", func(l *lab, id vault.ObjectID, _ vault.Content) { delete(l.objects, id) }, vault.ErrMissing, true},
		{"record altered", func(l *lab, id vault.ObjectID, _ vault.Content) { alter(l, id) }, ErrRecord, true},
		{"another object for the record", func(l *lab, id vault.ObjectID, _ vault.Content) { l.objects[id] = other(l) }, ErrRecord, true},
		{"another path's record", func(l *lab, id vault.ObjectID, _ vault.Content) { l.objects[id] = l.objects[l.log[0].rows[0].Record] }, ErrRecord, true},
		{"chunk missing", func(l *lab, _ vault.ObjectID, c vault.Content) { delete(l.objects, c.Entries[1].Ref) }, vault.ErrMissing, false},
		{"chunk altered", func(l *lab, _ vault.ObjectID, c vault.Content) { alter(l, c.Entries[1].Ref) }, vault.ErrOpen, false},
		{"another chunk", func(l *lab, _ vault.ObjectID, c vault.Content) { l.objects[c.Entries[1].Ref] = other(l) }, vault.ErrContent, false},
		{"a record for a chunk", func(l *lab, id vault.ObjectID, c vault.Content) { l.objects[c.Entries[1].Ref] = l.objects[id] }, vault.ErrContent, false},
	}
	for _, tt := range tests {
		for _, lists := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, lists), func(t *testing.T) {
				l := newLab(t)
				random := make([]byte, 5<<20)
				rand.NewChaCha8([32]byte{}).Read(random)
				size := 1 << 20
				if lists {
					size = len(random)
				}
				bad := vault.Record{Type: vault.TypeFile, Content: l.content(random[:size], vault.FixedCutter(4096))}
				if lists != (bad.Content.Level > 0) {
					t.Fatal(bad.Content.Level)
				}
				l.commit(put("/d/a", inline("a")), put("/d/bad", bad), put("/d/c", l.file(random[:10_000])), put("/d/e", inline("e")))
				tt.damage(l, l.log[0].rows[1].Record, bad.Content)
				to := t.TempDir()
				report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to})
				if err != nil || len(report.Failed) != 1 {
					t.Fatal(report.Failed, err)
				}
				f := report.Failed[0]
				if !errors.Is(f.Err, tt.want) || f.ID != l.path("/d/bad") || tt.hidden != (f.Path == "") {
					t.Errorf("%q: %v, want %v", f.Path, f.Err, tt.want)
				}
				equalTrees(t, contents(t, to), map[string]string{"d": "folder", "d/a": "= a", "d/c": "= " + string(random[:10_000]), "d/e": "= e"})
				c, err := Check(context.Background(), l, l.moment(l), CheckOptions{Keys: l.keys})
				if err != nil || c.Checked != 4 || len(c.Failed) != 1 || !errors.Is(c.Failed[0].Err, tt.want) {
					t.Errorf("check: %+v, %v", c, err)
				}
			})
		}
	}
}

// TestCheckFindsAllThatIsLost has several pieces of one file go, some of them below
// a list.
func TestCheckFindsAllThatIsLost(t *testing.T) {
	l := newLab(t)
	random := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	lists := vault.Record{Type: vault.TypeFile, Content: l.content(random, vault.FixedCutter(4096))}
	flat := vault.Record{Type: vault.TypeFile, Content: l.content(random[:100_000], vault.FixedCutter(10_000))}
	l.commit(put("/flat", flat), put("/lists", lists), put("/whole", l.file(random[:5000])))
	_, list, err := l.keys.Open(nil, l.objects[lists.Content.Entries[1].Ref])
	if err != nil {
		t.Fatal(err)
	}
	gone := []vault.ObjectID{
		flat.Content.Entries[2].Ref, flat.Content.Entries[7].Ref,
		lists.Content.Entries[0].Ref, list.Refs[3], list.Refs[len(list.Refs)-1],
	}
	for _, id := range gone {
		delete(l.objects, id)
	}
	c, err := Check(context.Background(), l, l.moment(l), CheckOptions{Keys: l.keys})
	if err != nil || len(c.Failed) != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	byID := func(a, b vault.ObjectID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(gone, byID)
	slices.SortFunc(c.Lost, byID)
	if lost := slices.Compact(c.Lost); !slices.Equal(lost, gone) {
		t.Errorf("%d are found lost, %d are", len(lost), len(gone))
	}
}

// TestWrongSum has a whole that is not what its parts are, which no server can make.
func TestWrongSum(t *testing.T) {
	l := newLab(t)
	rec := vault.Record{Type: vault.TypeFile, Content: l.content(make([]byte, 9000), vault.FixedCutter(4096))}
	rec.Content.Sum = &[32]byte{1}
	l.commit(put("/x", rec))
	to := t.TempDir()
	report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to})
	if err != nil || len(report.Failed) != 1 || !errors.Is(report.Failed[0].Err, vault.ErrContent) {
		t.Fatal(report.Failed, err)
	}
	equalTrees(t, contents(t, to), map[string]string{})
}

// TestHostileNames has a device, or who stole its keys, state paths that lead
// elsewhere.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{
		"/home/../../../escaped", "/..", "/home/.", "/home//x", "/home/\x00", "relative", "../escaped", `C:\a\..\..\escaped`, `C:\a/b`, `\\`, "/home/x/", "",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			c := put(name, inline("hostile"))
			if name == "" {
				c.rec.Name = nil
			}
			l.commit(c, put("/home/good", inline("good")))
			base := t.TempDir()
			report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: filepath.Join(base, "a/b/to")})
			if err != nil || len(report.Failed) != 1 && name != "/home/x/" {
				t.Fatal(report.Failed, err)
			}
			for _, f := range report.Failed {
				if !errors.Is(f.Err, ErrIntegrity) || !errors.Is(f.Err, ErrRecord) {
					t.Error(f.Err)
				}
			}
			got := contents(t, base)
			delete(got, "a/b/to/home/x")
			equalTrees(t, got, map[string]string{"a": "folder", "a/b": "folder", "a/b/to": "folder", "a/b/to/home": "folder", "a/b/to/home/good": "= good"})
		})
	}
}

// TestRowLies has the server state of a record what the record does not.
func TestRowLies(t *testing.T) {
	for name, lie := range map[string]func(*row){
		"parent": func(r *row) { r.parent[0] ^= 1 }, "operation": func(r *row) { r.op = vault.OpOutOfScope }, "number": func(r *row) { r.seq++ },
		"path": func(r *row) { r.path[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.commit(put("/a", inline("a")), put("/b", inline("b")))
			l.commit()
			s := l.moment(l)
			lie(s.rows.at(0))
			sel, err := s.All()
			if err != nil {
				t.Fatal(err)
			}
			report, err := Run(context.Background(), l, sel, Options{Keys: l.keys, To: t.TempDir()})
			if err != nil || report.Files != 1 || len(report.Failed) != 1 || !errors.Is(report.Failed[0].Err, ErrRecord) {
				t.Fatal(report, err)
			}
		})
	}
}

// TestRoot restores parts of a state under other names.
func TestRoot(t *testing.T) {
	l := newLab(t)
	l.commit(put("/home", folderRecord()), put("/home/a", folderRecord()), put("/home/a/x", inline("x")), put("/home/ab", inline("ab")), put("/home/a/deep/y", inline("y")))
	tests := []struct {
		root, name string
		want       map[string]string
	}{
		{"/home/a", "n", map[string]string{"n": "folder", "n/x": "= x", "n/deep": "folder", "n/deep/y": "= y"}},
		{"/home/a", "", map[string]string{"x": "= x", "deep": "folder", "deep/y": "= y"}},
		{"/home/a/x", "n", map[string]string{"n": "= x"}},
		{"/home/ab", "ab", map[string]string{"ab": "= ab"}},
		{"/", "r", map[string]string{"r": "folder", "r/home": "folder", "r/home/a": "folder", "r/home/a/x": "= x", "r/home/ab": "= ab", "r/home/a/deep": "folder", "r/home/a/deep/y": "= y"}},
	}
	for _, tt := range tests {
		to := t.TempDir()
		report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to, Root: []byte(tt.root), Name: tt.name})
		if err != nil || len(report.Failed) > 0 {
			t.Errorf("%s: %v, %v", tt.root, report.Failed, err)
		}
		equalTrees(t, contents(t, to), tt.want)
	}
	sel, err := l.moment(l).Select(l.path("/home/a"))
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if report, err := Run(context.Background(), l, sel, Options{Keys: l.keys, To: to, Root: []byte("/home/a"), Name: "n"}); err != nil || len(report.Failed) > 0 {
		t.Fatal(report.Failed, err)
	}
	equalTrees(t, contents(t, to), map[string]string{"n": "folder", "n/x": "= x"}) // what is in deep has no recorded parent
	for _, name := range []string{"..", ".", "a/b", "/"} {
		if _, err := Run(context.Background(), l, sel, Options{Keys: l.keys, To: to, Name: name}); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}

// TestOutOfScope restores what is no longer protected as it was last seen.
func TestOutOfScope(t *testing.T) {
	l := newLab(t)
	first := l.commit(put("/a", inline("old")), put("/b", inline("b")), put("/d/x", l.file(make([]byte, 10_000))))
	l.commit(removed(vault.OpOutOfScope, "/a", first.rows[0].Record), removed(vault.OpOutOfScope, "/d/x", first.rows[2].Record))
	to := t.TempDir()
	report := l.restore("/", to)
	if report.OutOfScope != 2 || report.Files != 3 {
		t.Error(report)
	}
	equalTrees(t, contents(t, to), map[string]string{"a": "= old", "b": "= b", "d": "folder", "d/x": "= " + strings.Repeat("\x00", 10_000)})
	if c, err := Check(context.Background(), l, l.moment(l), CheckOptions{Keys: l.keys}); err != nil || c.Checked != 3 || len(c.Failed) > 0 {
		t.Error(c, err)
	}
	// One that refers to another path's record.
	l.commit(removed(vault.OpOutOfScope, "/b", first.rows[0].Record))
	report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: t.TempDir()})
	if err != nil || report.Files != 2 || len(report.Failed) != 1 || !errors.Is(report.Failed[0].Err, ErrRecord) || report.Failed[0].ID != l.path("/b") {
		t.Error(report, err)
	}
}

// TestOutOfScopeBelowFile restores a file that took the place of a folder of which
// something is kept that was no longer protected: only one of the two can have the name.
func TestOutOfScopeBelowFile(t *testing.T) {
	l := newLab(t)
	first := l.commit(put("/d", folderRecord()), put("/d/x", inline("x")))
	l.commit(removed(vault.OpOutOfScope, "/d/x", first.rows[1].Record))
	l.commit(put("/d", inline("a file now")))
	to := t.TempDir()
	for _, again := range []bool{false, true} {
		report := l.restore("/", to)
		if report.Files != 2 || again != (report.Same == 2) || len(report.Renamed) != 1 || report.Renamed[0] != (Renamed{"d", "d (restored 2)"}) {
			t.Errorf("again %v: %+v", again, report)
		}
		equalTrees(t, contents(t, to), map[string]string{"d": "folder", "d/x": "= x", "d (restored 2)": "= a file now"})
	}
}

// TestExisting restores into a folder where other things have the names.
func TestExisting(t *testing.T) {
	l := newLab(t)
	at := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	dated := inline("dated")
	dated.ModTime = at
	l.commit(put("/file", inline("new")), put("/dated", dated), put("/equal", inline("equal")), put("/folder", folderRecord()), put("/folder/in", inline("in")),
		put("/link", vault.Record{Type: vault.TypeSymlink, Target: []byte("there")}), put("/was folder", inline("now file")), put("/free", inline("free")),
		put("/chunked", l.file(bytes.Repeat([]byte("new"), 3000))), put("/chunked equal", l.file(bytes.Repeat([]byte("same"), 3000))))
	setUp := func(t *testing.T) (to, outside string) {
		to, outside = t.TempDir(), t.TempDir()
		for name, content := range map[string]string{"file": "old", "dated": "DATED", "equal": "equal", "link": "no link", "other": "other",
			"chunked": strings.Repeat("old", 3000), "chunked equal": strings.Repeat("same", 3000)} {
			if err := os.WriteFile(filepath.Join(to, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := errors.Join(os.Chtimes(filepath.Join(to, "dated"), at, at), os.Symlink(outside, filepath.Join(to, "folder")),
			os.MkdirAll(filepath.Join(to, "was folder/full"), 0o700))
		if err != nil {
			t.Fatal(err)
		}
		return to, outside
	}
	before := func(to, outside string) map[string]string {
		return map[string]string{"file": "= old", "dated": "= DATED", "equal": "= equal", "link": "= no link", "other": "= other", "folder": "-> " + outside,
			"was folder": "folder", "was folder/full": "folder", "chunked": "= " + strings.Repeat("old", 3000), "chunked equal": "= " + strings.Repeat("same", 3000)}
	}
	t.Run("left alone", func(t *testing.T) {
		to, outside := setUp(t)
		report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to})
		if err != nil {
			t.Fatal(err)
		}
		var failed []string
		for _, f := range report.Failed {
			if !errors.Is(f.Err, ErrExists) {
				t.Error(f)
			}
			failed = append(failed, f.Path)
		}
		slices.Sort(failed)
		if want := []string{"/chunked", "/file", "/folder", "/folder/in", "/link", "/was folder"}; !slices.Equal(failed, want) {
			t.Errorf("failed: %q", failed)
		}
		if report.Same != 3 || report.Files != 4 { // the dated one is taken for done
			t.Error(report)
		}
		want := before(to, outside)
		want["free"] = "= free"
		equalTrees(t, contents(t, to), want)
		equalTrees(t, contents(t, outside), map[string]string{})
	})
	t.Run("overwritten", func(t *testing.T) {
		to, outside := setUp(t)
		o := Options{Keys: l.keys, To: to, Overwrite: true, Now: time.Date(2026, 11, 20, 14, 3, 7, 0, time.UTC)}
		report, err := Run(context.Background(), l, l.all(), o)
		if err != nil || len(report.Failed) > 0 {
			t.Fatal(report.Failed, err)
		}
		const suffix = " (replaced 2026-11-20 14.03.07)"
		want := make(map[string]string)
		for name, content := range before(to, outside) {
			switch top, rest, _ := strings.Cut(name, "/"); {
			case name == "dated", name == "other":
				want[name] = content
			case rest != "":
				want[top+suffix+"/"+rest] = content
			default:
				want[name+suffix] = content
			}
		}
		for name, content := range map[string]string{"file": "= new", "equal": "= equal", "folder": "folder", "folder/in": "= in", "link": "-> there", "was folder": "= now file",
			"free": "= free", "chunked": "= " + strings.Repeat("new", 3000), "chunked equal": "= " + strings.Repeat("same", 3000)} {
			want[name] = content
		}
		equalTrees(t, contents(t, to), want)
		equalTrees(t, contents(t, outside), map[string]string{})
		if len(report.Replaced) != 7 || report.Same != 1 {
			t.Error(report.Replaced, report.Same)
		}
		// Once more in the same second: what was kept stays.
		if err := os.WriteFile(filepath.Join(to, "file"), []byte("third"), 0o600); err != nil {
			t.Fatal(err)
		}
		if report, err = Run(context.Background(), l, l.all(), o); err != nil || len(report.Failed) > 0 {
			t.Fatal(report.Failed, err)
		}
		got := contents(t, to)
		if got["file"+suffix] != "= old" || got["file (replaced 2026-11-20 14.03.07 2)"] != "= third" || got["file"] != "= new" {
			t.Error(got)
		}
	})
}

// TestTwins restores names that a file system takes for one: what is in the way
// is not in the folder's list under the same spelling.
func TestTwins(t *testing.T) {
	l := newLab(t)
	l.commit(put("/dir/name", inline("second")), put("/dir/sub", folderRecord()), put("/dir/sub/x", inline("x")), put("/dir/link", vault.Record{Type: vault.TypeSymlink, Target: []byte("t")}))
	to := t.TempDir()
	top, err := openTarget(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{sel: l.all(), keys: l.keys, src: l, o: Options{Keys: l.keys, To: to}, tree: newTree(top), groups: map[linkKey]*group{}, slots: make(chan *[]byte, 1)}
	r.tree.aside, r.tree.report = r.aside, r.renamed
	defer r.tree.close()
	n, err := r.tree.enter("dir")
	if err != nil {
		t.Fatal(err)
	}
	if exact, err := n.has("name"); exact || err != nil {
		t.Fatal(exact, err)
	}
	err = errors.Join(os.WriteFile(filepath.Join(to, "dir/name"), []byte("first"), 0o600), os.Mkdir(filepath.Join(to, "dir/sub"), 0o700),
		os.WriteFile(filepath.Join(to, "dir/link"), nil, 0o600), os.WriteFile(filepath.Join(to, "dir/link (restored 2)"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	r.stop = stop
	if err := errors.Join(r.pass(ctx, r.sel.leaves), r.pass(ctx, r.sel.folders[0])); err != nil || len(r.report.Failed) > 0 {
		t.Fatal(err, r.report.Failed)
	}
	equalTrees(t, contents(t, to), map[string]string{"dir": "folder", "dir/name": "= first", "dir/name (restored 2)": "= second", "dir/sub": "folder",
		"dir/sub (restored 2)": "folder", "dir/sub (restored 2)/x": "= x", "dir/link": "= ", "dir/link (restored 2)": "= ", "dir/link (restored 3)": "-> t"})
	slices.SortFunc(r.report.Renamed, func(a, b Renamed) int { return strings.Compare(a.Path, b.Path) })
	if want := []Renamed{{"dir/link", "link (restored 3)"}, {"dir/name", "name (restored 2)"}, {"dir/sub", "sub (restored 2)"}}; !slices.Equal(r.report.Renamed, want) {
		t.Error(r.report.Renamed)
	}
}

// TestForeignNames restores what another system recorded.
func TestForeignNames(t *testing.T) {
	long := strings.Repeat("\u6f22", 100) // 300 bytes, which Windows counts as 100
	l := newLab(t)
	l.commit(put(`C:\Users\me`, folderRecord()), put(`C:\Users\me\a.txt`, inline("a")), put(`C:\Users\me\f`+long, inline("long")), put(`C:\Users\me\`+long+`\x`, inline("x")),
		put(`\\server\share\b`, inline("b")))
	to := t.TempDir()
	report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to})
	if err != nil || len(report.Failed) > 0 {
		t.Fatal(report.Failed, err)
	}
	got := contents(t, to)
	if got["C/Users/me/a.txt"] != "= a" || got["server/share/b"] != "= b" || len(report.Renamed) != 2 {
		t.Errorf("%q, renamed %q", slices.Collect(maps.Keys(got)), report.Renamed)
	}
}

func TestHardLinks(t *testing.T) {
	l := newLab(t)
	linked := func(content string) vault.Record {
		rec := l.file([]byte(content))
		rec.Link = &vault.LinkGroup{1}
		return rec
	}
	big := strings.Repeat("big", 5000)
	l.commit(put("/a", linked(big)), put("/b", linked(big)), put("/d/c", linked(big)), put("/other", linked("captured later")))
	to := t.TempDir()
	report := l.restore("/", to)
	equalTrees(t, contents(t, to), map[string]string{"a": "= " + big, "b": "= " + big, "d": "folder", "d/c": "= " + big, "other": "= captured later"})
	first, err := os.Stat(filepath.Join(to, "a"))
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for _, name := range []string{"b", "d/c", "other"} {
		if info, err := os.Stat(filepath.Join(to, name)); err == nil && os.SameFile(first, info) {
			same++
		}
	}
	if same != 2 || len(report.Losses) > 0 {
		t.Errorf("%d names of one file, lost %v", same+1, report.Losses)
	}
	// The content is gone: all of them fail, each by itself.
	for _, e := range linked(big).Content.Entries {
		delete(l.objects, e.Ref)
	}
	report, err = Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: t.TempDir()})
	if err != nil || len(report.Failed) != 3 || report.Files != 1 {
		t.Error(report, err)
	}
}

// breaking is a source that ends after so many objects.
type breaking struct {
	*lab
	left atomic.Int64
	then func(ctx context.Context) error
}

func (b *breaking) Get(ctx context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		for o, err := range b.lab.Get(ctx, ids) {
			if err == nil && b.left.Add(-1) < 0 {
				o.Data, err = nil, b.then(ctx)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// wide is a history of many files of all kinds of contents.
func wide(t testing.TB, files int) (*lab, map[string]string) {
	l := newLab(t)
	model := make(map[string]string)
	var changes []change
	at := time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)
	random := rand.NewChaCha8([32]byte{})
	for i := range files {
		dir := fmt.Sprintf("d%d", i%7)
		for _, d := range []string{dir, dir + "/e"} {
			if model[d] == "" {
				rec := folderRecord()
				rec.ModTime, rec.Mode = at, new(uint32(0o755))
				model[d] = "folder"
				changes = append(changes, put("/"+d, rec))
			}
		}
		content := make([]byte, []int{10, 5000, 30_000}[i%3])
		random.Read(content)
		name := fmt.Sprintf("%s/e/%d", dir, i)
		rec := vault.Record{Type: vault.TypeFile, Content: l.content(content, vault.FixedCutter(7000))}
		rec.ModTime, rec.Mode = at, new(uint32(0o644))
		model[name] = "= " + string(content)
		changes = append(changes, put("/"+name, rec))
	}
	l.commit(changes...)
	return l, model
}

// TestInterrupted ends a restore after each number of objects and goes on.
func TestInterrupted(t *testing.T) {
	l, model := wide(t, 60)
	sel := l.all()
	lost := errors.New("connection lost")
	for left := int64(0); left < 190; left += 21 {
		for _, cancelled := range []bool{false, true} {
			to := t.TempDir()
			ctx, cancel := context.WithCancelCause(context.Background())
			b := &breaking{lab: l, then: func(ctx context.Context) error {
				if cancelled {
					cancel(lost)
				}
				return lost
			}}
			b.left.Store(left)
			_, err := Run(ctx, b, sel, Options{Keys: l.keys, To: to})
			cancel(nil)
			if !errors.Is(err, lost) {
				t.Fatal(err)
			}
			for name, content := range contents(t, to) {
				if content != model[name] {
					t.Fatalf("after %d objects: %s is %.40q", left, name, content)
				}
			}
			l.restore("/", to)
			equalTrees(t, contents(t, to), model)
		}
	}
}

// TestKilled copies the target as it is in the midst of a restore, as a power cut
// would leave it, and goes on in the copy.
func TestKilled(t *testing.T) {
	l, model := wide(t, 60)
	ctx, cancel := context.WithCancelCause(context.Background())
	reached := make(chan struct{}, 10)
	b := &breaking{lab: l, then: func(ctx context.Context) error {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	b.left.Store(120)
	to, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	ended := make(chan error)
	go func() {
		_, err := Run(ctx, b, l.all(), Options{Keys: l.keys, To: to})
		ended <- err
	}()
	<-reached
	if err := os.CopyFS(copied, os.DirFS(to)); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to}); lockable && !errors.Is(err, ErrBusy) {
		t.Error("a second restore beside the first:", err)
	}
	stop := errors.New("stop")
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Fatal(err)
	}
	parts := 0
	for name := range contents(t, copied) {
		if strings.Contains(name, ".part-") {
			parts++
		}
	}
	if parts == 0 {
		t.Error("nothing was under way")
	}
	for name := range contents(t, to) {
		if strings.Contains(name, ".part-") {
			t.Error("left behind:", name)
		}
	}
	l.restore("/", copied)
	equalTrees(t, contents(t, copied), model)
}

// TestLosses bounds what is kept of them.
func TestLosses(t *testing.T) {
	l := newLab(t)
	var changes []change
	for i := range maxLosses + 10 {
		changes = append(changes, put(fmt.Sprint("/", i), vault.Record{Type: vault.TypeSocket}))
	}
	l.commit(changes...)
	report := l.restore("/", t.TempDir())
	if len(report.Losses) != maxLosses || report.LossCount["the path itself"] != int64(len(changes)) {
		t.Error(len(report.Losses), report.LossCount)
	}
}

func TestCheckSample(t *testing.T) {
	l, _ := wide(t, 30)
	for _, tt := range []struct{ sample, want int }{{0, 44}, {5, 5}, {1000, 44}} {
		var last Progress
		c, err := Check(context.Background(), l, l.moment(l), CheckOptions{Keys: l.keys, Sample: tt.sample, Progress: func(p Progress) { last = p }})
		if err != nil || c.Checked != int64(tt.want) || len(c.Failed) > 0 || last.Files != c.Checked || last.Bytes != c.Bytes || last.TotalBytes != c.Bytes {
			t.Errorf("sample of %d: %+v, %v, progress %+v", tt.sample, c, err, last)
		}
	}
	lost := errors.New("connection lost")
	for _, left := range []int64{0, 50} {
		b := &breaking{lab: l, then: func(context.Context) error { return lost }}
		b.left.Store(left)
		if _, err := Check(context.Background(), b, l.moment(l), CheckOptions{Keys: l.keys}); !errors.Is(err, lost) {
			t.Error(err)
		}
	}
}
