package v4

import (
	"context"
	"fmt"
	"sync"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// budget shares out a bounded amount of memory among requests of all sessions.
//
// A request may want more while it holds some, so it states the most it will ever
// hold, and nothing is granted after which not every request could still get its
// most, one after another (the banker's algorithm): there is no deadlock. Requests
// that hold something go first; those that hold nothing yet follow in the order they
// came, and no device has more than perDevice at work.
//
// Nobody is held up by who is slow, or pretends to be: after patience a request that
// waits has the one ended that has held what it has for longest, if it has for that
// long. Without others who wait, anybody may be as slow as they are.
type budget struct {
	perDevice  int
	maxWaiting int // of those who hold nothing; more are told to come later
	maxQueued  int // of one device
	// patience is how long a request is waited for: time for the largest object at
	// 75 KB/s.
	patience time.Duration

	mu      sync.Mutex // guards what follows
	free    int        // bytes
	active  map[*claim]struct{}
	working map[vault.DeviceID]int // claims in active
	grows   []*waiter              // by those in active
	enters  []*waiter              // by others
}

// claim is what one request holds. It is not safe for concurrent use.
type claim struct {
	b      *budget
	device vault.DeviceID
	most   int // bytes
	held   int // bytes; guarded by b.mu
	// since is when it began, or got on; guarded by b.mu.
	since time.Time
	evict func() // ends the request; it does not wait for that
}

// patience is that of the server's budgets.
const patience = time.Minute

type waiter struct {
	c       *claim
	n       int
	granted chan struct{}
}

func newBudget(bytes, perDevice, maxWaiting int) *budget {
	return &budget{
		perDevice: perDevice, maxWaiting: maxWaiting, maxQueued: max(maxWaiting/3, 1), patience: patience, free: bytes,
		active: make(map[*claim]struct{}), working: make(map[vault.DeviceID]int),
	}
}

// enter waits until a request may begin, holding n bytes, and never more than most.
// evict ends it for being slow. Errors: [wire.ErrBusy] if too many wait already, ctx's.
func (b *budget) enter(ctx context.Context, device vault.DeviceID, n, most int, evict func()) (*claim, error) {
	c := &claim{b: b, device: device, most: most, evict: evict}
	b.mu.Lock()
	w := &waiter{c, n, make(chan struct{})}
	b.enters = append(b.enters, w)
	b.grant()
	select {
	case <-w.granted:
		b.mu.Unlock()
		return c, nil
	default:
	}
	queued := 0
	for _, other := range b.enters {
		if other.c.device == device {
			queued++
		}
	}
	if len(b.enters) > b.maxWaiting || queued > b.maxQueued {
		b.enters = without(b.enters, w)
		b.mu.Unlock()
		return nil, fmt.Errorf("%w: the server has enough to do", wire.ErrBusy)
	}
	b.mu.Unlock()
	if err := b.wait(ctx, w, &b.enters); err != nil {
		return nil, err
	}
	return c, nil
}

func (b *budget) wait(ctx context.Context, w *waiter, in *[]*waiter) error {
	impatient := time.NewTicker(b.patience)
	defer impatient.Stop()
	for waiting := true; waiting; {
		select {
		case <-w.granted:
			return nil
		case <-impatient.C:
			b.evictSlowest()
		case <-ctx.Done():
			waiting = false
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted: // meanwhile
		if in == &b.enters {
			b.drop(w.c)
		}
	default:
		*in = without(*in, w)
		b.grant()
	}
	return ctx.Err()
}

// evictSlowest ends the request that has not got on for longest, if it is too long.
func (b *budget) evictSlowest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	var slowest *claim
	for c := range b.active {
		if slowest == nil || c.since.Before(slowest.since) {
			slowest = c
		}
	}
	if slowest != nil && time.Since(slowest.since) >= b.patience {
		slowest.since = time.Now() // once
		slowest.evict()
	}
}

func without(all []*waiter, w *waiter) []*waiter {
	kept := all[:0]
	for _, other := range all {
		if other != w {
			kept = append(kept, other)
		}
	}
	clear(all[len(kept):])
	return kept
}

// try takes n bytes more if nobody has to wait for it.
func (c *claim) try(n int) bool {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return len(c.b.grows) == 0 && c.b.take(c, n)
}

// grow waits for n bytes more. With what the claim holds they are no more than it
// said.
func (c *claim) grow(ctx context.Context, n int) error {
	b := c.b
	b.mu.Lock()
	w := &waiter{c, n, make(chan struct{})}
	b.grows = append(b.grows, w)
	b.grant()
	b.mu.Unlock()
	return b.wait(ctx, w, &b.grows)
}

// shrink gives n bytes back: the request has got on.
func (c *claim) shrink(n int) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.since = time.Now()
	c.held -= n
	c.b.free += n
	c.b.grant()
}

// leave gives everything back.
func (c *claim) leave() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.drop(c)
}

// drop ends a claim; mu is held.
func (b *budget) drop(c *claim) {
	b.free += c.held
	c.held = 0
	delete(b.active, c)
	if b.working[c.device]--; b.working[c.device] == 0 {
		delete(b.working, c.device)
	}
	b.grant()
}

// grant gives what can be given; mu is held.
func (b *budget) grant() {
	for i := 0; i < len(b.grows); {
		if w := b.grows[i]; b.take(w.c, w.n) {
			b.grows = without(b.grows, w)
			close(w.granted)
		} else {
			i++
		}
	}
	if len(b.grows) > 0 {
		return
	}
	for i := 0; i < len(b.enters); {
		w := b.enters[i]
		if b.working[w.c.device] >= b.perDevice {
			i++
			continue
		}
		if !b.take(w.c, w.n) {
			return
		}
		b.active[w.c] = struct{}{}
		w.c.since = time.Now()
		b.working[w.c.device]++
		b.enters = without(b.enters, w)
		close(w.granted)
	}
}

// take gives n bytes to a claim if that is safe; mu is held.
func (b *budget) take(c *claim, n int) bool {
	if n > b.free || c.held+n > c.most {
		return false
	}
	b.free -= n
	c.held += n
	if b.safe(c) {
		return true
	}
	b.free += n
	c.held -= n
	return false
}

// safe says whether every claim could get its most, one after another.
func (b *budget) safe(also *claim) bool {
	free := b.free
	done := make(map[*claim]bool, len(b.active)+1)
	fits := func(c *claim) bool {
		if done[c] || c.most-c.held > free {
			return false
		}
		done[c] = true
		free += c.held
		return true
	}
	for {
		more := fits(also)
		all := done[also]
		for c := range b.active {
			more = fits(c) || more
			all = all && done[c]
		}
		if all || !more {
			return all
		}
	}
}
