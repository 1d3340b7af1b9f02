package server

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// peekSize is how many first bytes tell the protocol: a TLS record that starts a
// handshake with a ClientHello is 16 03 0x LL LL 01. Every version 3 request is
// longer, and the server never issues a client id that looks like this.
const peekSize = 6

// peek reads a connection's first bytes and returns the connection with them put
// back.
func peek(conn net.Conn, timeout time.Duration) (first [peekSize]byte, _ net.Conn, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return first, nil, err
	}
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return first, nil, fmt.Errorf("first %d bytes: %w", peekSize, err)
	}
	return first, &replayConn{Conn: conn, unread: first[:]}, conn.SetReadDeadline(time.Time{})
}

// isTLS says whether the first bytes are those of a TLS ClientHello.
func isTLS(first [peekSize]byte) bool {
	return first[0] == 0x16 && first[1] == 0x03 && first[2] <= 0x04 && first[5] == 0x01
}

// replayConn gives the bytes of unread before those of the connection.
type replayConn struct {
	net.Conn
	unread []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// refusals logs peers that were turned away, at most once a minute, with how many
// there were: somebody knocking all night must not fill the log.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	last   time.Time
	unsaid int
}

func (r *refusals) add(now time.Time, peer net.Addr, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsaid++
	if !r.last.IsZero() && now.Sub(r.last) < time.Minute {
		return
	}
	r.log.Warn("refused", "peer", host(peer), "why", why, "count", r.unsaid)
	r.last, r.unsaid = now, 0
}

func host(a net.Addr) string {
	if h, _, err := net.SplitHostPort(a.String()); err == nil {
		return h
	}
	return a.String()
}

func isLoopback(a net.Addr) bool {
	ip := net.ParseIP(host(a))
	return ip != nil && ip.IsLoopback()
}
