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
			_, ok, err := d.object(n, id)
			if err != nil {
				return err
			}
			has[i] = ok
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
}

// Get implements [storage.Objects]. What is missing is yielded first.
func (s *Store) Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		want, err := s.locate(ctx, v, ids)
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		r := bodyReader{s: s}
		defer r.close()
		for _, w := range want {
			data, err := r.get(ctx, v, w)
			if err != nil && (ctx.Err() != nil || errors.Is(err, storage.ErrClosed) || errors.Is(err, storage.ErrFailed)) {
				yield(storage.Object{}, err)
				return
			}
			if err != nil {
				err = fmt.Errorf("object %v: %w", w.id, err)
			}
			if !yield(storage.Object{ID: w.id, Data: data}, err) {
				return
			}
		}
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
				o, _, err := d.object(n, page[i].id)
				if err != nil {
					return err
				}
				page[i].at = o.location
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
// a second look-up finds the same place.
func (r *bodyReader) get(ctx context.Context, v vault.ID, w wanted) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if w.at == (location{}) {
			return nil, r.absent(ctx, v, w.id)
		}
		b, err := r.object(w)
		if !errors.Is(err, storage.ErrCorrupt) {
			return b, err
		}
		again := location{}
		rerr := r.s.read(ctx, func(d db) error {
			n, err := d.vault(v)
			if err != nil {
				return err
			}
			o, _, err := d.object(n, w.id)
			again = o.location
			return err
		})
		if rerr != nil {
			return nil, rerr
		}
		if again == w.at {
			return nil, err
		}
		w.at = again
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

// Head implements [storage.Log].
func (s *Store) Head(ctx context.Context, v vault.ID, d vault.DeviceID) (storage.Head, error) {
	var dev device
	err := s.read(ctx, func(x db) (err error) {
		dev, err = x.device(v, d)
		return err
	})
	if err != nil || dev.seq == 0 {
		return storage.Head{}, err
	}
	r := bodyReader{s: s}
	defer r.close()
	b, err := r.entry(dev.location, kindCommit)
	if err != nil {
		return storage.Head{}, fmt.Errorf("commit %d: %w", dev.seq, err)
	}
	c, err := decodeChange(b)
	if err != nil || c.device != d || c.seq != dev.seq {
		return storage.Head{}, fmt.Errorf("commit %d: %w", dev.seq, storage.ErrCorrupt)
	}
	return storage.Head{Seq: c.seq, Time: c.stamp(), Body: slices.Clip(c.body)}, nil
}

const versionColumns = `v.path, v.parent, v.op, v.seq, v.time, v.record, v.n`

// row is a version and its place within its commit.
type row struct {
	storage.Version
	n int64
}

func columnVersion(st *sqlite.Stmt) (r row) {
	st.ColumnBytes(0, r.Path[:])
	st.ColumnBytes(1, r.Parent[:])
	r.Op = vault.Op(st.ColumnInt64(2))
	r.Seq = uint64(st.ColumnInt64(3))
	r.Time = time.Unix(0, st.ColumnInt64(4)).UTC()
	st.ColumnBytes(5, r.Record[:])
	r.n = st.ColumnInt64(6)
	return r
}

// Versions implements [storage.Log].
func (s *Store) Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[storage.Version, error] {
	return paged(s, ctx, func(x db, last *row, add func(row)) error {
		dev, err := x.device(v, d)
		if err != nil {
			return err
		}
		before, n := int64(math.MaxInt64), int64(0)
		if last != nil {
			before, n = last.Time.UnixNano(), last.n
		}
		return x.run(`SELECT `+versionColumns+` FROM versions v
			WHERE v.device = ?1 AND v.path = ?2 AND (v.time, v.n) < (?3, ?4)
			ORDER BY v.time DESC, v.n DESC LIMIT ?5`,
			func(st *sqlite.Stmt) { add(columnVersion(st)) }, dev.n, p[:], before, n, int64(pageRows))
	}, version)
}

// Children implements [storage.Log]. It shows one moment, however long the caller
// takes.
func (s *Store) Children(ctx context.Context, v vault.ID, d vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[storage.Version, error] {
	s.mu.Lock()
	until := s.last
	s.mu.Unlock()
	switch {
	case at.IsZero() || !at.Before(time.Unix(0, until)):
	case at.Before(time.Unix(0, 0)): // may be beyond what nanoseconds can say
		until = -1
	default:
		until = at.UnixNano()
	}
	return paged(s, ctx, func(x db, last *row, add func(row)) error {
		dev, err := x.device(v, d)
		if err != nil {
			return err
		}
		after := []byte{}
		if last != nil {
			after = last.Path[:]
		}
		return x.run(`SELECT `+versionColumns+` FROM children c CROSS JOIN versions v
			WHERE c.device = ?1 AND c.parent = ?2 AND c.path > ?3
			AND v.device = ?1 AND v.path = c.path AND (v.time, v.n) = (
				SELECT w.time, w.n FROM versions w WHERE w.device = ?1 AND w.path = c.path AND w.time <= ?4
				ORDER BY w.time DESC, w.n DESC LIMIT 1)
			AND v.parent = ?2 ORDER BY c.path LIMIT ?5`,
			func(st *sqlite.Stmt) { add(columnVersion(st)) }, dev.n, parent[:], after, until, int64(pageRows))
	}, version)
}

func version(r row) (storage.Version, error) { return r.Version, nil }

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
func (s *Store) Items(ctx context.Context, k storage.Kind) iter.Seq2[storage.Item, error] {
	return func(yield func(storage.Item, error) bool) {
		r := bodyReader{s: s}
		defer r.close()
		paged(s, ctx, func(x db, last *placed, add func(placed)) error {
			after := []byte{}
			if last != nil {
				after = last.key[:]
			}
			return x.run(itemColumns+`WHERE kind = ? AND key > ? ORDER BY key LIMIT ?`,
				func(st *sqlite.Stmt) { add(columnItem(st)) }, int64(k), after, int64(pageRows))
		}, func(p placed) (storage.Item, error) { return r.placed(k, p) })(yield)
	}
}

// paged iterates over rows, pageRows at a time: query hands the rows after last,
// which is nil for the first page, to add.
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
				if !yield(show(r)) {
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
