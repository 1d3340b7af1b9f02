package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"backstay/agent/conditions"
)

// opened returns a gate of a policy on a machine on mains.
func opened(p conditions.Policy) *gate {
	g := newGate(p, func() {})
	g.change(func() { g.machine = &conditions.Machine{Percent: 100} })
	return g
}

func (g *gate) set(m conditions.Machine) { g.change(func() { g.machine = &m }) }

// cause is what keeps the gate closed, "" if it is open.
func (g *gate) cause() conditions.Cause {
	held, _ := g.now()
	if held == nil {
		return ""
	}
	return held.Cause
}

var (
	battery = conditions.Machine{OnBattery: true, Percent: 80}
	mains   = conditions.Machine{Percent: -1}
	careful = conditions.Policy{OnBattery: conditions.Pause, OnMetered: conditions.Pause}
)

func TestGateIsClosedUntilTheMachineIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(conditions.Default(), func() {})
		waited := make(chan error, 1)
		go func() { waited <- g.wait(t.Context()) }()
		synctest.Wait()
		if held, _ := g.now(); held == nil || held.Cause != "" || len(waited) > 0 {
			t.Fatalf("held by %v, %d let in", held, len(waited))
		}
		g.set(conditions.Unknown)
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
	})
}

func TestGateOverride(t *testing.T) {
	metered := conditions.Machine{OnBattery: true, Percent: 80, Metered: true}
	g := opened(careful)
	for _, step := range []struct {
		name string
		do   func()
		want conditions.Cause
	}{
		{"on battery", func() { g.set(battery) }, conditions.Battery},
		{"resumed", g.resume, ""},
		{"less charge", func() { g.set(conditions.Machine{OnBattery: true, Percent: 79}) }, ""},
		{"metered, too", func() { g.set(metered) }, conditions.Metered},
		{"resumed again", g.resume, ""},
		{"on mains", func() { g.set(conditions.Machine{Percent: -1, Metered: true}) }, ""},
		{"battery again", func() { g.set(metered) }, conditions.Battery},
		{"paused by a person", func() { g.change(func() { g.pause = true }) }, conditions.You},
		{"a backup is asked for", func() { g.change(func() { g.asked++ }) }, ""},
		{"and over", func() { g.change(func() { g.asked-- }) }, conditions.You},
		{"resumed in spite of all", g.resume, ""},
		{"another policy", func() { g.change(func() { g.policy = conditions.Policy{BatteryFloor: 90}; clear(g.overridden) }) }, conditions.Battery},
	} {
		if step.do(); g.cause() != step.want {
			t.Fatalf("%s: held by %q, want %q", step.name, g.cause(), step.want)
		}
	}
}

func TestGateByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w conditions.Window
		if err := w.UnmarshalText([]byte("22:00-06:00")); err != nil {
			t.Fatal(err)
		}
		until := func(clock string) {
			at, err := time.Parse("15:04", clock)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			then := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 1, 0, time.Local)
			if then.Before(now) {
				then = then.AddDate(0, 0, 1)
			}
			time.Sleep(then.Sub(now))
			synctest.Wait()
		}
		until("00:00")
		g := opened(conditions.Policy{Windows: []conditions.Window{w}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var told []string
		go g.run(ctx, func(held *conditions.Reason) {
			text := "open"
			if held != nil {
				text = string(held.Cause)
			}
			told = append(told, time.Now().Format("15:04 ")+text)
		})
		until("05:59")
		until("07:00")
		g.resume()
		until("08:00")
		g.change(func() { g.pause, g.until = true, time.Now().Add(time.Hour) })
		until("12:00") // the override lasts until the hours begin
		until("23:00")
		until("07:00")
		want := []string{"06:00 " + string(conditions.Hours), "07:00 open", "08:00 you", "09:00 open", "06:00 " + string(conditions.Hours)}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestGateWaitEndsWithItsContext(t *testing.T) {
	g := opened(careful)
	g.set(battery)
	why := errors.New("the session ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := g.wait(ctx); !errors.Is(err, why) {
		t.Errorf("waited until %v", err)
	}
	g.set(mains)
	if err := g.wait(ctx); err != nil {
		t.Errorf("an open gate holds: %v", err)
	}
}

func TestPauseIsKept(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	state := t.TempDir()
	if _, paused := keptPause(state, log); paused {
		t.Error("paused from the start")
	}
	at := time.Date(2026, 11, 20, 14, 3, 7, 5, time.UTC)
	for _, until := range []time.Time{{}, at} {
		if err := keepPause(state, until); err != nil {
			t.Fatal(err)
		}
		if got, paused := keptPause(state, log); !paused || !got.Equal(until) {
			t.Errorf("kept %v, %v; want %v", got, paused, until)
		}
	}
	for range 2 {
		if err := endPause(state); err != nil {
			t.Fatal(err)
		}
	}
	if _, paused := keptPause(state, log); paused {
		t.Error("paused after its end")
	}
	if err := os.WriteFile(filepath.Join(state, pauseFile), []byte("soon"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, paused := keptPause(state, log); paused {
		t.Error("paused by what is no pause")
	}
}
