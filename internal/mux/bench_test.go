package mux

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	wire "backstay/protocol/v4"
)

// tlsPair returns the two ends of a TLS connection over loopback.
func tlsPair(tb testing.TB, l net.Listener, clientKey, serverKey ed25519.PrivateKey) (client, server *tls.Conn) {
	tb.Helper()
	accepted := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err == nil {
			server = tls.Server(raw, wire.ServerConfig(serverKey))
			err = server.Handshake()
		}
		accepted <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	client = tls.Client(raw, wire.ClientConfig(clientKey, wire.PinOf(serverKey.Public().(ed25519.PublicKey))))
	if err := errors.Join(client.Handshake(), <-accepted); err != nil {
		tb.Fatal(err)
	}
	return client, server
}

func listen(tb testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

func newKey(tb testing.TB) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// dial returns a client of a server with the handler, over TLS and loopback.
func dial(tb testing.TB, opts Options, handle Handler) *Client {
	conn, server := tlsPair(tb, listen(tb), newKey(tb), newKey(tb))
	var wg sync.WaitGroup
	wg.Go(func() {
		hello := wire.Hello{Revision: 1, Client: wire.ClientDevice, Account: "a"}
		if err := NewServer(server, hello, opts).Serve(context.Background(), handle); err != nil {
			tb.Error(err)
		}
	})
	c, err := Connect(tb.Context(), conn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return c
}

const benchObject = 1 << 20

// serve answers what the benchmarks ask: GET with as many mebibytes as the body
// says, PUT by reading everything, PING with a byte.
func serve(_ context.Context, r *Request) error {
	switch r.Verb {
	case wire.TypeGet:
		n, err := strconv.Atoi(string(r.Body))
		object := make([]byte, benchObject)
		for range n {
			if _, err := r.Write(object); err != nil {
				return err
			}
		}
		return err
	case wire.TypePut:
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); err != nil {
			return err
		}
	}
	return r.Answer([]byte{1})
}

func BenchmarkDownload(b *testing.B) {
	for _, streams := range []int{1, 4} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			c := dial(b, Options{}, serve)
			b.SetBytes(benchObject * int64(streams))
			b.ResetTimer()
			each(b, streams, func() error {
				s, err := c.Open(b.Context(), wire.TypeGet, []byte(strconv.Itoa(b.N)), false)
				if err != nil {
					return err
				}
				defer s.Close()
				n, err := io.Copy(io.Discard, s)
				if err == nil && n != int64(b.N)*benchObject {
					err = fmt.Errorf("%d bytes", n)
				}
				return err
			})
		})
	}
}

func BenchmarkUpload(b *testing.B) {
	for _, streams := range []int{1, 4} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			c := dial(b, Options{}, serve)
			object := make([]byte, benchObject)
			b.SetBytes(benchObject * int64(streams))
			b.ResetTimer()
			each(b, streams, func() error {
				s, err := c.Open(b.Context(), wire.TypePut, []byte{1}, true)
				if err != nil {
					return err
				}
				defer s.Close()
				for range b.N {
					if _, err := s.Write(object); err != nil {
						return err
					}
				}
				if err := s.CloseWrite(); err != nil {
					return err
				}
				_, err = s.Message()
				return err
			})
		})
	}
}

func each(b *testing.B, n int, do func() error) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := do(); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkRequest(b *testing.B) {
	for _, streams := range []int{1, 16} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			c := dial(b, Options{}, serve)
			b.ReportAllocs()
			todo := make(chan struct{}, 1024)
			go func() {
				defer close(todo)
				for range b.N {
					todo <- struct{}{}
				}
			}()
			b.ResetTimer()
			each(b, streams, func() error {
				for range todo {
					if err := askPing(b.Context(), c); err != nil {
						return err
					}
				}
				return nil
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

func askPing(ctx context.Context, c *Client) error {
	s, err := c.Open(ctx, wire.TypePing, []byte{1}, false)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Message()
	return err
}

// BenchmarkIdle measures what a session costs that has done something and now is
// idle, both sides of it; the resident memory is divided by sessions. The client's
// side costs about as much as the server's, so the server's is about half.
func BenchmarkIdle(b *testing.B) {
	const sessions = 1000
	for b.Loop() {
		l, clientKey, serverKey := listen(b), newKey(b), newKey(b)
		before, stacks := resident(b), runtime.NumGoroutine()
		var wg sync.WaitGroup
		clients := make([]*Client, 0, sessions)
		for range sessions {
			conn, server := tlsPair(b, l, clientKey, serverKey)
			wg.Go(func() {
				hello := wire.Hello{Revision: 1, Client: wire.ClientDevice, Account: "a"}
				NewServer(server, hello, Options{}).Serve(context.Background(), serve)
			})
			c, err := Connect(b.Context(), conn)
			if err != nil {
				b.Fatal(err)
			}
			clients = append(clients, c)
			s, err := c.Open(b.Context(), wire.TypePut, []byte{1}, true)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Write(make([]byte, benchObject)); err != nil {
				b.Fatal(err)
			}
			s.CloseWrite()
			s.Message()
			s.Close()
		}
		b.ReportMetric(float64(resident(b)-before)/sessions/1024, "KiB/session")
		b.ReportMetric(float64(runtime.NumGoroutine()-stacks)/sessions, "goroutines/session")
		for _, c := range clients {
			c.Close()
		}
		wg.Wait()
	}
}

// resident returns what the process holds, in bytes, after a collection.
func resident(b *testing.B) int {
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapInuse + m.StackInuse)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		b.Fatal(err)
	}
	return kb << 10
}
