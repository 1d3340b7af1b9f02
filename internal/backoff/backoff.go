// Package backoff says how long to wait before the next attempt of something
// that keeps failing: longer each time, and differently on every machine, so
// that a thousand agents do not return to a restarted server in the same
// second.
//
// It only computes; the caller waits, and decides what is worth repeating.
package backoff

import (
	"math/rand/v2"
	"time"
)

// The bounds of a zero [Backoff].
const (
	DefaultMin = time.Second
	DefaultMax = 5 * time.Minute
)

// growth is how many times the last wait the next one may be. With waits drawn
// evenly below that, the mean grows by about half each time.
const growth = 3

// A Backoff yields waits by decorrelated jitter: each is drawn evenly between
// Min and three times the one before. The zero value is ready. It is not safe
// for concurrent use.
type Backoff struct {
	Min time.Duration // no wait is shorter; 0 means DefaultMin
	Max time.Duration // no wait is longer, and Min wins; 0 means DefaultMax

	last time.Duration // 0 after a success
}

// Next returns the wait before the next attempt, within Min and Max.
func (b *Backoff) Next() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = DefaultMin
	}
	if hi <= 0 {
		hi = DefaultMax
	}
	hi = max(lo, hi)
	// Dividing keeps clear of overflow where Max is very long.
	if last := max(b.last, lo); last < hi/growth {
		hi = last * growth
	}
	b.last = lo
	if hi > lo {
		b.last += rand.N(hi - lo + 1)
	}
	return b.last
}

// Reset starts over from Min, after a success.
func (b *Backoff) Reset() { b.last = 0 }
