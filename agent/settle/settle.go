// Package settle decides when a changed path is captured: soon after it comes to
// rest, and now and then if it never does.
//
// A path is due when it was quiet for half a second. One that is not quiet for
// ten seconds, or that is touched again and again right after its captures, is
// restless: it is due at growing intervals from 10 s to 15 min, or when it was
// quiet for two seconds, and ordinary again when it is left alone for two more.
// So a file that is saved is safe in under a second, the last write of a long
// download two seconds after it, and a log that grows every second does not keep
// the agent busy.
//
// The one invariant: after a touch that was accepted, the path is due once more,
// within the interval at the latest, whatever else happens. The package is pure
// logic: it reads no clock and no file and starts no goroutine. Enter at [New].
package settle

import (
	"container/heap"
	"sync"
	"time"
)

// Options set the times. The zero value is what the agent uses.
type Options struct {
	Quiet   time.Duration // at rest after this long without a touch; 0: 0.5 s
	Rest    time.Duration // the same for a restless path; 0: 2 s
	First   time.Duration // a path not at rest for this long is restless, and due; 0: 10 s
	Longest time.Duration // the interval doubles up to this; 0: 15 min
	Limit   int           // paths held at once, some 250 bytes each and the path; 0: 100,000
}

// burst is how many captures in a row, each touched again within Rest, are taken
// for a person saving rather than for a program that never stops.
const burst = 4

// An Item is a path to be captured now.
type Item struct {
	Path     string
	Restless bool // it is still changing: the capture may be torn, and another follows
}

// A Queue holds the paths that wait to come to rest. It is safe for concurrent
// use and never blocks. The times given to it must not go back.
type Queue struct {
	o Options

	mu      sync.Mutex // guards what follows
	start   time.Time  // the first time seen; the others are kept relative to it
	paths   map[string]*entry
	order   byDue
	waiting int // entries not yet captured
}

// An entry is a path that waits, or that was captured and is remembered for Rest.
type entry struct {
	path     string
	index    int           // in order
	due      time.Duration // to be captured, or forgotten
	touched  time.Duration // last
	base     time.Duration // the interval counts from here
	interval time.Duration // 0: not restless
	again    int           // captures in a row that were followed by a touch
	captured bool
}

// New returns an empty queue.
func New(o Options) *Queue {
	for _, d := range []struct {
		option *time.Duration
		value  time.Duration
	}{{&o.Quiet, time.Second / 2}, {&o.Rest, 2 * time.Second}, {&o.First, 10 * time.Second}, {&o.Longest, 15 * time.Minute}} {
		if *d.option == 0 {
			*d.option = d.value
		}
	}
	if o.Limit == 0 {
		o.Limit = 100_000
	}
	return &Queue{o: o, paths: make(map[string]*entry)}
}

// Touch notes that path changed, or that its capture was torn and is to be made
// again. It returns false when the queue is full and the path not in it: the
// caller then has to scan for what it was.
func (q *Queue) Touch(path string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.since(now)
	e := q.paths[path]
	switch {
	case e == nil && len(q.paths) >= q.o.Limit:
		return false
	case e == nil:
		e = &entry{path: path, base: t}
		q.paths[path] = e
		heap.Push(&q.order, e)
		q.waiting++
	case e.captured:
		e.captured = false
		q.waiting++
		if e.again++; e.interval == 0 && e.again > burst {
			e.interval = q.o.First
		}
		if e.interval == 0 {
			e.base = t
		}
	}
	e.touched = t
	e.due = min(t+q.quiet(e), e.base+max(e.interval, q.o.First))
	heap.Fix(&q.order, e.index)
	return true
}

// Next returns when Due has something to do next, and whether it ever will
// without another touch. It may then return nothing: it also forgets.
func (q *Queue) Next() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return time.Time{}, false
	}
	return q.start.Add(q.order[0].due), true
}

// Due returns the paths that are to be captured now, the longest due first. The
// queue takes them as captured: what is touched from now on is due again.
func (q *Queue) Due(now time.Time) []Item {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.since(now)
	var items []Item
	for len(q.order) > 0 && q.order[0].due <= t {
		e := q.order[0]
		if e.captured {
			heap.Pop(&q.order)
			delete(q.paths, e.path)
			continue
		}
		restless := t < e.touched+q.quiet(e)
		items = append(items, Item{e.path, restless})
		q.waiting--
		if restless {
			e.interval = min(2*max(e.interval, q.o.First), q.o.Longest)
		}
		e.captured = true
		e.base = t
		e.due = t + q.o.Rest
		heap.Fix(&q.order, 0)
	}
	return items
}

// Waiting returns how many paths were touched and not yet due.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

func (q *Queue) quiet(e *entry) time.Duration {
	if e.interval > 0 {
		return q.o.Rest
	}
	return q.o.Quiet
}

func (q *Queue) since(now time.Time) time.Duration {
	if q.start.IsZero() {
		q.start = now
	}
	return now.Sub(q.start)
}

// byDue is a heap of entries by due.
type byDue []*entry

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due < h[j].due }
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *byDue) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *byDue) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
