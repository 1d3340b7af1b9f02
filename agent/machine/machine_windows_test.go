package machine

import (
	"context"
	"log/slog"
	"runtime"
	"testing"

	"backstay/agent/conditions"
)

func TestWatchPower(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	told := 0
	WatchPower(ctx, slog.New(slog.DiscardHandler), func(m conditions.Machine) {
		told++
		t.Logf("%+v", m)
		if m.Percent < -1 || m.Percent > 100 {
			t.Errorf("%d %% of a battery", m.Percent)
		}
		cancel()
	})
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

// TestOpenCost: the system answers for the thread that asks, again and again.
func TestOpenCost(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 3 {
		cost, done := openCost()
		first := cost()
		if cost() != first {
			t.Error("two answers")
		}
		done()
	}
}
