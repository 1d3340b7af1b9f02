package v4

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// keepAlive is how often a session with nothing to do is used: servers close one on
// which nothing has come for 5 minutes.
const keepAlive = time.Minute

// watch ends the session when the server has fallen silent, and keeps an idle one
// alive; tell is told the server's clock. It returns when the session is over.
func (s *Session) watch(line *pulse, silence time.Duration, tell func(time.Time)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pinging := make(chan struct{}, 1)
	tick := time.NewTicker(silence / 10)
	defer tick.Stop()
	for before := time.Now(); ; {
		select {
		case <-s.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(before) > silence/2 { // it is this program that was stopped
			line.beat()
		}
		before = now
		quiet, ask := now.Sub(line.last()), keepAlive
		if since := s.mux.Waiting(); !since.IsZero() {
			quiet, ask = min(quiet, now.Sub(since)), silence/3
		}
		switch {
		case ask != keepAlive && quiet >= silence:
			s.mux.End(fmt.Errorf("%w: nothing has come from it for %v", ErrSilent, quiet.Round(time.Second)))
			return
		case quiet >= ask:
			select {
			case pinging <- struct{}{}:
				s.watching.Go(func() {
					defer func() { <-pinging }()
					// Whatever the answer is, it is one.
					if clock, err := s.Ping(ctx); err == nil && tell != nil {
						tell(clock)
					}
				})
			default: // one is under way
			}
		}
	}
}

// pulse is a connection that notes when something came or went last.
type pulse struct {
	net.Conn
	began time.Time
	at    atomic.Int64 // since began
}

func newPulse(conn net.Conn) *pulse { return &pulse{Conn: conn, began: time.Now()} }

// last is when something came or went last.
func (p *pulse) last() time.Time { return p.began.Add(time.Duration(p.at.Load())) }

func (p *pulse) beat() { p.at.Store(int64(time.Since(p.began))) }

func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if n > 0 {
		p.beat()
	}
	return n, err
}

// bulk is from which size on what is sent counts. The system takes it for a server
// that does not; but as it takes only so much, it counts if there is much, which may
// take its time on a slow line. A PING is less.
const bulk = 4 << 10

func (p *pulse) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	if n >= bulk {
		p.beat()
	}
	return n, err
}
