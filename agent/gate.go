package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"backstay/agent/conditions"
	"backstay/internal/durable"
)

// gate says whether the agent may send now, and lets those wait who want to. It is
// closed until the state of the machine is known. It is safe for concurrent use.
type gate struct {
	mu      sync.Mutex // guards what follows
	policy  conditions.Policy
	machine *conditions.Machine
	// pause: a person has paused it, until a time or, if that is zero, for good.
	pause bool
	until time.Time
	// overridden are the causes in spite of which a person wants to send, until they
	// end.
	overridden map[conditions.Cause]bool
	// asked counts the backups that a person waits for: they go on regardless.
	asked int

	// held says why it is closed, nil if it is open; without a cause it is not known
	// yet.
	held *conditions.Reason
	// next is when time alone may change that; zero: never.
	next time.Time
	// changed is closed and replaced when it was decided anew, and told is called.
	changed chan struct{}
	told    func()
}

// newGate returns a gate that tells of every decision.
func newGate(p conditions.Policy, told func()) *gate {
	return &gate{policy: p, told: told, overridden: map[conditions.Cause]bool{}, held: &conditions.Reason{}, changed: make(chan struct{})}
}

// change changes what decides, and decides.
func (g *gate) change(how func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	how()
	g.held, g.next = g.decide(time.Now())
	close(g.changed)
	g.changed = make(chan struct{})
	g.told()
}

// decide says why nothing may be sent, nil if it may, and until when that holds. The
// caller holds mu.
func (g *gate) decide(now time.Time) (held *conditions.Reason, next time.Time) {
	if g.machine == nil {
		return &conditions.Reason{}, next
	}
	reasons, next := g.policy.Reasons(*g.machine, now)
	holds := map[conditions.Cause]bool{}
	for _, r := range reasons {
		holds[r.Cause] = true
		if held == nil && !g.overridden[r.Cause] {
			held = &r
		}
	}
	for cause := range g.overridden {
		if !holds[cause] {
			delete(g.overridden, cause)
		}
	}
	if g.pause && !g.until.IsZero() && !now.Before(g.until) {
		g.pause = false
	}
	if g.pause {
		held = &conditions.Reason{Cause: conditions.You, Text: "you paused it; end that with: agent resume", Until: g.until}
		if !g.until.IsZero() && (next.IsZero() || g.until.Before(next)) {
			next = g.until
		}
	}
	if g.asked > 0 {
		held = nil
	}
	return held, next
}

// now says why nothing may be sent. There is a cause if that is known.
func (g *gate) now() (held *conditions.Reason, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held, g.changed
}

// wait returns when sending is allowed, or the cause of ctx's end.
func (g *gate) wait(ctx context.Context) error {
	for {
		held, changed := g.now()
		if held == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run decides anew when time alone may change the answer, and tells of every other
// answer, until ctx ends.
func (g *gate) run(ctx context.Context, tell func(held *conditions.Reason)) {
	var told conditions.Cause
	for {
		g.mu.Lock()
		held, next, changed := g.held, g.next, g.changed
		g.mu.Unlock()
		var cause conditions.Cause
		if held != nil {
			cause = held.Cause
		}
		if cause != told {
			told = cause
			tell(held)
		}
		var over <-chan time.Time
		if !next.IsZero() {
			over = time.After(min(time.Until(next), clockSet))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-over:
			g.change(func() {})
		}
	}
}

// clockSet is how long it may take to notice that the clock was set: timers do not.
const clockSet = time.Minute

// resume sends in spite of all that holds now.
func (g *gate) resume() {
	g.change(func() {
		g.pause = false
		if g.machine == nil {
			return
		}
		reasons, _ := g.policy.Reasons(*g.machine, time.Now())
		for _, r := range reasons {
			g.overridden[r.Cause] = true
		}
	})
}

// pauseFile, in the state folder, is there while a person's pause lasts: it holds its
// end, or nothing.
const pauseFile = "paused"

// keepPause notes a pause, so that it outlives the agent.
func keepPause(state string, until time.Time) error {
	var text []byte
	if !until.IsZero() {
		text = until.AppendFormat(text, time.RFC3339Nano)
	}
	return durable.WriteFile(filepath.Join(state, pauseFile), text, 0o600)
}

// endPause forgets the pause.
func endPause(state string) error {
	if err := os.Remove(filepath.Join(state, pauseFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keptPause returns the pause that an earlier agent kept. What cannot be read is none:
// rather send than keep back.
func keptPause(state string, log *slog.Logger) (until time.Time, paused bool) {
	data, err := os.ReadFile(filepath.Join(state, pauseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return until, false
	}
	if text := strings.TrimSpace(string(data)); err == nil && text != "" {
		until, err = time.Parse(time.RFC3339Nano, text)
	}
	if err != nil {
		log.Warn("the pause that was kept cannot be read; going on", "err", err)
	}
	return until, err == nil
}
