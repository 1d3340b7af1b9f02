package v3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

// faulty is a store whose writes fail on demand.
type faulty struct {
	storage.Store
	put, commit, set func() error
}

func run(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (s *faulty) Put(ctx context.Context, v vault.ID, objects ...[]byte) ([]vault.ObjectID, error) {
	if err := run(s.put); err != nil {
		return nil, err
	}
	return s.Store.Put(ctx, v, objects...)
}

func (s *faulty) Commit(ctx context.Context, c storage.Commit) (time.Time, []byte, error) {
	if err := run(s.commit); err != nil {
		return time.Time{}, nil, err
	}
	return s.Store.Commit(ctx, c)
}

func (s *faulty) Set(ctx context.Context, items ...storage.Item) error {
	if err := run(s.set); err != nil {
		return err
	}
	return s.Store.Set(ctx, items...)
}

// TestFaults: what a store refuses is never acknowledged; a full one is no reason
// to end a session, a failed one is.
func TestFaults(t *testing.T) {
	small, large := fill(100), fill(600_000)
	for _, tt := range []struct {
		name string
		err  error
		ends bool
	}{
		{"full", storage.ErrFull, false},
		{"missing reference", storage.ErrMissingRef, false},
		{"failed", storage.ErrFailed, true},
		{"closed", storage.ErrClosed, true},
	} {
		once := func() func() error {
			n := 0
			return func() error {
				if n++; n > 1 {
					return nil
				}
				return fmt.Errorf("wrapped: %w", tt.err)
			}
		}
		steps := map[string]struct {
			arm func(s *faulty)
			run func(c *client)
		}{
			"commit":         {func(s *faulty) { s.commit = once() }, func(c *client) { c.write(c.packets("f", small, 1)[0]) }},
			"commit, large":  {func(s *faulty) { s.commit = once() }, func(c *client) { c.write(c.packets("f", large, 1)[0]) }},
			"put":            {func(s *faulty) { s.put = sync.OnceValue(once()) }, func(c *client) { c.conn.Write(c.packets("f", large, 1)[0]) }},
			"put, packets":   {func(s *faulty) { s.put = sync.OnceValue(once()) }, func(c *client) { c.conn.Write(bytes.Join(c.packets("f", large, 4), nil)) }},
			"verdict":        {func(s *faulty) { s.commit = once() }, func(c *client) { c.write(c.request(wire.Message{Kind: wire.ChecksumGivingUp})) }},
			"register":       {func(s *faulty) { s.set = once() }, nil},
			"new public key": {func(s *faulty) { s.set = once() }, func(c *client) { c.priv = wideKey(c.t.(*testing.T)); c.write(c.request(c.publicKey("ada"))) }},
		}
		for step, s := range steps {
			t.Run(tt.name+"/"+step, func(t *testing.T) {
				store := &faulty{Store: memory.New(nil)}
				a := open(t, store, Options{})
				var c *client
				if s.run != nil {
					c = ready(t, a, wire.Field, "ada")
					c.send("before", small)
					s.arm(store)
					s.run(c)
				} else {
					s.arm(store)
					c = dial(t, a, wire.Field)
					c.write(c.request(wire.Message{Kind: wire.Register, Name: "ada"}))
				}
				if tt.ends {
					if err := c.end(); !errors.Is(err, tt.err) {
						t.Errorf("session: %v", err)
					}
				} else {
					c.answer(wire.GeneralError)
					store.put = nil
					if s.run == nil {
						c.register("ada")
						c.exchange("ada")
						c.send("before", small)
					}
					c.send("after", large)
					if err := c.close(); err != nil {
						t.Errorf("session: %v", err)
					}
					wantFile(t, a, "ada", "after", large)
				}
				if s.run != nil {
					wantFile(t, a, "ada", "before", small)
				}
				if _, err := a.find(t.Context(), "ada"); err == nil {
					wantFile(t, a, "ada", "f", nil)
				}
			})
		}
	}
}

// TestSmallFileIsOneCommit: a small file costs one flush.
func TestSmallFileIsOneCommit(t *testing.T) {
	var puts, commits int
	store := &faulty{Store: memory.New(nil)}
	a := open(t, store, Options{})
	c := ready(t, a, wire.Field, "ada")
	store.put = func() error { puts++; return nil }
	store.commit = func() error { commits++; return nil }
	c.send("f", fill(vault.InlineMax))
	c.send("f", fill(smallFile-1))
	c.close()
	if puts != 0 || commits != 2 {
		t.Errorf("%d puts, %d commits", puts, commits)
	}
}

// TestFailedStoreEndsAtOnce: what a client still has to send is not waited for.
func TestFailedStoreEndsAtOnce(t *testing.T) {
	store := &faulty{Store: memory.New(nil), put: func() error { return storage.ErrFailed }}
	c := ready(t, open(t, store, Options{}), wire.Field, "ada")
	b := c.packets("f", fill(8<<20), 1)[0]
	c.conn.Write(b[:len(b)-1])
	if err := c.end(); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("session: %v", err)
	}
}

// TestConflicts: a step that another server on the same store was faster with is
// tried again, but not for ever.
func TestConflicts(t *testing.T) {
	store := &faulty{Store: memory.New(nil)}
	a := open(t, store, Options{})
	c := ready(t, a, wire.Field, "ada")
	times := func(n int) func() error {
		return func() error {
			if n--; n < 0 {
				return nil
			}
			return storage.ErrConflict
		}
	}
	store.commit = times(maxConflicts)
	c.send("f", fill(5000))
	store.commit = times(maxConflicts + 1)
	c.write(c.packets("g", fill(5000), 1)[0])
	c.answer(wire.GeneralError)
	store.set = times(2)
	c.priv = wideKey(t)
	c.exchange("ada")
	if err := c.close(); err != nil {
		t.Error(err)
	}
	wantFile(t, a, "ada", "f", fill(5000))
	wantFile(t, a, "ada", "g", nil)
}
