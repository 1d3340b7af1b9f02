package scan

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"backstay/agent/scan/facts"
)

// batchSize is how many paths a callback gets at once: enough to make a catalog
// transaction or a queue operation per batch cheap, little enough to come soon.
const batchSize = 256

// A node is an open folder. It stays open until its last subfolder is opened, so
// that every path is reached from the folder above it and its length is no limit.
type node struct {
	dir    dir
	path   string
	rel    []string // components below the root; kept only where there are rules
	target *target
	refs   atomic.Int32 // subfolders still to be opened
	empty  bool         // nothing was listed in it
}

func (n *node) release() {
	if n.refs.Add(-1) <= 0 {
		n.dir.close()
	}
}

// A job is a folder to be read: name in node, or node itself when name is empty.
type job struct {
	node *node
	name string
}

// queue is the work of one walk: last in, first out, so that few folders are open.
type queue struct {
	mu   sync.Mutex
	cond sync.Cond
	jobs []job // guarded by mu
	busy int   // workers that may still add jobs; guarded by mu
	err  error // the first failure; guarded by mu

	stopped atomic.Bool // err is set
}

func (q *queue) stop(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	q.stopped.Store(true)
	q.cond.Broadcast()
}

// next takes a job. It blocks while there is none but may be one soon.
func (q *queue) next() (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	for len(q.jobs) == 0 && q.busy > 0 && q.err == nil {
		q.cond.Wait()
	}
	if q.err != nil || len(q.jobs) == 0 {
		q.cond.Broadcast() // the others are done as well
		return job{}, false
	}
	q.busy++
	last := len(q.jobs) - 1
	j := q.jobs[last]
	q.jobs[last] = job{}
	q.jobs = q.jobs[:last]
	return j, true
}

func (q *queue) add(n *node, names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range names {
		q.jobs = append(q.jobs, job{n, name})
	}
	q.cond.Broadcast()
}

// walk reads the folders of jobs and everything below them. It closes them.
func (s *scanner) walk(ctx context.Context, jobs []job) error {
	workers := s.o.Workers
	if workers <= 0 {
		// More than cores: on a cold cache and on network drives the time goes into waiting.
		workers = min(4*runtime.GOMAXPROCS(0), 16)
	}
	q := &queue{jobs: jobs, busy: workers}
	q.cond.L = &q.mu
	defer context.AfterFunc(ctx, func() { q.stop(ctx.Err()) })()
	var wg sync.WaitGroup
	team := make([]*worker, workers)
	for i := range team {
		w := &worker{s: s, q: q, buf: make([]byte, listBuffer)}
		team[i] = w
		wg.Go(func() {
			for j, ok := q.next(); ok; j, ok = q.next() {
				if err := w.visit(j); err != nil {
					q.stop(err)
				}
			}
			if err := w.flush(); err != nil {
				q.stop(err)
			}
		})
	}
	wg.Wait()
	for _, w := range team {
		s.merge(w)
	}
	for _, j := range q.jobs { // left over after a failure
		j.node.release()
	}
	q.mu.Lock() // the context may end this very moment
	defer q.mu.Unlock()
	return q.err
}

// A worker reads one folder after the other.
type worker struct {
	s *scanner
	q *queue

	buf     []byte   // for listing
	path    []byte   // of the entry at hand
	rel     []string // of the entry at hand
	folders []string // in the folder at hand
	batch   []Entry

	seen     [facts.Types]int
	bytes    int64
	found    int
	excluded int
	problems int
}

// visit reads one folder.
func (w *worker) visit(j job) error {
	n := j.node
	if j.name != "" {
		var err error
		if n, err = w.enter(j); n == nil {
			return err
		}
	}
	f, err := n.dir.facts()
	if err == nil {
		err = w.entry(n.target, []byte(n.path), f)
	} else {
		err = w.problem(n.path, err)
	}
	if err != nil {
		n.dir.close()
		return err
	}

	w.folders = w.folders[:0]
	w.path = append(append(w.path[:0], strings.TrimSuffix(n.path, sep)...), sep...)
	prefix := len(w.path)
	n.empty = true
	err = n.dir.list(w.buf, func(e *entry) error {
		if w.q.stopped.Load() {
			return context.Canceled // the queue holds the true reason
		}
		n.empty = false
		w.path = append(w.path[:prefix], e.name...)
		return w.child(n, e)
	})
	if lost, ok := errors.AsType[*listError](err); ok {
		err = nil
		if !absent(lost.err) { // else removed while open
			err = w.problem(n.path, lost.err)
		}
	}
	if err != nil || len(w.folders) == 0 {
		n.dir.close()
		return err
	}
	n.refs.Store(int32(len(w.folders)))
	w.q.add(n, w.folders)
	return nil
}

// A listError is a failure of the listing itself, as opposed to a callback's.
type listError struct{ err error }

func (e *listError) Error() string { return e.err.Error() }
func (e *listError) Unwrap() error { return e.err }

// enter opens the folder of a job. It returns nil where there is none to read.
func (w *worker) enter(j job) (*node, error) {
	defer j.node.release()
	path := strings.TrimSuffix(j.node.path, sep) + sep + j.name
	d, err := j.node.dir.open(j.name)
	if err == nil {
		n := &node{dir: d, path: path, target: j.node.target}
		if w.s.o.Exclude != nil {
			n.rel = append(append(make([]string, 0, len(j.node.rel)+1), j.node.rel...), j.name)
		}
		return n, nil
	}
	f, lerr := j.node.dir.lstat(j.name)
	switch {
	case absent(lerr):
		return nil, nil
	case lerr != nil:
		return nil, w.problem(path, lerr)
	}
	if ferr := w.entry(j.node.target, []byte(path), f); ferr != nil || f.Type != facts.Directory {
		return nil, ferr // replaced by something else since it was listed
	}
	return nil, w.problem(path, err)
}

// child deals with one listed entry; w.path holds its path.
func (w *worker) child(n *node, e *entry) error {
	var f facts.Facts
	var err error
	typ := e.typ
	if typ == 0 { // the file system does not say
		f, err = e.facts()
		typ = f.Type
	}
	if w.s.o.Exclude != nil && err == nil {
		w.rel = append(append(w.rel[:0], n.rel...), string(e.name))
		if w.s.o.Exclude(w.rel, typ == facts.Directory) {
			w.excluded++
			return nil
		}
	}
	if typ == facts.Directory {
		w.folders = append(w.folders, string(e.name))
		return nil
	}
	if err == nil && f.Type == 0 {
		if typ != facts.Regular && w.s.o.FilesOnly {
			w.seen[typ]++
			return nil
		}
		f, err = e.facts()
	}
	switch {
	case err == nil && f.Type == facts.Directory: // replaced since it was listed
		w.folders = append(w.folders, string(e.name))
		return nil
	case err == nil:
		return w.entry(n.target, w.path, f)
	case absent(err):
		return nil
	}
	return w.problem(string(w.path), err)
}

// entry counts a path and puts it into the batch if it differs from what is known.
func (w *worker) entry(t *target, path []byte, f facts.Facts) error {
	w.seen[f.Type]++
	if f.Type == facts.Regular {
		w.bytes += f.Size
	} else if w.s.o.FilesOnly {
		return nil
	}
	if t.known != nil && t.known.Match(path, f) {
		return nil
	}
	w.found++
	if w.s.o.Found == nil {
		return nil
	}
	w.batch = append(w.batch, Entry{Path: string(path), Facts: f})
	if len(w.batch) < batchSize {
		return nil
	}
	return w.flush()
}

// flush reports the entries found so far.
func (w *worker) flush() error {
	if len(w.batch) == 0 {
		return nil
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	err := w.s.o.Found(w.batch)
	clear(w.batch)
	w.batch = w.batch[:0]
	return err
}

func (w *worker) problem(path string, err error) error {
	w.problems++
	if w.s.o.Problem == nil {
		return nil
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.o.Problem(facts.Explain(path, err))
}
