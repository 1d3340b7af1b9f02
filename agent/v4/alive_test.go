package v4

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// icy is a connection that can freeze: what is sent is taken, and nothing comes.
type icy struct {
	net.Conn
	frozen atomic.Bool
	delay  atomic.Int64 // of every write
}

func (c *icy) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.frozen.Load() {
			return n, err
		}
	}
}

func (c *icy) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(c.delay.Load()))
	return c.Conn.Write(b)
}

// TestSilence has servers that fall silent, and others that only take their time.
func TestSilence(t *testing.T) {
	slow := func(ctx context.Context, r *mux.Request) error {
		switch r.Verb {
		case wire.TypePing:
			return r.Answer(wire.PingAnswer{Clock: time.Now()}.Append(nil))
		case wire.TypePut:
			if _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); err != nil {
				return err
			}
			return r.Answer(wire.AppendEmpty(nil))
		}
		time.Sleep(20 * time.Minute)
		return r.Answer(wire.Head{}.Append(nil))
	}
	head := func(ctx context.Context, s *Session) error {
		_, err := s.Head(ctx, vault.DeviceID{}, time.Time{})
		return err
	}
	for _, tt := range []struct {
		name string
		with func(ctx context.Context, s *Session, c *icy) error
		// least and most is how long it takes.
		least, most time.Duration
		silent      bool
	}{
		{"frozen before a request", func(ctx context.Context, s *Session, c *icy) error {
			c.frozen.Store(true)
			return head(ctx, s)
		}, 30 * time.Second, 34 * time.Second, true},
		{"frozen while a request waits", func(ctx context.Context, s *Session, c *icy) error {
			time.AfterFunc(5*time.Minute, func() { c.frozen.Store(true) })
			return head(ctx, s)
		}, 5*time.Minute + 10*time.Second, 6 * time.Minute, true},
		{"frozen after a long idle time", func(ctx context.Context, s *Session, c *icy) error {
			time.Sleep(50 * time.Second)
			c.frozen.Store(true)
			return head(ctx, s)
		}, 80 * time.Second, 84 * time.Second, true},
		{"frozen while idle", func(ctx context.Context, s *Session, c *icy) error {
			c.frozen.Store(true)
			<-s.Done()
			return s.Err()
		}, time.Minute, 2 * time.Minute, true},
		{"an answer that takes long", func(ctx context.Context, s *Session, c *icy) error { return head(ctx, s) }, 20 * time.Minute, 20 * time.Minute, false},
		{"more of them than there are slots", func(ctx context.Context, s *Session, c *icy) error {
			errs := make([]error, 10)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() { errs[i] = head(ctx, s) })
			}
			wg.Wait()
			return errors.Join(errs...)
		}, 40 * time.Minute, time.Hour, false},
		{"idle for hours", func(ctx context.Context, s *Session, c *icy) error {
			time.Sleep(3 * time.Hour)
			return s.Err()
		}, 3 * time.Hour, 3 * time.Hour, false},
		{"a slow line", func(ctx context.Context, s *Session, c *icy) error {
			c.delay.Store(int64(5 * time.Second)) // for each record of 16 KiB, PING's too
			defer c.delay.Store(0)
			return s.Put(ctx, make([]byte, 4<<20))
		}, 20 * time.Minute, 30 * time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				key := keyOf(1)
				served := make(chan struct{})
				go func() {
					defer close(served)
					hello := wire.Hello{Revision: 1, Client: wire.ClientDevice, Account: "default", Requests: 8, Credit: 256 << 10}
					mux.NewServer(tls.Server(b, wire.ServerConfig(key)), hello, mux.Options{}).Serve(t.Context(), slow)
				}()
				c := &icy{Conn: a}
				s, err := begin(t.Context(), c, Options{Pin: wire.PinOf(key.Public().(ed25519.PublicKey)), Key: keyOf(2)})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				err = tt.with(t.Context(), s, c)
				took := time.Since(start)
				if tt.silent != (errors.Is(err, ErrSilent) && errors.Is(err, ErrLost)) || !tt.silent && err != nil || took < tt.least || took > tt.most {
					t.Errorf("after %v: %v", took, err)
				}
				s.Close()
				b.Close()
				<-served
			})
		})
	}
}
