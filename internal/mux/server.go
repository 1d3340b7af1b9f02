package mux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	wire "backstay/protocol/v4"
)

// Limits of a session, where HELLO names no others.
const (
	// DefaultRequests is how many requests a client may have under way.
	DefaultRequests = 16
	// DefaultCredit is what a request may send before the handler has read it, in
	// bytes.
	DefaultCredit = 1 << 20
	// unknownRequests is DefaultRequests for a client that is not known, whose
	// credit is a single body.
	unknownRequests = 2
	// unknownTime is how long the session of a client that is not known lasts.
	unknownTime = 10 * time.Second
)

// Options of a [Server].
type Options struct {
	// Idle is how long nothing may come from the client before the session is
	// closed. Default: 5 minutes.
	Idle time.Duration
	// WriteTimeout is how long the client may take nothing of what it is sent.
	// Default: 2 minutes.
	WriteTimeout time.Duration
	// Room is asked before what a request sends is held. Default: there is always
	// room, and a session may hold as many credits as it may make requests.
	Room Room
	// Log gets the errors that clients are told as internal ones only. Default:
	// nothing is logged.
	Log *slog.Logger
}

// Room is the memory for what requests send and handlers have not read, shared by as
// many sessions as have it. Not counted are requests of a page and no data, of which a
// session may make as many as HELLO allows. Its methods are safe for concurrent use.
type Room interface {
	// Take takes n bytes, for a body and for all that its data can take; if it is
	// false the client is told that the server is busy, and what it sends is thrown
	// away. It does not wait.
	Take(n int) bool
	// Give gives them back.
	Give(n int)
}

// boundless is a Room for everything.
type boundless struct{}

func (boundless) Take(int) bool { return true }
func (boundless) Give(int)      {}

// Handler answers a request. ctx ends when the client cancels it or the session is
// over. If Handler returns an error, the client gets that as [wire.AsError] has it
// in place of the rest of the answer, else the end of the answer. Handlers run each
// in a goroutine of their own.
type Handler func(ctx context.Context, r *Request) error

// Server is the server's side of a session.
type Server struct {
	session
	hello wire.Hello
	opts  Options
	limit int // of a body

	// handlers holds a token for each handler, and for each answer that is being
	// written: twice as many as requests, for a client may know that one is answered
	// before this side is done with it.
	handlers chan struct{}

	running int         // handlers; guarded by mu
	away    *wire.Error // set by GoAway and End; guarded by mu
	began   time.Time
	seen    atomic.Int64 // when the last frame began to be read, since began
	wg      sync.WaitGroup
}

// NewServer prepares a session on a connection whose handshake is done. hello is
// what the client is told; Requests and Credit in it are enforced, and set if they
// are 0. If hello.Client is wire.ClientUnknown, bodies are at most
// wire.MaxBodyUnknown bytes and the session lasts 10 seconds.
func NewServer(conn net.Conn, hello wire.Hello, opts Options) *Server {
	s := &Server{opts: opts, limit: wire.MaxBody, began: time.Now()}
	s.opts.Idle = cmp.Or(opts.Idle, 5*time.Minute)
	if s.opts.Room == nil {
		s.opts.Room = boundless{}
	}
	s.opts.Log = cmp.Or(opts.Log, slog.New(slog.DiscardHandler))
	requests, credit := uint32(DefaultRequests), uint32(DefaultCredit)
	if hello.Client == wire.ClientUnknown {
		requests, credit, s.limit = unknownRequests, wire.MaxBodyUnknown, wire.MaxBodyUnknown
	}
	hello.Requests, hello.Credit = cmp.Or(hello.Requests, requests), cmp.Or(hello.Credit, credit)
	s.hello = hello
	s.handlers = make(chan struct{}, 2*hello.Requests)
	s.init(conn, cmp.Or(opts.WriteTimeout, writeTimeout))
	s.longest = smallFrame
	return s
}

// Refuse tells a client an error in place of HELLO and closes the connection.
func Refuse(conn net.Conn, why error) {
	var s session
	s.init(conn, farewell)
	s.fail(why, wire.AsError(why))
	s.drain()
	conn.Close()
}

// Serve sends HELLO and has handle answer requests until the session is over; then
// it waits for all handlers and closes the connection. When ctx is done the client is
// told that the server is closing; GoAway is gentler. It is called once.
//
// The error says why the session is over, nil if the client closed it, ctx was done,
// or GoAway or End was called. What the client sent wrongly it has been told.
func (s *Server) Serve(ctx context.Context, handle Handler) error {
	defer s.conn.Close()
	defer s.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closing := &wire.Error{Code: wire.CodeClosing}
	defer context.AfterFunc(ctx, func() { s.fail(closing, closing) })()

	var idle *time.Timer
	idle = time.AfterFunc(s.opts.Idle, func() {
		quiet := time.Since(s.began) - time.Duration(s.seen.Load())
		if quiet < s.opts.Idle {
			idle.Reset(s.opts.Idle - quiet)
			return
		}
		s.fail(errIdle, &wire.Error{Code: wire.CodeClosing, Text: errIdle.Error()})
	})
	defer idle.Stop()
	if s.hello.Client == wire.ClientUnknown {
		defer time.AfterFunc(unknownTime, func() {
			s.fail(errUnknown, &wire.Error{Code: wire.CodeClosing, Text: errUnknown.Error()})
		}).Stop()
	}

	s.out.frame(wire.Header{Type: wire.TypeHello}, s.hello.Append(nil))
	s.reader(s.limit, func(h wire.Header) error { return s.take(ctx, h, handle) })
	cancel()
	s.drain()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == errClosed || s.err == error(closing) || s.away != nil && s.err == error(s.away) {
		return nil
	}
	return fmt.Errorf("session: %w", s.err)
}

// Reasons of the server to end a session.
var (
	errIdle    = errors.New("nothing was heard from the client for too long")
	errUnknown = errors.New("a client that is not enrolled has only seconds")
)

// GoAway tells the client to make no further request, and ends the session when
// those under way are answered. It does not wait for that. It is called once, while
// Serve runs.
func (s *Server) GoAway(why *wire.Error) {
	s.out.frame(wire.Header{Type: wire.TypeGoAway}, why.Append(nil))
	s.mu.Lock()
	s.away = why
	last := s.running == 0
	s.mu.Unlock()
	if last {
		s.fail(why, nil)
	}
}

// End tells the client why, and ends the session at once: requests under way end, and
// nothing of them is sent any more. It takes as long as telling the client, seconds at
// most. It may be called before Serve.
func (s *Server) End(why *wire.Error) {
	s.mu.Lock()
	s.away = why
	s.mu.Unlock()
	s.fail(why, why)
}

// take acts on a frame.
func (s *Server) take(ctx context.Context, h wire.Header, handle Handler) error {
	s.seen.Store(int64(time.Since(s.began)))
	st, past := s.find(h.Stream)
	switch {
	case h.Type == wire.TypeCancel:
		if h.Flags != 0 || h.Length != 0 || !past {
			return breach(h, "flags, a body or no request")
		}
		if st != nil {
			st.abandon(wire.ErrCancelled)
			st.cancel()
		}
		return nil
	case !h.Type.Verb() || h.Has(wire.FlagError):
		return breach(h, "not expected from a client")
	case st != nil:
		return st.receive(h)
	case past: // answered before the client had sent all of it
		return s.skip(h)
	}
	return s.request(ctx, h, handle)
}

// request begins a request with its first frame.
func (s *Server) request(ctx context.Context, h wire.Header, handle Handler) error {
	s.mu.Lock()
	next, open, away := s.last+1, len(s.streams), s.away
	s.mu.Unlock()
	switch {
	case h.Stream != next:
		return breach(h, fmt.Sprintf("the next request is %d", next))
	case h.Has(wire.FlagData) || h.Length == 0:
		return breach(h, "a request begins with a message")
	case h.Length > s.hello.Credit:
		return breach(h, "more than its credit")
	case open >= int(s.hello.Requests):
		return fmt.Errorf("%w: more than %d under way", wire.ErrBusy, open)
	}
	select {
	case s.handlers <- struct{}{}:
	case <-s.done:
		return nil
	}
	st := newStream(&s.session, h.Stream, h.Type, int(s.hello.Credit), wire.AnswerCredit)
	st.credit -= int(h.Length)
	st.ate = int(h.Length)
	st.data = true // what follows is
	st.over = h.Has(wire.FlagEnd)
	st.ended = st.over || !h.Type.CarriesObjects()
	b, refused, err := s.admit(st, h)
	if err != nil {
		<-s.handlers
		return err
	}
	if away != nil {
		refused = away
	}
	ctx, st.cancel = context.WithCancel(ctx)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		st.cancel()
		b.free()
		st.done()
		<-s.handlers
		return nil
	}
	s.last = h.Stream
	s.streams[h.Stream] = st
	s.running++
	s.mu.Unlock()
	s.wg.Go(func() {
		defer func() { <-s.handlers }()
		r := &Request{Verb: h.Type, st: st}
		err := refused
		if err == nil {
			r.Body = b.data
			err = handle(ctx, r)
		}
		b.free()
		s.answered(ctx, r, err)
	})
	return nil
}

// admit reads the body of a request if there is room for it and for its data. Else the
// request is refused, and all that it sends is thrown away.
func (s *Server) admit(st *stream, h wire.Header) (b *buffer, refused, err error) {
	need := 0
	if h.Length > smallFrame {
		need = classSize(classOf(int(h.Length)))
	}
	if !st.ended {
		need += st.credit + st.credit/4 + 1<<minBits // as buffers take at most
	}
	if need > 0 {
		if !s.opts.Room.Take(need) {
			st.ended = true
			return nil, errNoRoom, s.skip(h)
		}
		st.leave = func() { s.opts.Room.Give(need) }
	}
	if b, err = s.body(h); err != nil {
		st.done()
	}
	return b, nil, err
}

var errNoRoom = fmt.Errorf("%w: the server has enough to do", wire.ErrBusy)

// answered ends an answer as the handler's error says.
func (s *Server) answered(ctx context.Context, r *Request, err error) {
	st := r.st
	if err == nil {
		err = r.finish(func() { s.remove(st.number) })
	}
	if err != nil {
		if ctx.Err() != nil {
			err = wire.ErrCancelled
		}
		e := wire.AsError(err)
		if e.Code == wire.CodeInternal {
			s.opts.Log.Error("request failed", "verb", r.Verb, "err", err)
		}
		s.remove(st.number)
		if s.reason() == nil { // else that is why it was cancelled, and the client is told it
			st.frame(wire.FlagError|wire.FlagEnd, e.Append(nil))
		}
	}
	st.cancel()
	st.abandon(errAnswered)
	st.release()
	st.done()
	r.held.free()
	s.mu.Lock()
	s.running--
	away := s.away
	last := away != nil && s.running == 0
	s.mu.Unlock()
	if last {
		s.fail(away, nil)
	}
}

// Request is a request that a [Handler] answers. Only the handler's goroutine uses
// it, and not after the handler has returned.
type Request struct {
	Verb wire.Type
	// Body is the message of the request. It is valid until the handler returns.
	Body []byte

	st *stream
	// held is a message of the answer that is not sent yet: the last one carries
	// the end.
	held *buffer
	data bool // data has been written
}

// Read implements [io.Reader] for the data of the request. Errors: those of the
// session, [wire.ErrCancelled].
func (r *Request) Read(p []byte) (int, error) { return r.st.Read(p) }

// Answer sends a message of the answer, at most wire.MaxBody bytes, before any data.
// It waits for the client to take those before it.
func (r *Request) Answer(message []byte) error {
	if r.data || len(message) > wire.MaxBody {
		return fmt.Errorf("answer to %v: a message of %d bytes cannot be sent here", r.Verb, len(message))
	}
	if err := r.sendHeld(); err != nil {
		return err
	}
	r.held = newBuffer(len(message))
	copy(r.held.data, message)
	return nil
}

func (r *Request) sendHeld() error {
	b := r.held
	if b == nil {
		return nil
	}
	r.held = nil
	defer b.free()
	return r.st.send(b.data, 0)
}

// Write implements [io.Writer] for the data of the answer. It waits for the client
// to take what was written before.
func (r *Request) Write(p []byte) (int, error) {
	r.data = true
	if err := r.sendHeld(); err != nil {
		return 0, err
	}
	return r.st.Write(p)
}

// finish sends the last frame, after calling before.
func (r *Request) finish(before func()) error {
	if r.held == nil {
		return r.st.finish(before)
	}
	b := r.held
	if _, err := r.st.reserve(len(b.data), len(b.data)); err != nil {
		return err
	}
	before()
	return r.st.frame(wire.FlagEnd, b.data)
}
