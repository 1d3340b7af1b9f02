package watcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. It is never waited for in full unless the test fails.
const patience = 30 * time.Second

// quick makes tests short that have to wait for real.
var quick = Options{LookInterval: 50 * time.Millisecond, Coalesce: 10 * time.Millisecond}

// A recorder is a Sink that remembers, and that can be waited for.
type recorder struct {
	mu      sync.Mutex // guards all below
	cond    *sync.Cond
	changed map[string]map[string]int // root, path: how often
	batches map[string]int
	rescans map[string][]Reason
	states  map[string]State
	history []string

	onRescan func(root string) // if set, called during Rescan without mu
	hold     chan struct{}     // if set, Changed blocks until it is closed
}

func newRecorder() *recorder {
	r := &recorder{
		changed: make(map[string]map[string]int), batches: make(map[string]int),
		rescans: make(map[string][]Reason), states: make(map[string]State),
	}
	r.cond = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) Changed(root string, paths []string) {
	if r.hold != nil {
		<-r.hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed[root] == nil {
		r.changed[root] = make(map[string]int)
	}
	for _, p := range paths {
		r.changed[root][p]++
	}
	r.batches[root]++
	r.note("changed %s: %d paths, first %s", root, len(paths), paths[0])
}

func (r *recorder) Rescan(root string, why Reason) {
	if r.onRescan != nil {
		r.onRescan(root)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rescans[root] = append(r.rescans[root], why)
	r.note("rescan %s: %s", root, why)
}

func (r *recorder) State(root string, s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states[root] = s
	r.note("state %s: %+v", root, s)
}

// note adds to the history, which a failure shows. The caller holds mu.
func (r *recorder) note(format string, args ...any) {
	r.history = append(r.history, fmt.Sprintf(format, args...))
	r.cond.Broadcast()
}

// wait waits until ok, which is called with mu held.
func (r *recorder) wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cond.Broadcast()
	})()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("no %s; what came last:\n%s", what, strings.Join(r.history[max(0, len(r.history)-40):], "\n"))
		}
		r.cond.Wait()
	}
}

// see waits until every path was reported for root since the last reset.
func (r *recorder) see(t testing.TB, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		r.wait(t, "report of "+p, func() bool { return r.changed[root][p] > 0 })
	}
}

// rescanned waits for a rescan for that reason.
func (r *recorder) rescanned(t testing.TB, root string, why Reason) {
	t.Helper()
	r.wait(t, fmt.Sprintf("rescan of %s (%s)", root, why), func() bool { return slices.Contains(r.rescans[root], why) })
}

// inMode waits for the mode and returns the State.
func (r *recorder) inMode(t testing.TB, root string, m Mode) (s State) {
	t.Helper()
	r.wait(t, fmt.Sprintf("state %s of %s", m, root), func() bool { s = r.states[root]; return s.Mode == m })
	return s
}

// eventually waits for what nobody announces.
func eventually(t testing.TB, ok func() bool, what func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatal(what())
		}
		runtime.Gosched()
	}
}

// seen returns what was reported for root since the last reset.
func (r *recorder) seen(root string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var paths []string
	for p := range r.changed[root] {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// told returns the rescans since the last reset and the newest state.
func (r *recorder) told(root string) ([]Reason, State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.rescans[root]), r.states[root]
}

// reset forgets all but the states.
func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.changed)
	clear(r.batches)
	clear(r.rescans)
}

// A session is a running watcher.
type session struct {
	*recorder
	roots chan []Root
	stop  func()
}

// start watches roots over b until the test ends, waits until that has begun, and resets the recorder.
func start(t testing.TB, b backend, opts Options, roots ...Root) *session {
	t.Helper()
	s := launch(t, newRecorder(), b, opts, roots...)
	for _, r := range roots {
		s.rescanned(t, r.Path, Started)
	}
	s.reset()
	return s
}

// launch watches roots over b until the test ends or stop is called.
func launch(t testing.TB, r *recorder, b backend, opts Options, roots ...Root) *session {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{recorder: r, roots: make(chan []Root, 1)}
	s.roots <- roots
	result := make(chan error, 1)
	go func() { result <- run(ctx, s.roots, s, opts, b) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// goroutines returns the stacks of the package's own goroutines.
func goroutines() []string {
	var all strings.Builder
	pprof.Lookup("goroutine").WriteTo(&all, 2)
	return slices.DeleteFunc(strings.Split(all.String(), "\n\n"), func(stack string) bool {
		return !strings.Contains(stack, "watcher.(*tree)") && !strings.Contains(stack, "watcher.(*outbox)") &&
			!strings.Contains(stack, "watcher.(*inotify)") && !strings.Contains(stack, "watcher.(*changes)")
	})
}

// tempDir is like t.TempDir, without symbolic links in the path.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "watcher")
	must(t, err)
	dir, err = filepath.EvalSymlinks(dir)
	must(t, err)
	t.Cleanup(func() { remove(t, dir) })
	return dir
}

// remove deletes a tree leaf by leaf, which works under Wine too; os.RemoveAll and t.TempDir do not.
func remove(t testing.TB, path string) {
	t.Helper()
	var paths []string
	filepath.WalkDir(path, func(path string, _ fs.DirEntry, _ error) error {
		paths = append(paths, path)
		return nil
	})
	for _, p := range slices.Backward(paths) {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// Faults of Wine's that tests meet.
const (
	deafToOldFolders   = "Wine does not report changes in folders made before the watch"
	keepsDeletedFolder = "Wine keeps a deleted folder in sight while it is being watched"
)

// skipUnderWine skips the rest of a test that meets the fault.
func skipUnderWine(t *testing.T, fault string) {
	t.Helper()
	if underWine() {
		t.Skip(fault)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file with its directories.
func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// deaf is a backend for which the system refuses to watch, until it is cured.
type deaf struct {
	backend        // nil, or what to use for all else and once cured
	only    string // if set, the only directory it refuses

	mu    sync.Mutex // guards cured
	cured bool
}

func (d *deaf) watch(dir *os.File, deep bool, q *queue) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.cured && (d.only == "" || d.only == dir.Name()) {
		return 0, errors.New("the test will not have it")
	}
	return d.backend.watch(dir, deep, q)
}

func (d *deaf) cure() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cured = true
}

func (d *deaf) unwatch(id int, q *queue) {
	if d.backend != nil {
		d.backend.unwatch(id, q)
	}
}

func (d *deaf) recursive() bool { return d.backend != nil && d.backend.recursive() }

func (d *deaf) close() {
	if d.backend != nil {
		d.backend.close()
	}
}

// puppet is a backend whose notices the test makes. It knows directories by path.
type puppet struct {
	whole bool // it covers subdirectories
	mu    sync.Mutex
	ids   map[string]int
	q     *queue
}

func (p *puppet) watch(dir *os.File, _ bool, q *queue) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.q = q // one root only
	if p.ids == nil {
		p.ids = make(map[string]int)
	}
	if p.ids[dir.Name()] == 0 {
		p.ids[dir.Name()] = len(p.ids) + 1
	}
	return p.ids[dir.Name()], nil
}

func (p *puppet) unwatch(int, *queue) {}
func (p *puppet) recursive() bool     { return p.whole }
func (p *puppet) close()              {}

func (p *puppet) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.q.lose()
}

func (p *puppet) push(dir, name string, w what) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.q.push(event{p.ids[dir], name, w})
}
