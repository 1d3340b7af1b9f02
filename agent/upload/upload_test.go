package upload_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/agent/catalog"
	"backstay/agent/metadata/treetest"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	"backstay/agent/upload"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// rig is a device, its catalog, and a server.
type rig struct {
	t      *testing.T
	root   string
	id     *vault.Identity
	keys   *vault.Keyring
	dest   *catalog.Destination
	server *fakeServer
	last   vault.CommitHash

	closeCatalog func()
}

func newRig(t *testing.T) *rig {
	id, err := vault.NewIdentity(vault.RoleDevice, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	vid := vault.NewID()
	r := &rig{t: t, root: filepath.Join(t.TempDir(), "root"), id: id, keys: vault.NewKeyring(vid, vault.NewKey())}
	if err := os.Mkdir(r.root, 0o755); err != nil {
		t.Fatal(err)
	}
	r.server = newFakeServer(t, vid, id.Public().SignKey())
	r.openCatalog(t.TempDir())
	return r
}

func (r *rig) openCatalog(dir string) {
	r.t.Helper()
	c, err := catalog.Open(r.t.Context(), dir, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.closeCatalog = sync.OnceFunc(func() { c.Close() })
	r.t.Cleanup(r.closeCatalog)
	if r.dest, err = c.Destination(r.t.Context(), "v4:test"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) write(name string, content []byte) string {
	r.t.Helper()
	path := filepath.Join(r.root, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		r.t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// open opens an uploader as the agent does.
func (r *rig) open(compare bool) (*upload.Uploader, upload.Finding, error) {
	return upload.Open(r.t.Context(), upload.Options{
		Keys: r.keys, Identity: r.id, Session: r.server, Catalog: r.dest, Pin: r.server.pin(),
		Retention: vault.Retention{Hours: 48, HourlyDays: 14, DailyDays: 90, WeeklyWeeks: 104},
		Roots:     func() []string { return []string{r.root} }, LastSent: r.last, Compare: compare,
	})
}

// upload uploads items over one session and returns what became of them.
func (r *rig) upload(items ...upload.Item) ([]upload.Result, error) {
	r.t.Helper()
	u, _, err := r.open(false)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.run(u, items)
}

func (r *rig) run(u *upload.Uploader, items []upload.Item) ([]upload.Result, error) {
	var mu sync.Mutex
	var results []upload.Result
	err := u.Run(r.t.Context(), func(context.Context) (upload.Item, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(items) == 0 {
			return upload.Item{}, false
		}
		it := items[0]
		items = items[1:]
		return it, true
	}, func(res upload.Result) {
		mu.Lock()
		defer mu.Unlock()
		results = append(results, res)
	})
	r.last = u.LastSent()
	return results, err
}

func (r *rig) put(path string) upload.Item {
	return upload.Item{Root: r.root, Path: path, Op: vault.OpPut}
}

// tree returns a put for everything below the root.
func (r *rig) tree() (items []upload.Item) {
	_, err := scan.Root(r.t.Context(), r.root, scan.Options{
		Found: func(entries []scan.Entry) error {
			for _, e := range entries {
				items = append(items, r.put(e.Path))
			}
			return nil
		},
		Problem: func(p *facts.Problem) error { return p.Err },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return items
}

func (r *rig) must(results []upload.Result, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, res := range results {
		if res.Outcome != upload.Safe {
			r.t.Fatalf("%q: outcome %d, %v", res.Path, res.Outcome, res.Problem)
		}
	}
}

// record opens the newest record of a path on the server.
func (r *rig) record(path string) vault.Record {
	r.t.Helper()
	row, ok := r.server.state[r.keys.Path(r.id.ID(), []byte(path))]
	if !ok {
		r.t.Fatalf("%s is not on the server", path)
	}
	plain, h, err := r.keys.Open(nil, r.server.objects[row.Record])
	if err != nil {
		r.t.Fatal(err)
	}
	rec, err := vault.DecodeRecord(plain, h.Refs)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// content reads the newest version of a path back from the server.
func (r *rig) content(path string) []byte {
	r.t.Helper()
	var out sink
	if err := r.keys.ReadContent(r.t.Context(), &out, r.record(path).Content, r.server.Get); err != nil {
		r.t.Fatal(err)
	}
	return out
}

type sink []byte

func (s *sink) Write(p []byte) (int, error) { *s = append(*s, p...); return len(p), nil }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestHostileTree(t *testing.T) {
	r := newRig(t)
	treetest.Hostile(t, r.root)
	r.write("large", random(9<<20))
	items := r.tree()
	r.must(r.upload(items...))
	if got := len(r.server.state); got != len(items) {
		t.Errorf("%d paths on the server, want %d", got, len(items))
	}
	if string(r.content(filepath.Join(r.root, "large"))) != string(mustRead(t, filepath.Join(r.root, "large"))) {
		t.Error("large came back different")
	}
}

func mustRead(t *testing.T, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestChangesAndDeletions(t *testing.T) {
	r := newRig(t)
	a, b := r.write("a", []byte("one")), r.write("b", random(100_000))
	r.must(r.upload(r.put(a), r.put(b)))
	r.write("a", []byte("two"))
	r.must(r.upload(r.put(a), upload.Item{Root: r.root, Path: b, Op: vault.OpDelete}))
	if got := string(r.content(a)); got != "two" {
		t.Errorf("a is %q", got)
	}
	if len(r.server.state) != 1 {
		t.Errorf("%d paths in the state, want a alone", len(r.server.state))
	}
	// Out of scope stays in the state, and says what it was.
	r.must(r.upload(upload.Item{Root: r.root, Path: a, Op: vault.OpOutOfScope}))
	if row := r.server.state[r.keys.Path(r.id.ID(), []byte(a))]; row.Op != vault.OpOutOfScope {
		t.Errorf("a is %v", row.Op)
	}
	// And it can come back, and be deleted while it is out of scope.
	r.must(r.upload(r.put(a)))
	r.must(r.upload(upload.Item{Root: r.root, Path: a, Op: vault.OpOutOfScope}))
	r.must(r.upload(upload.Item{Root: r.root, Path: a, Op: vault.OpDelete}))
	if len(r.server.state) != 0 {
		t.Errorf("%d paths in the state, want none", len(r.server.state))
	}
	// What the server never had needs no record.
	n := len(r.server.commits)
	r.must(r.upload(upload.Item{Root: r.root, Path: filepath.Join(r.root, "never"), Op: vault.OpDelete}))
	if len(r.server.commits) != n {
		t.Error("a commit about a path that was never there")
	}
}

// Chunks of several sizes are gathered while batches before them are on their way:
// each arrives whole, whatever it shares a batch with.
func TestManyLargeChunks(t *testing.T) {
	r := newRig(t)
	want := random(48 << 20)
	path := r.write("film", want)
	r.server.fail = func(verb string) (error, bool) {
		if verb == "put" {
			r.server.mu.Unlock() // the others do not wait for this one
			runtime.Gosched()
			r.server.mu.Lock()
		}
		return nil, false
	}
	r.must(r.upload(r.put(path)))
	if !bytes.Equal(r.content(path), want) {
		t.Error("the server has other content")
	}
}

func TestEqualContentIsSentOnce(t *testing.T) {
	r := newRig(t)
	content := random(200_000)
	a := r.write("a", content)
	r.must(r.upload(r.put(a)))
	puts := r.server.puts
	b := r.write("b", content)
	r.must(r.upload(r.put(b)))
	if r.server.puts != puts {
		t.Errorf("%d objects sent for a copy", r.server.puts-puts)
	}
	if string(r.content(b)) != string(content) {
		t.Error("the copy came back different")
	}
	// Also when both go at once.
	content = random(150_000)
	c, d := r.write("c", content), r.write("d", content)
	puts = r.server.puts
	r.must(r.upload(r.put(c), r.put(d)))
	if n := r.server.puts - puts; n > 2 {
		t.Errorf("%d objects sent for two copies", n)
	}
}

// A session may end at any request, before or after the server carried it out. The
// next goes on, and what has arrived is not sent again.
func TestSessionsEnd(t *testing.T) {
	errLost := errors.New("session lost")
	for _, verb := range []string{"put", "commit", "have", "head"} {
		for _, afterwards := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", verb, afterwards), func(t *testing.T) {
				r := newRig(t)
				r.must(r.upload(r.put(r.write("first", random(10_000)))))
				var want []string
				for i := range 12 {
					want = append(want, r.write(fmt.Sprint("f", i), random(200_000)))
				}
				n := 0
				r.server.fail = func(v string) (error, bool) {
					if v != verb {
						return nil, false
					}
					if n++; n%7 == 1 {
						return errLost, afterwards
					}
					return nil, false
				}
				todo := want
				for try := 0; len(todo) > 0; try++ {
					if try > 100 {
						t.Fatal("no progress")
					}
					u, finding, err := r.open(false)
					if errors.Is(err, errLost) {
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if finding == upload.RolledBack {
						t.Fatal("taken for a server that was rolled back")
					}
					var items []upload.Item
					for _, p := range todo {
						items = append(items, r.put(p))
					}
					results, err := r.run(u, items)
					if err != nil && !errors.Is(err, errLost) {
						t.Fatal(err)
					}
					for _, res := range results {
						if res.Outcome == upload.Safe {
							todo = slices.DeleteFunc(slices.Clone(todo), func(p string) bool { return p == res.Path })
						}
					}
				}
				for _, p := range want {
					if string(r.content(p)) != string(mustRead(t, p)) {
						t.Fatalf("%s came back different", p)
					}
				}
				if afterwards && r.server.puts > 2*len(want)+5 {
					t.Errorf("%d objects sent for %d", r.server.puts, len(want))
				}
			})
		}
	}
}

// A session ends although there is always more to do: what it gives back comes again.
func TestSessionEndsWithMuchToDo(t *testing.T) {
	r := newRig(t)
	it := r.put(r.write("f", []byte("goes into its record, so needs no server")))
	errLost := errors.New("session lost")
	r.server.fail = func(verb string) (error, bool) {
		if verb == "commit" {
			return errLost, false
		}
		return nil, false
	}
	u, _, err := r.open(false)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- u.Run(t.Context(), func(context.Context) (upload.Item, bool) { return it, true }, func(upload.Result) {})
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, errLost) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}

// After the catalog was lost everything is captured again, and only what has changed
// since is sent and gets another version.
func TestLostCatalog(t *testing.T) {
	r := newRig(t)
	large, changed, tiny := r.write("large", random(9<<20)), r.write("changed", random(50_000)), r.write("tiny", []byte("tiny"))
	if err := os.Mkdir(filepath.Join(r.root, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	items := r.tree()
	r.must(r.upload(items...))
	if h, err := r.dest.History(t.Context()); err != nil || h.Partial {
		t.Fatalf("%+v, %v", h, err)
	}
	puts, commits := r.server.puts, len(r.server.commits)
	r.openCatalog(t.TempDir())
	r.last = vault.CommitHash{}
	u, finding, err := r.open(false)
	if err != nil || finding != upload.Adopted {
		t.Fatalf("%d, %v", finding, err)
	}
	adopted, err := r.dest.Version(t.Context(), large)
	if err != nil || adopted.State != catalog.Present || adopted.Facts != (facts.Facts{}) {
		t.Fatalf("%+v, %v", adopted, err)
	}
	r.must(r.run(u, items))
	if r.server.puts != puts || len(r.server.commits) != commits {
		t.Errorf("%d objects and %d commits for what is as it was", r.server.puts-puts, len(r.server.commits)-commits)
	}
	v, err := r.dest.Version(t.Context(), large)
	if err != nil || v.Facts.Size != 9<<20 || v.Record != adopted.Record || !v.At.Equal(adopted.At) {
		t.Errorf("%+v, %v; adopted %+v", v, err, adopted)
	}
	r.write("changed", random(50_000))
	r.must(r.upload(r.put(tiny), r.put(changed), r.put(large)))
	last := r.server.commits[len(r.server.commits)-1]
	if len(r.server.commits) != commits+1 || last.commit.Count != 1 || len(r.server.history[r.keys.Path(r.id.ID(), []byte(changed))]) != 2 {
		t.Errorf("%d commits, the last of %d records", len(r.server.commits)-commits, last.commit.Count)
	}
	if h, err := r.dest.History(t.Context()); err != nil || !h.Partial {
		t.Errorf("what was deleted counts as known: %+v, %v", h, err)
	}
}

// What was touched and is as it was gets no other version.
func TestTouched(t *testing.T) {
	for _, tt := range []struct {
		name    string
		touch   func(path string) error
		records int
	}{
		{"nothing", func(string) error { return nil }, 0},
		{"rights changed back and forth", func(path string) error { return errors.Join(os.Chmod(path, 0o700), os.Chmod(path, 0o644)) }, 0},
		{"written again", func(path string) error {
			info, err := os.Stat(path)
			return errors.Join(err, os.WriteFile(path, []byte("equal"), 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, 0},
		{"rights", func(path string) error { return os.Chmod(path, 0o444) }, 1},
		{"time", func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1_700_000_000, 1)) }, 1},
		{"content alone", func(path string) error {
			info, err := os.Stat(path)
			return errors.Join(err, os.WriteFile(path, []byte("other"), 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, 1},
		{"a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			a := r.write("a", []byte("equal"))
			r.must(r.upload(r.put(a)))
			if err := tt.touch(a); err != nil {
				t.Fatal(err)
			}
			r.must(r.upload(r.put(a)))
			// What is known is noted all the same: it is not read again.
			if known, err := r.dest.Known(t.Context(), r.root); err != nil || !known.Match([]byte(a), stat(t, r, a)) {
				t.Errorf("it would be captured again: %v", err)
			}
			if got := len(r.server.history[r.keys.Path(r.id.ID(), []byte(a))]); got != 1+tt.records {
				t.Errorf("%d versions, want %d", got, 1+tt.records)
			}
		})
	}
}

// stat returns the facts of a path as a scan finds them.
func stat(t *testing.T, r *rig, path string) (found facts.Facts) {
	t.Helper()
	_, err := scan.Paths(t.Context(), r.root, []string{path}, scan.Options{Found: func(entries []scan.Entry) error {
		found = entries[0].Facts
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Nothing that the state holds is below a path that is no folder, whether anybody looks
// for it or not.
func TestFolderReplaced(t *testing.T) {
	for _, tt := range []struct {
		name string
		// before is told between the two.
		before []upload.Item
	}{
		{"there was a folder", nil},
		{"the folder was deleted first", []upload.Item{{Path: "d/in", Op: vault.OpDelete}, {Path: "d", Op: vault.OpDelete}}},
		{"the folder was out of scope", []upload.Item{{Path: "d", Op: vault.OpOutOfScope}}},
		{"all of it was out of scope", []upload.Item{{Path: "d/in", Op: vault.OpOutOfScope}, {Path: "d", Op: vault.OpOutOfScope}}},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, catalog lost %v", tt.name, lost), func(t *testing.T) {
				r := newRig(t)
				d := filepath.Join(r.root, "d")
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				in, out, beside := r.write("d/in", []byte("in")), r.write("d/out", []byte("out")), r.write("d beside", []byte("beside"))
				r.must(r.upload(r.put(d), r.put(in), r.put(out), r.put(beside)))
				r.must(r.upload(upload.Item{Path: out, Op: vault.OpOutOfScope}, upload.Item{Path: beside, Op: vault.OpOutOfScope}))
				for _, it := range tt.before {
					it.Path = filepath.Join(r.root, it.Path)
					r.must(r.upload(it))
				}
				if lost {
					r.openCatalog(t.TempDir())
					r.last = vault.CommitHash{}
				}
				if err := os.RemoveAll(d); err != nil {
					t.Fatal(err)
				}
				r.write("d", []byte("a file now"))
				r.must(r.upload(r.put(d)))
				if got := string(r.content(d)); got != "a file now" || len(r.server.state) != 2 {
					t.Errorf("%q and %d others, want only the one beside", got, len(r.server.state)-1)
				}
				// No moment has both.
				for _, c := range r.server.commits {
					row, there := c.state[r.keys.Path(r.id.ID(), []byte(d))]
					for _, below := range []string{in, out} {
						if _, ok := c.state[r.keys.Path(r.id.ID(), []byte(below))]; ok && there && row.Record == r.server.state[row.Path].Record {
							t.Errorf("commit %d has the file and %s", c.seq, below)
						}
					}
				}
				// And the catalog agrees.
				if _, finding, err := r.open(true); err != nil || finding != upload.Adopted {
					t.Errorf("%d, %v", finding, err)
				}
			})
		}
	}
}

// A machine with a wrong clock is backed up; its versions have the server's times, and
// their files their own.
func TestClocksApart(t *testing.T) {
	for _, ahead := range []time.Duration{-50 * 365 * 24 * time.Hour, 50 * 365 * 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			r := newRig(t)
			r.server.clock = time.Now().Add(ahead)
			a := r.write("a", []byte("one"))
			for _, content := range []string{"one", "two"} {
				r.write("a", []byte(content))
				r.must(r.upload(r.put(a)))
			}
			v, err := r.dest.Version(t.Context(), a)
			if err != nil || !v.At.Equal(r.server.clock) {
				t.Errorf("acknowledged at %v, %v; the server says %v", v.At, err, r.server.clock)
			}
			info, err := os.Stat(a)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.record(a).ModTime; !got.Equal(info.ModTime()) {
				t.Errorf("changed %v, the record says %v", info.ModTime(), got)
			}
		})
	}
}

func TestServerRolledBack(t *testing.T) {
	r := newRig(t)
	a := r.write("a", []byte("one"))
	r.must(r.upload(r.put(a)))
	r.write("a", []byte("two"))
	b := r.write("b", []byte("b"))
	r.must(r.upload(r.put(a)))
	r.must(r.upload(r.put(b)))
	r.server.rollBack(1)
	u, finding, err := r.open(false)
	if err != nil || finding != upload.RolledBack {
		t.Fatalf("%d, %v", finding, err)
	}
	if _, err := r.dest.Version(t.Context(), b); !errors.Is(err, catalog.ErrUnknown) {
		t.Errorf("b, which the server lost, still counts as safe: %v", err)
	}
	results, err := r.run(u, []upload.Item{r.put(a), r.put(b)})
	r.must(results, err)
	if got := string(r.content(a)); got != "two" {
		t.Errorf("a is %q", got)
	}
	last := r.server.commits[len(r.server.commits)-1]
	if last.seq != 4 || last.commit.After == nil || last.commit.After.Seq != 1 {
		t.Errorf("commit %d after %+v, want 4 after 1", last.seq, last.commit.After)
	}
	// From here on it is an ordinary history.
	r.write("b", []byte("bb"))
	r.must(r.upload(r.put(b)))
	if _, finding, err := r.open(false); err != nil || finding != upload.Agree {
		t.Errorf("%d, %v", finding, err)
	}
	// Also when it lost everything.
	r.server.rollBack(0)
	u, finding, err = r.open(false)
	if err != nil || finding != upload.RolledBack {
		t.Fatalf("%d, %v", finding, err)
	}
	results, err = r.run(u, []upload.Item{r.put(a), r.put(b)})
	r.must(results, err)
}

// What was deleted before the server lost the deletion has to be deleted again.
func TestServerLostADeletion(t *testing.T) {
	r := newRig(t)
	a, b := r.write("a", []byte("one")), r.write("b", []byte("b"))
	r.must(r.upload(r.put(a), r.put(b)))
	r.must(r.upload(upload.Item{Root: r.root, Path: a, Op: vault.OpDelete}))
	r.server.rollBack(len(r.server.commits) - 1)
	u, finding, err := r.open(false)
	if err != nil || finding != upload.RolledBack {
		t.Fatalf("%d, %v", finding, err)
	}
	if v, err := r.dest.Version(t.Context(), a); err != nil || v.State != catalog.Present {
		t.Fatalf("%+v, %v", v, err)
	}
	results, err := r.run(u, []upload.Item{{Root: r.root, Path: a, Op: vault.OpDelete}})
	r.must(results, err)
	if len(r.server.state) != 1 {
		t.Errorf("%d paths in the state, want b alone", len(r.server.state))
	}
}

func TestOwnRollbackIsAdopted(t *testing.T) {
	r := newRig(t)
	old := t.TempDir()
	r.openCatalog(old)
	a := r.write("a", []byte("one"))
	r.must(r.upload(r.put(a)))
	r.closeCatalog()
	image := t.TempDir()
	if err := os.CopyFS(image, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	r.openCatalog(old)
	r.write("a", []byte("two"))
	r.must(r.upload(r.put(a)))
	// The machine comes back as it was before.
	r.openCatalog(image)
	r.last = vault.CommitHash{}
	u, finding, err := r.open(false)
	if err != nil || finding != upload.Adopted {
		t.Fatalf("%d, %v", finding, err)
	}
	r.write("a", []byte("three"))
	results, err := r.run(u, []upload.Item{r.put(a)})
	r.must(results, err)
}

func TestTwoCopies(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	r.openCatalog(dir)
	a := r.write("a", []byte("one"))
	r.must(r.upload(r.put(a)))
	u, _, err := r.open(false)
	if err != nil {
		t.Fatal(err)
	}
	// A copy of the machine commits meanwhile.
	twin := *r
	image := t.TempDir()
	if err := os.CopyFS(image, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	twin.openCatalog(image)
	twin.must(twin.upload(twin.put(r.write("b", []byte("twin")))))
	results, err := r.run(u, []upload.Item{r.put(r.write("c", []byte("mine")))})
	if !errors.Is(err, upload.ErrTwoCopies) || len(results) != 1 || results[0].Outcome != upload.Again {
		t.Fatalf("%v, %+v", err, results)
	}
	// And at the next session of the same process.
	if _, _, err := r.open(false); !errors.Is(err, upload.ErrTwoCopies) {
		t.Fatal(err)
	}
}

func TestServerLacksObjects(t *testing.T) {
	r := newRig(t)
	content := random(50_000)
	a := r.write("a", content)
	r.must(r.upload(r.put(a)))
	// The chunk is gone, as after a collection that should not have been.
	for id, o := range r.server.objects {
		if h, _, _ := vault.ParseHeader(o); h.Type == vault.TypeChunk {
			delete(r.server.objects, id)
		}
	}
	b := r.write("b", content)
	_, err := r.upload(r.put(b))
	if !errors.Is(err, upload.ErrStale) || !errors.Is(err, v4.ErrMissingRefs) {
		t.Fatal(err)
	}
	r.must(r.upload(r.put(b)))
	if string(r.content(b)) != string(content) {
		t.Error("b came back different")
	}
}

func TestPasses(t *testing.T) {
	r := newRig(t)
	a := r.write("a", []byte("one"))
	u, _, err := r.open(false)
	if err != nil {
		t.Fatal(err)
	}
	results, err := r.run(u, []upload.Item{r.put(a)})
	r.must(results, err)
	if roots := r.server.commits[0].commit.Roots; len(roots) != 1 || roots[0].Complete != 0 {
		t.Fatalf("%+v", roots)
	}
	u, _, err = r.open(false)
	if err != nil {
		t.Fatal(err)
	}
	u.Complete(r.root)
	results, err = r.run(u, nil)
	r.must(results, err)
	last := r.server.commits[len(r.server.commits)-1]
	if len(last.commit.Roots) != 1 || last.commit.Roots[0].Complete != last.seq {
		t.Fatalf("%+v in commit %d", last.commit.Roots, last.seq)
	}
}

func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	r := newRig(t)
	a := r.write("a", []byte("one"))
	if err := os.Chmod(a, 0); err != nil {
		t.Fatal(err)
	}
	results, err := r.upload(r.put(a))
	if err != nil || len(results) != 1 || results[0].Outcome != upload.Failed || results[0].Problem == nil {
		t.Fatalf("%+v, %v", results, err)
	}
}
