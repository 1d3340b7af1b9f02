//go:build unix

package scan_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backstay/agent/catalog"
	"backstay/agent/exclude"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
)

// A scanned is everything a scan told.
type scanned struct {
	found    map[string]facts.Facts
	missing  map[string]bool // value: excluded
	problems map[string]*facts.Problem
	result   scan.Result
	err      error
}

func collect(o scan.Options, run func(scan.Options) (scan.Result, error)) scanned {
	s := scanned{map[string]facts.Facts{}, map[string]bool{}, map[string]*facts.Problem{}, scan.Result{}, nil}
	o.Found = func(es []scan.Entry) error {
		for _, e := range es {
			s.found[e.Path] = e.Facts
		}
		return nil
	}
	o.Missing = func(ms []scan.Missing) error {
		for _, m := range ms {
			s.missing[m.Path] = m.Excluded
		}
		return nil
	}
	o.Problem = func(p *facts.Problem) error {
		s.problems[p.Path] = p
		return nil
	}
	s.result, s.err = run(o)
	return s
}

func scanRoot(t *testing.T, root string, o scan.Options) scanned {
	t.Helper()
	checkDescriptors(t)
	return collect(o, func(o scan.Options) (scan.Result, error) { return scan.Root(t.Context(), root, o) })
}

func scanPaths(t *testing.T, root string, o scan.Options, paths ...string) scanned {
	t.Helper()
	checkDescriptors(t)
	return collect(o, func(o scan.Options) (scan.Result, error) { return scan.Paths(t.Context(), root, paths, o) })
}

// checkDescriptors compares the open descriptors at the end of the test with now.
func checkDescriptors(t *testing.T) {
	open := func() int {
		fds, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := open()
	t.Cleanup(func() {
		if n := open(); n > before {
			t.Errorf("%d descriptors left open", n-before)
		}
	})
}

func (s scanned) paths() []string { return slices.Sorted(maps.Keys(s.found)) }

func below(root string, names ...string) []string {
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = filepath.Join(root, n)
	}
	slices.Sort(paths)
	return paths
}

func check(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%q, want\n%q", what, got, want)
	}
}

// tree creates files (and with a trailing slash, folders) below a new root.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o700))
	for _, n := range names {
		write(t, root, n)
	}
	return root
}

func write(t *testing.T, root, name string) {
	t.Helper()
	path := filepath.Join(root, name)
	if strings.HasSuffix(name, "/") {
		must(t, os.MkdirAll(path, 0o700))
		return
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(name), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a catalog that holds what a scan of root finds.
func memory(t *testing.T, root string, o scan.Options) scan.Options {
	t.Helper()
	c, err := catalog.Open(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	d, err := c.Destination(t.Context(), "test")
	must(t, err)
	first := o
	first.Found = func(es []scan.Entry) error {
		var vs []catalog.Version
		for _, e := range es {
			vs = append(vs, catalog.Version{Path: e.Path, Facts: e.Facts})
		}
		return d.Acknowledge(t.Context(), vs)
	}
	r, err := scan.Root(t.Context(), root, first)
	must(t, err)
	o.Known = func(ctx context.Context, path string) (scan.Known, error) { return d.Known(ctx, path) }
	o.Volume = r.Volume
	return o
}

func TestRootFindsEveryType(t *testing.T) {
	odd := []string{"new\nline", strings.Repeat("n", 255), "dir/a", "dir/sub/b", "...", " "}
	if name := "not UTF-8 \xff\xfe"; os.WriteFile(filepath.Join(t.TempDir(), name), nil, 0o600) == nil { // else the system has no such names
		odd = append(odd, name)
	}
	root := tree(t, append(odd, "empty/")...)
	must(t, os.Symlink("..", filepath.Join(root, "dir/up")))
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	must(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	short, err := os.MkdirTemp("", "s") // the name of a socket must be short
	must(t, err)
	defer os.RemoveAll(short)
	l, err := net.Listen("unix", filepath.Join(short, "socket"))
	must(t, err)
	defer l.Close()
	must(t, os.Rename(filepath.Join(short, "socket"), filepath.Join(root, "socket")))

	s := scanRoot(t, root, scan.Options{})
	must(t, s.err)
	want := append(odd, "", "dir", "dir/sub", "empty", "dir/up", "loop", "dangling", "fifo", "socket")
	check(t, "found", s.paths(), below(root, want...))
	types := [facts.Types]int{facts.Regular: len(odd), facts.Directory: 4, facts.Symlink: 3, facts.FIFO: 1, facts.Socket: 1}
	if s.result.ByType != types || len(s.problems) != 0 {
		t.Errorf("types %v, want %v; problems %v", s.result.ByType, types, s.problems)
	}
	f := s.found[filepath.Join(root, "dir/a")]
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(root, "dir/a"), &st))
	if f != facts.FromStat(&st) || f.Type != facts.Regular || f.Size != 5 || f.Mode != 0o600 || f.Inode != st.Ino {
		t.Errorf("facts %+v of %+v", f, st)
	}

	s = scanRoot(t, root, scan.Options{FilesOnly: true})
	must(t, s.err)
	check(t, "files found", s.paths(), below(root, odd...))
	if s.result.ByType != types {
		t.Errorf("types with FilesOnly %v, want %v", s.result.ByType, types)
	}
}

func TestDeepPath(t *testing.T) {
	root := tree(t)
	name := strings.Repeat("d", 250)
	fd, err := unix.Open(root, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	path := root
	for range 40 {
		must(t, unix.Mkdirat(fd, name, 0o700))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd, path = next, path+"/"+name
	}
	file, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	must(t, err)
	must(t, unix.Close(file))
	must(t, unix.Close(fd))

	want := path + "/file"
	s := scanRoot(t, root, scan.Options{FilesOnly: true})
	must(t, s.err)
	check(t, "found", s.paths(), []string{want})
	s = scanPaths(t, root, scan.Options{FilesOnly: true}, want)
	must(t, s.err)
	check(t, "found by name", s.paths(), []string{want})
}

// TestAgainstWalkDir compares with the standard library on a random tree.
func TestAgainstWalkDir(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	root := tree(t)
	dirs := []string{""}
	for i := range 2000 {
		name := filepath.Join(dirs[rnd.IntN(len(dirs))], fmt.Sprint(i))
		if rnd.IntN(5) == 0 {
			dirs = append(dirs, name)
			name += "/"
		}
		write(t, root, name)
	}
	var want []string
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		want = append(want, path)
		return err
	}))
	slices.Sort(want)
	for _, workers := range []int{0, 1} {
		s := scanRoot(t, root, scan.Options{Workers: workers})
		must(t, s.err)
		check(t, fmt.Sprint("found, seed ", seed), s.paths(), want)
	}
}

func TestOnlyDifferencesAreFound(t *testing.T) {
	root := tree(t, "same", "changed", "gone", "dir/gone", "dir/same", "lost/a", "lost/b", "becomes dir", "becomes link", "becomes file/x")
	o := memory(t, root, scan.Options{})
	s := scanRoot(t, root, o)
	must(t, s.err)
	if len(s.found)+len(s.missing) > 0 {
		t.Errorf("nothing changed, but found %q, missing %v", s.paths(), s.missing)
	}

	must(t, os.WriteFile(filepath.Join(root, "changed"), []byte("other"), 0o600))
	for _, n := range []string{"gone", "dir/gone", "lost", "becomes dir", "becomes link", "becomes file"} {
		must(t, os.RemoveAll(filepath.Join(root, n)))
	}
	write(t, root, "new")
	write(t, root, "becomes dir/x")
	write(t, root, "becomes file")
	must(t, os.Symlink("dir/same", filepath.Join(root, "becomes link")))
	s = scanRoot(t, root, o)
	must(t, s.err)
	check(t, "found", s.paths(), below(root, "", "changed", "dir", "new", "becomes dir", "becomes dir/x", "becomes file", "becomes link"))
	check(t, "missing", slices.Sorted(maps.Keys(s.missing)), below(root, "gone", "dir/gone", "lost", "lost/a", "lost/b", "becomes file/x"))
	if s.result.Found != len(s.found) || s.result.Missing != len(s.missing) {
		t.Errorf("counted %+v", s.result)
	}
}

func TestFilesOnlyMissesWhatIsNoFile(t *testing.T) {
	root := tree(t, "a", "b", "c/d")
	o := memory(t, root, scan.Options{FilesOnly: true})
	for _, n := range []string{"a", "b", "c"} {
		must(t, os.RemoveAll(filepath.Join(root, n)))
	}
	must(t, os.Symlink("c", filepath.Join(root, "a")))
	write(t, root, "b/")
	write(t, root, "elsewhere/d")
	must(t, os.Symlink("elsewhere", filepath.Join(root, "c"))) // c/d can be opened through it
	s := scanRoot(t, root, o)
	must(t, s.err)
	check(t, "found", s.paths(), below(root, "elsewhere/d"))
	check(t, "missing", slices.Sorted(maps.Keys(s.missing)), below(root, "a", "b", "c/d"))
}

func TestExclude(t *testing.T) {
	root := tree(t, "a.txt", "a.tmp", "build/x", "sub/build/y", "sub/keep.tmp")
	o := memory(t, root, scan.Options{FilesOnly: true})
	rules, err := exclude.Compile([]string{"*.tmp", "!keep.tmp", "build/"})
	must(t, err)
	o.Exclude = rules.Entry()
	s := scanRoot(t, root, o)
	must(t, s.err)
	check(t, "found", s.paths(), nil)
	want := map[string]bool{}
	for _, p := range below(root, "a.tmp", "build/x", "sub/build/y") {
		want[p] = true
	}
	if !maps.Equal(s.missing, want) || s.result.Excluded != 3 {
		t.Errorf("missing %v, want %v; %d excluded", s.missing, want, s.result.Excluded)
	}
	o.Known = nil
	s = scanRoot(t, root, o)
	must(t, s.err)
	check(t, "found with rules", s.paths(), below(root, "a.txt", "sub/keep.tmp"))
	s = scanPaths(t, root, o, below(root, "a.txt", "build/x", "sub/build", "a.tmp", "sub")...)
	must(t, s.err)
	check(t, "found with rules by name", s.paths(), below(root, "a.txt", "sub/keep.tmp"))
}

func TestRootProblems(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, root string, o *scan.Options)
		want error
	}{
		{"missing", func(t *testing.T, root string, _ *scan.Options) { must(t, os.RemoveAll(root)) }, scan.ErrRootMissing},
		{"folder above is a file", func(t *testing.T, root string, _ *scan.Options) {
			must(t, os.RemoveAll(filepath.Dir(root)))
			must(t, os.WriteFile(filepath.Dir(root), nil, 0o600))
		}, scan.ErrRootMissing},
		{"replaced by a file", func(t *testing.T, root string, _ *scan.Options) {
			must(t, os.RemoveAll(root))
			must(t, os.WriteFile(root, nil, 0o600))
		}, scan.ErrRootMissing},
		{"empty", func(t *testing.T, root string, _ *scan.Options) {
			must(t, os.RemoveAll(root))
			must(t, os.Mkdir(root, 0o700))
		}, scan.ErrRootEmpty},
		{"another disk without the files", func(t *testing.T, root string, o *scan.Options) {
			must(t, os.RemoveAll(root))
			must(t, os.Mkdir(root, 0o700))
			write(t, root, "a")
			o.Volume++
		}, scan.ErrRootMoved},
		{"another number, same files", func(t *testing.T, root string, o *scan.Options) {
			must(t, os.Remove(filepath.Join(root, "a")))
			o.Volume++
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := tree(t, "a", "b", "c/d")
			o := memory(t, root, scan.Options{FilesOnly: true})
			if o.Volume == 0 {
				t.Error("no identity of the file system")
			}
			test.do(t, root, &o)
			s := scanRoot(t, root, o)
			if !errors.Is(s.err, test.want) {
				t.Fatalf("Root: %v, want %v", s.err, test.want)
			}
			if test.want == nil {
				check(t, "missing", slices.Sorted(maps.Keys(s.missing)), below(root, "a"))
				return
			}
			p, ok := errors.AsType[*facts.Problem](s.err)
			if !ok || p.Path != root || p.Reason == "" || p.Fix == "" {
				t.Errorf("problem %#v", p)
			}
			if len(s.missing) > 0 {
				t.Errorf("reported as missing: %v", s.missing)
			}
		})
	}
}

func TestRootIsAFile(t *testing.T) {
	root := tree(t, "file")
	file, link := filepath.Join(root, "file"), filepath.Join(root, "link")
	must(t, os.Symlink("file", link))
	for _, root := range []string{file, link} {
		o := memory(t, root, scan.Options{FilesOnly: true})
		s := scanRoot(t, root, o)
		if s.err != nil || len(s.found) > 0 {
			t.Errorf("unchanged: found %q, %v", s.paths(), s.err)
		}
		must(t, os.WriteFile(file, []byte(root), 0o600))
		s = scanRoot(t, root, o)
		must(t, s.err)
		check(t, "found", s.paths(), []string{root})
		if s.found[root].Type != facts.Regular {
			t.Errorf("facts %+v", s.found[root])
		}
	}
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	s := scanRoot(t, filepath.Join(root, "fifo"), scan.Options{FilesOnly: true})
	if s.err != nil || len(s.found) > 0 || s.result.ByType[facts.FIFO] != 1 {
		t.Errorf("a FIFO as root: %q, %v", s.paths(), s.err)
	}
}

func TestPaths(t *testing.T) {
	root := tree(t, "a", "b", "dir/x", "dir/y", "dir/sub/z", "old/p", "old/q/r", "other")
	o := memory(t, root, scan.Options{FilesOnly: true})
	write(t, root, "dir/new")
	must(t, os.WriteFile(filepath.Join(root, "a"), []byte("changed"), 0o600))
	must(t, os.WriteFile(filepath.Join(root, "other"), []byte("changed"), 0o600))
	must(t, os.Remove(filepath.Join(root, "dir/y")))
	must(t, os.RemoveAll(filepath.Join(root, "old")))

	s := scanPaths(t, root, o, below(root, "a", "b", "dir", "dir/sub/z", "old", "old/p", "never", "a/below a file")...)
	must(t, s.err)
	check(t, "found", s.paths(), below(root, "a", "dir/new"))
	check(t, "missing", slices.Sorted(maps.Keys(s.missing)), below(root, "dir/y", "old/p", "old/q/r"))
	if n := s.result.ByType[facts.Regular]; n != 5 {
		t.Errorf("%d files seen, want 5", n)
	}

	s = scanPaths(t, root, o, root, filepath.Join(root, "a"))
	must(t, s.err)
	check(t, "found in the whole root", s.paths(), below(root, "a", "dir/new", "other"))

	for _, bad := range []string{root + "x", root + "/../x", root + "/a//b", "a", root + "/"} {
		if s := scanPaths(t, root, o, bad); s.err == nil {
			t.Errorf("Paths(%q) was accepted", bad)
		}
	}
	o.Volume++
	if s := scanPaths(t, root, o, filepath.Join(root, "a")); !errors.Is(s.err, scan.ErrRootMoved) {
		t.Errorf("another file system: %v", s.err)
	}
	o.Volume--
	must(t, os.RemoveAll(root))
	s = scanPaths(t, root, o, filepath.Join(root, "a"))
	if !errors.Is(s.err, scan.ErrRootMissing) || len(s.missing) > 0 {
		t.Errorf("no root: %v, missing %v", s.err, s.missing)
	}
}

func TestPathsThroughASymlink(t *testing.T) {
	root := tree(t, "real/secret", "dir/secret")
	o := memory(t, root, scan.Options{FilesOnly: true})
	must(t, os.RemoveAll(filepath.Join(root, "dir")))
	must(t, os.Symlink("real", filepath.Join(root, "dir")))
	path := filepath.Join(root, "dir/secret")
	s := scanPaths(t, root, o, path)
	must(t, s.err)
	if len(s.found) > 0 || len(s.missing) != 1 {
		t.Errorf("found %q, missing %v", s.paths(), s.missing)
	}
}

// TestChangesDuringTheScan makes them where the scan asks for its rules.
func TestChangesDuringTheScan(t *testing.T) {
	root := tree(t, "file", "dir/x", "becomes file/x", "becomes link/x")
	path := func(rel ...string) string { return filepath.Join(root, filepath.Join(rel...)) }
	o := scan.Options{Exclude: func(rel []string, _ bool) bool {
		switch rel[0] {
		case "file", "dir":
			must(t, os.RemoveAll(path(rel[0])))
		case "becomes file":
			must(t, os.RemoveAll(path(rel[0])))
			write(t, root, rel[0])
		case "becomes link":
			must(t, os.RemoveAll(path(rel[0])))
			must(t, os.Symlink("/", path(rel[0])))
		}
		return false
	}}
	s := scanRoot(t, root, o)
	must(t, s.err)
	check(t, "found", s.paths(), below(root, "", "becomes file", "becomes link"))
	if len(s.problems) > 0 {
		t.Errorf("problems: %v", s.problems)
	}
}

// TestListingMissedAFile: a file that the walk did not meet but that is there is
// not missing.
func TestListingMissedAFile(t *testing.T) {
	root := tree(t, "a", "b/c")
	o := memory(t, root, scan.Options{FilesOnly: true})
	aside := filepath.Join(t.TempDir(), "c")
	must(t, os.Rename(filepath.Join(root, "b/c"), aside))
	known := o.Known
	o.Known = func(ctx context.Context, path string) (scan.Known, error) {
		k, err := known(ctx, path)
		return &lateKnown{k, func() { must(t, os.Rename(aside, filepath.Join(root, "b/c"))) }}, err
	}
	s := scanRoot(t, root, o)
	must(t, s.err)
	if len(s.missing) > 0 {
		t.Errorf("missing: %v", s.missing)
	}
}

// lateKnown does something when the walk is over.
type lateKnown struct {
	scan.Known
	do func()
}

func (k *lateKnown) Len() int {
	if k.do != nil {
		k.do()
		k.do = nil
	}
	return k.Known.Len()
}

func TestScanEndsEarly(t *testing.T) {
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("%d/%d", i/50, i))
	}
	root := tree(t, names...)
	checkDescriptors(t)
	boom := errors.New("boom")
	tests := []struct {
		name string
		o    func(cancel func()) scan.Options
		want error
	}{
		{"callback fails", func(func()) scan.Options {
			return scan.Options{Found: func([]scan.Entry) error { return boom }}
		}, boom},
		{"context ends", func(cancel func()) scan.Options {
			return scan.Options{Found: func([]scan.Entry) error { cancel(); return nil }}
		}, context.Canceled},
		{"catalog fails", func(func()) scan.Options {
			return scan.Options{Known: func(context.Context, string) (scan.Known, error) { return nil, boom }}
		}, boom},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, err := scan.Root(ctx, root, test.o(cancel)); !errors.Is(err, test.want) {
				t.Errorf("Root: %v, want %v", err, test.want)
			}
			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			if _, err := scan.Paths(ctx, root, below(root, "1", "2", "3", "4", "5", "6", "7", "8", "9"), test.o(cancel)); !errors.Is(err, test.want) {
				t.Errorf("Paths: %v, want %v", err, test.want)
			}
		})
	}
}

// TestScanUnderChange walks a tree that others change, for the race detector and
// for problems that are none.
func TestScanUnderChange(t *testing.T) {
	root := tree(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		rnd := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-stop:
				return
			default:
			}
			path := filepath.Join(root, fmt.Sprint(rnd.IntN(5)), fmt.Sprint(rnd.IntN(5)))
			if rnd.IntN(3) == 0 {
				os.RemoveAll(filepath.Dir(path))
			} else if os.MkdirAll(filepath.Dir(path), 0o700) == nil {
				os.WriteFile(path, nil, 0o600)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for range 100 {
		s := scanRoot(t, root, scan.Options{})
		if s.err != nil || len(s.problems) > 0 {
			t.Fatal(s.err, s.problems)
		}
	}
}
