package watcher

import "sync"

// maxPending bounds, per root, the notices waiting to be looked at and the paths waiting to be delivered. Beyond it a rescan
// is cheaper than the list, which at this length takes some 20 MB.
const maxPending = 1 << 17

// An event is one notice of the system.
type event struct {
	id   int    // the watch it belongs to
	name string // relative to the watched directory; empty for the directory itself
	what what
}

// what says more about an event. Zero is a change to an entry that is no directory.
type what uint8

const (
	isDir      what = 1 << iota // the entry is, or was, a directory
	appeared                    // it was created here, or moved here
	vanished                    // it was deleted, or moved away
	ended                       // the watch is no more: its directory was deleted or unmounted; name is empty
	maybeMoved                  // the watched directory itself may be somewhere else now; name is empty
	mounted                     // a filesystem came or went
)

// A queue takes notices in from the system as fast as they come and keeps them in order for one tree. It is safe for
// concurrent use.
type queue struct {
	wake chan struct{} // holds a token while there is something to take

	mu     sync.Mutex // guards all below
	events []event
	seen   map[event]struct{} // the events that concern mere files: a second one says nothing new
	lost   bool               // notices were lost; what is in events does not matter then
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), seen: make(map[event]struct{})}
}

// push adds one notice. It never blocks on the tree.
func (q *queue) push(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lost {
		return
	}
	if e.what == 0 {
		if _, dup := q.seen[e]; dup {
			return
		}
		q.seen[e] = struct{}{}
	}
	q.events = append(q.events, e)
	if len(q.events) > maxPending {
		q.loseLocked()
	}
	q.signal()
}

// lose records that notices were lost.
func (q *queue) lose() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.loseLocked()
	q.signal()
}

func (q *queue) loseLocked() {
	q.lost, q.events = true, nil
	q.seen = make(map[event]struct{})
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take empties the queue. If lost, anything may have happened.
func (q *queue) take() (events []event, lost bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, lost = q.events, q.lost
	q.events, q.lost = nil, false
	if len(q.seen) > 1024 {
		q.seen = make(map[event]struct{}) // clear would keep the memory of a burst for ever
	} else {
		clear(q.seen)
	}
	return events, lost
}
