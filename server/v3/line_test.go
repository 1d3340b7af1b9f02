package v3

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	wire "backstay/protocol/v3"
)

// TestTimeouts runs on synthetic time.
func TestTimeouts(t *testing.T) {
	testKey()
	o := Options{IdleTimeout: time.Minute, HeaderTimeout: 10 * time.Second}
	tests := []struct {
		name  string
		run   func(c *client)
		after time.Duration
	}{
		{"silent from the start", func(c *client) {}, time.Minute},
		{"silent between requests", func(c *client) { c.register("a") }, time.Minute},
		{"silent inside a header", func(c *client) {
			time.Sleep(50 * time.Second)
			c.write(make([]byte, 1))
		}, time.Minute},
		{"trickles a header", func(c *client) {
			for {
				if _, err := c.conn.Write([]byte{3}); err != nil {
					return
				}
				time.Sleep(4 * time.Second)
			}
		}, 12 * time.Second},
		{"silent inside a file", func(c *client) {
			c.register("a")
			c.exchange("a")
			c.write(c.packets("f", fill(500_000), 1)[0][:300_000])
		}, time.Minute},
		{"trickles a file", func(c *client) {
			c.register("a")
			c.exchange("a")
			b := c.packets("f", fill(1000), 1)[0]
			c.write(b[:len(b)-3])
			for _, last := range b[len(b)-3:] {
				time.Sleep(59 * time.Second)
				c.write([]byte{last})
			}
			c.received("f", fill(1000))
		}, time.Minute + 3*59*time.Second},
		{"takes no answer", func(c *client) {
			c.write(c.request(wire.Message{Kind: wire.Register, Name: "a"}))
		}, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := open(t, nil, o)
				start := time.Now()
				c := dial(t, a, wire.Field)
				tt.run(c)
				err := <-c.served
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("session: %v", err)
				}
				if d := time.Since(start); d != tt.after {
					t.Errorf("ended after %v, want %v", d, tt.after)
				}
			})
		})
	}
}

// TestStop: a server that stops ends sessions between two requests, and lets a
// file in flight arrive.
func TestStop(t *testing.T) {
	testKey()
	data := fill(400_000)
	tests := []struct {
		name   string
		run    func(c *client, stop func())
		listed bool
	}{
		{"idle", func(c *client, stop func()) {
			synctest.Wait()
			stop()
		}, false},
		{"before the first byte", func(c *client, stop func()) { stop() }, false},
		{"inside a header", func(c *client, stop func()) {
			b := c.packets("f", data, 1)[0]
			c.write(b[:10])
			synctest.Wait()
			stop()
			c.write(b[10:])
			c.received("f", data)
		}, true},
		{"inside a file", func(c *client, stop func()) {
			b := c.packets("f", data, 1)[0]
			c.write(b[:300_000])
			synctest.Wait()
			stop()
			synctest.Wait()
			c.write(b[300_000:])
			c.received("f", data)
		}, true},
		{"inside a file, cut", func(c *client, stop func()) {
			c.write(c.packets("f", data, 1)[0][:300_000])
			stop()
			c.conn.Close()
		}, false},
		{"between packets", func(c *client, stop func()) {
			c.write(c.packets("f", data, 2)[0])
			synctest.Wait()
			stop()
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := open(t, nil, Options{})
				ctx, stop := context.WithCancel(t.Context())
				here, there := net.Pipe()
				served := make(chan error, 1)
				go func() { served <- a.Serve(ctx, there) }()
				c := ready(t, a, wire.Field, "ada")
				c.close()
				id := c.id
				c = &client{t: t, d: wire.Field, conn: here, r: c.r, priv: testKey()}
				c.r.Reset(here)
				c.id = id
				c.exchange("ada")
				tt.run(c, stop)
				start := time.Now()
				err := <-served
				if tt.name != "inside a file, cut" && err != nil {
					t.Errorf("session: %v", err)
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("ended after %v", d)
				}
				if _, listed := files(t, a)["ada/f"]; listed != tt.listed {
					t.Errorf("listed is %v", listed)
				}
			})
		})
	}
}
