package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// grace is how long a root may be missing before that is believed: programs save a file by deleting it first.
	grace = 100 * time.Millisecond

	// syncGap keeps a flood of changes, overflowing again and again, from keeping the watcher busy with nothing but recovery.
	syncGap = 2 * time.Second

	// batch bounds how much of a large folder that appeared is gathered before it is passed on.
	batch = 4096
)

// A tree is one root and the directories being watched for it. All but setSkip is for the goroutine in run.
type tree struct {
	root    Root
	opts    Options
	backend backend
	out     *outbox
	box     *box
	q       *queue
	skips   chan func(string, bool) bool // holds the newest Skip that is not yet in force

	// What follows begins afresh whenever the root begins to exist.
	at        place
	ended     bool // the root is gone or replaced
	top       *dir // at.dir
	byID      map[int][]*dir
	watched   int               // directories with an id
	polled    map[*dir]*polling // directories the system does not watch
	mounts    string            // filesystems below the root
	pending   map[string]struct{}
	why       Reason // a Rescan to ask for, if not empty
	dirty     bool   // the State may have changed
	suspect   bool   // the root may be gone or replaced
	flushed   time.Time
	synced    time.Time
	syncAt    time.Time // the times below are due times; zero: not planned
	pollAt    time.Time
	lookAt    time.Time
	pollPause time.Duration
}

// A dir is a directory in scope. Below a watch that covers subdirectories there are none.
type dir struct {
	name   string // the whole path for the topmost
	parent *dir
	sub    map[string]*dir
	id     int // of its watch; 0: none. Two places have the same id if one filesystem is visible at both.
}

// polling is what a directory was when last compared.
type polling struct {
	err     error           // why the system does not watch it
	entries map[string]look // nil: it cannot be read
}

// A look is what is compared of an entry.
type look struct {
	size  int64
	mtime int64
	mode  fs.FileMode
}

// A place is what stands at a root's path.
type place struct {
	dir  string // the directory to watch: the root, or the folder of a root that is a single file
	only string // the name of the single file
	info fs.FileInfo
}

func lookup(path string) (place, error) {
	path = filepath.Clean(path)
	info, err := os.Lstat(path)
	if err != nil {
		return place{}, err
	}
	p := place{dir: path}
	if !info.IsDir() {
		p.dir, p.only = filepath.Dir(path), filepath.Base(path)
		if info, err = os.Stat(p.dir); err != nil {
			return place{}, err
		}
	}
	p.info = info
	os.SameFile(info, info) // on Windows the identity is read, and kept, at the first comparison
	return p, nil
}

func (p place) same(q place) bool { return p.only == q.only && os.SameFile(p.info, q.info) }

func newTree(r Root, opts Options, b backend, out *outbox) *tree {
	return &tree{
		root: r, opts: opts, backend: b, out: out, box: &box{root: r.Path},
		q: newQueue(), skips: make(chan func(string, bool) bool, 1),
	}
}

// setSkip puts another Skip in force. It has one caller at a time and never blocks.
func (t *tree) setSkip(skip func(string, bool) bool) {
	select {
	case <-t.skips:
	default:
	}
	t.skips <- skip
}

// run watches the root through all its goings and comings, until ctx ends.
func (t *tree) run(ctx context.Context) {
	for why := Started; ctx.Err() == nil; {
		at, err := lookup(t.root.Path)
		if err != nil {
			t.awaitReturn(ctx, err)
			why = Returned
			continue
		}
		t.live(ctx, at, why)
		why = Replaced
	}
}

// awaitReturn returns when there is something at the root's path.
func (t *tree) awaitReturn(ctx context.Context, err error) {
	s := State{Mode: Gone, Since: time.Now()}
	if errors.Is(err, fs.ErrNotExist) {
		s.Why = "it is missing; connect the disk it is on, or take it off the list if it is not to be watched any more"
	} else {
		s.Why = fmt.Sprintf("it cannot be looked at (%v); check the disk it is on, and this program's permissions", reason(err))
	}
	t.out.state(t.box, s)
	t.opts.Logger.Debug("root is gone", "root", t.root.Path, "err", err)
	tick := time.NewTicker(t.opts.LookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := lookup(t.root.Path); err == nil {
				return
			}
		}
	}
}

// live watches the root for as long as it is what it is now.
func (t *tree) live(ctx context.Context, at place, why Reason) {
	t.at, t.ended, t.suspect = at, false, false
	t.top = &dir{name: at.dir}
	t.byID, t.watched = make(map[int][]*dir), 0
	t.polled, t.pollPause = make(map[*dir]*polling), t.opts.PollInterval
	t.pending, t.why = make(map[string]struct{}), ""
	t.flushed, t.syncAt, t.pollAt = time.Time{}, time.Time{}, time.Time{}
	defer func() { t.drop(t.top) }()

	t.sync(ctx, why)
	t.lookAt = time.Now().Add(t.opts.LookInterval)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		events, lost := t.q.take()
		for _, e := range events {
			t.handle(ctx, e)
		}
		now := time.Now()
		if lost {
			t.planSync()
		}
		if due(t.syncAt, now) {
			t.sync(ctx, Overflow)
		}
		if due(t.pollAt, now) {
			t.poll(ctx)
		}
		if len(t.polled) == 0 {
			t.pollAt = time.Time{}
		} else if t.pollAt.IsZero() {
			t.pollAt = now.Add(t.pollPause)
		}
		if t.suspect || due(t.lookAt, now) {
			t.lookAt = now.Add(t.opts.LookInterval)
			if t.stands(ctx) && mounts(t.at) != t.mounts {
				t.sync(ctx, Mounts)
			}
		}
		var flushAt time.Time
		if len(t.pending) > 0 || t.dirty || t.why != "" {
			if flushAt = t.flushed.Add(t.opts.Coalesce); due(flushAt, now) {
				t.flush(ctx)
				flushAt = time.Time{}
			}
		}
		if t.ended {
			return
		}
		timer.Reset(time.Until(earliest(t.lookAt, t.syncAt, t.pollAt, flushAt)))
		select {
		case <-ctx.Done():
		case <-t.q.wake:
		case <-timer.C:
		case skip := <-t.skips:
			t.root.Skip = skip
			t.sync(ctx, Rules)
		}
	}
}

func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// earliest returns the first of the times that are not zero.
func earliest(times ...time.Time) time.Time {
	planned := slices.DeleteFunc(times, time.Time.IsZero)
	return slices.MinFunc(planned, time.Time.Compare)
}

// stands finds out whether the root still is what it was.
func (t *tree) stands(ctx context.Context) bool {
	at, err := lookup(t.root.Path)
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(grace):
		}
		at, err = lookup(t.root.Path)
	}
	t.suspect = false
	t.ended = err != nil || !at.same(t.at)
	return !t.ended
}

// flush hands what was found to the outbox, unless the root is gone: then it was its going that was noticed.
func (t *tree) flush(ctx context.Context) {
	if !t.stands(ctx) {
		return
	}
	if t.dirty {
		t.out.state(t.box, t.state())
		t.dirty = false
	}
	if t.why != "" {
		t.out.rescan(t.box, t.why)
		t.opts.Logger.Debug("rescan", "root", t.root.Path, "why", t.why)
		t.why = ""
	}
	if len(t.pending) > 0 {
		t.out.changed(t.box, t.pending)
		t.pending = make(map[string]struct{})
	}
	t.flushed = time.Now()
}

func (t *tree) state() State {
	s := State{Mode: Watching, Watched: t.watched}
	for n, p := range t.polled {
		if p.entries != nil {
			s.Mode, s.Polled = Polling, s.Polled+1
			s.Why = p.err.Error()
			continue
		}
		if s.Unreadable == nil {
			s.Unreadable = make(map[string]error)
		}
		s.Unreadable[n.path()] = p.err
	}
	if s.Mode == Polling {
		s.Why = fmt.Sprintf("%s; until then folders (%d) are compared every %v", s.Why, s.Polled, t.opts.PollInterval)
	}
	return s
}

// changed takes note of a path in scope.
func (t *tree) changed(ctx context.Context, path string) {
	t.pending[path] = struct{}{}
	if len(t.pending) >= batch && !t.ended {
		t.flush(ctx)
	}
}

// handle acts on one notice of the system. Notices may be older than what visit has found since; so they say where to look,
// and what is found there counts.
func (t *tree) handle(ctx context.Context, e event) {
	for _, n := range t.byID[e.id] {
		path := n.path()
		switch {
		case e.name != "":
			t.handleEntry(ctx, n, path, e)
		case e.what&ended != 0:
			t.detach(n)
			if n == t.top {
				t.suspect = true
				t.planSync()
			} else {
				t.visit(ctx, n, path, true)
			}
		case e.what&mounted != 0:
			// A filesystem that comes back in its place before the next look
			// leaves the table as it was, and says nothing itself.
			t.why, t.mounts = Mounts, unknownMounts
		case e.what&maybeMoved != 0:
			t.suspect = t.suspect || n == t.top // of others, the directory around it tells
		case t.at.only == "":
			t.changed(ctx, path)
		}
	}
}

func (t *tree) handleEntry(ctx context.Context, n *dir, in string, e event) {
	path := join(in, e.name)
	if t.at.only != "" {
		if strings.EqualFold(e.name, t.at.only) { // the system spells it as on the disk, the list of roots perhaps not
			t.changed(ctx, join(in, t.at.only))
		}
		return
	}
	folder := e.what&isDir != 0
	if e.what&vanished != 0 {
		if c := n.sub[e.name]; c != nil {
			t.drop(c) // its watch, and those below it, live on under another name if it was renamed
			folder = true
		}
	}
	if t.covered() && e.what&appeared != 0 {
		info, err := os.Lstat(path)
		folder = err == nil && info.IsDir()
	}
	if t.skipped(in, e.name, folder) {
		return
	}
	t.changed(ctx, path)
	switch {
	case !folder:
	case !t.covered(): // even what vanished: of two folders that change places, the second goes after the first has come
		t.visit(ctx, t.child(n, e.name), path, true)
	case e.what&appeared != 0:
		t.visit(ctx, nil, path, true)
	}
}

// skipped reports whether name, which may have several elements, is out of scope below the directory in.
func (t *tree) skipped(in, name string, folder bool) bool {
	if t.root.Skip == nil {
		return false
	}
	for i := range len(name) {
		if os.IsPathSeparator(name[i]) && t.root.Skip(join(in, name[:i]), true) {
			return true
		}
	}
	return t.root.Skip(join(in, name), folder)
}

// covered reports whether one watch sees everything below the root.
func (t *tree) covered() bool {
	return t.backend.recursive() && t.at.only == "" && t.top.id != 0
}

// unknownMounts is no description that mounts gives.
const unknownMounts = "unknown"

// planSync has the watches made good soon, since notices were lost.
func (t *tree) planSync() {
	if t.syncAt.IsZero() {
		t.syncAt = t.synced.Add(syncGap)
	}
}

// sync makes the watches fit the disk and asks for a rescan, which comes to know all that happened before.
func (t *tree) sync(ctx context.Context, why Reason) {
	t.mounts = mounts(t.at)
	t.visit(ctx, t.top, t.at.dir, false)
	t.why, t.dirty = cmp.Or(t.why, why), true
	t.syncAt, t.synced = time.Time{}, time.Now()
}

// poll compares every directory that the system does not watch, and tries again to have it watched.
func (t *tree) poll(ctx context.Context) {
	start := time.Now()
	for _, n := range slices.Collect(maps.Keys(t.polled)) {
		if t.polled[n] != nil { // else dropped meanwhile
			t.visit(ctx, n, n.path(), true)
		}
	}
	t.pollPause = max(t.opts.PollInterval, 19*time.Since(start))
	t.pollAt = time.Time{}
}

// visit makes what is known of the directory n at path fit the disk: watched if possible, else compared and remembered. With
// news it reports what is in a directory not known before, and enters those directories only; otherwise it enters all of them
// and reports nothing. Watching comes before reading, so what is created meanwhile is either read or noticed.
//
// n is nil for directories that a watch further up covers. They are only reported.
func (t *tree) visit(ctx context.Context, n *dir, path string, news bool) {
	if ctx.Err() != nil || t.ended {
		return
	}
	f, err := t.open(path)
	if err == nil {
		defer f.Close()
	}
	c, read := comparison{all: true}, err == nil
	if n != nil {
		c, read = t.settle(n, f, err, news)
	}
	if !read {
		return
	}
	enter := t.list(ctx, n, f, path, c, news)
	if f != nil {
		f.Close() // before going deeper: depth must not cost descriptors
	}
	for _, name := range enter {
		var sub *dir
		if n != nil && !t.covered() {
			sub = t.child(n, name)
		}
		t.visit(ctx, sub, join(path, name), news)
	}
}

// A comparison is how a directory is to be read.
type comparison struct {
	all bool     // it was not known: everything in it is new
	was *polling // what it was, if it was polled
	is  *polling // what it is, to be filled in, if it will be polled
}

// settle finds out how n, open as f or not because of err, is to be watched from now on, and whether it must be read.
func (t *tree) settle(n *dir, f *os.File, err error, news bool) (c comparison, read bool) {
	if c.was = t.polled[n]; c.was != nil && c.was.entries == nil {
		c.was = nil // it could not be read
	}
	var why error
	switch {
	case err == nil:
		c.all, why = t.attach(n, f)
	case t.at.only != "":
		why = fmt.Errorf("its folder cannot be opened (%w); give this program access to it", reason(err))
	case n != t.top && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)):
		t.drop(n) // it is gone, or no directory any more
		return c, false
	default:
		t.unreadable(n, err)
		return c, false
	}
	if why != nil {
		c.all, c.is = true, &polling{why, make(map[string]look)}
	}
	t.setPolled(n, c.is)
	if news {
		return c, c.all || c.was != nil || c.is != nil
	}
	return c, !t.covered()
}

// list reads a directory, reports what differs if news, and returns the directories in it to enter.
func (t *tree) list(ctx context.Context, n *dir, f *os.File, path string, c comparison, news bool) (enter []string) {
	var missing map[string]*dir
	if n != nil {
		missing = maps.Clone(n.sub)
	}
	for e, err := range t.entries(f) {
		if err != nil {
			if n != nil && !errors.Is(err, fs.ErrNotExist) {
				t.unreadable(n, err)
			}
			return nil
		}
		name := e.Name()
		if t.at.only == "" && t.skipped(path, name, e.IsDir()) {
			continue
		}
		differs := c.differs(e)
		if differs && news {
			t.changed(ctx, join(path, name))
		}
		if e.IsDir() {
			if missing[name] == nil || differs || !news {
				enter = append(enter, name)
			}
			delete(missing, name)
		}
	}
	for _, sub := range missing {
		t.drop(sub)
	}
	if c.was != nil && news {
		for name := range c.was.entries {
			t.changed(ctx, join(path, name))
		}
	}
	return enter
}

// differs compares an entry and remembers it. Of what was there before, the missing remains.
func (c comparison) differs(e fs.DirEntry) bool {
	if c.was == nil && c.is == nil {
		return c.all
	}
	var now look // zero if it is going
	if info, err := e.Info(); err == nil {
		now = look{info.Size(), info.ModTime().UnixNano(), info.Mode()}
	}
	if c.is != nil {
		c.is.entries[e.Name()] = now
	}
	if c.was == nil {
		return c.all
	}
	before, known := c.was.entries[e.Name()]
	delete(c.was.entries, e.Name())
	return !known || before != now
}

// open opens a directory without following a symbolic link, except the folder of a single file, which is only the way to it.
func (t *tree) open(path string) (*os.File, error) {
	f, err := openDir(path, t.at.only != "")
	if !errors.Is(err, syscall.ENAMETOOLONG) {
		return f, err
	}
	// Trees may be deeper than a path may be long; os.Root goes step by step.
	root, err := os.OpenRoot(t.at.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rel, err := filepath.Rel(t.at.dir, path)
	if err != nil {
		return nil, err
	}
	return root.OpenFile(rel, openFlags, 0)
}

// entries yields what is in f, or the one file that is the root. It ends after an error.
func (t *tree) entries(f *os.File) iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		if t.at.only != "" {
			if info, err := os.Lstat(join(t.at.dir, t.at.only)); err == nil && !info.IsDir() {
				yield(fs.FileInfoToDirEntry(info), nil)
			}
			return
		}
		for {
			list, err := f.ReadDir(1024) // a folder of a million files need not be in memory
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				if err != io.EOF {
					yield(nil, err)
				}
				return
			}
		}
	}
}

// attach has the system watch n, open as f. It reports whether this very directory was not watched at this place before, or
// why the system will not watch it.
func (t *tree) attach(n *dir, f *os.File) (fresh bool, why error) {
	if t.backend.recursive() && n != t.top {
		return false, t.polled[t.top].err // all or nothing
	}
	id, why := t.backend.watch(f, t.at.only == "", t.q)
	if why != nil {
		t.detach(n)
		return false, why
	}
	if id == n.id {
		return false, nil
	}
	t.detach(n) // if it had another watch, another directory has come to this place
	n.id = id
	t.byID[id] = append(t.byID[id], n)
	t.watched++
	t.dirty = true
	if t.covered() && len(n.sub) > 0 {
		for _, c := range n.sub {
			t.drop(c) // which was compared until now
		}
		t.why = cmp.Or(t.why, Overflow)
	}
	return true, nil
}

// detach ends the watching of n. Slices in byID are never modified in place: handle may be iterating.
func (t *tree) detach(n *dir) {
	if n.id == 0 {
		return
	}
	id := n.id
	n.id = 0
	t.watched--
	t.dirty = true
	if len(t.byID[id]) == 1 {
		delete(t.byID, id)
		t.backend.unwatch(id, t.q)
		return
	}
	t.byID[id] = slices.DeleteFunc(slices.Clone(t.byID[id]), func(d *dir) bool { return d == n })
}

// drop forgets n and everything below it.
func (t *tree) drop(n *dir) {
	t.detach(n)
	t.setPolled(n, nil)
	for _, c := range n.sub {
		t.drop(c)
	}
	if n.parent != nil {
		delete(n.parent.sub, n.name)
	}
}

// unreadable takes note that nothing can be known of n.
func (t *tree) unreadable(n *dir, err error) {
	t.detach(n)
	for _, c := range n.sub {
		t.drop(c)
	}
	t.setPolled(n, &polling{err: reason(err)})
	t.opts.Logger.Debug("directory cannot be watched", "path", n.path(), "err", err)
}

// setPolled sets how n is compared; nil is not at all.
func (t *tree) setPolled(n *dir, p *polling) {
	if p != nil {
		t.dirty = t.dirty || t.polled[n] == nil || (t.polled[n].entries == nil) != (p.entries == nil)
		t.polled[n] = p
	} else if t.polled[n] != nil {
		delete(t.polled, n)
		t.dirty = true
	}
}

// child returns the directory called name in n, new if need be.
func (t *tree) child(n *dir, name string) *dir {
	c := n.sub[name]
	if c == nil {
		c = &dir{name: name, parent: n}
		if n.sub == nil {
			n.sub = make(map[string]*dir)
		}
		n.sub[name] = c
	}
	return c
}

func (n *dir) path() string {
	if n.parent == nil {
		return n.name
	}
	return join(n.parent.path(), n.name)
}

// join is filepath.Join for clean parts.
func join(dir, name string) string {
	if os.IsPathSeparator(dir[len(dir)-1]) {
		return dir + name
	}
	return dir + string(filepath.Separator) + name
}

// reason strips err of the path, which is known or must not be shown.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
