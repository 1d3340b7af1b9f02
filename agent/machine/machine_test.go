package machine

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var slept atomic.Int64
		slept.Store(int64(time.Hour)) // before the start it does not count
		var unknown atomic.Bool
		var told []time.Duration
		go watchSleep(ctx, func() (time.Duration, bool) { return time.Duration(slept.Load()), !unknown.Load() }, func(d time.Duration) { told = append(told, d) })
		time.Sleep(wakeEvery / 2) // between two readings
		synctest.Wait()
		step := func(d time.Duration) {
			slept.Add(int64(d))
			time.Sleep(2 * wakeEvery)
			synctest.Wait()
		}
		step(0)
		step(nap) // too short
		step(8 * time.Hour)
		step(0)
		unknown.Store(true)
		step(time.Minute)
		unknown.Store(false)
		step(2 * time.Minute) // with what was not known
		if want := []time.Duration{8 * time.Hour, 3 * time.Minute}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestWatchSleepEndsWhereNothingIsKnown(t *testing.T) {
	watchSleep(t.Context(), func() (time.Duration, bool) { return 0, false }, func(time.Duration) { t.Error("told") })
}

func TestAsleep(t *testing.T) {
	before, ok := asleep()
	if !ok {
		t.Skip("not known on this system")
	}
	after, ok := asleep()
	if d := after - before; !ok || before < -time.Second || d.Abs() > nap {
		t.Errorf("asleep for %v, then %v: %v", before, after, ok)
	}
}

func TestWatchNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		home, train := netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("10.0.0.9")
		var (
			now    = []netip.Addr{home}
			failed error
			reads  int
			told   [][]netip.Addr
		)
		signals := make(chan struct{}, 1)
		go watchNetwork(ctx, signals, func() ([]netip.Addr, error) { reads++; return now, failed }, func(own []netip.Addr) { told = append(told, own) })
		synctest.Wait()
		signal := func() {
			signals <- struct{}{}
			synctest.Wait()
		}
		settle := func() {
			time.Sleep(settles)
			synctest.Wait()
		}
		signal() // about something else
		settle()
		now = nil
		signal()
		time.Sleep(settles / 2) // not at rest yet
		now = []netip.Addr{train}
		signal()
		settle()
		failed = errors.New("no")
		signal()
		settle()
		failed = nil
		signal()
		settle()
		if want := [][]netip.Addr{{train}}; !slices.EqualFunc(told, want, slices.Equal[[]netip.Addr]) {
			t.Errorf("told %v, want %v", told, want)
		}
		if reads != 5 {
			t.Errorf("%d readings, want 5: one at first, one after each burst", reads)
		}
	})
}

func TestAddresses(t *testing.T) {
	own, err := addresses()
	if err != nil || !slices.Contains(own, netip.MustParseAddr("127.0.0.1")) || !slices.IsSortedFunc(own, netip.Addr.Compare) {
		t.Fatalf("%v, %v", own, err)
	}
}

func TestParsePmset(t *testing.T) {
	for _, tt := range []struct {
		name, out string
		onBattery bool
		percent   int
	}{
		{"on battery", "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=4653155)\t85%; discharging; 4:11 remaining present: true\n", true, 85},
		{"charging", "Now drawing from 'AC Power'\n -InternalBattery-0 (id=4653155)\t9%; charging; (no estimate) present: true\n", false, 9},
		{"no battery", "Now drawing from 'AC Power'\n", false, -1},
		{"nothing", "", false, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if onBattery, percent := parsePmset(tt.out); onBattery != tt.onBattery || percent != tt.percent {
				t.Errorf("got %v, %d", onBattery, percent)
			}
		})
	}
}
