package upload

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"

	"backstay/agent/catalog"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/protocol/vault/cut"
)

// Source is what is needed to learn what a server holds of this device.
type Source interface {
	// Head returns the newest commit at or before a time, the zero time for
	// now; the zero Head if there is none.
	Head(ctx context.Context, device vault.DeviceID, at time.Time) (v4.Head, error)
	State(ctx context.Context, device vault.DeviceID, at time.Time) iter.Seq2[v4.Row, error]
	Get(ctx context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error]
}

// Finding says how the catalog and the server compared.
type Finding int

// The findings of [Open].
const (
	// Agree: the server's newest commit is the one the catalog knows.
	Agree Finding = iota + 1
	// Adopted: the server has commits of this device that the catalog does not
	// know: it was lost, or is that of an older state of this machine. It now
	// says what the server holds; every path has to be looked at again.
	Adopted
	// RolledBack: the server has lost commits that it had acknowledged. What
	// was in them has to be looked at and sent again.
	RolledBack
)

// Open brings the catalog in line with what the server holds. Errors: the
// session's; ErrTwoCopies; ErrServer where the server's commit is not one that
// this device has made; the catalog's.
func Open(ctx context.Context, o Options) (*Uploader, Finding, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Sent == nil {
		o.Sent = func(string, int64) {}
	}
	if o.Hold == nil {
		o.Hold = func(context.Context) error { return nil }
	}
	u := &Uploader{
		o: o, device: o.Identity.ID(), large: make(chan struct{}, largeFiles), lastSent: o.LastSent,
		completed: map[string]bool{}, passed: map[string]bool{}, nameless: map[vault.PathID]v4.Row{}, wake: make(chan struct{}, 1),
	}
	u.cutters.New = func() any { return cut.New(o.Keys.ChunkerKey()) }
	finding, err := u.compare(ctx)
	if err != nil {
		return nil, 0, err
	}
	if u.passes, err = o.Catalog.Passes(ctx); err != nil {
		return nil, 0, err
	}
	for root := range u.passes {
		u.passed[root] = true
	}
	counts, err := o.Catalog.Counts(ctx)
	if err != nil {
		return nil, 0, err
	}
	u.outOfScope = counts.Excluded > 0
	u.put = newPutter(ctx, o.Session, o.Catalog, o.Hold, u.history.Seq > 0 || len(u.passes) > 0 || o.LastSent != vault.CommitHash{})
	return u, finding, nil
}

func (u *Uploader) compare(ctx context.Context) (Finding, error) {
	h, err := u.o.Catalog.History(ctx)
	if err != nil {
		return 0, err
	}
	u.history = h
	head, err := u.o.Session.Head(ctx, u.device, time.Time{})
	if err != nil {
		return 0, err
	}
	if len(head.Commit) == 0 {
		if h.Seq == 0 || h.After != nil && h.After.Seq == 0 {
			return Agree, nil
		}
		return RolledBack, u.adopt(ctx, vault.Position{}, head, time.Time{})
	}
	c, err := vault.OpenCommit(u.o.Keys.Vault(), head.Commit, u.o.Identity.Public().SignKey())
	if err != nil {
		return 0, fmt.Errorf("%w: its newest commit of this device: %w", ErrServer, err)
	}
	hash := vault.HashCommit(head.Commit)
	agree := hash == h.Head || h.After != nil && h.After.Hash != nil && *h.After.Hash == hash
	if agree && !u.o.Compare {
		return Agree, nil
	}
	stamp, err := vault.OpenStamp(u.o.Keys.Vault(), hash, head.Stamp)
	if err != nil {
		return 0, fmt.Errorf("%w: stamp: %w", ErrServer, err)
	}
	if v4.PinOf(stamp.Server) != u.o.Pin {
		u.o.Log.Warn("the newest commit was stamped by another server's key")
	}
	if agree {
		return Adopted, u.adopt(ctx, vault.Position{Seq: c.Seq, Hash: &hash}, head, stamp.Time)
	}
	if c.Seq > h.Seq {
		if u.lastSent != (vault.CommitHash{}) && u.lastSent != hash {
			return 0, fmt.Errorf("%w; it is at commit %d, this one at %d", ErrTwoCopies, c.Seq, h.Seq)
		}
		h = catalog.History{Seq: c.Seq, Head: hash, Stamp: head.Stamp, Partial: true}
		u.history = h
		return Adopted, u.adopt(ctx, vault.Position{Seq: c.Seq, Hash: &hash}, head, stamp.Time)
	}
	return RolledBack, u.adopt(ctx, vault.Position{Seq: c.Seq, Hash: &hash}, head, stamp.Time)
}

// adopt makes the catalog say what the server holds at its newest commit.
func (u *Uploader) adopt(ctx context.Context, at vault.Position, head v4.Head, when time.Time) error {
	u.history.After = nil
	if at.Seq != u.history.Seq {
		u.history.After = &at
	}
	rows := map[vault.PathID]v4.Row{}
	var digest vault.Digest
	if at.Seq > 0 {
		for row, err := range u.o.Session.State(ctx, u.device, when) {
			if err != nil {
				return err
			}
			rows[row.Path] = row
			digest.Add(row.Path, row.Parent, row.Record)
		}
		c, err := vault.ParseCommit(head.Commit)
		if err != nil {
			return err
		}
		if digest.Sum() != c.Digest {
			return fmt.Errorf("%w: the state it lists is not the one that commit %d signs", ErrServer, c.Seq)
		}
	}
	u.history.Digest = digest
	// What both have needs no second look; keep is asked for every path of the
	// catalog before the rest is fetched.
	keep := func(path string, state catalog.State, record vault.ObjectID) bool {
		id := u.id(path)
		row, ok := rows[id]
		if state == catalog.Gone {
			return !ok // deleted there as well, or the server has lost that it was
		}
		if !ok || row.Record != record || (row.Op == vault.OpOutOfScope) != (state == catalog.Excluded) {
			return false
		}
		delete(rows, id)
		return true
	}
	found := func(yield func(catalog.Found, error) bool) {
		for some := range slices.Chunk(slices.Collect(maps.Keys(rows)), fetched) {
			ids := make([]vault.ObjectID, len(some))
			byRecord := make(map[vault.ObjectID]v4.Row, len(some))
			for i, path := range some {
				ids[i] = rows[path].Record
				byRecord[ids[i]] = rows[path]
			}
			for object, err := range u.o.Session.Get(ctx, ids) {
				if err != nil && object.ID == (vault.ObjectID{}) {
					yield(catalog.Found{}, err)
					return
				}
				row := byRecord[object.ID]
				var f catalog.Found
				if err == nil {
					f, err = u.found(row, object.Data)
				}
				if err != nil {
					// Its path is captured again and replaces it, but its name is
					// not known here.
					u.o.Log.Error("a record on the server cannot be read", "record", object.ID.String(), "err", err)
					u.nameless[row.Path] = row
					continue
				}
				if !yield(f, nil) {
					return
				}
			}
		}
	}
	return u.o.Catalog.Adopt(ctx, u.history, keep, found)
}

// fetched is how many records are fetched at a time.
const fetched = 4096

// found is what the catalog can say of a path that the server holds.
func (u *Uploader) found(row v4.Row, object []byte) (f catalog.Found, err error) {
	plain, h, err := u.o.Keys.Open(nil, object)
	if err != nil {
		return f, err
	}
	if h.Record == nil || h.Record.Path != row.Path || h.Record.Device != u.device || h.Record.Op != row.Op {
		return f, errors.New("the record is not the one listed")
	}
	r, err := vault.DecodeRecord(plain, h.Refs)
	if err != nil {
		return f, err
	}
	if u.id(string(r.Name)) != row.Path {
		return f, errors.New("the record names another path")
	}
	if r.Content.Level == 0 {
		// Trusted, because this device has signed the state that names the
		// record. Chunks in lists are found by asking the server.
		for _, e := range r.Content.Entries {
			f.Chunks = append(f.Chunks, catalog.Chunk{Hash: e.Hash, Size: int(e.Size), ID: e.Ref})
		}
	}
	f.Version = catalog.Version{Path: string(r.Name), State: catalog.Present, Record: row.Record, At: row.Time, Fuzzy: r.Fuzzy}
	if row.Op == vault.OpOutOfScope {
		f.State = catalog.Excluded
	} else {
		f.Stated = u.stated(&r)
	}
	return f, nil
}
