package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"backstay/internal/durable"
)

const (
	// clockFile holds the time at which the server was last known to run.
	clockFile = "clock"
	// clockEvery is how often it is written.
	clockEvery = time.Minute
	// maxLeap is how far ahead of it a clock is believed: retention takes times from
	// stamps, and a stamp that is once ahead holds all later ones there.
	maxLeap = 24 * time.Hour
)

// clock guards against a system clock that leaps ahead. It is trusted while it is
// near the time of the file, which follows it while it is trusted.
type clock struct {
	path string
	now  func() time.Time
	log  *slog.Logger

	mu     sync.Mutex // guards what follows
	last   time.Time  // zero if the file tells none
	warned bool
}

// openClock reads the file of a data folder. Where there is none the clock is
// believed.
func openClock(data string, now func() time.Time, log *slog.Logger) (*clock, error) {
	c := &clock{path: filepath.Join(data, clockFile), now: now, log: log}
	text, err := os.ReadFile(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.last = c.wall()
	case err != nil:
		return nil, fmt.Errorf("read the last time: %w", err)
	default:
		if c.last, err = time.Parse(time.RFC3339Nano, strings.TrimSpace(string(text))); err != nil {
			log.Warn("the file of the last time is damaged", "path", c.path)
			c.last = time.Time{}
		}
	}
	return c, nil
}

// wall returns the time without the reading of the monotonic clock, which does not
// leap.
func (c *clock) wall() time.Time { return c.now().Round(0).UTC() }

// Trusted implements the clock of protocol version 4's sessions.
func (c *clock) Trusted() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trusted(c.wall())
}

func (c *clock) trusted(now time.Time) error {
	if now.Sub(c.last) <= maxLeap {
		return nil
	}
	since := "not known"
	if !c.last.IsZero() {
		since = c.last.Format(time.DateTime + " MST")
	}
	return fmt.Errorf("the server's clock says %s, when it last ran was %s: set it, or run “server clock confirm” if it is right",
		now.Format(time.DateTime+" MST"), since)
}

// confirm believes the clock whatever it says.
func (c *clock) confirm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keep(c.wall())
}

// keep writes a time down; mu is held.
func (c *clock) keep(now time.Time) error {
	if err := durable.WriteFile(c.path, []byte(now.Format(time.RFC3339Nano)+"\n"), 0o600); err != nil {
		return err
	}
	c.last, c.warned = now, false
	return nil
}

// follow writes the time down if it is trusted, and says once if it is not.
func (c *clock) follow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.wall()
	if err := c.trusted(now); err != nil {
		if !c.warned {
			c.log.Error("no commits are taken", "err", err)
		}
		c.warned = true
		return
	}
	if err := c.keep(now); err != nil {
		c.log.Warn("the time is not kept", "err", err)
	}
}

// run follows the clock until ctx ends.
func (c *clock) run(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		c.follow()
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.follow()
			return
		}
	}
}
