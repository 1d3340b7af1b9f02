package v4

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// TestTheBudgetNeitherOverrunsNorLocks has many claims grow at random, and wait while
// they hold.
func TestTheBudgetNeitherOverrunsNorLocks(t *testing.T) {
	const total, most = 1000, 400
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(total, 3, 1000)
			var held, peak int
			var mu sync.Mutex // guards held, peak
			note := func(n int) {
				mu.Lock()
				defer mu.Unlock()
				held += n
				peak = max(peak, held)
			}
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(i)))
					time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
					c, err := b.enter(context.Background(), vault.DeviceID{byte(i % 7)}, 10, most, nil)
					if err != nil {
						t.Errorf("seed %d: %v", seed, err)
						return
					}
					note(10)
					mine := 10
					for range 5 {
						n := r.IntN(most-mine) + 1
						if !c.try(n) {
							if err := c.grow(context.Background(), n); err != nil {
								t.Errorf("seed %d: %v", seed, err)
							}
						}
						note(n)
						if mine += n; mine == most {
							break
						}
						time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
					}
					note(-mine)
					c.leave()
				})
			}
			wg.Wait() // a deadlock ends the test
			if peak > total || b.free != total || len(b.active)+len(b.working) > 0 {
				t.Errorf("seed %d: peak %d, left %+v", seed, peak, b)
			}
		})
	}
}

func TestOneDeviceDoesNotKeepOthersWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1000, 3, 30)
		hog, other := vault.DeviceID{1}, vault.DeviceID{2}
		ctx, cancel := context.WithCancel(t.Context())
		var busy, gone int
		var mu sync.Mutex // guards busy, gone
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := b.enter(ctx, hog, 100, 200, nil)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, wire.ErrBusy):
					busy++
				case errors.Is(err, context.Canceled):
					gone++
				case err != nil:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if _, err := b.enter(ctx, other, 100, 200, nil); err != nil {
			t.Fatal(err)
		}
		cancel()
		wg.Wait()
		if busy != 7 || gone != 10 { // 3 at work, 10 wait, the others are told
			t.Fatalf("%d busy, %d gone", busy, gone)
		}
		if len(b.enters) > 0 {
			t.Fatal("who went still waits")
		}
	})
}

func TestWhoIsSlowIsWaitedForSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1000, 3, 30)
		start := time.Now()
		evicted := make(map[string]time.Duration)
		var slow, quick *claim
		take := func(name string, c **claim) {
			var err error
			if *c, err = b.enter(t.Context(), vault.DeviceID{name[0]}, 500, 500, func() {
				evicted[name] = time.Since(start)
				go (*c).leave()
			}); err != nil {
				t.Fatal(err)
			}
		}
		take("slow", &slow)
		take("quick", &quick)
		time.Sleep(10 * patience)
		if len(evicted) > 0 {
			t.Fatalf("nobody waited: %v", evicted)
		}
		quick.shrink(0)
		waits := time.Now()
		var next *claim
		take("next", &next)
		if waited := time.Since(waits); waited != patience || len(evicted) != 1 || evicted["slow"] == 0 {
			t.Fatalf("waited %v for %v", waited, evicted)
		}
	})
}

func TestMailIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m mailbox
		if err := m.put("a", wire.Slot{1}, []byte("key")); err != nil {
			t.Fatal(err)
		}
		if _, err := m.get(t.Context(), "b", wire.Slot{1}); !errors.Is(err, wire.ErrNotFound) {
			t.Fatalf("another account's: %v", err)
		}
		time.Sleep(mailTime - 2*mailWait)
		if got, err := m.get(t.Context(), "a", wire.Slot{1}); err != nil || string(got) != "key" {
			t.Fatalf("%q, %v", got, err)
		}
		time.Sleep(2 * mailWait)
		start := time.Now()
		if _, err := m.get(t.Context(), "a", wire.Slot{1}); !errors.Is(err, wire.ErrNotFound) || time.Since(start) != mailWait {
			t.Fatalf("after its time: %v, %v", err, time.Since(start))
		}
		if len(m.accounts) != 0 || m.slots != 0 || m.readers != 0 {
			t.Fatalf("left over: %+v", &m)
		}
	})
}

func TestReadersOfMailAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m mailbox
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range maxReaders {
			wg.Go(func() { m.get(ctx, "a", wire.Slot{1}) })
		}
		synctest.Wait()
		if _, err := m.get(ctx, "a", wire.Slot{1}); !errors.Is(err, wire.ErrBusy) {
			t.Fatal(err)
		}
		cancel()
		wg.Wait()
	})
}

func TestLimiter(t *testing.T) {
	l := limiter{burst: 3, every: time.Minute}
	now := time.Unix(1000, 0)
	take := func(key string) (n int) {
		for l.allow(key, now) {
			n++
		}
		return n
	}
	if n := take("a"); n != 3 {
		t.Fatalf("%d at first", n)
	}
	if n := take("b"); n != 3 {
		t.Fatalf("%d of another key", n)
	}
	now = now.Add(2 * time.Minute)
	if n := take("a"); n != 2 {
		t.Fatalf("%d after two minutes", n)
	}
	for i := range 2 * maxTracked {
		l.allow(string(rune(i)), now)
	}
	if len(l.next) > maxTracked {
		t.Fatalf("%d keys", len(l.next))
	}
	now = now.Add(time.Hour)
	if n := take("a"); n != 3 || len(l.next) > 2 {
		t.Fatalf("%d after an hour, %d keys", n, len(l.next))
	}
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:1256":                "192.0.2.7",
		"[::ffff:192.0.2.7]:1":          "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:1":      "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":              "fe80::/64",
		"[2001:db8:1:2:ffff:4:5:6]:999": "2001:db8:1:2::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		if got := addressOf(a); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if got := addressOf(&net.UnixAddr{Name: "x"}); got != "x" {
		t.Error(got)
	}
}
