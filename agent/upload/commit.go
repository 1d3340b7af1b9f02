package upload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"backstay/agent/catalog"
	"backstay/agent/scan/facts"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

const (
	// A commit takes at most so many records, and about so many bytes of them:
	// within the protocol's limits, and small enough to be acknowledged soon.
	commitRecords = 8192
	commitBytes   = 4 << 20
	// gather is how long a commit waits for more while paths are being captured:
	// short beside the settle time, and long enough that a burst of saves costs
	// the server one flush.
	gather = 15 * time.Millisecond
)

// commits commits what is ready until the channel is closed.
func (u *Uploader) commits(ctx context.Context, in <-chan *ready, report func(Result)) error {
	var held []*ready // for the next commit: their path is in this one
	for {
		batch, more, err := u.next(ctx, in, held)
		if err != nil {
			giveBack(batch, report)
			return err
		}
		batch, held = once(batch)
		// What it refers to has to be on the server first.
		for _, r := range batch {
			for _, b := range r.needs {
				if err := b.wait(ctx); err != nil {
					giveBack(batch, report)
					giveBack(held, report)
					return err
				}
			}
		}
		if len(batch) > 0 || u.newlyComplete() {
			if err := u.o.Hold(ctx); err != nil {
				giveBack(batch, report)
				giveBack(held, report)
				return err
			}
			if err := u.commit(ctx, batch, report); err != nil {
				giveBack(held, report)
				return err
			}
		}
		if !more && len(held) == 0 {
			return nil
		}
	}
}

func giveBack(batch []*ready, report func(Result)) {
	for _, r := range batch {
		report(Result{Item: r.item, Outcome: Again})
	}
}

// next gathers the paths of one commit. more is false when the channel is closed.
func (u *Uploader) next(ctx context.Context, in <-chan *ready, batch []*ready) (_ []*ready, more bool, err error) {
	size := 0
	for _, r := range batch {
		size += r.size()
	}
	full := func() bool { return len(batch) >= commitRecords || size >= commitBytes }
	var timer <-chan time.Time
	for !full() {
		if len(batch) == 0 {
			select {
			case r, ok := <-in:
				if !ok {
					return batch, false, nil
				}
				batch, size = append(batch, r), size+r.size()
			case <-u.wake:
				return batch, true, nil
			case <-ctx.Done():
				return batch, true, context.Cause(ctx)
			}
			continue
		}
		select {
		case r, ok := <-in:
			if !ok {
				return batch, false, nil
			}
			batch, size = append(batch, r), size+r.size()
			continue
		default:
		}
		if u.idle() {
			return batch, true, nil
		}
		if timer == nil {
			timer = time.After(gather)
		}
		select {
		case r, ok := <-in:
			if !ok {
				return batch, false, nil
			}
			batch, size = append(batch, r), size+r.size()
		case <-timer:
			return batch, true, nil
		case <-ctx.Done():
			return batch, true, context.Cause(ctx)
		}
	}
	return batch, true, nil
}

// once splits a batch so that no path is in it twice.
func once(batch []*ready) (first, rest []*ready) {
	seen := make(map[string]struct{}, len(batch))
	for i, r := range batch {
		if _, ok := seen[r.item.Path]; ok {
			if first == nil {
				first = slices.Clone(batch[:i])
			}
			rest = append(rest, r)
			continue
		}
		seen[r.item.Path] = struct{}{}
		if first != nil {
			first = append(first, r)
		}
	}
	if first == nil {
		first = batch
	}
	return first, rest
}

// commit commits a batch and reports what became of it.
func (u *Uploader) commit(ctx context.Context, batch []*ready, report func(Result)) (err error) {
	defer func() {
		if err != nil {
			giveBack(batch, report)
		}
	}()
	old, err := u.current(ctx, batch)
	if err != nil {
		return err
	}
	var still []*ready
	var known, same []catalog.Version
	var settled []Result
	for i, r := range batch {
		switch {
		case r.item.Op != vault.OpPut && old[i].State != catalog.Present && !(r.item.Op == vault.OpDelete && old[i].State == catalog.Excluded):
			// What is gone, or out of scope, and was never there needs no record.
			settled = append(settled, Result{Item: r.item, Outcome: Safe})
		case r.item.Op == vault.OpPut && old[i].State == catalog.Present && old[i].Stated == r.stated:
			// What states the same as the newest record needs no other.
			v := old[i]
			v.Facts, v.Fuzzy = r.facts, r.torn
			same, settled = append(same, v), append(settled, r.safe())
		default:
			still, known = append(still, r), append(known, old[i])
		}
	}
	if len(same) > 0 {
		if err := u.o.Catalog.Acknowledge(ctx, same); err != nil {
			return err
		}
	}
	batch, old = still, known
	for _, r := range settled {
		report(r)
	}
	completed := u.takeCompleted(len(batch))
	if len(batch) == 0 && len(completed) == 0 {
		return nil
	}
	return u.submit(ctx, batch, old, completed, report)
}

// current returns what the catalog knows of the paths of a batch, when nothing that
// the state holds is below one of them that is no folder.
func (u *Uploader) current(ctx context.Context, batch []*ready) ([]catalog.Version, error) {
	paths := make([]string, len(batch))
	for i, r := range batch {
		paths[i] = r.item.Path
	}
	for {
		old, err := u.o.Catalog.Current(ctx, paths)
		if err != nil {
			return nil, err
		}
		var tops []string
		for i, r := range batch {
			if r.item.Op == vault.OpPut && r.rec.Type != vault.TypeFolder && u.folderBefore(old[i]) {
				tops = append(tops, r.item.Path)
			}
		}
		if len(tops) == 0 {
			return old, nil
		}
		below, err := u.o.Catalog.Held(ctx, tops, commitRecords)
		if err != nil || len(below) == 0 {
			return old, err
		}
		gone := make([]*ready, len(below))
		for i, v := range below {
			gone[i] = &ready{item: Item{Path: v.Path, Op: vault.OpDelete}, rec: vault.Record{Name: []byte(v.Path)}}
			u.name(gone[i])
		}
		if err := u.submit(ctx, gone, below, nil, func(Result) {}); err != nil {
			return nil, err
		}
	}
}

// folderBefore says whether the state may hold something below a path. What is below a
// path that the catalog does not know was protected by itself, and is out of scope.
func (u *Uploader) folderBefore(old catalog.Version) bool {
	switch old.State {
	case 0:
		return u.outOfScope
	case catalog.Present:
		return old.Facts.Type == 0 || old.Facts.Type == facts.Directory
	}
	return true
}

// submit commits a batch, of which old is what the state says, and reports what became
// of it. After an error the caller does.
func (u *Uploader) submit(ctx context.Context, batch []*ready, old []catalog.Version, completed map[string]bool, report func(Result)) error {
	h := u.history
	seq := h.Seq + 1
	objects, ids, err := u.seal(batch, old, seq)
	if err != nil {
		return err
	}
	versions := make([]catalog.Version, len(batch))
	digest := h.Digest
	var replaced []vault.PathID
	for i, r := range batch {
		if inState(old[i]) {
			digest.Remove(r.path, r.parent, old[i].Record)
		} else if row, ok := u.nameless[r.path]; ok {
			digest.Remove(r.path, row.Parent, row.Record)
			replaced = append(replaced, r.path)
		}
		v := catalog.Version{Path: r.item.Path, Facts: r.facts, Stated: r.stated, Fuzzy: r.torn}
		switch r.item.Op {
		case vault.OpPut:
			v.State, v.Record = catalog.Present, ids[i]
			digest.Add(r.path, r.parent, ids[i])
		case vault.OpOutOfScope:
			v.State, v.Record = catalog.Excluded, ids[i]
			digest.Add(r.path, r.parent, ids[i])
			u.outOfScope = true
		default:
			v.State = catalog.Gone
		}
		versions[i] = v
	}
	c := vault.Commit{
		Device: u.device, Seq: seq, Root: vault.RecordsRoot(ids), Count: len(ids), Digest: digest.Sum(),
		Retention: u.o.Retention, Members: u.o.Members, Roots: u.roots(seq, completed), Time: clock(),
		PrevStamp: h.Stamp, After: h.After,
	}
	if h.Seq > 0 {
		c.Prev = &h.Head
	}
	raw, err := c.Sign(u.o.Keys.Vault(), u.o.Identity)
	if err != nil {
		return err
	}
	u.lastSent = vault.HashCommit(raw)
	var answer []byte
	err = whileBusy(ctx, func() (err error) {
		answer, err = u.o.Session.Commit(ctx, raw, objects)
		return err
	})
	if err != nil {
		return u.refused(ctx, err)
	}
	stamp, err := u.verifyStamp(u.lastSent, answer)
	if err != nil {
		return err
	}
	for i := range versions {
		versions[i].At = stamp.Time
	}
	h = catalog.History{Seq: seq, Head: u.lastSent, Stamp: answer, Digest: digest, Partial: h.Partial}
	// Acknowledged is acknowledged, also when the agent is being stopped.
	ctx = context.WithoutCancel(ctx)
	if err := u.o.Catalog.Advance(ctx, h, versions); err != nil {
		return err
	}
	for root := range completed {
		if err := u.o.Catalog.SetPass(ctx, root, seq); err != nil {
			return err
		}
		u.passes[root] = seq
		u.mu.Lock()
		u.passed[root] = true
		delete(u.completed, root)
		u.mu.Unlock()
	}
	u.history = h
	for _, path := range replaced {
		delete(u.nameless, path)
	}
	for _, r := range batch {
		report(r.safe())
	}
	return u.put.noteSome(ctx)
}

// safe is the result of what the server holds as it was captured.
func (r *ready) safe() Result {
	return Result{Item: r.item, Outcome: Safe, Facts: r.facts, Torn: r.torn, Problem: r.partial}
}

// inState says whether a path's newest record is in the state digest.
func inState(v catalog.Version) bool {
	return (v.State == catalog.Present || v.State == catalog.Excluded) && v.Record != vault.ObjectID{}
}

// refused turns a refusal into what the caller of Run does about it.
func (u *Uploader) refused(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, v4.ErrMissingRefs):
		if refusal, ok := errors.AsType[*v4.Error](err); ok && len(refusal.IDs) > 0 {
			u.o.Log.Warn("the server lacks objects it had; they are sent again", "objects", len(refusal.IDs))
			return errors.Join(fmt.Errorf("%w: %w", ErrStale, err), u.o.Catalog.ForgetChunks(ctx, refusal.IDs...))
		}
		return errors.Join(fmt.Errorf("%w: %w", ErrStale, err), u.o.Catalog.ForgetChunks(ctx))
	case errors.Is(err, v4.ErrConflict):
		// The head has moved under this session: nobody but a copy of this
		// device can have done that.
		return fmt.Errorf("%w: %w", ErrTwoCopies, err)
	case errors.Is(err, v4.ErrStaleMembers), errors.Is(err, v4.ErrDigest):
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return err
}

// verifyStamp returns the server's stamp for a commit.
func (u *Uploader) verifyStamp(c vault.CommitHash, raw []byte) (vault.Stamp, error) {
	stamp, err := vault.OpenStamp(u.o.Keys.Vault(), c, raw)
	switch {
	case err != nil:
		return stamp, fmt.Errorf("%w: stamp: %w", ErrServer, err)
	case v4.PinOf(stamp.Server) != u.o.Pin:
		return stamp, fmt.Errorf("%w: the stamp is signed with another key than the server's", ErrServer)
	}
	if len(u.history.Stamp) > 0 {
		before, err := vault.ParseStamp(u.history.Stamp)
		if err == nil && !stamp.Time.After(before.Time) {
			err = fmt.Errorf("stamp of %v after one of %v", stamp.Time, before.Time)
		}
		if err != nil {
			return stamp, fmt.Errorf("%w: %w", ErrServer, err)
		}
	}
	return stamp, nil
}

// seal seals the records of a batch on all cores, in order.
func (u *Uploader) seal(batch []*ready, old []catalog.Version, seq uint64) (objects [][]byte, ids []vault.ObjectID, err error) {
	objects, ids = make([][]byte, len(batch)), make([]vault.ObjectID, len(batch))
	errs := make([]error, len(batch))
	var group sync.WaitGroup
	n := min(runtime.GOMAXPROCS(0), len(batch)/64+1)
	for w := range n {
		group.Go(func() {
			var plain []byte
			for i := w; i < len(batch); i += n {
				r := batch[i]
				h := vault.Header{Type: vault.TypeRecord, Refs: r.rec.Content.Refs(), Record: &vault.RecordHeader{
					Device: u.device, Seq: seq, Op: r.item.Op,
					Path: r.path, Parent: r.parent,
				}}
				if r.item.Op == vault.OpOutOfScope {
					h.Refs = []vault.ObjectID{old[i].Record}
				}
				plain = r.rec.Append(plain[:0])
				objects[i], ids[i], errs[i] = u.o.Keys.Seal(nil, h, plain)
			}
		})
	}
	group.Wait()
	return objects, ids, errors.Join(errs...)
}

// newlyComplete says whether there is a pass to state, and nothing open.
func (u *Uploader) newlyComplete() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.completed) > 0 && u.open == 0
}

// takeCompleted returns the passes that are over with a commit of n items.
func (u *Uploader) takeCompleted(n int) map[string]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open > n {
		return nil
	}
	return maps.Clone(u.completed)
}

// roots states how far the first pass over each root is.
func (u *Uploader) roots(seq uint64, completed map[string]bool) []vault.RootState {
	var states []vault.RootState
	for _, root := range u.o.Roots() {
		s := vault.RootState{Path: u.id(root), Complete: u.passes[root]}
		if completed[root] {
			s.Complete = seq
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b vault.RootState) int { return slices.Compare(a.Path[:], b.Path[:]) })
	return slices.CompactFunc(states, func(a, b vault.RootState) bool { return a.Path == b.Path })
}
