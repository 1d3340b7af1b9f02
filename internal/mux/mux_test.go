package mux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// raw is one end of a connection without a session: it sends what a test likes and
// keeps what comes.
type raw struct {
	t      *testing.T
	conn   net.Conn
	frames chan frame // closed when the other side has closed
}

type frame struct {
	wire.Header
	body []byte
}

func newRaw(t *testing.T, conn net.Conn) *raw {
	r := &raw{t, conn, make(chan frame, 10_000)}
	go func() {
		defer close(r.frames)
		for {
			f, err := readFrame(conn)
			if err != nil {
				return
			}
			r.frames <- f
		}
	}()
	return r
}

func readFrame(r io.Reader) (frame, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	h, err := wire.ParseHeader(head, wire.MaxBody)
	if err != nil {
		return frame{}, err
	}
	f := frame{h, make([]byte, h.Length)}
	_, err = io.ReadFull(r, f.body)
	return f, err
}

func encode(frames ...frame) []byte {
	var b []byte
	for _, f := range frames {
		if f.Length == 0 {
			f.Length = uint32(len(f.body))
		}
		b = append(f.Header.Append(b), f.body...)
	}
	return b
}

func (r *raw) send(frames ...frame) { r.conn.Write(encode(frames...)) }

func (r *raw) next() frame {
	r.t.Helper()
	f, ok := <-r.frames
	if !ok {
		r.t.Fatal("the other side has closed")
	}
	return f
}

// failure returns the error with which the session is ended.
func (r *raw) failure() *wire.Error {
	r.t.Helper()
	var last frame
	for f := range r.frames {
		last = f
	}
	if last.Stream != 0 || last.Flags != wire.FlagError|wire.FlagEnd {
		r.t.Fatalf("the last frame is %+v", last.Header)
	}
	e, err := wire.ParseError(last.body)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func fr(typ wire.Type, flags wire.Flags, stream uint32, body string) frame {
	return frame{wire.Header{Type: typ, Flags: flags, Stream: stream}, []byte(body)}
}

func helloFrame() frame {
	h := wire.Hello{Revision: 1, Client: wire.ClientDevice, Account: "a", Requests: 3, Credit: 100_000}
	return frame{wire.Header{Type: wire.TypeHello}, h.Append(nil)}
}

var device = wire.Hello{Revision: 1, Client: wire.ClientDevice, Account: "a"}

const (
	ping = wire.TypePing
	put  = wire.TypePut
	get  = wire.TypeGet
	end  = wire.FlagEnd
	data = wire.FlagData
	bad  = wire.FlagError
)

// hang answers nothing until the request is cancelled.
func hang(ctx context.Context, _ *Request) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestServerRefuses(t *testing.T) {
	window := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	long := fr(ping, end, 1, "x")
	long.Length = wire.MaxBody + 1
	for _, tt := range []struct {
		name   string
		frames []frame
		raw    []byte
		want   error
	}{
		{name: "version 3", raw: append([]byte{3}, make([]byte, 11)...), want: wire.ErrUnsupported},
		{name: "unknown flag", frames: []frame{fr(ping, 8, 1, "x")}, want: wire.ErrMalformed},
		{name: "too long", frames: []frame{long}, want: wire.ErrTooLarge},
		{name: "type 0", frames: []frame{fr(0, 0, 1, "x")}, want: wire.ErrMalformed},
		{name: "type 15", frames: []frame{fr(15, 0, 1, "x")}, want: wire.ErrMalformed},
		{name: "HELLO", frames: []frame{fr(wire.TypeHello, 0, 0, "x")}, want: wire.ErrMalformed},
		{name: "GOAWAY", frames: []frame{fr(wire.TypeGoAway, 0, 0, "x")}, want: wire.ErrMalformed},
		{name: "request on stream 0", frames: []frame{fr(ping, end, 0, "x")}, want: wire.ErrMalformed},
		{name: "first request on stream 2", frames: []frame{fr(ping, end, 2, "x")}, want: wire.ErrMalformed},
		{name: "a number left out", frames: []frame{fr(ping, end, 1, "x"), fr(ping, end, 3, "x")}, want: wire.ErrMalformed},
		{name: "request that is data", frames: []frame{fr(put, data, 1, "x")}, want: wire.ErrMalformed},
		{name: "request without body", frames: []frame{fr(put, end, 1, "")}, want: wire.ErrMalformed},
		{name: "request that is an error", frames: []frame{fr(put, bad|end, 1, "x")}, want: wire.ErrMalformed},
		{name: "a second message", frames: []frame{fr(put, 0, 1, "x"), fr(put, 0, 1, "x")}, want: wire.ErrMalformed},
		{name: "data of another verb", frames: []frame{fr(put, 0, 1, "x"), fr(get, data, 1, "x")}, want: wire.ErrMalformed},
		{name: "data after the end", frames: []frame{fr(put, end, 1, "x"), fr(put, data, 1, "x")}, want: wire.ErrMalformed},
		{name: "empty data", frames: []frame{fr(put, 0, 1, "x"), fr(put, data, 1, "")}, want: wire.ErrMalformed},
		{name: "more than the credit", frames: []frame{fr(put, 0, 1, "x"), fr(put, data, 1, string(make([]byte, 100))), fr(put, data, 1, "123456")}, want: wire.ErrMalformed},
		{name: "request above the credit", frames: []frame{fr(put, 0, 1, string(make([]byte, 107)))}, want: wire.ErrMalformed},
		{name: "too many", frames: []frame{fr(put, 0, 1, "x"), fr(put, 0, 2, "x"), fr(put, 0, 3, "x")}, want: wire.ErrBusy},
		{name: "WINDOW with a flag", frames: []frame{fr(put, 0, 1, "x"), fr(wire.TypeWindow, end, 1, window(1))}, want: wire.ErrMalformed},
		{name: "WINDOW of three bytes", frames: []frame{fr(put, 0, 1, "x"), fr(wire.TypeWindow, 0, 1, "123")}, want: wire.ErrMalformed},
		{name: "WINDOW of nothing", frames: []frame{fr(put, 0, 1, "x"), fr(wire.TypeWindow, 0, 1, window(0))}, want: wire.ErrMalformed},
		{name: "WINDOW for nothing", frames: []frame{fr(wire.TypeWindow, 0, 1, window(1))}, want: wire.ErrMalformed},
		{name: "WINDOW of stream 0", frames: []frame{fr(wire.TypeWindow, 0, 0, window(1))}, want: wire.ErrMalformed},
		{name: "WINDOW above the limit", frames: []frame{fr(put, 0, 1, "x"), fr(wire.TypeWindow, 0, 1, window(wire.MaxCredit))}, want: wire.ErrMalformed},
		{name: "CANCEL with a flag", frames: []frame{fr(put, 0, 1, "x"), fr(wire.TypeCancel, end, 1, "")}, want: wire.ErrMalformed},
		{name: "CANCEL with a body", frames: []frame{fr(put, 0, 1, "x"), fr(wire.TypeCancel, 0, 1, "x")}, want: wire.ErrMalformed},
		{name: "CANCEL of nothing", frames: []frame{fr(wire.TypeCancel, 0, 1, "")}, want: wire.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				hello := device
				hello.Requests, hello.Credit = 2, 106
				done := make(chan error, 1)
				go func() { done <- NewServer(b, hello, Options{}).Serve(t.Context(), hang) }()
				r := newRaw(t, a)
				if f := r.next(); f.Type != wire.TypeHello || f.Stream != 0 || f.Flags != 0 {
					t.Fatalf("first %+v", f.Header)
				}
				if tt.raw != nil {
					a.Write(tt.raw)
				}
				r.send(tt.frames...)
				if e := r.failure(); !errors.Is(e, tt.want) {
					t.Errorf("told %v, want %v", e, tt.want)
				}
				a.Close()
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("Serve returns %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestClientRefuses(t *testing.T) {
	first := helloFrame()
	for _, tt := range []struct {
		name   string
		frames []frame
		want   error
	}{
		{"HELLO again", []frame{first}, wire.ErrMalformed},
		{"CANCEL", []frame{fr(wire.TypeCancel, 0, 1, "")}, wire.ErrMalformed},
		{"GOAWAY on a stream", []frame{fr(wire.TypeGoAway, 0, 1, "x")}, wire.ErrMalformed},
		{"GOAWAY with nonsense", []frame{fr(wire.TypeGoAway, 0, 0, "x")}, wire.ErrMalformed},
		{"an answer to nothing", []frame{fr(get, end, 2, "x")}, wire.ErrMalformed},
		{"an answer of another verb", []frame{fr(put, end, 1, "x")}, wire.ErrMalformed},
		{"an error of another verb", []frame{fr(put, end|bad, 1, "x")}, wire.ErrMalformed},
		{"after the end", []frame{fr(get, end, 1, "x"), fr(get, end, 1, "x")}, wire.ErrMalformed},
		{"a message after data", []frame{fr(get, data, 1, "x"), fr(get, 0, 1, "x")}, wire.ErrMalformed},
		{"a frame of nothing", []frame{fr(get, 0, 1, "")}, wire.ErrMalformed},
		{"an error that is not the last", []frame{fr(get, bad, 1, "x")}, wire.ErrMalformed},
		{"an error that is data", []frame{fr(get, bad|end|data, 1, "x")}, wire.ErrMalformed},
		{"an error that is nonsense", []frame{fr(get, bad|end, 1, "x")}, wire.ErrMalformed},
		{"more than the credit", slices.Repeat([]frame{fr(get, data, 1, string(make([]byte, wire.MaxBody)))}, 5), wire.ErrMalformed},
		{"WINDOW for nothing", []frame{fr(wire.TypeWindow, 0, 2, "1234")}, wire.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				r := newRaw(t, b)
				go r.send(first)
				c, err := Connect(t.Context(), a)
				if err != nil {
					t.Fatal(err)
				}
				s, err := c.Open(t.Context(), get, []byte("x"), false)
				if err != nil {
					t.Fatal(err)
				}
				r.send(tt.frames...)
				if e := r.failure(); !errors.Is(e, tt.want) {
					t.Errorf("told %v, want %v", e, tt.want)
				}
				b.Close()
				<-c.Done()
				if err := c.Err(); !errors.Is(err, ErrLost) || !errors.Is(err, tt.want) {
					t.Errorf("over because of %v, want %v", err, tt.want)
				}
				s.Close()
				c.Close()
			})
		})
	}
}

func TestConnectRefuses(t *testing.T) {
	revoked := frame{wire.Header{Type: wire.TypeHello, Flags: bad | end}, (&wire.Error{Code: wire.CodeRevoked}).Append(nil)}
	for _, tt := range []struct {
		name string
		send []byte
		want error
	}{
		{"closed at once", nil, errClosed},
		{"closed in the header", make([]byte, 5), io.ErrUnexpectedEOF},
		{"closed in HELLO", encode(helloFrame())[:20], io.ErrUnexpectedEOF},
		{"version 3", make([]byte, 12), wire.ErrUnsupported},
		{"something else first", encode(fr(ping, end, 1, "x")), wire.ErrMalformed},
		{"HELLO that is nonsense", encode(fr(wire.TypeHello, 0, 0, "x")), wire.ErrMalformed},
		{"an error", encode(revoked), wire.ErrRevoked},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			go func() {
				b.Write(tt.send)
				b.Close()
			}()
			if _, err := Connect(t.Context(), a); !errors.Is(err, ErrLost) || !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Connect(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a server that says nothing: %v", err)
		}
	})
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go Refuse(b, wire.ErrRevoked)
		if _, err := Connect(t.Context(), a); !errors.Is(err, wire.ErrRevoked) {
			t.Error(err)
		}
	})
}

// pair runs a session of both sides in a bubble.
func pair(t *testing.T, hello wire.Hello, opts Options, handle Handler) (c *Client, s *Server, served <-chan error) {
	t.Helper()
	a, b := net.Pipe()
	return pairOn(t, a, b, hello, opts, handle)
}

func pairOn(t *testing.T, a, b net.Conn, hello wire.Hello, opts Options, handle Handler) (*Client, *Server, <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	s := NewServer(b, hello, opts)
	go func() { done <- s.Serve(t.Context(), handle) }()
	c, err := Connect(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c, s, done
}

// echo answers a request with its messages, one for each byte of the body, and then
// with its data; or with the error that the body names.
func echo(_ context.Context, r *Request) error {
	if string(r.Body) == "error" {
		return &wire.Error{Code: wire.CodeMissingRefs, Text: "two", IDs: make([]vault.ObjectID, 2)}
	}
	for _, c := range r.Body {
		if err := r.Answer([]byte{c}); err != nil {
			return err
		}
	}
	_, err := io.Copy(struct{ io.Writer }{r}, struct{ io.Reader }{r})
	return err
}

// ask sends a request with data and returns all of the answer.
func ask(ctx context.Context, c *Client, body, content []byte, messages int) (string, []byte, error) {
	s, err := c.Open(ctx, put, body, true)
	if err != nil {
		return "", nil, err
	}
	defer s.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := s.Write(content); err == nil {
			s.CloseWrite()
		}
	})
	var got []byte
	for range messages {
		m, err := s.Message()
		if err != nil {
			return "", nil, err
		}
		got = append(got, m...)
	}
	back, err := io.ReadAll(s)
	return string(got), back, err
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := device
		hello.Requests = 5
		c, _, served := pair(t, hello, Options{}, echo)
		if got := c.Hello(); got.Requests != 5 || got.Credit != DefaultCredit || got.Account != "a" {
			t.Errorf("HELLO %+v", got)
		}
		content := make([]byte, 3<<20)
		rand.NewChaCha8([32]byte{}).Read(content)
		var wg sync.WaitGroup
		for i, n := range []int{0, 1, 100, 4096, stageSize - 1, stageSize, stageSize + 1, 300_000, 1 << 20, 3 << 20} {
			wg.Go(func() {
				body := bytes.Repeat([]byte{'a' + byte(i)}, i+1)
				m, back, err := ask(t.Context(), c, body, content[:n], len(body))
				if err != nil || m != string(body) || !bytes.Equal(back, content[:n]) {
					t.Errorf("%d bytes: messages %q, %d bytes back, %v", n, m, len(back), err)
				}
			})
		}
		wg.Go(func() {
			_, _, err := ask(t.Context(), c, []byte("error"), content, 1)
			if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeMissingRefs || e.Text != "two" || len(e.IDs) != 2 || errors.Is(err, ErrLost) {
				t.Errorf("the error came as %v", err)
			}
		})
		wg.Wait()
		if _, err := c.Open(t.Context(), put, make([]byte, wire.MaxBody+1), false); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("a body above the limit: %v", err)
		}
		if err := c.Err(); err != nil {
			t.Error(err)
		}
		c.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := c.Open(t.Context(), ping, []byte{1}, false); !errors.Is(err, ErrLost) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// An answer may come before the request has ended: the client need not know.
func TestEarlyAnswer(t *testing.T) {
	for name, answer := range map[string]error{"error": wire.ErrQuota, "end": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hello := device
				hello.Requests = 1
				c, _, served := pair(t, hello, Options{}, func(_ context.Context, r *Request) error {
					if r.Verb == put {
						return answer
					}
					return r.Answer(r.Body)
				})
				for range 3 {
					s, err := c.Open(t.Context(), put, []byte{1}, true)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := s.Write(make([]byte, 10<<20)); err == nil {
						t.Error("ten mebibytes were taken")
					}
					if _, err := s.Message(); answer != nil && !errors.Is(err, answer) || answer == nil && err != io.EOF {
						t.Error(err)
					}
					s.Close()
					if _, err := ask1(t.Context(), c, ping); err != nil {
						t.Error(err)
					}
				}
				c.Close()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func ask1(ctx context.Context, c *Client, verb wire.Type) ([]byte, error) {
	s, err := c.Open(ctx, verb, []byte{7}, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	m, err := s.Message()
	return bytes.Clone(m), err
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := device
		hello.Requests = 2
		ended := make(chan error, 10)
		c, _, served := pair(t, hello, Options{}, func(ctx context.Context, r *Request) error {
			if r.Verb == ping {
				return r.Answer(r.Body)
			}
			var err error
			for err == nil { // until nobody takes it any more
				_, err = r.Write(make([]byte, 100_000))
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil
		})
		cause := errors.New("the person has changed their mind")
		for i := range 5 { // more than may be under way: each frees its place
			ctx, cancel := context.WithCancelCause(t.Context())
			s, err := c.Open(ctx, get, []byte{1}, false)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the server has filled the window
			if i%2 == 0 {
				cancel(cause)
				if _, err := io.Copy(io.Discard, s); err != cause {
					t.Errorf("cancelled: %v", err)
				}
			}
			s.Close()
			cancel(nil)
			if err := <-ended; err != context.Canceled {
				t.Errorf("the handler's context ends with %v", err)
			}
			if _, err := ask1(t.Context(), c, ping); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := c.Open(ctx, get, []byte{1}, false); err != cause {
			t.Errorf("with a context that is done: %v", err)
		}
		c.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, s, served := pair(t, device, Options{}, func(_ context.Context, r *Request) error {
			<-release
			return r.Answer(r.Body)
		})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := ask1(t.Context(), c, get); err != nil {
					t.Errorf("under way: %v", err)
				}
			})
		}
		synctest.Wait()
		s.GoAway(&wire.Error{Code: wire.CodeClosing, Text: "maintenance"})
		synctest.Wait()
		if _, err := ask1(t.Context(), c, get); !errors.Is(err, wire.ErrClosing) || errors.Is(err, ErrLost) {
			t.Errorf("a request after GOAWAY: %v", err)
		}
		close(release)
		wg.Wait()
		if err := <-served; err != nil {
			t.Error(err)
		}
		<-c.Done()
		if err := c.Err(); !errors.Is(err, wire.ErrClosing) || !errors.Is(err, ErrLost) {
			t.Errorf("over because of %v", err)
		}
		c.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		c, s, served := pair(t, device, Options{}, echo)
		s.GoAway(&wire.Error{Code: wire.CodeClosing})
		<-c.Done()
		if err := <-served; err != nil {
			t.Error(err)
		}
		c.Close()
	})
}

// A request that crosses GOAWAY is told so.
func TestRequestCrossesGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		s := NewServer(b, device, Options{})
		done := make(chan error, 1)
		release := make(chan struct{})
		go func() {
			done <- s.Serve(t.Context(), func(context.Context, *Request) error { <-release; return nil })
		}()
		r := newRaw(t, a)
		r.next()
		r.send(fr(ping, end, 1, "x"))
		synctest.Wait()
		s.GoAway(&wire.Error{Code: wire.CodeClosing})
		r.next()
		r.send(fr(ping, end, 2, "x"))
		if f := r.next(); f.Stream != 2 || f.Flags != bad|end {
			t.Errorf("got %+v", f.Header)
		}
		close(release)
		if f := r.next(); f.Stream != 1 || f.Flags&bad != 0 {
			t.Errorf("got %+v", f.Header)
		}
		a.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServeEnds(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, served := pair(t, device, Options{Idle: time.Minute}, echo)
			began := time.Now()
			for range 3 { // what comes keeps it alive
				time.Sleep(50 * time.Second)
				if _, _, err := ask(t.Context(), c, []byte{1}, nil, 1); err != nil {
					t.Fatal(err)
				}
			}
			<-c.Done()
			if quiet := time.Since(began); quiet < 210*time.Second || quiet > 220*time.Second || !errors.Is(c.Err(), wire.ErrClosing) {
				t.Errorf("after %v: %v", quiet, c.Err())
			}
			if err := <-served; !errors.Is(err, errIdle) {
				t.Error(err)
			}
			c.Close()
		})
	})
	t.Run("unknown client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, served := pair(t, wire.Hello{Revision: 1}, Options{}, hang)
			if _, err := c.Open(t.Context(), ping, make([]byte, wire.MaxBodyUnknown+1), false); !errors.Is(err, wire.ErrTooLarge) {
				t.Errorf("a long request: %v", err)
			}
			began := time.Now()
			ask1(t.Context(), c, ping)
			if took := time.Since(began); took != unknownTime {
				t.Errorf("the session lasted %v", took)
			}
			c.Close()
			if err := <-served; !errors.Is(err, errUnknown) {
				t.Error(err)
			}
		})
	})
	t.Run("unknown client's long frame", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			go NewServer(b, wire.Hello{Revision: 1}, Options{}).Serve(t.Context(), hang)
			r := newRaw(t, a)
			r.next()
			r.send(fr(ping, end, 1, string(make([]byte, wire.MaxBodyUnknown+1))))
			if e := r.failure(); !errors.Is(e, wire.ErrTooLarge) {
				t.Error(e)
			}
			a.Close()
		})
	})
	t.Run("context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- NewServer(b, device, Options{}).Serve(ctx, hang) }()
			c, err := Connect(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := ask1(t.Context(), c, ping); !errors.Is(err, ErrLost) && !errors.Is(err, wire.ErrCancelled) {
					t.Errorf("under way: %v", err)
				}
			})
			synctest.Wait()
			cancel()
			wg.Wait()
			<-c.Done()
			if !errors.Is(c.Err(), wire.ErrClosing) {
				t.Error(c.Err())
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			c.Close()
		})
	})
	t.Run("client takes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			began := time.Now()
			err := NewServer(b, device, Options{WriteTimeout: time.Minute}).Serve(t.Context(), hang)
			if took := time.Since(began); err == nil || took < time.Minute || took > 2*time.Minute {
				t.Errorf("after %v: %v", took, err)
			}
		})
	})
	t.Run("client ends it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			done := make(chan error, 1)
			go func() { done <- NewServer(b, device, Options{}).Serve(t.Context(), hang) }()
			r := newRaw(t, a)
			r.next()
			r.send(frame{wire.Header{Type: wire.TypeHello, Flags: bad | end}, (&wire.Error{Code: wire.CodeInternal, Text: "x"}).Append(nil)})
			a.Close()
			if err := <-done; !errors.Is(err, wire.ErrInternal) {
				t.Error(err)
			}
		})
	})
}

// What a stream holds is bounded by its credit, however it is cut into frames.
func TestHeldMemory(t *testing.T) {
	for _, size := range []int{1, 2, 100, 2049, 4095, 4096, 4097, 8193, 100_000, 131_073} {
		st := newStream(&session{}, 1, put, 1<<20, 0)
		for left := 1 << 20; left >= size; left -= size {
			st.push(chunk{newBuffer(size), true})
		}
		held := 0
		for _, c := range st.queue {
			held += cap(c.buffer.data)
		}
		if held > 5<<18+1<<minBits {
			t.Errorf("frames of %d bytes: %d held", size, held)
		}
	}
}

// slowConn takes a write when the test lets it.
type slowConn struct {
	net.Conn
	let    chan struct{}
	writes chan int
}

func (c *slowConn) Write(p []byte) (int, error) {
	<-c.let
	c.writes <- len(p)
	return c.Conn.Write(p)
}

// Frames that come while another is written go out together.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		slow := &slowConn{a, make(chan struct{}), make(chan int, 1000)}
		r := newRaw(t, b)
		go r.send(helloFrame())
		c, err := Connect(t.Context(), slow)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			go c.out.frame(wire.Header{Type: wire.TypeWindow, Stream: 1}, []byte{1, 0, 0, 0})
		}
		synctest.Wait()
		close(slow.let)
		synctest.Wait()
		if n := len(slow.writes); n > 2 {
			t.Errorf("100 frames took %d writes", n)
		}
		for range 100 {
			r.next()
		}
		c.Close()
		b.Close()
	})
}

// A small frame that finds a large one being written goes out after it.
func TestLeftIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		slow := &slowConn{a, make(chan struct{}), make(chan int, 1000)}
		r := newRaw(t, b)
		go r.send(helloFrame())
		c, err := Connect(t.Context(), slow)
		if err != nil {
			t.Fatal(err)
		}
		go c.out.frame(wire.Header{Type: put, Flags: data, Stream: 1}, make([]byte, 100_000))
		synctest.Wait()
		c.out.frame(wire.Header{Type: wire.TypeWindow, Stream: 1}, []byte{1, 0, 0, 0}) // does not wait
		close(slow.let)
		if one, two := r.next(), r.next(); one.Type != put || two.Type != wire.TypeWindow {
			t.Errorf("%v, then %v", one.Type, two.Type)
		}
		c.Close()
		b.Close()
	})
}

// Streams that all have much to send take turns.
func TestFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		const streams = 4
		go NewServer(b, device, Options{}).Serve(t.Context(), func(_ context.Context, r *Request) error {
			_, err := r.Write(make([]byte, wire.AnswerCredit))
			return err
		})
		if _, err := readFrame(a); err != nil { // HELLO
			t.Fatal(err)
		}
		for i := range streams {
			a.Write(encode(fr(get, end, uint32(i+1), "x")))
		}
		synctest.Wait() // all have their first frame ready
		got := map[uint32]int{}
		for range 2 * streams {
			f, err := readFrame(a)
			if err != nil {
				t.Fatal(err)
			}
			got[f.Stream]++
			synctest.Wait()
		}
		for i, n := range got {
			if n != 2 {
				t.Errorf("stream %d has sent %d frames of %d", i, n, 2*streams)
			}
		}
		a.Close()
	})
}

// tap checks the credit of every frame that one side writes, and cuts the
// connection before the frame with the number cut.
type tap struct {
	net.Conn
	t      *testing.T
	both   *credits
	client bool // this side is
	buf    []byte
	cut    int
	dead   bool // it was cut here
}

// credits is what each direction of each stream may still send.
type credits struct {
	mu      sync.Mutex
	allowed map[creditKey]int
	frames  int
}

type creditKey struct {
	stream uint32
	client bool // the sender
}

func (c *tap) Write(p []byte) (int, error) {
	if c.dead {
		return 0, io.ErrClosedPipe
	}
	c.buf = append(c.buf, p...)
	for len(c.buf) >= wire.HeaderSize {
		h, err := wire.ParseHeader([wire.HeaderSize]byte(c.buf), wire.MaxBody)
		if err != nil {
			c.t.Error(err)
			return 0, err
		}
		n := wire.HeaderSize + int(h.Length)
		if len(c.buf) < n {
			break
		}
		if c.check(h, c.buf[wire.HeaderSize:n]) {
			c.dead = true
			c.Conn.Close()
			return 0, io.ErrClosedPipe
		}
		if _, err := c.Conn.Write(c.buf[:n]); err != nil {
			return 0, err
		}
		c.buf = c.buf[n:]
	}
	return len(p), nil
}

// check says whether the connection is to be cut before the frame.
func (c *tap) check(h wire.Header, body []byte) bool {
	c.both.mu.Lock()
	defer c.both.mu.Unlock()
	c.both.frames++
	key := creditKey{h.Stream, c.client}
	switch {
	case h.Type == wire.TypeWindow:
		other := creditKey{h.Stream, !c.client}
		c.both.allowed[other] += int(binary.LittleEndian.Uint32(body))
		if limit := max(testCredit, wire.AnswerCredit); c.both.allowed[other] > limit {
			c.t.Errorf("stream %d may send %d bytes", h.Stream, c.both.allowed[other])
		}
	case h.Type.Verb() && !h.Has(wire.FlagError):
		left, ok := c.both.allowed[key]
		if !ok {
			if left = wire.AnswerCredit; c.client {
				left = testCredit
			}
		}
		if left -= len(body); left < 0 {
			c.t.Errorf("stream %d sends %d bytes above its credit", h.Stream, -left)
		}
		c.both.allowed[key] = left
	}
	return c.both.frames == c.cut
}

const testCredit = 70_000

// Many requests with contents and consumers of all speeds: no direction exceeds its
// credit, everything arrives, and nothing waits for ever, which the bubble would
// report.
func TestFlowControl(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { exchange(t, seed, 0) })
		})
	}
}

// A connection that breaks before any frame ends both sides, and every request
// either has its whole answer or says that the connection is lost.
func TestCut(t *testing.T) {
	frames := 0
	synctest.Test(t, func(t *testing.T) { frames = exchange(t, 1, 0) })
	if frames < 50 {
		t.Fatalf("%d frames only", frames)
	}
	for cut := 2; cut <= frames; cut += 1 + cut/20 { // 1 is HELLO: see TestConnectRefuses
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { exchange(t, 1, cut) })
		})
	}
}

// exchange runs a session with random requests and returns how many frames it took.
func exchange(t *testing.T, seed uint64, cut int) int {
	rng := rand.New(rand.NewPCG(seed, 0))
	a, b := net.Pipe()
	both := &credits{allowed: map[creditKey]int{}}
	hello := device
	hello.Requests, hello.Credit = 4, testCredit
	nap := func(n int) time.Duration { return time.Duration(n%50) * time.Millisecond }
	c, _, served := pairOn(t, &tap{Conn: a, t: t, both: both, client: true, cut: cut}, &tap{Conn: b, t: t, both: both, cut: cut}, hello, Options{},
		func(ctx context.Context, r *Request) error {
			if err := r.Answer(r.Body); err != nil {
				return err
			}
			buf := make([]byte, 1+int(r.Body[0])*100)
			for {
				n, err := r.Read(buf)
				if _, err := r.Write(buf[:n]); err != nil {
					return err
				}
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				time.Sleep(nap(int(r.Body[1])))
			}
		})
	var wg sync.WaitGroup
	for range 10 {
		body := []byte{byte(rng.Uint32()), byte(rng.Uint32())}
		content := make([]byte, rng.IntN(300_000))
		for i := range content {
			content[i] = byte(i * 31 >> 2)
		}
		wg.Go(func() {
			m, back, err := ask(t.Context(), c, body, content, 1)
			switch {
			case err == nil && (m != string(body) || !bytes.Equal(back, content)):
				t.Errorf("%d bytes: %d came back", len(content), len(back))
			case err != nil && (cut == 0 || !errors.Is(err, ErrLost)):
				t.Errorf("%d bytes: %v", len(content), err)
			}
		})
	}
	wg.Wait()
	c.Close()
	if err := <-served; err != nil && cut == 0 {
		t.Error(err)
	}
	return both.frames
}
