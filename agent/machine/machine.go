// Package machine tells what becomes of the computer that the agent runs on: whether
// it draws from a battery, whether its network is metered, that it was asleep, that
// its network is another one.
//
// The one invariant: what cannot be found out is told as unknown, and is no error.
// It listens for signals of the system; only where there are none it looks, once a
// minute. It decides nothing: agent/conditions does. Enter at [WatchPower],
// [WatchSleep] and [WatchNetwork].
package machine

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"backstay/agent/conditions"
)

// lookEvery is how often the machine is looked at where no signal comes.
const lookEvery = time.Minute

// WatchPower tells the state of power and network once, within seconds, and then after
// every change, one call at a time, until ctx ends.
func WatchPower(ctx context.Context, log *slog.Logger, tell func(conditions.Machine)) {
	var last *conditions.Machine
	watchPower(ctx, log, func(m conditions.Machine) {
		if last == nil || *last != m {
			last = &m
			log.Info("machine", "on_battery", m.OnBattery, "percent", m.Percent, "metered", m.Metered)
			tell(m)
		}
	})
}

const (
	// wakeEvery is how often WatchSleep reads a clock, and so how late it is.
	wakeEvery = 2 * time.Second
	// nap is how short a sleep is that changes nothing.
	nap = time.Second
)

// WatchSleep calls awake, one call at a time, after each time that the machine was
// asleep, with how long, until ctx ends.
func WatchSleep(ctx context.Context, awake func(slept time.Duration)) {
	watchSleep(ctx, asleep, awake)
}

// watchSleep is WatchSleep by a reading of how long the machine has slept since it was
// started; false: that is not known.
func watchSleep(ctx context.Context, asleep func() (time.Duration, bool), awake func(slept time.Duration)) {
	before, ok := asleep()
	if !ok {
		return
	}
	ticker := time.NewTicker(wakeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, ok := asleep()
		if !ok {
			continue
		}
		if slept := now - before; slept > nap {
			awake(slept)
		}
		before = now
	}
}

// settles is how long the network must be quiet: addresses come and go several at a
// time.
const settles = 500 * time.Millisecond

// WatchNetwork calls changed, one call at a time, after the addresses of this machine
// have changed, with those that it has now, until ctx ends.
func WatchNetwork(ctx context.Context, changed func(own []netip.Addr)) {
	signals := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		networkSignals(ctx, func() {
			select {
			case signals <- struct{}{}:
			default:
			}
		})
	}()
	defer func() { <-done }()
	watchNetwork(ctx, signals, addresses, changed)
	cancel()
}

// watchNetwork is WatchNetwork by signals that something may have changed and a
// reading of the addresses.
func watchNetwork(ctx context.Context, signals <-chan struct{}, read func() ([]netip.Addr, error), changed func(own []netip.Addr)) {
	before, failed := read()
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		for quiet := false; !quiet; {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			case <-time.After(settles):
				quiet = true
			}
		}
		now, err := read()
		if err == nil && (failed != nil || !slices.Equal(before, now)) {
			changed(now)
		}
		if err == nil {
			before, failed = now, nil
		}
	}
}

// addresses returns the addresses by which other machines, and programs on this one,
// can reach it, sorted. Those of a single link are not among them: they come and go
// with every container.
func addresses() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, n := range nets {
		p, err := netip.ParsePrefix(n.String())
		if err == nil && !p.Addr().IsLinkLocalUnicast() {
			own = append(own, p.Addr().Unmap())
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return own, nil
}

// everyMinute calls f once a minute until ctx ends.
func everyMinute(ctx context.Context, f func()) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}
