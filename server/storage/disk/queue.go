package disk

import (
	"context"
	"sync"
	"sync/atomic"

	"backstay/server/storage"
)

// An op is a change that waits for the writer.
type op struct {
	size int64
	// run checks and stages the change. It runs on the writer's goroutine.
	run   func(*group) error
	taken atomic.Bool // by the writer, or by its caller who gave up
	err   error
	done  chan struct{} // closed when err is final
}

// queue holds the changes that wait for the writer.
type queue struct {
	mu      sync.Mutex // guards what follows
	waiting []*op
	size    int64
	closed  bool
	some    sync.Cond     // signalled when waiting or closed changes
	room    chan struct{} // closed and replaced when size shrinks
}

func newQueue() *queue {
	q := &queue{room: make(chan struct{})}
	q.some.L = &q.mu
	return q
}

// add appends o, waiting while maxQueue bytes wait already.
func (q *queue) add(ctx context.Context, o *op) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return storage.ErrClosed
		}
		if q.size < maxQueue {
			q.waiting = append(q.waiting, o)
			q.size += o.size
			q.some.Signal()
			q.mu.Unlock()
			return nil
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
	}
}

// wait blocks until something waits; false when the queue is closed and empty.
func (q *queue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.some.Wait()
	}
	return len(q.waiting) > 0
}

// take returns the oldest op whose caller still waits, or nil.
func (q *queue) take() *op {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		o := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.size -= o.size
		close(q.room)
		q.room = make(chan struct{})
		if o.taken.CompareAndSwap(false, true) {
			return o
		}
	}
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Signal()
	close(q.room)
	q.room = make(chan struct{})
}
