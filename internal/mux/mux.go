// Package mux carries the requests and answers of protocol version 4 over one
// connection, many at once (SPEC.md, "Frames"): [Connect] is the client's side of
// it, [Serve] the server's.
//
// The one invariant: what one side may keep the other from doing is bounded. A
// stream holds no more bytes than the credit it granted, all requests of all sessions
// of a server no more than its [Room], whoever reads frames never waits for whoever
// reads their content, and whoever breaks the protocol loses the session.
//
// It knows frames, streams and credit; what a verb means is its callers' business,
// as is keeping a quiet session alive with PING. It does not speak TLS: it is given
// a connection that does.
package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	wire "backstay/protocol/v4"
)

// ErrLost is wrapped by every error that says that a session is over. What was
// under way may or may not have happened; all of it can be asked again on another
// session. If the other side said why, that [wire.Error] is wrapped as well.
var ErrLost = errors.New("connection lost")

// lost makes the reason why a session is over an error of its streams.
func lost(cause error) error { return fmt.Errorf("%w: %w", ErrLost, cause) }

const (
	// linger is how long a side that ends the session waits for the other to close,
	// so that what it sent last is not thrown away by the network.
	linger = 2 * time.Second
	// farewell is how long telling the other side may take.
	farewell = time.Second
)

// session is what both sides have in common: frames in, frames out, and its end.
type session struct {
	conn net.Conn
	out  writer
	head [wire.HeaderSize]byte // of the frame that is read
	// longest is the body of an ERROR frame that is read.
	longest int

	mu      sync.Mutex // guards what follows
	streams map[uint32]*stream
	last    uint32 // number of the newest stream
	err     error  // why the session is over; nil while it is not
	done    chan struct{}
}

func (s *session) init(conn net.Conn, timeout time.Duration) {
	s.conn, s.longest = conn, wire.MaxBody
	s.streams = make(map[uint32]*stream)
	s.done = make(chan struct{})
	s.out = writer{conn: conn, timeout: timeout, turn: make(chan struct{}, 1), broken: func(err error) {
		s.end(err)
		conn.Close() // so that reading ends, too
	}}
}

// find returns an open stream; or nil, and whether it was open before.
func (s *session) find(number uint32) (st *stream, past bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[number], number != 0 && number <= s.last
}

// remove takes a stream out of the session.
func (s *session) remove(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, number)
}

// end makes the session over, for the first cause only, and says whether this was
// the first. Streams that have not ended end with it.
func (s *session) end(cause error) bool {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.err = cause
	open := s.streams
	s.streams = make(map[uint32]*stream)
	close(s.done)
	s.mu.Unlock()
	for _, st := range open {
		st.fail(cause)
	}
	return true
}

// fail ends the session. The other side is told why if it can be: with say, in an
// ERROR frame on stream 0. Then no more is sent, and what still comes is thrown
// away by drain.
func (s *session) fail(cause error, say *wire.Error) {
	if !s.end(cause) {
		return
	}
	s.conn.SetReadDeadline(time.Now().Add(linger))
	s.out.close(func(dst []byte) []byte {
		if say == nil {
			return dst
		}
		body := say.Append(nil)
		h := wire.Header{Type: wire.TypeHello, Flags: wire.FlagError | wire.FlagEnd, Length: uint32(len(body))}
		return append(h.Append(dst), body...)
	})
}

// drain reads until the other side has closed, or long enough.
func (s *session) drain() { io.Copy(io.Discard, s.conn) }

// header reads the next frame's header.
func (s *session) header(limit int) (wire.Header, error) {
	if _, err := io.ReadFull(s.conn, s.head[:]); err != nil {
		if err == io.EOF {
			err = errClosed
		}
		return wire.Header{}, err
	}
	return wire.ParseHeader(s.head, limit)
}

var errClosed = errors.New("closed by the other side")

// body reads the body of a frame whose header has been checked.
func (s *session) body(h wire.Header) (*buffer, error) {
	b := newBuffer(int(h.Length))
	if _, err := io.ReadFull(s.conn, b.data); err != nil {
		b.free()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// skip throws a frame's body away.
func (s *session) skip(h wire.Header) error {
	_, err := io.CopyN(io.Discard, s.conn, int64(h.Length))
	return err
}

// breach is an error for a frame that breaks the protocol.
func breach(h wire.Header, why string) error {
	return fmt.Errorf("%w: %v, flags %d, on stream %d: %s", wire.ErrMalformed, h.Type, h.Flags, h.Stream, why)
}

// plain checks a frame that no flags are allowed in.
func plain(h wire.Header) error {
	if h.Flags != 0 {
		return breach(h, "flags on a frame without")
	}
	return nil
}

// window takes a WINDOW frame, which either side may send.
func (s *session) window(h wire.Header) error {
	st, past := s.find(h.Stream)
	switch {
	case plain(h) != nil:
		return plain(h)
	case h.Length != 4:
		return breach(h, "not of four bytes")
	case st == nil && !past:
		return breach(h, "no such stream")
	}
	b, err := s.body(h)
	if err != nil {
		return err
	}
	defer b.free()
	n, err := wire.ParseWindow(b.data)
	if err != nil || st == nil { // nil: the grant crossed the stream's end
		return err
	}
	return st.grant(n)
}

// reason is why the session is over.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// failure reads an ERROR frame.
func (s *session) failure(h wire.Header) (*wire.Error, error) {
	if h.Has(wire.FlagData) || !h.Has(wire.FlagEnd) {
		return nil, breach(h, "an error that is data, or not the last")
	}
	if int(h.Length) > s.longest {
		return nil, fmt.Errorf("%w: an error of %d bytes", wire.ErrTooLarge, h.Length)
	}
	b, err := s.body(h)
	if err != nil {
		return nil, err
	}
	defer b.free()
	return wire.ParseError(b.data)
}

// reader is what frames that are read do; take is called for each, one at a time.
// It returns when the session is over.
func (s *session) reader(limit int, take func(wire.Header) error) {
	for s.reason() == nil {
		h, err := s.header(limit)
		var said *wire.Error
		switch {
		case err != nil:
		case h.Stream == 0 && h.Has(wire.FlagError):
			if said, err = s.failure(h); err == nil {
				s.fail(said, nil)
				return
			}
		case h.Type == wire.TypeWindow:
			err = s.window(h)
		default:
			err = take(h)
		}
		if err != nil {
			var say *wire.Error
			if wire.CodeOf(err) != wire.CodeInternal { // else the connection broke
				say = wire.AsError(err)
			}
			s.fail(err, say)
		}
	}
}
