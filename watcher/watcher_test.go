package watcher

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A step does something below a root and names what must be reported.
type step struct {
	do   func(t *testing.T, root, outside string)
	want []string // relative to the root, with slashes
}

// testSteps does the steps one after the other.
func testSteps(t *testing.T, b backend, opts Options, prepare func(t *testing.T, root, outside string), steps []step) {
	dir := tempDir(t)
	root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Mkdir(outside, 0o755))
	if prepare != nil {
		prepare(t, root, outside)
	}
	s := start(t, b, opts, Root{Path: root})
	for _, step := range steps {
		s.reset()
		step.do(t, root, outside)
		for _, w := range step.want {
			s.see(t, root, filepath.Join(root, filepath.FromSlash(w)))
		}
	}
	s.stop() // before the folders go
}

var contract = []struct {
	name    string
	prepare func(t *testing.T, root, outside string)
	steps   []step
}{
	{"create, modify, rename and delete a file", nil, []step{
		{func(t *testing.T, root, _ string) { write(t, root+"/a", "1") }, []string{"a"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/a", "22") }, []string{"a"}},
		{func(t *testing.T, root, _ string) { must(t, os.Rename(root+"/a", root+"/b")) }, []string{"a", "b"}},
		{func(t *testing.T, root, _ string) { must(t, os.Remove(root+"/b")) }, []string{"b"}},
	}},
	{"atomic save", func(t *testing.T, root, _ string) { write(t, root+"/d/f", "1") }, []step{
		{func(t *testing.T, root, _ string) {
			write(t, root+"/d/.f.tmp", "22")
			must(t, os.Rename(root+"/d/.f.tmp", root+"/d/f"))
		}, []string{"d/f"}},
		{func(t *testing.T, root, _ string) {
			write(t, root+"/d/.f.tmp", "333")
			must(t, os.Rename(root+"/d/.f.tmp", root+"/d/f"))
		}, []string{"d/f"}},
	}},
	{"new folders at once with content", nil, []step{
		{func(t *testing.T, root, _ string) { write(t, root+"/a/b/c/d/f", "1") }, []string{"a", "a/b", "a/b/c/d/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/a/b/c/g", "1") }, []string{"a/b/c/g"}},
	}},
	{"tree moved in, and out again", func(t *testing.T, _, outside string) {
		write(t, outside+"/x/f", "1")
		write(t, outside+"/x/y/z/g", "1")
		must(t, os.MkdirAll(outside+"/x/empty/too", 0o755))
	}, []step{
		{func(t *testing.T, root, outside string) { must(t, os.Rename(outside+"/x", root+"/x")) },
			[]string{"x", "x/f", "x/y", "x/y/z", "x/y/z/g", "x/empty/too"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/x/y/z/g", "22") }, []string{"x/y/z/g"}},
		{func(t *testing.T, root, outside string) { must(t, os.Rename(root+"/x", outside+"/x")) }, []string{"x"}},
	}},
	{"renamed folder", func(t *testing.T, root, _ string) { write(t, root+"/old/sub/f", "1") }, []step{
		{func(t *testing.T, root, _ string) { must(t, os.Rename(root+"/old", root+"/new")) }, []string{"old", "new", "new/sub/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/new/sub/f", "22") }, []string{"new/sub/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/new/g", "1") }, []string{"new/g"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/old/sub/f", "1") }, []string{"old", "old/sub/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/old/sub/f", "22") }, []string{"old/sub/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/new/sub/f", "333") }, []string{"new/sub/f"}},
	}},
	{"folder deleted and made again", func(t *testing.T, root, _ string) { must(t, os.Mkdir(root+"/d", 0o755)) }, []step{
		{func(t *testing.T, root, _ string) {
			must(t, os.Remove(root+"/d"))
			must(t, os.Mkdir(root+"/d", 0o755))
			write(t, root+"/d/f", "1")
		}, []string{"d", "d/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/d/f", "22") }, []string{"d/f"}},
	}},
	{"file instead of a folder, and back", func(t *testing.T, root, _ string) { must(t, os.Mkdir(root+"/d", 0o755)) }, []step{
		{func(t *testing.T, root, _ string) { must(t, os.Remove(root+"/d")); write(t, root+"/d", "1") }, []string{"d"}},
		{func(t *testing.T, root, _ string) { must(t, os.Remove(root+"/d")); write(t, root+"/d/f", "1") }, []string{"d", "d/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/d/f", "22") }, []string{"d/f"}},
	}},
	{"file written while it stays open", nil, []step{
		{func(t *testing.T, root, _ string) {
			f, err := os.Create(root + "/log")
			must(t, err)
			t.Cleanup(func() { f.Close() })
			_, err = f.WriteString("1")
			must(t, err)
			must(t, f.Sync())
		}, []string{"log"}},
	}},
	{"names of all sorts", nil, []step{
		{func(t *testing.T, root, _ string) {
			for _, name := range []string{"a b", "Grüße ∂", "~$x.docx", "a~1", strings.Repeat("n", 200)} {
				write(t, root+"/"+name+"/"+name, "1")
			}
		}, []string{"a b/a b", "Grüße ∂/Grüße ∂", "~$x.docx/~$x.docx", "a~1/a~1", strings.Repeat("n", 200) + "/" + strings.Repeat("n", 200)}},
	}},
}

func TestContract(t *testing.T) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if slices.Contains([]string{"atomic save", "renamed folder"}, c.name) {
				skipUnderWine(t, deafToOldFolders)
			}
			testSteps(t, newBackend(), quick, c.prepare, c.steps)
		})
	}
}

// TestContractPolling runs the same steps where the system does not help.
func TestContractPolling(t *testing.T) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testSteps(t, &deaf{}, Options{PollInterval: 5 * time.Millisecond, Coalesce: 5 * time.Millisecond}, c.prepare, c.steps)
		})
	}
}

// TestDeepRace makes folders faster than they can be watched one by one.
func TestDeepRace(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	s := start(t, newBackend(), quick, Root{Path: root})
	var files []string
	for i := range 200 {
		dir := filepath.Join(root, fmt.Sprint(i))
		for d := range i % 12 {
			dir = filepath.Join(dir, fmt.Sprint(d))
		}
		file := filepath.Join(dir, "f")
		write(t, file, "1")
		files = append(files, file)
	}
	s.see(t, root, files...)
	s.reset()
	for _, f := range files {
		write(t, f, "22")
	}
	s.see(t, root, files...)
	s.stop()
}

// TestChaos moves, makes and deletes folders at random and then probes every folder there is: none may be deaf, none may
// report under a former name.
func TestChaos(t *testing.T) {
	skipUnderWine(t, deafToOldFolders)
	const seeds = 12
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			root := tempDir(t)
			dirs := []string{root}
			s := start(t, newBackend(), Options{Coalesce: time.Millisecond}, Root{Path: root})
			for i := range 400 {
				at := dirs[rnd.IntN(len(dirs))]
				switch p := rnd.IntN(10); {
				case p < 5:
					d := filepath.Join(at, fmt.Sprint("d", i))
					must(t, os.Mkdir(d, 0o755))
					dirs = append(dirs, d)
				case p < 8: // move one folder into another, sometimes to a name that was there before
					to := filepath.Join(dirs[rnd.IntN(len(dirs))], fmt.Sprint("m", rnd.IntN(4)))
					if at == root || strings.HasPrefix(to+string(filepath.Separator), at+string(filepath.Separator)) || slices.Contains(dirs, to) {
						continue
					}
					must(t, os.Rename(at, to))
					for j, d := range dirs {
						if d == at || strings.HasPrefix(d, at+string(filepath.Separator)) {
							dirs[j] = to + d[len(at):]
						}
					}
				case p < 9:
					write(t, filepath.Join(at, fmt.Sprint("f", i)), "1")
				default:
					if at == root {
						continue
					}
					remove(t, at)
					dirs = slices.DeleteFunc(dirs, func(d string) bool {
						return d == at || strings.HasPrefix(d, at+string(filepath.Separator))
					})
				}
			}
			write(t, root+"/settled", "1")
			s.see(t, root, filepath.Join(root, "settled"))
			s.reset()
			for _, d := range dirs {
				write(t, filepath.Join(d, "probe"), "1")
			}
			for _, d := range dirs {
				s.see(t, root, filepath.Join(d, "probe"))
			}
			for _, p := range s.seen(root) {
				if filepath.Base(p) == "probe" && !slices.Contains(dirs, filepath.Dir(p)) {
					t.Errorf("reported under a former name: %s", p)
				}
			}
			s.stop()
		})
	}
}

func TestSkip(t *testing.T) {
	t.Parallel()
	skipUnderWine(t, deafToOldFolders)
	root := tempDir(t)
	write(t, root+"/out/deep/f", "1")
	write(t, root+"/in/f", "1")
	var entered []string // Skip is called from the root's one goroutine
	skip := func(path string, dir bool) bool {
		entered = append(entered, path)
		return dir && filepath.Base(path) == "out" || strings.HasSuffix(path, ".tmp")
	}
	s := start(t, newBackend(), quick, Root{Path: root, Skip: skip})
	write(t, root+"/out/f", "1")
	write(t, root+"/out/deep/f", "22")
	write(t, root+"/in/x.tmp", "1")
	write(t, root+"/new/out/deep/f", "1")
	write(t, root+"/new/y.tmp", "1")
	write(t, root+"/in/g", "1")
	s.see(t, root, filepath.Join(root, "new"), filepath.Join(root, "in", "g"))
	write(t, root+"/in/last", "1")
	s.see(t, root, filepath.Join(root, "in", "last"))
	s.stop()
	for _, p := range append(s.seen(root), entered...) {
		if rel := filepath.ToSlash(p[len(root):]); strings.Contains(rel, "/out/") {
			t.Errorf("entered %s", rel)
		}
	}
	for _, p := range s.seen(root) {
		if strings.HasSuffix(p, ".tmp") {
			t.Errorf("reported %s", p)
		}
	}
}

func TestSingleFile(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	file := filepath.Join(dir, "notes.txt")
	write(t, file, "1")
	s := start(t, newBackend(), quick, Root{Path: file})
	if st := s.inMode(t, file, Watching); st.Watched != 1 {
		t.Errorf("%d directories watched for a file", st.Watched)
	}
	save := func(content string) {
		write(t, dir+"/notes.txt.tmp", content)
		must(t, os.Rename(dir+"/notes.txt.tmp", file))
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"in place", func() { write(t, file, "22") }},
		{"atomic save", func() { save("333") }},
		{"second atomic save", func() { save("4444") }},
		{"in place after that", func() { write(t, file, "55555") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.reset()
			write(t, dir+"/other", c.name)
			c.do()
			s.see(t, file, file)
		})
	}
	must(t, os.Remove(file))
	s.inMode(t, file, Gone)
	s.reset()
	write(t, file, "again")
	s.rescanned(t, file, Returned)
	s.inMode(t, file, Watching)
	write(t, file, "changed")
	s.see(t, file, file)
	s.stop()
	if seen := s.seen(file); !slices.Equal(seen, []string{file}) {
		t.Errorf("reported %q", seen)
	}
}

func TestNestedRoots(t *testing.T) {
	t.Parallel()
	skipUnderWine(t, deafToOldFolders)
	outer := tempDir(t)
	inner := filepath.Join(outer, "a", "inner")
	file := filepath.Join(inner, "f")
	write(t, file, "1")
	s := start(t, newBackend(), quick, Root{Path: outer}, Root{Path: inner}, Root{Path: file}, Root{Path: inner})
	write(t, file, "22")
	for _, root := range []string{outer, inner, file} {
		s.see(t, root, file)
	}
	write(t, inner+"/new/g", "1")
	s.see(t, outer, filepath.Join(inner, "new", "g"))
	s.see(t, inner, filepath.Join(inner, "new", "g"))

	s.roots <- []Root{{Path: outer}}
	s.rescanned(t, outer, Rules)
	s.reset()
	write(t, inner+"/new/g", "22")
	write(t, file, "333")
	s.see(t, outer, filepath.Join(inner, "new", "g"), file)
	if s.seen(inner) != nil || s.seen(file) != nil {
		t.Error("a dropped root is still reported")
	}
	s.stop()
}

func TestRootSet(t *testing.T) {
	t.Parallel()
	skipUnderWine(t, deafToOldFolders)
	dir := tempDir(t)
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	for _, root := range []string{a, b, c} {
		write(t, root+"/x/f", "1")
		write(t, root+"/y/f", "1")
	}
	skipX := func(path string, _ bool) bool { return filepath.Base(path) == "x" }
	skipY := func(path string, _ bool) bool { return filepath.Base(path) == "y" }
	s := start(t, newBackend(), quick, Root{a, skipX}, Root{b, nil})

	s.roots <- []Root{{a, skipY}, {c, nil}}
	s.rescanned(t, c, Started)
	s.rescanned(t, a, Rules)
	if r, _ := s.told(b); r != nil {
		t.Errorf("rescan of a dropped root: %v", r)
	}
	s.reset()
	write(t, b+"/x/f", "22")
	write(t, a+"/y/f", "22")
	write(t, a+"/x/f", "22")
	write(t, c+"/x/f", "22")
	s.see(t, a, filepath.Join(a, "x", "f"))
	s.see(t, c, filepath.Join(c, "x", "f"))
	if got := s.seen(b); got != nil {
		t.Errorf("dropped root reports %q", got)
	}
	if slices.Contains(s.seen(a), filepath.Join(a, "y", "f")) {
		t.Error("what the new rules skip is reported")
	}

	close(s.roots)
	write(t, a+"/x/g", "1")
	s.see(t, a, filepath.Join(a, "x", "g"))
	s.stop()
}

func TestRelativeRoot(t *testing.T) {
	roots := make(chan []Root, 1)
	roots <- []Root{{Path: "relative"}}
	if err := Run(t.Context(), roots, newRecorder(), Options{}); err == nil || !strings.Contains(err.Error(), `"relative"`) {
		t.Errorf("Run = %v", err)
	}
}

func TestGoneAndBack(t *testing.T) {
	move := func(t *testing.T, root, aside string) { must(t, os.Rename(root, aside)) }
	for _, c := range []struct {
		name   string
		leave  func(t *testing.T, root, aside string)
		back   func(t *testing.T, root, aside string)
		silent bool // leaving shows no deletions at all
	}{
		{"moved away and back", move, func(t *testing.T, root, aside string) { must(t, os.Rename(aside, root)) }, true},
		{"moved away and made anew", move, func(t *testing.T, root, _ string) { write(t, root+"/d/f", "1") }, true},
		{"deleted and made anew", func(t *testing.T, root, _ string) { skipUnderWine(t, keepsDeletedFolder); remove(t, root) },
			func(t *testing.T, root, _ string) { write(t, root+"/d/f", "1") }, false},
		{"folder above moved away and back",
			func(t *testing.T, root, aside string) { must(t, os.Rename(filepath.Dir(root), aside)) },
			func(t *testing.T, root, aside string) { must(t, os.Rename(aside, filepath.Dir(root))) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			root, aside := filepath.Join(dir, "above", "root"), filepath.Join(dir, "aside")
			write(t, root+"/d/f", "1")
			s := start(t, newBackend(), quick, Root{Path: root})
			before := time.Now()
			c.leave(t, root, aside)
			st := s.inMode(t, root, Gone)
			if st.Why == "" || st.Since.Before(before) {
				t.Errorf("state %+v", st)
			}
			if got := s.seen(root); c.silent && got != nil {
				t.Errorf("deletions reported: %q", got)
			}
			s.reset()
			c.back(t, root, aside)
			s.rescanned(t, root, Returned)
			s.inMode(t, root, Watching)
			s.reset()
			skipUnderWine(t, deafToOldFolders)
			write(t, root+"/d/f", "22")
			s.see(t, root, filepath.Join(root, "d", "f"))
			s.stop()
		})
	}
}

func TestReplacedRoot(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	root := filepath.Join(dir, "root")
	write(t, root+"/d/f", "1")
	write(t, dir+"/other/d/f", "1")
	s := start(t, newBackend(), quick, Root{Path: root})
	must(t, os.Rename(root, root+" old"))
	must(t, os.Rename(dir+"/other", root))
	s.rescanned(t, root, Replaced)
	s.reset()
	skipUnderWine(t, deafToOldFolders)
	write(t, root+"/d/f", "22")
	s.see(t, root, filepath.Join(root, "d", "f"))
	s.reset()
	write(t, dir+"/root old/d/f", "333") // it is no business of ours any more
	write(t, root+"/d/g", "1")
	s.see(t, root, filepath.Join(root, "d", "g"))
	s.stop()
	if slices.Contains(s.seen(root), filepath.Join(root, "d", "f")) {
		t.Error("the former root is still being watched")
	}
}

func TestMissingFromTheStart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	root := filepath.Join(dir, "later", "root")
	s := launch(t, newRecorder(), newBackend(), quick, Root{Path: root})
	s.inMode(t, root, Gone)
	write(t, root+"/f", "1")
	s.rescanned(t, root, Returned)
	write(t, root+"/g", "1")
	s.see(t, root, filepath.Join(root, "g"))
	s.stop()
}

func TestNothingLeftBehind(t *testing.T) {
	// Not parallel, so that no other session is running.
	dir := tempDir(t)
	write(t, dir+"/a/f", "1")
	write(t, dir+"/b/f", "1")
	s := start(t, newBackend(), quick, Root{Path: filepath.Join(dir, "a")}, Root{Path: filepath.Join(dir, "b")})
	s.roots <- []Root{{Path: filepath.Join(dir, "a")}}
	s.rescanned(t, filepath.Join(dir, "a"), Rules)
	s.stop()
	eventually(t, func() bool { return len(goroutines()) == 0 }, // they may be about to return
		func() string { return "left behind:\n" + strings.Join(goroutines(), "\n\n") })
}
