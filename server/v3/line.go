package v3

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"
)

// errStopped ends a session between two requests because its server stops.
var errStopped = errors.New("the server stops")

// line is a session's connection with a deadline for every read and write. A
// deadline that cannot be set is no error of its own: the connection is at its end,
// and the read or write that follows says so, after what had arrived before. Only
// stop may be called from another goroutine.
type line struct {
	net.Conn
	idle, header time.Duration
	// inHeader: reads share one deadline instead of having one each.
	inHeader bool

	mu      sync.Mutex // guards waiting and stopped
	waiting bool       // for the first byte of a request
	stopped bool
}

// await blocks until the first byte of a request has arrived in r, which reads
// from l, and starts the time that the rest of its header may take. It returns
// errStopped at once when the line is stopped.
func (l *line) await(r *bufio.Reader) error {
	l.inHeader = true
	if err := l.setWaiting(true); err != nil {
		return err
	}
	_, err := r.Peek(1)
	if stopErr := l.setWaiting(false); err != nil {
		if stopErr != nil {
			return stopErr
		}
		return err
	}
	l.Conn.SetReadDeadline(time.Now().Add(l.header))
	return nil
}

// headerDone ends the time of await: what follows is content.
func (l *line) headerDone() { l.inHeader = false }

func (l *line) setWaiting(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		l.waiting = false
		return errStopped
	}
	l.waiting = on
	if on {
		l.Conn.SetReadDeadline(time.Now().Add(l.idle))
	}
	return nil
}

// stop ends the session before its next request; one that is being read or
// answered is finished.
func (l *line) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	if l.waiting {
		l.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (l *line) Read(p []byte) (int, error) {
	if !l.inHeader {
		l.Conn.SetReadDeadline(time.Now().Add(l.idle))
	}
	return l.Conn.Read(p)
}

func (l *line) Write(p []byte) (int, error) {
	l.Conn.SetWriteDeadline(time.Now().Add(l.idle))
	return l.Conn.Write(p)
}
