package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wire "backstay/protocol/v4"
)

// bounded is a Room.
type bounded struct {
	t *testing.T

	mu         sync.Mutex // guards what follows
	size, used int
}

func (b *bounded) Take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.size {
		return false
	}
	b.used += n
	return true
}

func (b *bounded) Give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used -= n; b.used < 0 {
		b.t.Errorf("%d bytes more were given back than taken", -b.used)
	}
}

func (b *bounded) inUse() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// held is how many bytes the buffers of a session's requests take.
func held(s *Server) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		st.mu.Lock()
		for _, c := range st.queue {
			n += cap(c.buffer.data)
		}
		st.mu.Unlock()
	}
	return n
}

// Requests that nobody reads hold no more than the room, however they are cut into
// frames; others are told that the server is busy, and the session goes on.
func TestRoom(t *testing.T) {
	const credit = 1 << 18
	for _, frame := range []int{4097, 100_000, 131_073, credit - 1} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			hello := device
			hello.Requests, hello.Credit = 8, credit
			room := &bounded{t: t, size: 1_400_000}
			release := make(chan struct{})
			s := NewServer(b, hello, Options{Room: room})
			done := make(chan error, 1)
			go func() {
				done <- s.Serve(t.Context(), func(ctx context.Context, r *Request) error {
					if r.Verb == put {
						<-release
						_, err := io.Copy(io.Discard, struct{ io.Reader }{r})
						return err
					}
					return r.Answer(r.Body)
				})
			}()
			c, err := Connect(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			var mu sync.Mutex // guards taken, busy
			taken, busy := 0, 0
			for range 7 {
				wg.Go(func() {
					st, err := c.Open(t.Context(), put, []byte{1}, true)
					if err != nil {
						t.Error(err)
						return
					}
					defer st.Close()
					for left := credit - 1; left >= frame; left -= frame {
						if _, err := st.st.sendData(make([]byte, frame)); err != nil {
							break
						}
					}
					err = st.CloseWrite()
					if err == nil || errors.Is(err, errAnswered) || errors.Is(err, wire.ErrBusy) {
						_, err = st.Message()
					}
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == io.EOF:
						taken++
					case errors.Is(err, wire.ErrBusy):
						busy++
					default:
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if used, really := room.inUse(), held(s); used > room.size || really > used {
				t.Errorf("frames of %d: %d bytes are taken of %d, %d held", frame, used, room.size, really)
			}
			if _, err := ask1(t.Context(), c, ping); err != nil {
				t.Errorf("a small request: %v", err)
			}
			s2, err := c.Open(t.Context(), get, make([]byte, 1<<17), false) // the rest of the room is less
			if err != nil {
				t.Fatal(err)
			}
			if m, err := s2.Message(); !errors.Is(err, wire.ErrBusy) {
				t.Errorf("a large one: %d bytes, %v", len(m), err)
			}
			s2.Close()
			close(release)
			wg.Wait()
			if taken != 4 || busy != 3 {
				t.Errorf("frames of %d: %d were taken, %d told to come later", frame, taken, busy)
			}
			if _, _, err := ask(t.Context(), c, []byte{1}, make([]byte, 1000), 0); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			synctest.Wait()
			if n := room.inUse(); n != 0 {
				t.Errorf("%d bytes are not given back", n)
			}
			c.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever ends a request gives back what it took, and not while a frame of it is
// being read.
func TestRoomIsGivenBack(t *testing.T) {
	part := func(f frame, n int) []byte { return encode(f)[:wire.HeaderSize+n] }
	big := string(make([]byte, 100_000))
	for _, tt := range []struct {
		name string
		send [][]byte
		held bool // while the frame has not come whole
	}{
		{"cut in the request", [][]byte{part(fr(get, end, 1, big), 5)}, true},
		{"cut in its data", [][]byte{encode(fr(put, 0, 1, "x")), part(fr(put, data, 1, big), 5)}, true},
		{"cancelled in its data", [][]byte{encode(fr(put, 0, 1, "x"), fr(put, data, 1, big), fr(wire.TypeCancel, 0, 1, "")), part(fr(put, data, 1, big), 5)}, false},
		{"answered", [][]byte{encode(fr(ping, 0, 1, "x"), fr(put, end, 2, big))}, false},
		{"data of a verb without", [][]byte{encode(fr(get, 0, 1, "x"), fr(get, data, 1, big))}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				room := &bounded{t: t, size: 4 << 20}
				done := make(chan error, 1)
				go func() {
					done <- NewServer(b, device, Options{Room: room}).Serve(t.Context(), func(ctx context.Context, r *Request) error {
						if len(r.Body) > 1 || r.Verb == ping {
							return nil
						}
						return hang(ctx, r)
					})
				}()
				r := newRaw(t, a)
				r.next()
				for _, b := range tt.send {
					a.Write(b)
				}
				synctest.Wait()
				if n := room.inUse(); n > 0 != tt.held {
					t.Errorf("%d bytes are taken, held: %v", n, tt.held)
				}
				a.Close()
				<-done
				if n := room.inUse(); n != 0 {
					t.Errorf("%d bytes are not given back", n)
				}
			})
		})
	}
}

// A stream that is answered while a frame of it is being read holds that until it has
// come.
func TestRoomWhileAFrameComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		room := &bounded{t: t, size: 4 << 20}
		release := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- NewServer(b, device, Options{Room: room}).Serve(t.Context(), func(context.Context, *Request) error { <-release; return nil })
		}()
		r := newRaw(t, a)
		r.next()
		r.send(fr(put, 0, 1, "x"))
		f := encode(fr(put, data|end, 1, string(make([]byte, 100_000))))
		a.Write(f[:20_000])
		close(release)
		r.next() // the answer
		synctest.Wait()
		if room.inUse() == 0 {
			t.Error("given back while the frame is being read")
		}
		a.Write(f[20_000:])
		synctest.Wait()
		if n := room.inUse(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
		a.Close()
		<-done
	})
}

// A client that makes requests and takes no answers does not have more of them at
// work than it may.
func TestAnswersThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		hello := device
		hello.Requests = 4
		s := NewServer(b, hello, Options{WriteTimeout: time.Minute})
		done := make(chan error, 1)
		go func() {
			done <- s.Serve(t.Context(), func(_ context.Context, r *Request) error { return r.Answer(make([]byte, 20_000)) })
		}()
		if _, err := readFrame(a); err != nil { // HELLO, and no more
			t.Fatal(err)
		}
		// Each request comes when the one before is answered, as far as it can be.
		sent := 0
		for ; sent < 1000; sent++ {
			a.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := a.Write(encode(fr(ping, end, uint32(sent)+1, "x"))); err != nil {
				break
			}
			synctest.Wait()
		}
		if n := len(s.handlers); n != 8 || sent > 10 {
			t.Errorf("%d requests at work of %d that were taken", n, sent)
		}
		if err := <-done; err == nil { // after the time to write
			t.Error("the session goes on")
		}
		a.Close()
	})
}

// End ends what is under way, tells the client why, and waits for no timer.
func TestEnd(t *testing.T) {
	for name, before := range map[string]func(s *Server){
		"at once":      func(*Server) {},
		"after GOAWAY": func(s *Server) { s.GoAway(&wire.Error{Code: wire.CodeClosing}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c, s, served := pair(t, device, Options{}, hang)
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						if _, err := ask1(t.Context(), c, get); !errors.Is(err, ErrLost) || !errors.Is(err, wire.ErrRevoked) {
							t.Errorf("under way: %v", err)
						}
					})
				}
				synctest.Wait()
				before(s)
				s.End(&wire.Error{Code: wire.CodeRevoked, Text: "shut out"})
				wg.Wait()
				<-c.Done()
				if err := c.Err(); !errors.Is(err, wire.ErrRevoked) {
					t.Errorf("over because of %v", err)
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("it took %v", took)
				}
				c.Close()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("before HELLO", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			s := NewServer(b, device, Options{})
			done := make(chan error, 1)
			go func() {
				s.End(&wire.Error{Code: wire.CodeRevoked})
				done <- s.Serve(t.Context(), hang)
			}()
			if _, err := Connect(t.Context(), a); !errors.Is(err, wire.ErrRevoked) {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
	// A client that neither reads nor closes is let go, and its handlers at once.
	t.Run("client takes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			s := NewServer(b, device, Options{})
			done, ended := make(chan error, 1), make(chan time.Time, 1)
			go func() {
				done <- s.Serve(t.Context(), func(ctx context.Context, _ *Request) error {
					<-ctx.Done()
					ended <- time.Now()
					return ctx.Err()
				})
			}()
			if _, err := readFrame(a); err != nil {
				t.Fatal(err)
			}
			a.Write(encode(fr(ping, end, 1, "x")))
			synctest.Wait()
			began := time.Now()
			s.End(&wire.Error{Code: wire.CodeRevoked})
			if at := <-ended; at.Sub(began) != 0 {
				t.Errorf("the handler ended after %v", at.Sub(began))
			}
			<-done
			if took := time.Since(began); took > linger+farewell {
				t.Errorf("it took %v", took)
			}
		})
	})
}

// Buffers fit what is in them.
func TestBufferClasses(t *testing.T) {
	for n := 1; n <= wire.MaxBody; n += 1 + n/50 {
		b := newBuffer(n)
		if size := cap(b.data); len(b.data) != n || size < n || size > max(n+n/4+1, 1<<minBits) || size != classSize(b.class) {
			t.Errorf("%d bytes in %d", n, size)
		}
		b.free()
	}
	if b := newBuffer(wire.MaxBody); cap(b.data) != wire.MaxBody || b.class != len(pools)-1 {
		t.Errorf("the largest has %d bytes", cap(b.data))
	}
}

// What a small frame brings fills up the one before, and comes in its order.
func TestPushKeepsOrder(t *testing.T) {
	st := newStream(&session{}, 1, put, 1<<20, 0)
	var want []byte
	for i, n := range []int{5000, 1000, 4096, 2049, 2049, 4097, 1, 3000} {
		b := newBuffer(n)
		for j := range b.data {
			b.data[j] = byte(i*50 + j)
		}
		want = append(want, b.data...)
		st.push(chunk{b, true})
	}
	st.ended = true
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came as %d, %v", len(want), len(got), err)
	}
}
