package agent

import (
	"cmp"
	"context"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"backstay/agent/bootmark"
	"backstay/agent/localapi"
	"backstay/protocol/vault"
)

// serve answers commands on this machine until ctx ends.
func (w *work) serve(ctx context.Context) error { return serve(ctx, w.o, w) }

// Status implements localapi.Service.
func (w *work) Status(ctx context.Context) (localapi.Status, error) {
	st := localapi.Status{Version: version()}
	dest, _, err := w.destination(ctx)
	if err != nil {
		return st, err
	}
	counts, err := dest.Counts(ctx)
	if err != nil {
		return st, err
	}
	alarms, err := dest.Alarms(ctx)
	if err != nil {
		return st, err
	}
	passes, err := dest.Passes(ctx)
	if err != nil {
		return st, err
	}
	st.Protected, st.Bytes = counts.Files+counts.Others, counts.Bytes
	if !counts.Newest.IsZero() {
		st.LastSafe = &counts.Newest
	}
	w.agent.mu.Lock()
	st.Problems = len(w.problems) + len(alarms)
	clocks := w.clocks
	if clocks != nil {
		st.Problems++
	}
	st.Server, st.Device = w.cfg.Address, w.cfg.Name
	if w.device != nil {
		st.Device, st.Vault = w.device.Name, w.device.Vault.String()
	}
	for _, r := range w.agent.roots {
		st.FirstPass = st.FirstPass || w.device != nil && passes[r.path] == 0
	}
	w.agent.mu.Unlock()

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.excluded {
		st.Excluded += n
	}
	st.Waiting = w.queue.len() + w.settling.Waiting() + w.sending
	paused := w.paused(time.Now())
	if paused {
		st.PausedBy = localapi.PausedByYou
		if until := w.pausedUntil; !until.IsZero() {
			st.PausedUntil = &until
		}
	}
	if w.busy > 0 {
		st.Rate = w.sent.rate(time.Now())
	}
	switch {
	case len(alarms) > 0:
		st.State, st.Reason = localapi.Alarm, alarms[0].Text
	case w.failing.Reason != "":
		st.State, st.Reason = localapi.Failing, w.failing.Reason+"; "+w.failing.Fix
		st.Problems++
	case st.Problems > 0:
		st.State = localapi.Attention
		if clocks != nil {
			st.Reason = clocks.Error() + "; " + clocksFix
		}
	case w.offline != "":
		st.State, st.Reason = localapi.Offline, w.offline
	case paused:
		st.State = localapi.Paused
	case st.FirstPass:
		st.State = localapi.FirstPass
	case st.Waiting > 0 || w.busy > 0 || len(w.rescans) > 0:
		st.State = localapi.Working
	default:
		st.State = localapi.Protected
	}
	return st, nil
}

// StatusChanged implements localapi.Service.
func (w *work) StatusChanged() <-chan struct{} { return w.changed.wait() }

// version is this program's.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// Problems implements localapi.Service.
func (w *work) Problems(ctx context.Context) ([]localapi.Problem, error) {
	dest, _, err := w.destination(ctx)
	if err != nil {
		return nil, err
	}
	alarms, err := dest.Alarms(ctx)
	if err != nil {
		return nil, err
	}
	list := []localapi.Problem{}
	w.mu.Lock()
	failing := w.failing
	w.mu.Unlock()
	if failing.Reason != "" {
		list = append(list, failing)
	}
	w.agent.mu.Lock()
	clocks := w.clocks
	w.agent.mu.Unlock()
	if clocks != nil {
		list = append(list, localapi.Problem{Reason: clocks.Error(), Fix: clocksFix})
	}
	for _, a := range alarms {
		list = append(list, localapi.Problem{Reason: a.Text, Fix: "agent problems --acknowledge"})
	}
	return append(list, w.unprotected()...), nil
}

// unprotected lists the problems of paths, by path.
func (a *agent) unprotected() []localapi.Problem {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []localapi.Problem
	for path, p := range a.problems {
		text, raw := localapi.Text(path)
		list = append(list, localapi.Problem{Path: text, PathBytes: raw, Reason: p.Reason, Fix: p.Fix})
	}
	slices.SortFunc(list, func(x, y localapi.Problem) int {
		return cmp.Or(strings.Compare(x.Path, y.Path), slices.Compare(x.PathBytes, y.PathBytes))
	})
	return list
}

// Acknowledge implements localapi.Service.
func (w *work) Acknowledge(ctx context.Context) error {
	dest, _, err := w.destination(ctx)
	if err != nil {
		return err
	}
	if err := dest.ClearAlarms(ctx); err != nil {
		return err
	}
	w.agent.mu.Lock()
	crashed := !w.crashed.IsZero()
	w.crashed = time.Time{}
	w.agent.mu.Unlock()
	if crashed {
		// What was held back is what its owner wants.
		if err := bootmark.Clear(w.o.State); err != nil {
			return err
		}
		if _, err := bootmark.Set(w.o.State); err != nil {
			return err
		}
		for _, r := range w.rootsNow() {
			w.Rescan(r.path, "a person has answered for empty files")
		}
	}
	return nil
}

// Pause implements localapi.Service.
func (w *work) Pause(_ context.Context, until time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pause, w.pausedUntil = true, until
	w.gateChanged()
	if !until.IsZero() {
		// A pause ends without anybody doing anything.
		time.AfterFunc(time.Until(until), w.changed.ring)
	}
	return nil
}

// Resume implements localapi.Service.
func (w *work) Resume(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pause, w.pausedUntil = false, time.Time{}
	w.gateChanged()
	return nil
}

// paused says whether sending is to wait. The caller holds mu.
func (w *work) paused(now time.Time) bool {
	return w.pause && (w.pausedUntil.IsZero() || now.Before(w.pausedUntil))
}

// gateChanged wakes who waits for the pause to end. The caller holds mu.
func (w *work) gateChanged() {
	close(w.gate)
	w.gate = make(chan struct{})
	w.changed.ring()
}

// unpaused waits until sending may go on; false if ctx ends first.
func (w *work) unpaused(ctx context.Context) bool {
	for {
		w.mu.Lock()
		paused, until, gate := w.paused(time.Now()), w.pausedUntil, w.gate
		w.mu.Unlock()
		if !paused {
			return true
		}
		var over <-chan time.Time
		if !until.IsZero() {
			over = time.After(time.Until(until))
		}
		select {
		case <-gate:
		case <-over:
		case <-ctx.Done():
			return false
		}
	}
}

// state notes whether there is a session, and what only a person can help with.
func (w *work) state(offline string, failing localapi.Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offline = offline
	if failing.Reason != "" {
		w.failing = failing
	}
	w.changed.ring()
}

// Resend implements localapi.Service.
func (w *work) Resend(ctx context.Context, paths []string, objects []vault.ObjectID) ([]string, error) {
	if w.o.Protocol != 4 {
		return nil, &localapi.Error{Text: "the running agent speaks protocol version 3, which cannot send again by itself", Code: 1}
	}
	dest, _, err := w.destination(ctx)
	if err == nil && len(objects) > 0 {
		err = dest.ForgetChunks(ctx, objects...)
	}
	if err != nil {
		return nil, err
	}
	present, err := dest.Recapture(ctx, paths)
	if err != nil {
		return nil, err
	}
	roots := w.rootsNow()
	w.do(func() {
		for _, path := range present {
			if i := slices.IndexFunc(roots, func(r root) bool { return below(r.path, path) }); i >= 0 {
				w.touch(roots[i].path, path)
			}
		}
	})
	return present, nil
}

// Backup implements localapi.Service.
func (w *work) Backup(ctx context.Context, paths []string) (localapi.Report, error) {
	var report localapi.Report
	scopes, err := scopesOf(w.rootsNow(), paths)
	if err != nil {
		return report, &localapi.Error{Text: err.Error(), Code: 2}
	}
	w.mu.Lock()
	files, bytes := w.safeFiles, w.safeBytes
	w.mu.Unlock()
	settled := make(chan struct{})
	var once sync.Once
	w.do(func() {
		for root, named := range scopes {
			if named == nil {
				w.rescans[root] = "a backup was asked for"
			}
			for _, path := range named {
				w.touch(root, path)
			}
		}
		w.waiters = append(w.waiters, func() { once.Do(func() { close(settled) }) })
	})
	for done := false; !done; {
		select {
		case <-settled:
			done = true
		case <-ctx.Done():
			return report, context.Cause(ctx)
		case <-time.After(time.Second):
			// Rather an answer than waiting for a server that is not there.
			w.mu.Lock()
			offline, failing, paused := w.offline, w.failing.Reason, w.paused(time.Now())
			w.mu.Unlock()
			if paused {
				return report, &localapi.Error{Text: "the agent is paused; end that with: agent resume", Code: 1}
			}
			if text := cmp.Or(failing, offline); text != "" {
				return report, &localapi.Error{Text: text, Code: 4}
			}
		}
	}
	w.mu.Lock()
	report.Files, report.Bytes = w.safeFiles-files, w.safeBytes-bytes
	w.mu.Unlock()
	report.Problems = w.unprotected()
	return report, nil
}
