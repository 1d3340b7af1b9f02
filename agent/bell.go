package agent

import (
	"math"
	"sync"
	"time"
)

// bell tells who waits that something has changed. The zero value is ready; it is
// safe for concurrent use, and ringing it costs little when nobody waits.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next ring; nil: nobody waits
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// wait returns a channel that is closed at the next ring.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

// meter measures bytes a second, what is older than meterSpan weighing little. The
// zero value is ready; it is safe for concurrent use.
type meter struct {
	mu  sync.Mutex
	sum float64 // bytes, each weighed by its age
	at  time.Time
}

const meterSpan = 3 * time.Second

func (m *meter) add(n int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fade(now)
	m.sum = max(0, m.sum+float64(n)) // what is taken back, too
}

func (m *meter) rate(now time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fade(now)
	return int64(m.sum / meterSpan.Seconds())
}

func (m *meter) fade(now time.Time) {
	m.sum *= math.Exp(-max(0, now.Sub(m.at)).Seconds() / meterSpan.Seconds())
	m.at = now
}
