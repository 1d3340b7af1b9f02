package mux

import (
	"context"
	"fmt"
	"net"
	"time"

	wire "backstay/protocol/v4"
)

// writeTimeout is how long the other side may take nothing at all before the
// session is over: long enough for a frame on a very slow line.
const writeTimeout = 2 * time.Minute

// Client is the client's side of a session. It is safe for concurrent use.
type Client struct {
	session
	hello wire.Hello
	limit int           // of a request's body
	slots chan struct{} // one for each request under way but PING
	// spare is PING's own slot, so that a session full of requests that take long
	// can be asked whether it lives; slots if there is one only.
	spare chan struct{}
	away  error         // set by GOAWAY; guarded by mu
	since time.Time     // when the first of the requests under way began; guarded by mu
	ended chan struct{} // closed when reading has ended
}

// Connect begins a session on a connection whose handshake is done, and returns when
// the server's HELLO has come, or ctx is done. The session lasts until [Client.Close]
// or until the connection breaks; ctx has no part in that. If there is an error
// Connect has closed conn.
//
// Errors: ErrLost, wrapping the server's [wire.Error] if it said why.
func Connect(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{ended: make(chan struct{})}
	c.init(conn, writeTimeout)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := c.greet()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, lost(err)
	}
	c.limit = wire.MaxBody
	if c.hello.Client == wire.ClientUnknown {
		c.limit = wire.MaxBodyUnknown
	}
	c.limit = min(c.limit, int(c.hello.Credit))
	slots := min(c.hello.Requests, maxSlots)
	c.slots = make(chan struct{}, max(slots-1, 1))
	c.spare = c.slots
	if slots > 1 {
		c.spare = make(chan struct{}, 1)
	}
	go func() {
		defer close(c.ended)
		defer conn.Close()
		c.reader(wire.MaxBody, c.take)
		c.drain()
	}()
	return c, nil
}

// maxSlots is how many requests a client has under way at most, whatever a server
// allows: each answer may hold a mebibyte.
const maxSlots = 64

// greet reads the server's HELLO.
func (c *Client) greet() error {
	h, err := c.header(wire.MaxBody)
	if err != nil {
		return err
	}
	if h.Stream == 0 && h.Has(wire.FlagError) {
		said, err := c.failure(h)
		if err == nil {
			err = said
		}
		return err
	}
	if h.Type != wire.TypeHello || h.Stream != 0 || h.Flags != 0 {
		return breach(h, "before HELLO")
	}
	b, err := c.body(h)
	if err != nil {
		return err
	}
	defer b.free()
	c.hello, err = wire.ParseHello(b.data)
	return err
}

// Hello returns what the server said first.
func (c *Client) Hello() wire.Hello { return c.hello }

// Done is closed when the session is over.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the session is over, wrapping ErrLost; nil while it is not.
func (c *Client) Err() error {
	if err := c.reason(); err != nil {
		return lost(err)
	}
	return nil
}

// Close ends the session: what is under way fails with ErrLost. It returns when
// nothing of it runs any more.
func (c *Client) Close() error {
	c.fail(net.ErrClosed, nil)
	c.conn.Close()
	<-c.ended
	return nil
}

// End ends the session because of cause: what is under way fails with ErrLost, wrapping
// it. It takes no longer than telling the server, a second at most.
func (c *Client) End(cause error) { c.fail(cause, nil) }

// Waiting says since when there has been a request under way all the time; the zero
// time if there is none.
func (c *Client) Waiting() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 {
		return time.Time{}
	}
	return c.since
}

// slotsOf are the slots for requests of a verb.
func (c *Client) slotsOf(verb wire.Type) chan struct{} {
	if verb == wire.TypePing {
		return c.spare
	}
	return c.slots
}

// take acts on a frame.
func (c *Client) take(h wire.Header) error {
	if h.Type == wire.TypeGoAway {
		return c.goAway(h)
	}
	st, _ := c.find(h.Stream)
	if !h.Type.Verb() || st == nil {
		return breach(h, "not expected from a server")
	}
	if !h.Has(wire.FlagError) {
		if err := st.receive(h); err != nil || !h.Has(wire.FlagEnd) {
			return err
		}
		c.finished(st, errAnswered)
		return nil
	}
	if h.Type != st.verb {
		return breach(h, "of another verb")
	}
	said, err := c.failure(h)
	if err != nil {
		return err
	}
	st.mu.Lock()
	if !st.ended && st.err == nil {
		st.err = said
	}
	st.mu.Unlock()
	c.finished(st, said)
	return nil
}

// finished ends a stream whose answer has.
func (c *Client) finished(st *stream, why error) {
	st.mu.Lock()
	st.close(why)
	st.mu.Unlock()
	c.mu.Lock()
	_, open := c.streams[st.number]
	delete(c.streams, st.number)
	last := c.away != nil && len(c.streams) == 0
	c.mu.Unlock()
	if open { // the session may have ended meanwhile
		<-c.slotsOf(st.verb)
	}
	if last {
		c.fail(c.away, nil)
	}
}

// goAway takes a GOAWAY: no further requests, and the end after the last.
func (c *Client) goAway(h wire.Header) error {
	if h.Stream != 0 || h.Flags != 0 {
		return breach(h, "with a stream or flags")
	}
	b, err := c.body(h)
	if err != nil {
		return err
	}
	defer b.free()
	said, err := wire.ParseError(b.data)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.away = said
	last := len(c.streams) == 0
	c.mu.Unlock()
	if last {
		c.fail(said, nil)
	}
	return nil
}

// Stream is a request under way and its answer. One goroutine may write while
// another reads; Close comes after both.
type Stream struct {
	st   *stream
	stop func() bool
}

// Open sends a request; with more, data follows by Write. It waits while as many
// requests are under way as the server allows. When ctx is done the request is
// cancelled and everything on the stream fails with ctx's cause. The caller must
// Close the stream.
//
// Errors: [wire.ErrTooLarge], ErrLost, the server's reason to take no more requests,
// ctx's.
func (c *Client) Open(ctx context.Context, verb wire.Type, body []byte, more bool) (*Stream, error) {
	if len(body) > c.limit {
		return nil, fmt.Errorf("%v: %w: request of %d bytes, the limit is %d", verb, wire.ErrTooLarge, len(body), c.limit)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	slots := c.slotsOf(verb)
	select {
	case slots <- struct{}{}:
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var st *stream
	var refused error
	err := c.out.queue(func(dst []byte) []byte {
		// Here, so that requests go out in the order of their numbers.
		c.mu.Lock()
		defer c.mu.Unlock()
		if refused = c.away; c.err != nil {
			refused = lost(c.err)
		}
		if refused != nil {
			return dst
		}
		if c.last++; len(c.streams) == 0 {
			c.since = time.Now()
		}
		st = newStream(&c.session, c.last, verb, wire.AnswerCredit, int(c.hello.Credit)-len(body))
		c.streams[st.number] = st
		h := wire.Header{Type: verb, Stream: st.number, Length: uint32(len(body))}
		if !more {
			h.Flags = wire.FlagEnd
			st.closed = errAnswered
		}
		return append(h.Append(dst), body...)
	})
	if err != nil {
		refused = c.Err()
		if refused == nil {
			refused = lost(err)
		}
	}
	if refused != nil {
		<-slots
		return nil, refused
	}
	return &Stream{st, context.AfterFunc(ctx, func() { c.cancel(st, context.Cause(ctx)) })}, nil
}

// cancel ends a stream that is not wanted any more. It stays in the session until
// the server has ended it, too.
func (c *session) cancel(st *stream, why error) {
	if open, _ := c.find(st.number); open == nil {
		return
	}
	st.abandon(why)
	c.out.frame(wire.Header{Type: wire.TypeCancel, Stream: st.number}, nil)
}

// Message waits for the next message of the answer; it is valid until the next call
// of Message or Read. After the last it is io.EOF.
//
// Errors: the server's [wire.Error], ErrLost, the context's.
func (s *Stream) Message() ([]byte, error) {
	c, err := s.st.next()
	if err != nil {
		return nil, err
	}
	if c.data {
		return nil, fmt.Errorf("%w: answer to %v has data where there should be a message", wire.ErrMalformed, s.st.verb)
	}
	return c.buffer.data, nil
}

// Read implements [io.Reader] for the data of the answer, after its messages. Errors
// are those of Message.
func (s *Stream) Read(p []byte) (int, error) { return s.st.Read(p) }

// Write implements [io.Writer] for the data of the request. It waits for credit. An
// error says that the rest is not wanted; the reason is that of Message.
func (s *Stream) Write(p []byte) (int, error) { return s.st.Write(p) }

// CloseWrite ends the data of the request.
func (s *Stream) CloseWrite() error { return s.st.finish(func() {}) }

// Close ends the use of the stream. If the answer has not ended it is cancelled.
func (s *Stream) Close() {
	s.stop()
	s.st.s.cancel(s.st, context.Canceled)
	s.st.abandon(context.Canceled)
	s.st.release()
}
