package agent

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"backstay/agent/bootmark"
	"backstay/agent/enrol"
	"backstay/agent/localapi"
	"backstay/internal/localsock"
)

// serve answers commands on this machine until ctx ends.
func (w *work) serve(ctx context.Context) error {
	l, err := localsock.Listen(w.o.State)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: localapi.Handler(w), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

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
	kit := kitProblem(w.o.Folder)
	st.Problems = len(w.problems) + len(alarms) + len(kit)
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
	case w.failing != "":
		st.State, st.Reason = localapi.Failing, w.failing
		st.Problems++
	case st.Problems > 0:
		st.State = localapi.Attention
		if len(kit) > 0 {
			st.Reason = kit[0].Reason
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
	if failing != "" {
		list = append(list, localapi.Problem{Reason: failing, Fix: "agent doctor"})
	}
	for _, a := range alarms {
		list = append(list, localapi.Problem{Reason: a.Text, Fix: "agent problems --acknowledge"})
	}
	return append(append(list, kitProblem(w.o.Folder)...), w.unprotected()...), nil
}

// kitProblem says that nobody has shown to have kept the recovery kit.
func kitProblem(folder string) []localapi.Problem {
	if !enrol.KitPending(folder) {
		return nil
	}
	return []localapi.Problem{{
		Reason: "the recovery kit is not put away: if this machine is lost, nobody can get the files back",
		Fix:    "print it or write it down, and confirm that: agent dashboard --page kit",
	}}
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

// state notes why nothing is sent: failing where only a person can help.
func (w *work) state(offline, failing string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offline, w.failing = offline, failing
	w.changed.ring()
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
			offline, failing, paused := w.offline, w.failing, w.paused(time.Now())
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
