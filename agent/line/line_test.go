package line

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a connection of d and its other end.
func pair(d *Dialer) (net.Conn, net.Conn) {
	near, far := net.Pipe()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.init()
	return d.adopt(near), far
}

// about says whether a span is what it should be, to a tenth of a second: the first
// piece does not wait.
func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if (got - want).Abs() > 100*time.Millisecond {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}

func TestLimits(t *testing.T) {
	const size = 1 << 20
	data := bytes.Repeat([]byte("backstay"), size/8)
	for _, tt := range []struct {
		name     string
		up, down int64
		sent     bool // else received
		want     time.Duration
	}{
		{"sending, unlimited", 0, 1000, true, 0},
		{"sending, limited", size / 10, 0, true, 10 * time.Second},
		{"sending, slowly", size / 64, 0, true, 64 * time.Second},
		{"sending, fast", 10 * size, 0, true, 100 * time.Millisecond},
		{"receiving, unlimited", 1000, 0, false, 0},
		{"receiving, limited", 0, size / 10, false, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d Dialer
				d.Limit(tt.up, tt.down)
				near, far := pair(&d)
				defer near.Close()
				from, to := near, far
				if !tt.sent {
					from, to = far, near
				}
				began := time.Now()
				go func() {
					from.Write(data)
					from.Close()
				}()
				got, err := io.ReadAll(to)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes of %d came, or others: %v", len(got), len(data), err)
				}
				about(t, "all of it", time.Since(began), tt.want)
			})
		})
	}
}

func TestLimitIsForAllConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Dialer
		d.Limit(100_000, 0)
		began := time.Now()
		done := make(chan struct{})
		for range 2 {
			near, far := pair(&d)
			go func() {
				near.Write(make([]byte, 500_000))
				near.Close()
			}()
			go func() {
				io.Copy(io.Discard, far)
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		about(t, "a megabyte over two", time.Since(began), 10*time.Second)
	})
}

func TestNewLimitHoldsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after int64
		want          time.Duration // for the second half of a mebibyte
	}{
		{"more", 16_000, 1 << 20, 500 * time.Millisecond},
		{"less", 1 << 20, 1 << 14, 28800 * time.Millisecond}, // but for the piece under way
		{"none", 16_000, 0, 0},
		{"one at all", 0, 1 << 19, 1 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d Dialer
				d.Limit(tt.before, 0)
				near, far := pair(&d)
				defer near.Close()
				ended := make(chan error, 1)
				go func() {
					_, err := near.Write(make([]byte, 1<<20))
					ended <- err
				}()
				if _, err := io.ReadFull(far, make([]byte, 1<<19)); err != nil {
					t.Fatal(err)
				}
				d.Limit(tt.after, 0)
				began := time.Now()
				if _, err := io.ReadFull(far, make([]byte, 1<<19)); err != nil {
					t.Fatal(err)
				}
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				about(t, "the rest", time.Since(began), tt.want)
			})
		})
	}
}

// listen accepts connections, and keeps them, until the test ends.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return l.Addr().String()
}

var errGone = errors.New("the network has changed")

func TestCut(t *testing.T) {
	var d Dialer
	d.Limit(1000, 0)
	c, err := d.Dial(t.Context(), "tcp", listen(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own := netip.MustParseAddr("127.0.0.1")
	d.Cut(errGone, func(a netip.Addr) bool { return a != own })
	if _, err := c.Write([]byte("still there")); err != nil {
		t.Fatal("cut for an address that it has not:", err)
	}
	ended := make(chan error, 2)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	go func() {
		_, err := c.Write(make([]byte, 1<<20))
		ended <- err
	}()
	d.Cut(errGone, func(a netip.Addr) bool { return a == own })
	for range 2 {
		if err := <-ended; !errors.Is(err, errGone) {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestCutEndsDialing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d Dialer
	// A name whose resolving never ends would do; here Cut comes before Dial's
	// attempt can end, as it cuts until one was hit.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hit := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			c, err := d.Dial(ctx, "tcp", l.Addr().String())
			if err != nil {
				hit <- err
				return
			}
			c.Close()
		}
	}()
	for {
		d.Cut(errGone, func(netip.Addr) bool { return false })
		select {
		case err := <-hit:
			if !errors.Is(err, errGone) {
				t.Fatalf("dialing ended with %v", err)
			}
			return
		default:
		}
	}
}

func TestClosedConnectionsAreForgotten(t *testing.T) {
	var d Dialer
	c, err := d.Dial(t.Context(), "tcp", listen(t))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a closed connection: %v", err)
	}
	if len(d.open) != 0 || len(d.dialing) != 0 {
		t.Errorf("%d connections, %d attempts are kept", len(d.open), len(d.dialing))
	}
}
