package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"backstay/agent/conditions"
	"backstay/agent/machine"
)

// Why a connection was cut.
var (
	errAwake = errors.New("this machine was asleep")
	errMoved = errors.New("this machine's network has changed")
)

// heed minds what becomes of the machine until ctx ends.
func (w *work) heed(ctx context.Context, group *sync.WaitGroup) {
	group.Go(func() {
		machine.WatchPower(ctx, w.log, func(m conditions.Machine) {
			w.gate.change(func() { w.gate.machine = &m })
		})
	})
	group.Go(func() {
		w.gate.run(ctx, func(held *conditions.Reason) {
			text := "sending again"
			if held != nil {
				text = "paused, changes are kept here: " + held.Text
			}
			w.log.Info("gate", "text", text)
			w.tell(Event{Kind: Notice, Text: text})
		})
	})
	group.Go(func() { machine.WatchSleep(ctx, w.awake) })
	group.Go(func() { machine.WatchNetwork(ctx, w.moved) })
}

// awake is called after the machine was asleep: timers have stood still, the server
// has taken the session for dead, and no hint tells what another system did to the
// disk meanwhile.
func (w *work) awake(slept time.Duration) {
	w.log.Info("awake", "slept", slept.Round(time.Second).String())
	w.gate.change(func() {})
	w.line.Cut(errAwake, nil)
	w.retryNow()
	for _, r := range w.rootsNow() {
		w.Rescan(r.path, "the machine was asleep")
	}
}

// moved is called when the machine has other addresses: a session from one that is
// gone is dead, which TCP would take minutes to find out.
func (w *work) moved(own []netip.Addr) {
	w.log.Info("the network has changed")
	w.line.Cut(errMoved, func(a netip.Addr) bool {
		return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !slices.Contains(own, a)
	})
	w.retryNow()
}

// retryNow ends the wait for the next attempt to reach the server.
func (w *work) retryNow() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}
