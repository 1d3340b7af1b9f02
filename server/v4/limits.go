package v4

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"backstay/internal/mux"
	"backstay/protocol/vault"
)

// addressOf returns what limits go by: an IPv4 address, or the 64 bits of an IPv6
// address that name a network, within which a client has as many as it likes.
func addressOf(a net.Addr) string {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := p.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}

// crowd counts who is in, by address. The zero value is ready.
type crowd struct {
	mu sync.Mutex // guards in
	in map[string]int
}

func (c *crowd) enter(address string, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.in == nil {
		c.in = make(map[string]int)
	}
	if c.in[address] >= most {
		return false
	}
	c.in[address]++
	return true
}

func (c *crowd) leave(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.in[address]--; c.in[address] == 0 {
		delete(c.in, address)
	}
}

// room is the memory for what the requests of all sessions have sent and nobody has
// read. It is never waited for: whoever finds it full is told to come later, and what
// a request holds it gives back when it is answered, which waits for nobody's room.
type room struct {
	share int // bytes that a device has at most

	mu    sync.Mutex // guards what follows
	free  int        // bytes
	taken map[vault.DeviceID]int
}

// of is the room as the sessions of a device have it.
func (r *room) of(device vault.DeviceID) mux.Room { return deviceRoom{r, device} }

type deviceRoom struct {
	*room
	device vault.DeviceID
}

func (d deviceRoom) Take(n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n > d.free || d.taken[d.device]+n > d.share {
		return false
	}
	if d.taken == nil {
		d.taken = make(map[vault.DeviceID]int)
	}
	d.free -= n
	d.taken[d.device] += n
	return true
}

func (d deviceRoom) Give(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free += n
	if d.taken[d.device] -= n; d.taken[d.device] == 0 {
		delete(d.taken, d.device)
	}
}

// maxTracked is how many keys a limiter remembers.
const maxTracked = 4096

// limiter lets each key do something burst times, and then once in every.
type limiter struct {
	burst int
	every time.Duration

	mu   sync.Mutex // guards next
	next map[string]time.Time
}

// allow says whether a key may do it once more. next is when a key that began with
// nothing would have all of its burst again.
func (l *limiter) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = make(map[string]time.Time)
	}
	if len(l.next) >= maxTracked {
		for k, t := range l.next {
			if !t.After(now) {
				delete(l.next, k)
			}
		}
	}
	full := l.next[key]
	if full.Before(now) {
		full = now
	}
	if full = full.Add(l.every); full.Sub(now) > time.Duration(l.burst)*l.every {
		return false
	}
	if _, known := l.next[key]; !known && len(l.next) >= maxTracked {
		return false // so many at once are no accident
	}
	l.next[key] = full
	return true
}
