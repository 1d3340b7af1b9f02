package v3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wire "backstay/protocol/v3"
)

// A keeper is an Options.Save that remembers.
type keeper struct{ saved []Identity }

func (k *keeper) save(id Identity) error {
	k.saved = append(k.saved, id)
	return nil
}

func (k *keeper) last() *Identity {
	if len(k.saved) == 0 {
		return nil
	}
	return &k.saved[len(k.saved)-1]
}

func (k *keeper) options(address string) Options {
	return Options{Address: address, Name: "ada", Identity: k.last(), Save: k.save}
}

// mustDial begins a session that ends with the test.
func mustDial(t testing.TB, o Options) *Session {
	t.Helper()
	s, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFamiliesHashesAndKeySizes(t *testing.T) {
	for _, family := range []wire.Dialect{wire.Field, wire.Documented} {
		for _, hash := range []wire.OAEPHash{wire.SHA256, wire.SHA1} {
			for _, keySize := range []int{32, 16} {
				for _, oneByte := range []bool{false, true} {
					t.Run(fmt.Sprintf("%v/%v/%d/one byte %v", family, hash, keySize, oneByte), func(t *testing.T) {
						srv := &server{t: t, family: family, hash: hash, keySize: keySize, oneByte: oneByte}
						var k keeper
						o := k.options(srv.listen())
						s := mustDial(t, o)
						if s.Family() != family {
							t.Errorf("family %v, want %v", s.Family(), family)
						}
						checkSend(t, srv, s, "registered.bin", content4K)
						checkSend(t, srv, s, "empty", nil)
						if err := s.Close(); err != nil {
							t.Error(err)
						}

						o.Identity, o.Family = k.last(), family
						s = mustDial(t, o)
						checkSend(t, srv, s, "reconnected.bin", content4K)
						if len(k.saved) != 1 {
							t.Errorf("identity saved %d times, want once", len(k.saved))
						}
						want := []wire.Kind{wire.Register, wire.PublicKey, wire.File, wire.ChecksumValid, wire.File, wire.ChecksumValid,
							wire.Reconnect, wire.File, wire.ChecksumValid}
						if got := srv.seen(); !slices.Equal(got, want) {
							t.Errorf("requests %v, want %v", got, want)
						}
					})
				}
			}
		}
	}
}

func TestDetection(t *testing.T) {
	register := map[wire.Dialect]uint16{wire.Field: 1025, wire.Documented: 1100}
	garbage := []byte("HTTP/1.1 400 Bad Request\r\n\r\n")
	tests := []struct {
		name    string
		server  wire.Dialect
		hint    wire.Dialect
		foreign *reaction
		codes   []uint16
	}{
		{"field, unknown", wire.Field, 0, nil, []uint16{1025}},
		{"field, known", wire.Field, wire.Field, nil, []uint16{1025}},
		{"field, wrong hint, error", wire.Field, wire.Documented, nil, []uint16{1100, 1025}},
		{"field, wrong hint, closes", wire.Field, wire.Documented, &reaction{close: true}, []uint16{1100, 1025}},
		{"documented, unknown, error", wire.Documented, 0, nil, []uint16{1025, 1100}},
		{"documented, unknown, closes", wire.Documented, 0, &reaction{close: true}, []uint16{1025, 1100}},
		{"documented, unknown, garbage", wire.Documented, 0, &reaction{raw: garbage, close: true}, []uint16{1025, 1100}},
		{"documented, unknown, half a header", wire.Documented, 0, &reaction{raw: []byte{3, 0x40}, close: true}, []uint16{1025, 1100}},
		{"documented, unknown, silent", wire.Documented, 0, &reaction{hold: true}, []uint16{1025, 1100}},
		{"documented, known", wire.Documented, wire.Documented, nil, []uint16{1100}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{t: t, family: tt.server, foreign: tt.foreign}
				var k keeper
				o := k.options("server:1256")
				o.Family, o.Dial = tt.hint, srv.pipe
				s, err := Dial(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if s.Family() != tt.server {
					t.Errorf("family %v, want %v", s.Family(), tt.server)
				}
				if got := srv.firstCodes(); !slices.Equal(got, tt.codes) || got[len(got)-1] != register[tt.server] {
					t.Errorf("first requests %v, want %v", got, tt.codes)
				}
			})
		})
	}
}

func TestReconnect(t *testing.T) {
	tests := []struct {
		name  string
		bend  func(srv *server, o *Options, k *keeper)
		kinds []wire.Kind // after the first session
		saved int
		err   error
	}{
		{"accepted", func(*server, *Options, *keeper) {}, []wire.Kind{wire.Reconnect}, 1, nil},
		{"refused, registers anew", func(srv *server, _ *Options, _ *keeper) { clear(srv.clients) },
			[]wire.Kind{wire.Reconnect, wire.Register, wire.PublicKey}, 2, nil},
		{"refused, name taken", func(_ *server, o *Options, k *keeper) {
			o.Identity = &Identity{ID: wire.NewClientID(), Key: k.last().Key}
		}, []wire.Kind{wire.Reconnect, wire.Register}, 1, ErrRegistrationRefused},
		{"sealed to another key", func(_ *server, o *Options, k *keeper) {
			key, err := wire.GenerateKey()
			if err != nil {
				panic(err)
			}
			o.Identity = &Identity{ID: k.last().ID, Key: key}
		}, []wire.Kind{wire.Reconnect, wire.PublicKey}, 1, nil},
		{"general error", func(srv *server, _ *Options, _ *keeper) {
			srv.react = func(k wire.Kind, _ int, r *reaction) {
				if k == wire.Reconnect {
					r.answers = []wire.Message{{Kind: wire.GeneralError}}
				}
			}
		}, []wire.Kind{wire.Reconnect}, 1, ErrRefused},
		{"name taken without identity", func(_ *server, o *Options, _ *keeper) { o.Identity = nil },
			[]wire.Kind{wire.Register}, 1, ErrRegistrationRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := &server{t: t, family: wire.Field}
			var k keeper
			o := k.options(srv.listen())
			mustDial(t, o).Close()
			before := len(srv.seen())
			o.Identity = k.last()
			tt.bend(srv, &o, &k)
			s, err := Dial(t.Context(), o)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got := srv.seen()[before:]; !slices.Equal(got, tt.kinds) {
				t.Errorf("requests %v, want %v", got, tt.kinds)
			}
			if len(k.saved) != tt.saved {
				t.Errorf("identity saved %d times, want %d", len(k.saved), tt.saved)
			}
			if err != nil {
				if n := len(srv.firstCodes()); n != 2 {
					t.Errorf("%d connections, want no other after a clear answer", n-1)
				}
				return
			}
			defer s.Close()
			checkSend(t, srv, s, "after.bin", content4K)
		})
	}
}

func TestSaveFailing(t *testing.T) {
	srv := &server{t: t, family: wire.Field}
	full := errors.New("disk full")
	o := Options{Address: srv.listen(), Name: "ada", Save: func(Identity) error { return full }}
	if _, err := Dial(t.Context(), o); !errors.Is(err, full) {
		t.Errorf("error %v, want %v", err, full)
	}
	if got := srv.seen(); !slices.Equal(got, []wire.Kind{wire.Register}) {
		t.Errorf("requests %v: nothing may follow a registration that was not saved", got)
	}
}

func TestOptionsRefused(t *testing.T) {
	key, err := wire.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	good := Options{Address: "server:1256", Name: "ada", Save: new(keeper).save, Identity: &Identity{Key: key}}
	tests := []struct {
		name string
		bend func(*Options)
	}{
		{"no name", func(o *Options) { o.Name = "" }},
		{"name not ASCII", func(o *Options) { o.Name = "ädä" }},
		{"long name", func(o *Options) { o.Name = strings.Repeat("a", 255) }},
		{"no save", func(o *Options) { o.Save = nil }},
		{"identity without key", func(o *Options) { o.Identity = new(Identity) }},
		{"dialect of the past", func(o *Options) { o.Family = wire.Y2022 }},
		{"negative packet", func(o *Options) { o.PacketSize = -1 }},
		{"huge packet", func(o *Options) { o.PacketSize = 1 << 32 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				t.Error("connected")
				return nil, net.ErrClosed
			}
			tt.bend(&o)
			if _, err := Dial(t.Context(), o); err == nil || errors.Is(err, net.ErrClosed) {
				t.Errorf("error %v, want a refusal", err)
			}
		})
	}
}

func TestDialFailing(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	var calls int
	o := new(keeper).options("server:1256")
	o.Dial = func(context.Context, string, string) (net.Conn, error) {
		calls++
		return nil, refused
	}
	_, err := Dial(t.Context(), o)
	if _, ok := errors.AsType[net.Error](err); !ok || !strings.Contains(err.Error(), o.Address) {
		t.Errorf("error %v, want a net.Error that names the server", err)
	}
	if calls != 1 {
		t.Errorf("connected %d times; the numbering is no reason to try again", calls)
	}

	synctest.Test(t, func(t *testing.T) {
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began := time.Now()
		_, err := Dial(t.Context(), o)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != DefaultDialTimeout {
			t.Errorf("error %v after %v, want the deadline after %v", err, time.Since(began), DefaultDialTimeout)
		}
	})
}

// TestNonsense has a server answer one request with bytes that make no sense.
func TestNonsense(t *testing.T) {
	field := func(m wire.Message) []byte {
		b, err := wire.Field.AppendResponse(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	header := func(code uint16, size uint32) []byte {
		return wire.ResponseHeader{Version: wire.Version, Code: code, PayloadSize: size}.Append(nil)
	}
	fileReceived := field(wire.Message{Kind: wire.FileReceived, ContentSize: 4112, Name: "x"})
	wrapped := field(wire.Message{Kind: wire.AESKey, WrappedKey: make([]byte, wire.WrappedKeySize)})
	tests := []struct {
		name string
		to   wire.Kind
		raw  []byte
		want error // io.EOF and io.ErrUnexpectedEOF for connections
	}{
		{"register: nothing", wire.Register, nil, io.EOF},
		{"register: text", wire.Register, []byte("220 mail.example ESMTP\r\n"), ErrProtocol},
		{"register: TLS alert", wire.Register, []byte{21, 3, 1, 0, 2, 2, 70, 0, 0, 0}, ErrProtocol},
		{"register: zeros", wire.Register, make([]byte, 64), ErrProtocol},
		{"register: half a header", wire.Register, header(1600, 16)[:3], io.ErrUnexpectedEOF},
		{"register: header alone", wire.Register, header(1600, 16), io.ErrUnexpectedEOF},
		{"register: half an id", wire.Register, append(header(1600, 16), make([]byte, 8)...), io.ErrUnexpectedEOF},
		{"register: id too long", wire.Register, append(header(1600, 17), make([]byte, 17)...), ErrProtocol},
		{"register: four gigabytes", wire.Register, header(1600, 1<<32-1), ErrProtocol},
		{"register: its own request back", wire.Register, header(1025, 255), ErrProtocol},
		{"register: unknown code", wire.Register, header(1608, 0), ErrProtocol},
		{"register: id of zeros", wire.Register, field(wire.Message{Kind: wire.Registered}), ErrProtocol},
		{"register: an AES key", wire.Register, wrapped, ErrProtocol},
		{"register: reconnect refused", wire.Register, field(wire.Message{Kind: wire.ReconnectRefused}), ErrProtocol},
		{"public key: nothing", wire.PublicKey, nil, io.EOF},
		{"public key: acknowledged", wire.PublicKey, field(wire.Message{Kind: wire.Acknowledged}), ErrProtocol},
		{"public key: not sealed to us", wire.PublicKey, wrapped, ErrProtocol},
		{"public key: other family", wire.PublicKey, header(2102, 144), ErrProtocol},
		{"public key: half a key", wire.PublicKey, wrapped[:100], io.ErrUnexpectedEOF},
		{"file: nothing", wire.File, nil, io.EOF},
		{"file: acknowledged", wire.File, field(wire.Message{Kind: wire.Acknowledged}), ErrProtocol},
		{"file: registered", wire.File, field(wire.Message{Kind: wire.Registered}), ErrProtocol},
		{"file: half an answer", wire.File, fileReceived[:200], io.ErrUnexpectedEOF},
		{"file: one byte more", wire.File, header(1603, 280), ErrProtocol},
		{"valid: nothing", wire.ChecksumValid, nil, io.EOF},
		{"valid: file received", wire.ChecksumValid, fileReceived, ErrProtocol},
		{"valid: long acknowledgement", wire.ChecksumValid, header(1604, 17), ErrProtocol},
		{"valid: half an id", wire.ChecksumValid, header(1604, 16), io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := &server{t: t, family: wire.Field, react: func(k wire.Kind, _ int, r *reaction) {
				if k == tt.to {
					*r = reaction{raw: tt.raw, close: true}
				}
			}}
			o := new(keeper).options(srv.listen())
			s, err := Dial(t.Context(), o)
			if err == nil {
				defer s.Close()
				_, err = s.Send(t.Context(), "x", &memory{data: content4K})
				if _, again := s.Send(t.Context(), "x", &memory{data: content4K}); !errors.Is(again, net.ErrClosed) || errors.Is(again, tt.want) {
					t.Errorf("next Send: %v, want the session to be over", again)
				}
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), o.Address) {
				t.Errorf("error %q, want %q and the server's address", err, tt.want)
			}
			for _, other := range []error{ErrProtocol, ErrRefused, ErrChecksum, ErrTorn, ErrTooLarge, ErrRegistrationRefused} {
				if other != tt.want && errors.Is(err, other) && tt.to != wire.Register {
					t.Errorf("error %q is %q as well", err, other)
				}
			}
		})
	}
}

func TestSilentServer(t *testing.T) {
	const large = 32 << 20
	hold := reaction{hold: true}
	tests := []struct {
		name  string
		to    wire.Kind
		stall bool // takes a part of the file only
		half  bool // sends a part of the answer first
		size  int64
		after time.Duration
	}{
		{"register, in both numberings", wire.Register, false, false, 0, 2 * DefaultAnswerTimeout},
		{"public key", wire.PublicKey, false, false, 0, DefaultAnswerTimeout},
		{"small file", wire.File, false, false, 10, DefaultAnswerTimeout},
		{"large file", wire.File, false, false, large, DefaultAnswerTimeout + large/slowestServer*time.Second},
		{"half an answer", wire.File, false, true, 10, DefaultAnswerTimeout},
		{"acknowledgement", wire.ChecksumValid, false, false, 10, DefaultAnswerTimeout},
		{"takes no content", wire.File, true, false, large, DefaultStallTimeout + earlyAnswerWait},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{t: t, family: wire.Field, discard: true, foreign: &hold, react: func(k wire.Kind, _ int, r *reaction) {
					if k == tt.to {
						*r = hold
						if tt.half {
							r.raw = []byte{3, 0x43, 6, 23, 1}
						}
					}
				}}
				o := new(keeper).options("server:1256")
				o.Dial = srv.pipe
				if tt.stall {
					o.Dial = stalling(srv, 1<<20)
				}
				began := time.Now()
				s, err := Dial(t.Context(), o)
				if err == nil {
					defer s.Close()
					_, err = s.Send(t.Context(), "x", &zeros{size: tt.size})
				}
				ne, ok := errors.AsType[net.Error](err)
				if !ok || !ne.Timeout() || !strings.Contains(err.Error(), o.Address) {
					t.Errorf("error %q, want a timeout that names the server", err)
				}
				if d := time.Since(began); d != tt.after {
					t.Errorf("gave up after %v, want %v", d, tt.after)
				}
			})
		})
	}
}

// stalling is an Options.Dial to srv through a relay that stops taking bytes
// from the client after the first n.
func stalling(srv *server, n int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		inner, err := srv.pipe(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ours, theirs := net.Pipe()
		go func() {
			io.CopyN(inner, theirs, n)
		}()
		go func() {
			io.Copy(theirs, inner)
			inner.Close()
			theirs.Close()
		}()
		return &closingBoth{ours, inner}, nil
	}
}

type closingBoth struct {
	net.Conn
	other net.Conn
}

func (c *closingBoth) Close() error { return errors.Join(c.Conn.Close(), c.other.Close()) }

func TestCancellation(t *testing.T) {
	tests := []struct {
		name string
		to   wire.Kind // 0: while a write is blocked
	}{
		{"waiting for the first answer", wire.Register},
		{"waiting for the key", wire.PublicKey},
		{"waiting for the file's answer", wire.File},
		{"waiting for the acknowledgement", wire.ChecksumValid},
		{"writing", 0},
	}
	cause := errors.New("service stops")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{t: t, family: wire.Field, discard: true, react: func(k wire.Kind, _ int, r *reaction) {
					if k == tt.to {
						*r = reaction{hold: true}
					}
				}}
				o := new(keeper).options("server:1256")
				o.Dial = srv.pipe
				if tt.to == 0 {
					o.Dial = stalling(srv, 1<<20)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				began := time.Now()
				time.AfterFunc(5*time.Second, func() { cancel(cause) })
				s, err := Dial(ctx, o)
				if err == nil {
					defer s.Close()
					_, err = s.Send(ctx, "x", &zeros{size: 4 << 20})
					if _, again := s.Send(t.Context(), "x", &zeros{size: 1}); !errors.Is(again, net.ErrClosed) {
						t.Errorf("next Send: %v, want the session to be over", again)
					}
				}
				if !errors.Is(err, cause) || time.Since(began) != 5*time.Second {
					t.Errorf("error %v after %v, want %v at once", err, time.Since(began), cause)
				}
			})
		})
	}
}

func TestCancelledBefore(t *testing.T) {
	srv := &server{t: t, family: wire.Field}
	s := mustDial(t, new(keeper).options(srv.listen()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Send(ctx, "x", &memory{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	checkSend(t, srv, s, "x", content4K) // nothing was begun, so the session goes on
}

// cancelling is too large, and ends the context while it says so.
type cancelling struct {
	zeros
	cancel func()
}

func (c *cancelling) Size() int64 {
	c.cancel()
	return maxFileSize + 1
}

func TestCancelledMeanwhile(t *testing.T) {
	srv := &server{t: t, family: wire.Field}
	s := mustDial(t, new(keeper).options(srv.listen()))
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Send(ctx, "x", &cancelling{cancel: cancel}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want %v: that was known before", err, ErrTooLarge)
	}
	if _, err := s.Send(t.Context(), "x", &memory{}); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("next Send: %v, want the session to be over because of the context", err)
	}
}

func TestCloseDuringSend(t *testing.T) {
	waiting := make(chan struct{})
	srv := &server{t: t, family: wire.Field, react: func(k wire.Kind, _ int, r *reaction) {
		if k == wire.File {
			*r = reaction{hold: true}
			close(waiting)
		}
	}}
	s := mustDial(t, new(keeper).options(srv.listen()))
	var closed error
	var wg sync.WaitGroup
	wg.Go(func() {
		<-waiting
		closed = errors.Join(s.Close(), s.Close())
	})
	if _, err := s.Send(t.Context(), "x", &memory{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want %v", err, net.ErrClosed)
	}
	wg.Wait()
	if closed != nil {
		t.Error(closed)
	}
}

// A recorder notes what each Write of a connection carried.
type recorder struct {
	net.Conn
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return r.Conn.Write(p)
}

func (r *recorder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var err error
	r.Conn, err = new(net.Dialer).DialContext(ctx, network, address)
	return r, err
}

func TestWrites(t *testing.T) {
	srv := &server{t: t, family: wire.Field, discard: true}
	var rec recorder
	o := new(keeper).options(srv.listen())
	o.Dial = rec.dial
	s := mustDial(t, o)
	const fixed = wire.RequestHeaderSize + 267
	sizes := func() []int {
		var n []int
		for _, w := range rec.writes {
			n = append(n, len(w))
		}
		rec.writes = nil
		return n
	}
	verdict := wire.RequestHeaderSize + wire.NameSize
	if got, want := sizes(), []int{verdict, wire.RequestHeaderSize + wire.NameSize + wire.PublicKeySize}; !slices.Equal(got, want) {
		t.Errorf("registration: writes of %v bytes, want %v", got, want)
	}
	tests := []struct {
		name string
		size int64
		want []int
	}{
		{"empty", 0, []int{fixed + 16, verdict}},
		{"largest in one write", pieceSize - 1, []int{fixed + pieceSize, verdict}},
		{"one more", pieceSize, []int{fixed + pieceSize, 16, verdict}},
		{"three pieces", 2*pieceSize + 100, []int{fixed + pieceSize, pieceSize, 112, verdict}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.Send(t.Context(), "x", &zeros{size: tt.size}); err != nil {
				t.Fatal(err)
			}
			if got := sizes(); !slices.Equal(got, tt.want) {
				t.Errorf("writes of %v bytes, want %v", got, tt.want)
			}
		})
	}
}

// FuzzServer feeds arbitrary bytes to a client: it must come to an end, with
// an error of a known class, and confirm nothing that the bytes do not.
func FuzzServer(f *testing.F) {
	key, err := wire.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	good, err := wire.Field.AppendResponse(nil, wire.Message{Kind: wire.FileReceived, ContentSize: 4112, Name: "x", Cksum: memorySum(content4K)})
	if err != nil {
		f.Fatal(err)
	}
	acknowledged := []byte{3, 0x44, 6, 0, 0, 0, 0}
	wrong := bytes.Clone(good)
	wrong[len(wrong)-1]++
	f.Add(slices.Concat(good, acknowledged), true)
	f.Add(slices.Concat(wrong, acknowledged, good, acknowledged), true)
	f.Add(slices.Concat(wrong, wrong, wrong, acknowledged, good, acknowledged), true)
	f.Add([]byte{}, false)
	f.Add([]byte{3, 0x42, 6, 0x90, 0, 0, 0}, false)
	f.Add([]byte{3, 0x46, 6, 16, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 3, 0x41, 6, 0, 0, 0, 0}, false)
	f.Add([]byte{3, 0x43, 6, 23, 1, 0, 0}, true)
	f.Add([]byte{3, 0x47, 6, 0, 0, 0, 0}, true)
	id := Identity{ID: wire.NewClientID(), Key: key}
	session, err := wire.NewSessionKey(32)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answers []byte, established bool) {
		o := Options{Address: "server:1256", Name: "ada", Identity: &id, Save: new(keeper).save}
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			return &scripted{r: bytes.NewReader(answers)}, nil
		}
		src := &memory{data: content4K}
		if !established {
			s, err := Dial(t.Context(), o)
			if err == nil {
				// Without the private key nobody can wrap a session key.
				t.Fatalf("session with a key out of nothing: %v", s.key)
			}
			return
		}
		s := scriptedSession(t, o, session)
		for {
			r, err := s.Send(t.Context(), "x", src)
			if err == nil && r.Cksum != memorySum(content4K) {
				t.Fatalf("confirmed %+v", r)
			}
			if err != nil && s.broken == nil && !isFileError(err) {
				t.Fatalf("session goes on after %v", err)
			}
			if s.broken != nil {
				return
			}
		}
	})
}

func isFileError(err error) bool {
	return slices.ContainsFunc([]error{ErrRefused, ErrChecksum, ErrTorn, ErrTooLarge, wire.ErrName}, func(e error) bool { return errors.Is(err, e) })
}

// scriptedSession is a session with a key, as Dial leaves it.
func scriptedSession(t testing.TB, o Options, key wire.SessionKey) *Session {
	t.Helper()
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	conn, err := o.Dial(t.Context(), "tcp", o.Address)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(o, wire.Field, conn)
	s.id, s.key = *o.Identity, key
	return s
}

// A scripted connection takes everything and answers from a reader.
type scripted struct {
	net.Conn
	r    io.Reader
	sent bytes.Buffer
}

func (c *scripted) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *scripted) Write(p []byte) (int, error)      { return c.sent.Write(p) }
func (c *scripted) Close() error                     { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

func (c *scripted) dial(context.Context, string, string) (net.Conn, error) { return c, nil }
