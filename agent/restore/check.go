package restore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"backstay/protocol/vault"
)

// CheckOptions say what to check. Keys must be set.
type CheckOptions struct {
	Keys *vault.Keyring
	// Sample is how many paths, drawn at random, are checked. Default: all.
	Sample int
	// Progress is as in [Options]. Default: nobody is told.
	Progress func(Progress)
}

// A CheckReport is what a check found. Checked counts paths, Bytes their content.
type CheckReport struct {
	Checked, Bytes int64
	// Failed are the paths that could not be restored as they were, ascending.
	Failed []Failure
	// Lost are the pieces of their content that cannot be had, as far as they can be
	// found out. An object may be named twice.
	Lost []vault.ObjectID
}

// checksAtOnce is how many contents are read at a time: each takes two chunks' room.
const checksAtOnce = 4

// Check fetches and opens the records of a state and everything that they refer to,
// and verifies what [Run] verifies. The error is the source's, or ctx's.
func Check(ctx context.Context, src Getter, s *State, o CheckOptions) (CheckReport, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c := &check{src: src, state: s, keys: o.Keys, stop: stop, meter: meter{tell: o.Progress}}
	rows := make([]int32, s.rows.n)
	for i := range rows {
		rows[i] = int32(i)
	}
	if o.Sample > 0 && o.Sample < len(rows) {
		rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		rows = rows[:o.Sample]
	}
	// As they are stored.
	slices.SortFunc(rows, s.bySeq)
	c.meter.progress.TotalFiles = int64(len(rows))
	err := c.pass(ctx, s.wants(rows))
	if later := c.later; err == nil && len(later) > 0 {
		err = c.pass(ctx, slices.Values(later))
	}
	slices.SortFunc(c.report.Failed, byPath)
	c.meter.add(0, 0, 0, true)
	if err != nil {
		err = fmt.Errorf("check: %w", err)
	}
	return c.report, err
}

// A check is one call of Check.
type check struct {
	src   Getter
	state *State
	keys  *vault.Keyring
	stop  context.CancelCauseFunc
	meter meter

	mu     sync.Mutex // guards the fields below
	report CheckReport
	later  []want // out of scope, whose record is another
}

func (c *check) pass(ctx context.Context, wants func(func(want) bool)) error {
	records := make(chan sealed, checksAtOnce)
	var checkers sync.WaitGroup
	for range checksAtOnce {
		checkers.Go(func() {
			for s := range records {
				c.record(ctx, s)
			}
		})
	}
	give := func(group []sealed) {
		for _, s := range group {
			records <- s
		}
	}
	err := getRecords(ctx, c.src, c.state, wants, give, func(w want, err error) { c.fail(ctx, w, "", err) })
	close(records)
	checkers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (c *check) record(ctx context.Context, s sealed) {
	if ctx.Err() != nil {
		return
	}
	rec, refs, err := openRecord(c.keys, c.state, s)
	if err != nil {
		c.fail(ctx, s.want, "", err)
		return
	}
	row := c.state.rows.at(s.row)
	if row.op == vault.OpOutOfScope && s.record == row.record {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.later = append(c.later, want{s.row, refs[0]})
		return
	}
	if _, err = split(rec.Name); err == nil {
		c.meter.add(0, 0, int64(rec.Content.Size), false)
		err = c.keys.ReadContent(ctx, c, rec.Content, c.src.Get)
	}
	if err != nil {
		if p, ok := errors.AsType[*vault.PieceError](err); ok {
			if !gone(p) {
				c.stop(fmt.Errorf("fetch content: %w", p.Err))
			}
			c.lose(p.ID)
			if err := c.pieces(ctx, refs); err != nil {
				c.stop(fmt.Errorf("fetch content: %w", err))
			}
		}
		c.fail(ctx, s.want, string(rec.Name), err)
		return
	}
	c.mu.Lock()
	c.report.Checked++
	c.report.Bytes += int64(rec.Content.Size)
	c.mu.Unlock()
	c.meter.add(1, 0, 0, false)
}

// pieces fetches everything that a content of which something is lost refers to, so
// that all that is lost is found, here and by the server.
func (c *check) pieces(ctx context.Context, refs []vault.ObjectID) error {
	for ids := range slices.Chunk(refs, batch) {
		var below []vault.ObjectID
		for o, err := range c.src.Get(ctx, ids) {
			switch {
			case err != nil && (o.ID == vault.ObjectID{} || !gone(err)):
				return err
			case err != nil || vault.Identify(o.Data) != o.ID:
				c.lose(o.ID)
				continue
			}
			// The clear header says what a list refers to.
			if h, _, err := vault.ParseHeader(o.Data); err == nil && h.Type == vault.TypeList {
				below = append(below, h.Refs...)
			}
		}
		if len(below) > 0 {
			if err := c.pieces(ctx, below); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *check) lose(id vault.ObjectID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Lost = append(c.report.Lost, id)
}

// Write counts content that was verified.
func (c *check) Write(content []byte) (int, error) {
	c.meter.add(0, int64(len(content)), 0, false)
	return len(content), nil
}

func (c *check) fail(ctx context.Context, w want, path string, err error) {
	if ctx.Err() != nil { // that is the reason
		return
	}
	c.mu.Lock()
	c.report.Checked++
	c.report.Failed = append(c.report.Failed, Failure{Path: path, ID: c.state.rows.at(w.row).path, Err: err})
	c.mu.Unlock()
	c.meter.add(1, 0, 0, false)
}
