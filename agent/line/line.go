// Package line is the agent's connection with its server as the person who pays for
// it sees it: so many bytes a second and no more, and cut at once when it leads
// nowhere any more.
//
// The one invariant: a connection carries what it was given, or breaks; slowing it
// down changes no byte. The package knows no protocol. Enter at [Dialer].
package line

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Dialer opens connections and has a hold on those that are open. The zero value has
// no limits. It is safe for concurrent use.
type Dialer struct {
	mu       sync.Mutex // guards what follows
	up, down *rate.Limiter
	// open are the connections, dialing what ends attempts to get one.
	open    map[*conn]struct{}
	dialing map[*context.CancelCauseFunc]struct{}
}

// Limit sets how many bytes a second all connections together send and receive, 0 for
// as many as they can. New limits hold within the tenth of a second, also for what is
// being sent.
func (d *Dialer) Limit(up, down int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.init()
	set(d.up, up)
	set(d.down, down)
}

func set(l *rate.Limiter, bytes int64) {
	if bytes <= 0 {
		l.SetLimit(rate.Inf)
		l.SetBurst(maxPiece)
		return
	}
	l.SetBurst(piece(bytes))
	l.SetLimit(rate.Limit(bytes))
}

// piece is how much goes at once: what takes the twentieth of a second, so that the
// line is shared smoothly and a new limit holds soon.
func piece(bytes int64) int { return int(min(max(bytes/20, minPiece), maxPiece)) }

const (
	minPiece = 1 << 10
	maxPiece = 64 << 10
)

// init makes what the zero value lacks. The caller holds mu.
func (d *Dialer) init() {
	if d.open != nil {
		return
	}
	d.up, d.down = rate.NewLimiter(rate.Inf, maxPiece), rate.NewLimiter(rate.Inf, maxPiece)
	d.open, d.dialing = map[*conn]struct{}{}, map[*context.CancelCauseFunc]struct{}{}
}

// Dial opens a connection as net.Dialer does. If Cut is called meanwhile the error is
// its cause.
func (d *Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.mu.Lock()
	d.init()
	d.dialing[&cancel] = struct{}{}
	d.mu.Unlock()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dialing, &cancel)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		if err == nil {
			raw.Close()
		}
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	return d.adopt(raw), nil
}

// adopt makes a connection one of the dialer's. The caller holds mu.
func (d *Dialer) adopt(raw net.Conn) *conn {
	c := &conn{Conn: raw, d: d, up: d.up, down: d.down}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	d.open[c] = struct{}{}
	return c
}

// Cut closes the connections whose own address which names, and ends all attempts to
// get one; both then fail with cause. nil names all. Other connections are not
// touched.
func (d *Dialer) Cut(cause error, which func(own netip.Addr) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for cancel := range d.dialing {
		(*cancel)(cause)
	}
	for c := range d.open {
		own, err := netip.ParseAddrPort(c.LocalAddr().String())
		if which == nil || err == nil && which(own.Addr().Unmap()) {
			c.cancel(cause)
			// Closing may wait for the other side, where the system is told to.
			go c.Conn.Close()
		}
	}
}

// conn is a connection of a Dialer.
type conn struct {
	net.Conn
	d        *Dialer
	up, down *rate.Limiter
	// ctx is done when the connection is closed or cut, with the cause.
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Write implements net.Conn. It waits until the limit lets all of b go; a deadline for
// writing counts that time, too.
func (c *conn) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		now := min(len(b), c.up.Burst())
		if err := wait(c.ctx, c.up, now); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[:now])
		n, b = n+m, b[m:]
		if err != nil {
			return n, c.why(err)
		}
	}
	return n, nil
}

// Read implements net.Conn. What came is waited for after it has come, so that the
// other side feels it.
func (c *conn) Read(b []byte) (int, error) {
	b = b[:min(len(b), c.down.Burst())]
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, c.why(err)
	}
	return n, wait(c.ctx, c.down, n)
}

// wait waits until n bytes may go.
func wait(ctx context.Context, l *rate.Limiter, n int) error {
	for n > 0 {
		// The limit may have become less meanwhile.
		now, at := min(n, l.Burst()), time.Now()
		r := l.ReserveN(at, now)
		if !r.OK() {
			continue
		}
		if delay := r.DelayFrom(at); delay > 0 {
			timer := time.NewTimer(delay)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			}
		}
		n -= now
	}
	return nil
}

// why is the cause for which the connection was cut, if it was, else err.
func (c *conn) why(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	return err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.d.mu.Lock()
	delete(c.d.open, c)
	c.d.mu.Unlock()
	c.cancel(net.ErrClosed)
	return c.Conn.Close()
}
