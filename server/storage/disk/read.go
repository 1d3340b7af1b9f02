package disk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"slices"
	"syscall"
	"time"

	"zombiezen.com/go/sqlite"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

// read runs f on a reader's connection.
func (s *Store) read(ctx context.Context, f func(db) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	err := s.pool.use(ctx, f)
	if _, ok := errors.AsType[indexError](err); ok {
		return s.fail(err)
	}
	return err
}

// Has implements [storage.Objects].
func (s *Store) Has(ctx context.Context, v vault.ID, ids []vault.ObjectID) ([]bool, error) {
	has := make([]bool, len(ids))
	err := s.read(ctx, func(d db) error {
		n, err := d.vault(v)
		if err != nil {
			return err
		}
		for i, id := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			o, err := d.object(n, id)
			if err != nil {
				return err
			}
			has[i] = o.live()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return has, nil
}

// wanted is an object to read and where it lies.
type wanted struct {
	id vault.ObjectID
	at location
	// damaged: it was found so before.
	damaged bool
}

// Get implements [storage.Objects]. What is missing is yielded first. What was found
// damaged before is tried again all the same.
func (s *Store) Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		want, err := s.locate(ctx, v, ids)
		if err != nil {
			yield(vault.Object{}, err)
			return
		}
		r := bodyReader{s: s}
		defer r.close()
		var found []wanted
		defer func() { s.remember(ctx, v, found) }()
		for _, w := range want {
			data, err := r.get(ctx, v, &w)
			if err != nil && (ctx.Err() != nil || errors.Is(err, storage.ErrClosed) || errors.Is(err, storage.ErrFailed)) {
				yield(vault.Object{}, err)
				return
			}
			if err != nil {
				err = fmt.Errorf("object %v: %w", w.id, err)
			}
			if errors.Is(err, storage.ErrCorrupt) && w.at != (location{}) && !w.damaged {
				found = append(found, w)
			}
			if !yield(vault.Object{ID: w.id, Data: data}, err) {
				return
			}
		}
	}
}

// remember notes that objects were found damaged, also when their reader has gone.
func (s *Store) remember(ctx context.Context, v vault.ID, found []wanted) {
	if len(found) == 0 || s.enter() != nil {
		return
	}
	defer s.leave()
	err := s.submit(context.WithoutCancel(ctx), 0, func(g *group) error { return g.spoil(v, found) })
	if err != nil {
		s.log.Warn("damage not remembered", "objects", len(found), "error", err)
	}
}

// locate returns each id once, in storage order.
func (s *Store) locate(ctx context.Context, v vault.ID, ids []vault.ObjectID) ([]wanted, error) {
	want := make([]wanted, len(ids))
	for i, id := range ids {
		want[i].id = id
	}
	slices.SortFunc(want, func(a, b wanted) int { return slices.Compare(a.id[:], b.id[:]) })
	want = slices.CompactFunc(want, func(a, b wanted) bool { return a.id == b.id })
	for page := range slices.Chunk(want, pageRows) {
		err := s.read(ctx, func(d db) error {
			n, err := d.vault(v)
			if err != nil {
				return err
			}
			for i := range page {
				o, err := d.object(n, page[i].id)
				if err != nil {
					return err
				}
				page[i].at, page[i].damaged = o.location, o.damaged
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(want, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.at.pack, b.at.pack), cmp.Compare(a.at.off, b.at.off))
	})
	return want, nil
}

// bodyReader reads bodies from packs, keeping the last pack open and one buffer.
type bodyReader struct {
	s    *Store
	pack uint32
	f    File
	buf  []byte
}

func (r *bodyReader) close() {
	if r.f != nil {
		r.f.Close()
	}
	r.f, r.pack = nil, 0
}

// get returns an object's bytes, valid until the next call. Between the look-up
// and here the object may have gone or moved, so an error is believed only when
// a second look-up finds the same place, which w then says.
func (r *bodyReader) get(ctx context.Context, v vault.ID, w *wanted) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if w.at == (location{}) {
			return nil, r.absent(ctx, v, w.id)
		}
		b, err := r.object(*w)
		if !errors.Is(err, storage.ErrCorrupt) {
			return b, err
		}
		var again stored
		rerr := r.s.read(ctx, func(d db) error {
			n, err := d.vault(v)
			if err != nil {
				return err
			}
			again, err = d.object(n, w.id)
			return err
		})
		if rerr != nil {
			return nil, rerr
		}
		w.damaged = again.damaged
		if again.location == w.at {
			return nil, err
		}
		w.at = again.location
	}
}

// absent tells an object that was never stored from one whose entry was damaged
// when the index was rebuilt.
func (r *bodyReader) absent(ctx context.Context, v vault.ID, id vault.ObjectID) error {
	err := storage.ErrNotFound
	rerr := r.s.read(ctx, func(d db) error {
		lost, err2 := d.number(`SELECT 1 FROM objects WHERE vault = (SELECT n FROM vaults WHERE id = ?)
			AND id = ? AND pack = 0`, v[:], id[:])
		if lost != 0 {
			err = fmt.Errorf("lost when the index was rebuilt: %w", storage.ErrCorrupt)
		}
		return err2
	})
	if rerr != nil {
		return rerr
	}
	return err
}

func (r *bodyReader) object(w wanted) ([]byte, error) {
	if err := r.s.enter(); err != nil {
		return nil, err
	}
	defer r.s.leave()
	if err := r.open(w.at.pack); err != nil {
		return nil, err
	}
	b, err := readObject(r.f, w.id, w.at, r.buf)
	r.buf = b[:0]
	return b, err
}

// entry returns the checked body of a commit or an item.
func (r *bodyReader) entry(at location, k kind) ([]byte, error) {
	if err := r.s.enter(); err != nil {
		return nil, err
	}
	defer r.s.leave()
	if err := r.open(at.pack); err != nil {
		return nil, err
	}
	b := make([]byte, entryHeader+at.len)
	if err := readFull(r.f, b, at.off-entryHeader); err != nil {
		return nil, err
	}
	var m mark
	copy(m[:], b)
	e, ok := decodeEntry(b, m, at.off-entryHeader)
	if !ok || e.kind != k || e.length != at.len || sha256.Sum256(b[entryHeader:]) != e.sum {
		return nil, fmt.Errorf("pack %d at %d: %w", at.pack, at.off, storage.ErrCorrupt)
	}
	return b[entryHeader:], nil
}

func (r *bodyReader) open(pack uint32) error {
	if r.f != nil && r.pack == pack {
		return nil
	}
	r.close()
	f, err := r.s.openPack(pack)
	if err != nil {
		return damaged(err)
	}
	r.f, r.pack = f, pack
	return nil
}

// readObject reads an object into buf, grown as needed, and checks it.
func readObject(f File, id vault.ObjectID, at location, buf []byte) ([]byte, error) {
	b := slices.Grow(buf[:0], int(at.len))[:at.len]
	if err := readFull(f, b, at.off); err != nil {
		return nil, err
	}
	if vault.Identify(b) != id {
		return nil, fmt.Errorf("pack %d at %d holds other bytes: %w", at.pack, at.off, storage.ErrCorrupt)
	}
	return b, nil
}

func readFull(f File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return damaged(err)
}

// damaged makes an error of reading a pack one of damage, where it means that the
// bytes are not there; a want of descriptors or rights is none.
func damaged(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	return err
}

// change returns the checked body of a commit.
func (r *bodyReader) change(d vault.DeviceID, at committed) (change, error) {
	var c change
	b, err := r.entry(at.location, kindCommit)
	if err == nil {
		c, err = decodeChange(b)
		if err != nil || c.device != d || c.seq != at.seq || c.time != at.time {
			err = storage.ErrCorrupt
		}
	}
	if err != nil {
		return change{}, fmt.Errorf("commit %d: %w", at.seq, err)
	}
	return c, nil
}

// head returns a commit as readers of the log see it: from its entry or, where that
// is damaged, from the copy in the index.
func (r *bodyReader) head(ctx context.Context, v vault.ID, d vault.DeviceID, at committed) (storage.Head, error) {
	c, err := r.change(d, at)
	if err == nil {
		return c.head(), nil
	}
	if !errors.Is(err, storage.ErrCorrupt) {
		return storage.Head{}, err
	}
	var b []byte
	rerr := r.s.read(ctx, func(x db) error {
		dev, err := x.device(v, d)
		if err != nil {
			return err
		}
		return x.run(`SELECT copy FROM commits WHERE device = ? AND seq = ?`, func(st *sqlite.Stmt) {
			b = make([]byte, st.ColumnLen(0))
			st.ColumnBytes(0, b)
		}, dev.n, int64(at.seq))
	})
	if rerr != nil {
		return storage.Head{}, rerr
	}
	c, cerr := decodeCopy(b)
	if cerr != nil || c.device != d || c.seq != at.seq || c.time != at.time {
		return storage.Head{}, fmt.Errorf("%w, and so is the copy in the index. "+
			"To have its device send again what it said, stop the server, move index.db away and start it", err)
	}
	r.s.log.Error("commit is damaged in its pack; the index has a copy", "vault", v, "device", d, "commit", at.seq)
	return c.head(), nil
}

// until returns the nanoseconds that stand for at in the index: those of the
// newest stamp when at is zero or later.
func (s *Store) until(at time.Time) int64 {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	switch {
	case at.IsZero() || !at.Before(stampTime(last)):
		return last
	case at.Before(stampTime(0)): // may be beyond what nanoseconds can say
		return -1
	}
	return at.UnixNano()
}

// Head implements [storage.Log].
func (s *Store) Head(ctx context.Context, v vault.ID, d vault.DeviceID) (storage.Head, error) {
	return s.CommitAt(ctx, v, d, time.Time{})
}

// CommitAt implements [storage.Log].
func (s *Store) CommitAt(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time) (storage.Head, error) {
	var found committed
	err := s.read(ctx, func(x db) error {
		dev, err := x.device(v, d)
		if err != nil {
			return err
		}
		return x.commits(`device = ? AND time <= ? ORDER BY time DESC LIMIT 1`,
			func(c committed) { found = c }, dev.n, s.until(at))
	})
	if err != nil || found.seq == 0 {
		return storage.Head{}, err
	}
	r := bodyReader{s: s}
	defer r.close()
	return r.head(ctx, v, d, found)
}

// Commits implements [storage.Log].
func (s *Store) Commits(ctx context.Context, v vault.ID, d vault.DeviceID, first, last uint64) iter.Seq2[storage.Head, error] {
	return func(yield func(storage.Head, error) bool) {
		r := bodyReader{s: s}
		defer r.close()
		paged(s, ctx, func(x db, prev *committed, add func(committed)) error {
			dev, err := x.device(v, d)
			if err != nil {
				return err
			}
			from := first
			if prev != nil {
				from = prev.seq + 1
			}
			return x.commits(`device = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?`, add,
				dev.n, number(from), number(last), int64(pageRows))
		}, func(at committed) (storage.Head, error) {
			h, err := r.head(ctx, v, d, at)
			if errors.Is(err, storage.ErrCorrupt) {
				h = storage.Head{Seq: at.seq, Time: stampTime(at.time)}
			}
			return h, err
		})(yield)
	}
}

// number is a sequence number as the index can compare it.
func number(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// Devices implements [storage.Log].
func (s *Store) Devices(ctx context.Context, v vault.ID) iter.Seq2[storage.DeviceHead, error] {
	return paged(s, ctx, func(x db, last *storage.DeviceHead, add func(storage.DeviceHead)) error {
		after := []byte{}
		if last != nil {
			after = last.Device[:]
		}
		return x.run(`SELECT id, seq, time FROM devices
			WHERE vault = (SELECT n FROM vaults WHERE id = ?) AND id > ? ORDER BY id LIMIT ?`,
			func(st *sqlite.Stmt) {
				d := storage.DeviceHead{Seq: uint64(st.ColumnInt64(1)), Time: stampTime(st.ColumnInt64(2))}
				st.ColumnBytes(0, d.Device[:])
				add(d)
			}, v[:], after, int64(pageRows))
	}, same)
}

// Records implements [storage.History]. It reads the commit itself.
func (s *Store) Records(ctx context.Context, v vault.ID, d vault.DeviceID, seq uint64) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		c, err := s.commit(ctx, v, d, seq)
		if err != nil {
			yield(storage.Version{}, err)
			return
		}
		for i := range c.records {
			if !yield(c.version(i), nil) {
				return
			}
		}
	}
}

func (s *Store) commit(ctx context.Context, v vault.ID, d vault.DeviceID, seq uint64) (change, error) {
	var found committed
	err := s.read(ctx, func(x db) error {
		dev, err := x.device(v, d)
		if err != nil {
			return err
		}
		return x.commits(`device = ? AND seq = ?`, func(c committed) { found = c }, dev.n, number(seq))
	})
	if err == nil && found.seq == 0 {
		err = fmt.Errorf("commit %d: %w", seq, storage.ErrNotFound)
	}
	if err != nil {
		return change{}, err
	}
	r := bodyReader{s: s}
	defer r.close()
	return r.change(d, found)
}

const versionColumns = `SELECT v.path, v.parent, v.op, v.seq, v.record, v.time `

func columnVersion(st *sqlite.Stmt) (v storage.Version) {
	st.ColumnBytes(0, v.Path[:])
	st.ColumnBytes(1, v.Parent[:])
	v.Op = vault.Op(st.ColumnInt64(2))
	v.Seq = uint64(st.ColumnInt64(3))
	st.ColumnBytes(4, v.Record[:])
	v.Time = stampTime(st.ColumnInt64(5))
	return v
}

// Versions implements [storage.History].
func (s *Store) Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[storage.Version, error] {
	return paged(s, ctx, func(x db, last *storage.Version, add func(storage.Version)) error {
		dev, err := x.device(v, d)
		if err != nil {
			return err
		}
		until := int64(math.MaxInt64)
		if last != nil {
			until = last.Time.UnixNano() - 1
		}
		return x.run(versionColumns+`FROM versions v WHERE v.device = ? AND v.path = ? AND v.time <= ?
			ORDER BY v.time DESC LIMIT ?`,
			func(st *sqlite.Stmt) { add(columnVersion(st)) }, dev.n, p[:], until, int64(pageRows))
	}, same)
}

// Children implements [storage.History].
func (s *Store) Children(ctx context.Context, v vault.ID, d vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[storage.Version, error] {
	return s.byPath(ctx, v, d, at, versionColumns+`FROM children c CROSS JOIN versions v
		WHERE c.device = ?1 AND c.parent = ?4 AND c.path > ?2
		AND v.device = ?1 AND v.path = c.path AND v.time = (
			SELECT max(w.time) FROM versions w WHERE w.device = ?1 AND w.path = c.path AND w.time <= ?3)
		AND v.parent = ?4 ORDER BY c.path LIMIT ?5`, parent[:])
}

// The columns beside max(v.time) are those of its row; so SQLite defines it. No
// subquery, which would have each page sort all that are left.
var stateQuery = fmt.Sprintf(`SELECT v.path, v.parent, v.op, v.seq, v.record, max(v.time) FROM versions v
	WHERE v.device = ?1 AND v.path > ?2 AND v.time <= ?3 AND v.op NOT IN (%d, %d)
	GROUP BY v.path HAVING v.op IN (%d, %d) ORDER BY v.path LIMIT ?5`,
	vault.OpValid, vault.OpVoid, vault.OpPut, vault.OpOutOfScope)

// State implements [storage.History].
func (s *Store) State(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time) iter.Seq2[storage.Version, error] {
	return s.byPath(ctx, v, d, at, stateQuery, nil)
}

// byPath iterates over versions, ascending by path. The query's arguments are
// the device, the path behind which a page begins, the time up to which versions
// count, arg, and how many rows are wanted.
func (s *Store) byPath(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time, query string, arg []byte) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		until := s.until(at)
		paged(s, ctx, func(x db, last *storage.Version, add func(storage.Version)) error {
			dev, err := x.device(v, d)
			if err != nil {
				return err
			}
			after := []byte{}
			if last != nil {
				after = last.Path[:]
			}
			return x.run(query, func(st *sqlite.Stmt) { add(columnVersion(st)) }, dev.n, after, until, arg, int64(pageRows))
		}, same)(yield)
	}
}

// same shows a row as it is.
func same[T any](v T) (T, error) { return v, nil }

// Lookup implements [storage.Registry].
func (s *Store) Lookup(ctx context.Context, k storage.Kind, key storage.Key) (storage.Item, error) {
	r := bodyReader{s: s}
	defer r.close()
	return r.item(ctx, k, key)
}

// item reads the current item. Rows are followed to their pack outside the
// transaction that found them: packs with items are never removed.
func (r *bodyReader) item(ctx context.Context, k storage.Kind, key storage.Key) (storage.Item, error) {
	var p placed
	err := r.s.read(ctx, func(d db) error {
		var ok bool
		var err error
		if p, ok, err = d.item(k, key); err == nil && !ok {
			err = fmt.Errorf("item of kind %d: %w", k, storage.ErrNotFound)
		}
		return err
	})
	if err != nil {
		return storage.Item{}, err
	}
	return r.placed(k, p)
}

func (r *bodyReader) placed(k storage.Kind, p placed) (storage.Item, error) {
	b, err := r.entry(p.location, kindItem)
	if err != nil {
		return storage.Item{}, fmt.Errorf("item of kind %d: %w", k, err)
	}
	it, err := decodeItem(b)
	if err != nil || it.Kind != k || it.Key != p.key || it.Rev != p.rev {
		return storage.Item{}, fmt.Errorf("item of kind %d: %w", k, storage.ErrCorrupt)
	}
	return it, nil
}

// Items implements [storage.Registry].
func (s *Store) Items(ctx context.Context, k storage.Kind, from storage.Key) iter.Seq2[storage.Item, error] {
	return func(yield func(storage.Item, error) bool) {
		r := bodyReader{s: s}
		defer r.close()
		paged(s, ctx, func(x db, last *placed, add func(placed)) error {
			where, key := `WHERE kind = ? AND key >= ? ORDER BY key LIMIT ?`, from
			if last != nil {
				where, key = `WHERE kind = ? AND key > ? ORDER BY key LIMIT ?`, last.key
			}
			return x.run(itemColumns+where,
				func(st *sqlite.Stmt) { add(columnItem(st)) }, int64(k), key[:], int64(pageRows))
		}, func(p placed) (storage.Item, error) { return r.placed(k, p) })(yield)
	}
}

// paged iterates over rows, pageRows at a time: query hands the rows after last,
// which is nil for the first page, to add. An error ends the iteration unless it
// is the damage of one row.
func paged[R, T any](s *Store, ctx context.Context, query func(x db, last *R, add func(R)) error, show func(R) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last *R
		for {
			rows := make([]R, 0, pageRows)
			err := s.read(ctx, func(x db) error {
				return query(x, last, func(r R) { rows = append(rows, r) })
			})
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, r := range rows {
				v, err := show(r)
				if !yield(v, err) || err != nil && !errors.Is(err, storage.ErrCorrupt) {
					return
				}
			}
			if len(rows) < pageRows {
				return
			}
			last = &rows[len(rows)-1]
		}
	}
}
