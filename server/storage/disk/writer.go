package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

const (
	// A group closes at groupBytes or after groupTime, so that a flush is worth
	// its price and nobody waits long for others.
	groupBytes = 8 << 20
	groupTime  = 10 * time.Millisecond
	// maxQueue bounds the bytes that wait for the writer. Their owners hold
	// them in memory.
	maxQueue = 16 << 20
	// Entries are gathered to writes of gatherBytes; larger bodies are written
	// from the caller's memory, without a copy.
	gatherBytes = 256 << 10
)

// activePack is the pack that grows.
type activePack struct {
	number uint32
	f      File
	mark   mark
	size   int64 // durable and indexed
}

// write is the writer's goroutine. It alone writes packs and the index.
func (s *Store) write() {
	defer close(s.written)
	for s.queue.wait() {
		s.writeGroup()
	}
}

// submit hands a change of size bytes to the writer and waits until it is
// durable or refused. A change whose ctx ends while it is queued is withdrawn.
func (s *Store) submit(ctx context.Context, size int64, run func(*group) error) error {
	o := &op{size: size, run: run, done: make(chan struct{})}
	if err := s.queue.add(ctx, o); err != nil {
		return err
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if o.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-o.done // the writer is reading the caller's memory
	}
	return o.err
}

// writeGroup makes what waits durable with one flush and acknowledges it.
func (s *Store) writeGroup() {
	var ops []*op
	g := group{s: s}
	err := s.failure()
	if err == nil {
		err = g.begin()
	}
	for start := time.Now(); ; {
		o := s.queue.take()
		if o == nil {
			break
		}
		ops = append(ops, o)
		if err == nil {
			o.err, err = g.do(o.run)
		}
		if g.end-g.start >= groupBytes || time.Since(start) >= groupTime {
			break
		}
	}
	if err == nil {
		err = g.commit()
	}
	if err != nil {
		err = g.abort(err)
	}
	if err == nil {
		s.unlink(g.dead)
	}
	for _, o := range ops {
		if err != nil {
			// A refusal, too, may rest on what has just been undone.
			o.err = err
		}
		close(o.done)
	}
}

// group is a set of changes that becomes durable together: entries at the end of
// the active pack and one transaction of the index.
type group struct {
	s       *Store
	pack    *activePack
	open    bool  // the transaction is
	start   int64 // where the group's entries start in the pack
	end     int64 // where the next entry goes
	flushed int64 // up to here the pack is written
	dirty   bool  // a write to the pack was begun
	staged  []staged
	deletes bool
	spoils  bool // the index changes although no entry is written
	dead    []uint32
}

// staged is an entry that is not written yet; the body is the caller's.
type staged struct {
	head [entryHeader]byte
	body []byte
}

func (g *group) begin() error {
	if p := g.s.active; p == nil || p.size >= g.s.packSize {
		if err := g.s.newPack(); err != nil {
			return err
		}
	}
	g.pack = g.s.active
	g.start, g.end, g.flushed = g.pack.size, g.pack.size, g.pack.size
	err := g.s.index.begin()
	g.open = err == nil
	return err
}

// do runs one change. A refusal undoes that change alone; err is an error of the
// whole group. Only the changes behind the first need a savepoint, for which SQLite
// copies each page that it touches.
func (g *group) do(run func(*group) error) (refusal, err error) {
	x := &g.s.index
	first := g.end == g.start && !g.spoils
	if !first {
		if err := x.savepoint(); err != nil {
			return nil, err
		}
	}
	end := g.end
	if refusal = run(g); refusal == nil {
		if !first {
			err = x.release()
		}
		if err != nil {
			return nil, err
		}
		return nil, g.emit()
	}
	if groupErr, ok := errors.AsType[groupError](refusal); ok {
		return nil, groupErr
	}
	if _, ok := errors.AsType[indexError](refusal); ok {
		return nil, refusal
	}
	clear(g.staged)
	g.staged, g.end = g.staged[:0], end
	if first {
		return refusal, errors.Join(x.rollback(), x.begin())
	}
	return refusal, x.undo()
}

// groupError wraps an error of the pack that grows.
type groupError struct{ err error }

func (e groupError) Error() string { return e.err.Error() }
func (e groupError) Unwrap() error { return e.err }

// stage appends an entry and returns where its body will lie.
func (g *group) stage(k kind, flags uint8, v vault.ID, sum [sha256.Size]byte, body []byte) location {
	if g.end == g.start {
		flags |= flagGroup
	}
	e := entry{kind: k, flags: flags, vault: v, sum: sum, off: g.end + entryHeader, length: int64(len(body))}
	g.staged = append(g.staged, staged{e.encode(g.pack.mark), body})
	g.end = e.end()
	return location{g.pack.number, e.off, e.length}
}

// emit writes what is staged to the pack, except for a rest that is gathered.
func (g *group) emit() error {
	defer func() {
		clear(g.staged)
		g.staged = g.staged[:0]
	}()
	for _, e := range g.staged {
		small := len(e.body) < gatherBytes/4
		if small && len(g.s.gather)+len(e.head)+len(e.body) > gatherBytes {
			if err := g.flush(); err != nil {
				return err
			}
		}
		g.s.gather = append(g.s.gather, e.head[:]...)
		if len(g.s.gather)+len(e.body) <= gatherBytes {
			g.s.gather = append(g.s.gather, e.body...)
			continue
		}
		if err := g.flush(); err != nil {
			return err
		}
		if err := g.writeOut(e.body); err != nil {
			return err
		}
	}
	return nil
}

// flush writes what is gathered.
func (g *group) flush() error {
	b := g.s.gather
	g.s.gather = g.s.gather[:0]
	return g.writeOut(b)
}

func (g *group) writeOut(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	g.dirty = true
	if err := writeAt(g.pack.f, b, g.flushed); err != nil {
		return fmt.Errorf("pack %d: %w", g.pack.number, err)
	}
	g.flushed += int64(len(b))
	return nil
}

func writeAt(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// commit makes the group durable: bytes before index, index before ack.
func (g *group) commit() error {
	x := &g.s.index
	if g.end == g.start && !g.spoils {
		return x.rollback() // nothing but refusals and what is stored already
	}
	if g.end > g.start {
		if err := g.flush(); err != nil {
			return err
		}
		if err := g.pack.f.Sync(); err != nil {
			// Not told apart by cause: after any failed flush the kernel may
			// hold pages as clean that never reached the disk.
			return fmt.Errorf("pack %d: %w: %w", g.pack.number, errFlush, err)
		}
	}
	if g.deletes {
		var err error
		if g.dead, err = x.retire(g.pack.number); err != nil {
			return err
		}
	}
	if err := x.commit(g.pack.number, g.end); err != nil {
		return err
	}
	g.pack.size = g.end
	g.s.setCounts(x.counts)
	return nil
}

// errFlush marks a failed flush, which is never survived.
var errFlush = errors.New("flush")

// abort undoes the group and returns what its callers are told: ErrFull when the
// store can go on, else ErrFailed.
func (g *group) abort(cause error) error {
	s := g.s
	s.gather = s.gather[:0]
	if err := s.failure(); err != nil {
		return err
	}
	var err error
	if g.open {
		err = s.index.rollback()
	}
	if !storageFull(cause) {
		return s.fail(errors.Join(cause, err))
	}
	if g.dirty && err == nil {
		// What was written may never come back as committed.
		if err = g.pack.f.Truncate(g.start); err == nil {
			err = g.pack.f.Sync()
		}
	}
	if err != nil {
		return s.fail(errors.Join(cause, err))
	}
	return fmt.Errorf("%w: %w", storage.ErrFull, cause)
}

// newPack makes the next pack the active one. It is durable by name before
// anything in it can be acknowledged.
func (s *Store) newPack() error {
	if s.active != nil {
		if err := s.active.f.Close(); err != nil {
			return err
		}
		s.active = nil
	}
	p := &activePack{number: s.nextPack, mark: newMark(), size: packHeader}
	s.nextPack++
	name := s.packName(p.number)
	f, err := s.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return fmt.Errorf("new pack: %w", err)
	}
	p.f = f
	if err = writeAt(f, encodePackHeader(p.number, p.mark), 0); err == nil {
		if err = f.Sync(); err == nil {
			err = s.fs.SyncDir(filepath.Dir(name))
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", errFlush, err)
		}
	}
	if err == nil {
		// The row says that this pack's length is known from the start.
		err = s.index.run(`INSERT INTO packs(n, indexed) VALUES(?, ?)`, nil, int64(p.number), int64(packHeader))
	}
	if err != nil {
		return fmt.Errorf("new pack: %w", errors.Join(err, f.Close(), s.fs.Remove(name)))
	}
	s.active = p
	return nil
}

// unlink removes packs that the index has given up. What fails is tried again
// when the store is opened.
func (s *Store) unlink(dead []uint32) {
	if len(dead) == 0 {
		return
	}
	for i, n := range dead {
		if err := s.fs.Remove(s.packName(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("pack not removed", "pack", n, "error", err)
			dead[i] = 0
		}
	}
	if err := s.fs.SyncDir(s.packs()); err != nil {
		s.fail(err)
		return
	}
	for _, n := range dead {
		if err := s.index.run(`DELETE FROM packs WHERE n = ?`, nil, int64(n)); err != nil {
			if !storageFull(err) {
				s.fail(err)
			}
			return
		}
	}
}

// put stages objects that are not stored yet.
func (g *group) put(n int64, v vault.ID, objects []object, flags uint8) error {
	for _, o := range objects {
		at := location{g.pack.number, g.end + entryHeader, int64(len(o.data))}
		added, err := g.s.index.addObject(n, o.id, o.header, at, checked)
		if err != nil {
			return err
		}
		if added {
			g.stage(kindObject, flags, v, o.id, o.data)
		}
	}
	return nil
}

// commitChange stages a commit and its objects and stamps it.
func (g *group) commitChange(c storage.Commit, objects []object) (change, error) {
	x := &g.s.index
	made := change{device: c.Device, seq: c.Seq, after: c.After, records: make([]changed, len(c.Records)), body: c.Body}
	dev, err := x.device(c.Vault, c.Device)
	if err != nil {
		return made, err
	}
	if c.After != dev.seq {
		return made, fmt.Errorf("commit %d after %d, the head is %d: %w", c.Seq, c.After, dev.seq, storage.ErrConflict)
	}
	n, err := x.addVault(c.Vault)
	if err != nil {
		return made, err
	}
	if err := g.put(n, c.Vault, objects, flagPart); err != nil {
		return made, err
	}
	given := make(map[vault.ObjectID]*vault.RecordHeader, len(objects))
	for _, o := range objects {
		given[o.id] = o.header.Record
	}
	for i, id := range c.Records {
		r, ok := given[id]
		if !ok {
			o, err := x.object(n, id)
			switch {
			case err != nil:
				return made, err
			case !o.live():
				return made, fmt.Errorf("record %v: %w", id, storage.ErrMissingRef)
			case o.typ == vault.TypeRecord:
				h, err := g.header(id, o.location)
				if err != nil {
					return made, fmt.Errorf("record %v: %w", id, err)
				}
				r = h.Record
			}
		}
		if r == nil || r.Device != c.Device || r.Seq != c.Seq {
			return made, fmt.Errorf("object %v is no record of this commit: %w", id, storage.ErrInvalid)
		}
		made.records[i] = changed{id, r.Path, r.Parent, r.Op}
	}
	made.time = max(g.s.now().UnixNano(), x.lastTime+1)
	dev, _, err = x.addChange(c.Vault, made, checked)
	if err != nil {
		return made, err
	}
	if c.Digest != nil && dev.digest.Sum() != *c.Digest {
		return made, fmt.Errorf("commit %d: %w", c.Seq, storage.ErrDigest)
	}
	if made.stamp, err = c.MakeStamp(stampTime(made.time)); err != nil {
		return made, err
	}
	body := made.encode()
	at := g.stage(kindCommit, 0, c.Vault, sha256.Sum256(body), body)
	return made, x.addCommit(dev.n, made, at)
}

// header reads the clear part of a live object.
func (g *group) header(id vault.ObjectID, at location) (vault.Header, error) {
	f := g.pack.f
	if at.pack != g.pack.number {
		var err error
		if f, err = g.s.openPack(at.pack); err != nil {
			return vault.Header{}, damaged(err)
		}
		defer f.Close()
	} else if at.off+at.len > g.flushed {
		if err := g.flush(); err != nil {
			return vault.Header{}, groupError{err}
		}
	}
	b, err := readObject(f, id, at, nil)
	if err != nil {
		return vault.Header{}, err
	}
	h, _, err := vault.ParseHeader(b)
	return h, err
}

// spoil notes which objects were found damaged.
func (g *group) spoil(v vault.ID, found []wanted) error {
	for _, w := range found {
		changed, err := g.s.index.spoil(v, w)
		if err != nil {
			return err
		}
		g.spoils = g.spoils || changed
	}
	return nil
}

func (g *group) set(items []storage.Item) error {
	for i, it := range items {
		body := encodeItem(it)
		var flags uint8
		if i < len(items)-1 {
			flags = flagPart
		}
		at := g.stage(kindItem, flags, vault.ID{}, sha256.Sum256(body), body)
		if err := g.s.index.setItem(it, at, checked); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) delete(v vault.ID, ids []vault.ObjectID) error {
	gone, err := g.s.index.remove(v, ids, func(id vault.ObjectID, o stored) ([]vault.ObjectID, error) {
		h, err := g.header(id, o.location)
		return h.Refs, err
	})
	if len(gone) == 0 || err != nil {
		return err
	}
	g.deletes = true
	body := encodeIDs(gone)
	g.stage(kindDelete, 0, v, sha256.Sum256(body), body)
	return nil
}
