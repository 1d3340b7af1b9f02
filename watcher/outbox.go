package watcher

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
)

// An outbox passes on to the Sink, merged per root, what it has not been told yet. It is safe for concurrent use.
type outbox struct {
	wake chan struct{} // holds a token while something may be waiting

	mu      sync.Mutex // guards all below and the contents of the boxes
	waiting []*box     // the boxes that hold something, longest waiting first
}

// A box holds what waits for one root. It is delivered in the order of the fields: paths that were found after a rescan was
// asked for must not wait for it.
type box struct {
	root   string
	state  *State
	rescan Reason
	paths  map[string]struct{}
	queued bool // it is in waiting
	closed bool // nothing more is to be said of the root
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put lets fill add to b, unless b is closed, and has it delivered.
func (o *outbox) put(b *box, fill func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.closed {
		return
	}
	fill()
	if !b.queued {
		b.queued = true
		o.waiting = append(o.waiting, b)
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// changed adds paths, which it keeps, or turns them into a rescan if there are too many.
func (o *outbox) changed(b *box, paths map[string]struct{}) {
	o.put(b, func() {
		if b.paths == nil {
			b.paths = paths
		} else {
			maps.Copy(b.paths, paths)
		}
		if len(b.paths) > maxPending {
			b.rescan, b.paths = cmp.Or(b.rescan, Overflow), nil
		}
	})
}

func (o *outbox) rescan(b *box, why Reason) {
	o.put(b, func() { b.rescan = cmp.Or(b.rescan, why) })
}

// state sets the state. A root that is gone takes with it what was to be said about it.
func (o *outbox) state(b *box, s State) {
	o.put(b, func() {
		if s.Mode == Gone {
			b.rescan, b.paths = "", nil
		}
		b.state = &s
	})
}

// close drops what waits in b, and whatever may still be put.
func (o *outbox) close(b *box) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b.closed, b.state, b.rescan, b.paths = true, nil, "", nil
}

// next empties the box that has waited longest.
func (o *outbox) next() (out box, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return box{}, false
	}
	b := o.waiting[0]
	o.waiting = o.waiting[1:]
	out = *b
	b.queued, b.state, b.rescan, b.paths = false, nil, "", nil
	return out, true
}

// deliver passes on what is put, until ctx ends.
func (o *outbox) deliver(ctx context.Context, sink Sink) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		for b, ok := o.next(); ok && ctx.Err() == nil; b, ok = o.next() {
			if b.state != nil {
				sink.State(b.root, *b.state)
			}
			if b.rescan != "" {
				sink.Rescan(b.root, b.rescan)
			}
			if len(b.paths) > 0 {
				sink.Changed(b.root, slices.Sorted(maps.Keys(b.paths)))
			}
		}
	}
}
