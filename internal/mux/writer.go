package mux

import (
	"net"
	"sync"
	"time"

	wire "backstay/protocol/v4"
)

const (
	// maxPending is how many bytes of frames may wait to be written before whoever
	// adds one must write them.
	maxPending = 64 << 10
	// record is the plaintext of a full TLS record: what is written in pieces is
	// cut there, so that records are full.
	record = 16 << 10
)

// writer puts frames on the connection. Small ones are gathered: while one goroutine
// writes, the others leave theirs with it, so that there are few records and system
// calls when there is much to do and no delay when there is little. Large ones are
// written from where they lie, and take turns: first come, first served.
type writer struct {
	conn    net.Conn
	timeout time.Duration
	broken  func(error) // told, once, that conn takes no more
	// turn is held by whoever writes to conn. A channel, since it is fair where a
	// mutex is not.
	turn chan struct{}

	mu      sync.Mutex // guards what follows
	pending *buffer    // frames not yet written; nil if there are none
	err     error      // why no more is sent
}

// frame sends a frame, or leaves it to be sent. It does not keep body. Frames of
// one goroutine go out in their order.
func (w *writer) frame(h wire.Header, body []byte) error {
	h.Length = uint32(len(body))
	if len(body) >= record {
		return w.direct(h, body)
	}
	return w.queue(func(dst []byte) []byte { return append(h.Append(dst), body...) })
}

// queue adds what build appends to the frames to be sent, and sends them if nobody
// else does.
func (w *writer) queue(build func([]byte) []byte) error {
	for {
		w.mu.Lock()
		if w.err != nil {
			w.mu.Unlock()
			return w.err
		}
		if w.pending == nil || len(w.pending.data) < maxPending {
			if w.pending == nil {
				w.pending = newBuffer(maxPending)
				w.pending.data = w.pending.data[:0]
			}
			w.pending.data = build(w.pending.data)
			w.mu.Unlock()
			w.flush()
			return nil
		}
		w.mu.Unlock()
		w.turn <- struct{}{}
		w.write(nil, nil)
		w.release()
	}
}

// direct sends a frame now, after those that wait.
func (w *writer) direct(h wire.Header, body []byte) error {
	w.turn <- struct{}{}
	defer w.release()
	return w.write(&h, body)
}

// flush sends what waits unless somebody is writing: who does calls flush after.
func (w *writer) flush() {
	for w.waiting() {
		select {
		case w.turn <- struct{}{}:
			w.write(nil, nil)
			<-w.turn
		default:
			return
		}
	}
}

func (w *writer) waiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending != nil && w.err == nil
}

// release gives the turn to the next. What was left meanwhile, by those who saw the
// turn taken, is sent.
func (w *writer) release() {
	<-w.turn
	w.flush()
}

// write sends what waits, and then a frame if there is one. The caller has the turn.
func (w *writer) write(h *wire.Header, body []byte) error {
	w.mu.Lock()
	b, err := w.pending, w.err
	if err == nil && (b != nil || h != nil) {
		w.pending = nil
		// Under mu, so that close has the last word on it.
		w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	w.mu.Unlock()
	if err != nil || b == nil && h == nil {
		return err
	}
	if b == nil {
		b = newBuffer(maxPending)
		b.data = b.data[:0]
	}
	if h != nil {
		b.data = h.Append(b.data)
		n := min((record-len(b.data)%record)%record, len(body))
		b.data, body = append(b.data, body[:n]...), body[n:]
	}
	_, err = w.conn.Write(b.data)
	b.free()
	if err == nil && len(body) > 0 {
		_, err = w.conn.Write(body)
	}
	if err != nil {
		w.mu.Lock()
		first := w.err == nil
		if first {
			w.err = err
		}
		w.mu.Unlock()
		if first {
			w.broken(err)
		}
	}
	return err
}

// close sends what waits and what last appends to it, within the time of a farewell,
// and then nothing more.
func (w *writer) close(last func([]byte) []byte) {
	w.mu.Lock()
	b, broken := w.pending, w.err != nil
	w.pending = nil
	if !broken {
		w.err = net.ErrClosed
	}
	w.conn.SetWriteDeadline(time.Now().Add(farewell))
	w.mu.Unlock()
	if broken {
		return
	}
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	var data []byte
	if b != nil {
		data = b.data
	}
	if data = last(data); len(data) > 0 {
		if _, err := w.conn.Write(data); err != nil {
			return
		}
	}
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}
