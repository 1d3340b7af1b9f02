package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// A State says what a destination was last told of a path. The values are stored
// and never change.
type State uint8

// The states of a path.
const (
	Present  State = 1 // its version is there and current
	Gone     State = 2 // it was reported deleted; the version before is kept
	Excluded State = 3 // it was reported out of scope; the version before is kept
)

// A Version is the newest version of a path that a destination acknowledged.
type Version struct {
	Path  string // absolute, as raw bytes of the file system
	State State
	Facts facts.Facts // as captured
	// Record is the id of the record that states this, in protocol 4: of the put,
	// or of the out-of-scope record for Excluded. It is zero in protocol 3.
	Record vault.ObjectID
	// Stated is a keyed hash of what the record of a Present path states, so that a
	// path that was touched and is as it was needs no new one. It is zero where that
	// is not known.
	Stated vault.Hash
	Fuzzy  bool      // captured while it was changing
	At     time.Time // when it was acknowledged; for Gone and Excluded, when that was
}

// Counts are the totals of a destination.
type Counts struct {
	Files    int       // regular files present
	Others   int       // folders, symlinks and so on present
	Bytes    int64     // total size of the regular files present
	Fuzzy    int       // versions present that were captured while changing
	Gone     int       // paths reported deleted
	Excluded int       // paths reported out of scope
	Newest   time.Time // the latest acknowledgement; zero if there is none
}

// A Destination is the part of the catalog about one destination. It is safe for
// concurrent use.
type Destination struct {
	c  *Catalog
	id int64
}

// Destination returns the part about the destination with this name, which is
// opaque to the catalog and should hold whatever makes what was acknowledged
// there worthless elsewhere, for instance "v3:SERVER/CLIENT-ID". Nothing is known
// of a new one; an old one is as it was left.
func (c *Catalog) Destination(ctx context.Context, name string) (*Destination, error) {
	d := &Destination{c: c}
	find := func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT id FROM destination WHERE name = ?")
		s.BindText(1, name)
		return rows(s, func() error {
			d.id = s.ColumnInt64(0)
			return nil
		})
	}
	var err error
	if c.write == nil {
		err = c.view(ctx, find) // a new one keeps the id 0, which no row has
	} else {
		err = c.update(ctx, func(conn *sqlite.Conn) error {
			insert := conn.Prep("INSERT INTO destination (name) VALUES (?) ON CONFLICT DO NOTHING")
			insert.BindText(1, name)
			return errors.Join(exec(insert), find(conn))
		})
	}
	if err != nil {
		return nil, fmt.Errorf("catalog of %s: %w", name, err)
	}
	return d, nil
}

// Acknowledge records that the destination has these versions, all of them or, on
// an error, none. State and, when zero, At are set by it: to Present and now.
func (d *Destination) Acknowledge(ctx context.Context, versions []Version) error {
	now := time.Now()
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		w := d.writer(conn)
		for _, v := range versions {
			v.State = Present
			if v.At.IsZero() {
				v.At = now
			}
			if err := w.put(v); err != nil {
				return err
			}
		}
		if err := d.tally(conn, now, versions); err != nil {
			return err
		}
		return w.finish()
	})
	if err != nil {
		return fmt.Errorf("acknowledge %d versions: %w", len(versions), err)
	}
	return nil
}

// Retire records that the destination was told that these paths are Gone or
// Excluded, all of them or, on an error, none. Their last versions are kept.
// Paths the catalog does not know are passed over.
func (d *Destination) Retire(ctx context.Context, state State, at time.Time, paths []string) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		w := d.writer(conn)
		for _, path := range paths {
			if err := w.retire(Version{Path: path, State: state, At: at}); err != nil {
				return err
			}
		}
		return w.finish()
	})
	if err != nil {
		return fmt.Errorf("retire %d paths: %w", len(paths), err)
	}
	return nil
}

// writer changes versions and keeps the totals in step, within one transaction.
type writer struct {
	d                    *Destination
	conn                 *sqlite.Conn
	find, insert, update *sqlite.Stmt
	totals
}

func (d *Destination) writer(conn *sqlite.Conn) *writer {
	return &writer{
		d: d, conn: conn,
		find: conn.Prep("SELECT state, type, size, fuzzy FROM version WHERE destination = ? AND path = ?"),
		insert: conn.Prep(`INSERT INTO version (destination, path, state, at, fuzzy, type, mode, dev, inode, size, mtime, ctime, record, stated)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET state = excluded.state, at = excluded.at, fuzzy = excluded.fuzzy, type = excluded.type,
				mode = excluded.mode, dev = excluded.dev, inode = excluded.inode, size = excluded.size,
				mtime = excluded.mtime, ctime = excluded.ctime, record = excluded.record, stated = excluded.stated`),
		update: conn.Prep(`UPDATE version SET state = ?, at = ?, record = coalesce(?, record) WHERE destination = ? AND path = ?`),
	}
}

// put replaces what is known of a path.
func (w *writer) put(v Version) error {
	if err := w.forget(w.find, w.d.id, v.Path); err != nil {
		return err
	}
	f := v.Facts
	w.insert.BindInt64(1, w.d.id)
	w.insert.BindBytes(2, []byte(v.Path))
	w.insert.BindInt64(3, int64(v.State))
	w.insert.BindInt64(4, v.At.UnixNano())
	w.insert.BindBool(5, v.Fuzzy)
	w.insert.BindInt64(6, int64(f.Type))
	w.insert.BindInt64(7, int64(f.Mode))
	w.insert.BindInt64(8, int64(f.Dev))
	w.insert.BindInt64(9, int64(f.Inode))
	w.insert.BindInt64(10, f.Size)
	w.insert.BindInt64(11, f.MTime)
	w.insert.BindInt64(12, f.CTime)
	bindRecord(w.insert, 13, v.Record)
	if v.Stated == (vault.Hash{}) {
		w.insert.BindNull(14)
	} else {
		w.insert.BindBytes(14, v.Stated[:])
	}
	if err := exec(w.insert); err != nil {
		return err
	}
	w.count(1, v.State, f.Type, f.Size, v.Fuzzy)
	w.newest = max(w.newest, v.At.UnixNano())
	return nil
}

// retire sets the state of a path that is known, and its record unless that is
// zero.
func (w *writer) retire(v Version) error {
	if err := w.forget(w.find, w.d.id, v.Path); err != nil {
		return err
	}
	w.update.BindInt64(1, int64(v.State))
	w.update.BindInt64(2, v.At.UnixNano())
	bindRecord(w.update, 3, v.Record)
	w.update.BindInt64(4, w.d.id)
	w.update.BindBytes(5, []byte(v.Path))
	if err := exec(w.update); err != nil {
		return err
	}
	w.count(w.conn.Changes(), v.State, 0, 0, false)
	return nil
}

func (w *writer) finish() error { return w.save(w.conn, w.d.id) }

func bindRecord(s *sqlite.Stmt, param int, id vault.ObjectID) {
	if id == (vault.ObjectID{}) {
		s.BindNull(param)
	} else {
		s.BindBytes(param, id[:])
	}
}

// Version returns what is known of one path, or [ErrUnknown].
func (d *Destination) Version(ctx context.Context, path string) (Version, error) {
	v := Version{}
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		find := conn.Prep("SELECT " + versionColumns + " FROM version WHERE destination = ? AND path = ?")
		find.BindInt64(1, d.id)
		find.BindBytes(2, []byte(path))
		return rows(find, func() error {
			v = scanVersion(find)
			return nil
		})
	})
	if err == nil && v.Path == "" {
		err = ErrUnknown
	}
	if err != nil {
		return v, fmt.Errorf("version of %q: %w", path, err)
	}
	return v, nil
}

// Versions yields what is known of path and everything below it, in every state,
// ordered by bytes. It reads the state of one moment and holds one of few read
// connections meanwhile. An error ends it.
func (d *Destination) Versions(ctx context.Context, path string) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		err := d.c.view(ctx, func(conn *sqlite.Conn) error {
			return d.below(conn, versionColumns, "", path, func(s *sqlite.Stmt) error {
				if !yield(scanVersion(s), nil) {
					return errStop
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Version{}, fmt.Errorf("versions below %q: %w", path, err))
		}
	}
}

// Counts returns the totals, without reading what they are the totals of.
func (d *Destination) Counts(ctx context.Context) (Counts, error) {
	var n Counts
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT files, others, bytes, fuzzy, gone, excluded, newest FROM destination WHERE id = ?")
		s.BindInt64(1, d.id)
		return rows(s, func() error {
			n = Counts{
				Files: s.ColumnInt(0), Others: s.ColumnInt(1), Bytes: s.ColumnInt64(2),
				Fuzzy: s.ColumnInt(3), Gone: s.ColumnInt(4), Excluded: s.ColumnInt(5),
			}
			if at := s.ColumnInt64(6); at != 0 {
				n.Newest = time.Unix(0, at)
			}
			return nil
		})
	})
	if err != nil {
		return n, fmt.Errorf("counts of the catalog: %w", err)
	}
	return n, nil
}

const versionColumns = "path, state, at, fuzzy, type, mode, dev, inode, size, mtime, ctime, record, stated"

func scanVersion(s *sqlite.Stmt) Version {
	v := Version{
		Path:  s.ColumnText(0),
		State: State(s.ColumnInt(1)),
		At:    time.Unix(0, s.ColumnInt64(2)),
		Fuzzy: s.ColumnBool(3),
		Facts: scanFacts(s, 4),
	}
	s.ColumnBytes(11, v.Record[:])
	s.ColumnBytes(12, v.Stated[:])
	return v
}

func scanFacts(s *sqlite.Stmt, col int) facts.Facts {
	return facts.Facts{
		Type:  facts.Type(s.ColumnInt(col)),
		Mode:  uint32(s.ColumnInt64(col + 1)),
		Dev:   uint64(s.ColumnInt64(col + 2)),
		Inode: uint64(s.ColumnInt64(col + 3)),
		Size:  s.ColumnInt64(col + 4),
		MTime: s.ColumnInt64(col + 5),
		CTime: s.ColumnInt64(col + 6),
	}
}

// below calls f for the rows of path itself and of everything below it.
func (d *Destination) below(conn *sqlite.Conn, columns, where, path string, f func(*sqlite.Stmt) error) error {
	folder := strings.TrimSuffix(path, string(filepath.Separator))
	s := conn.Prep("SELECT " + columns + " FROM version WHERE destination = ? AND path >= ? AND path < ?" + where + " ORDER BY path")
	for _, span := range [2][2]string{
		{path, path + "\x00"}, // itself
		{folder + string(filepath.Separator), folder + string(filepath.Separator+1)},
	} {
		if span[0] == path && span[1] != path+"\x00" {
			span[0] += "\x00" // the root of a file system is below itself by its bytes
		}
		s.BindInt64(1, d.id)
		s.BindBytes(2, []byte(span[0]))
		s.BindBytes(3, []byte(span[1]))
		if err := rows(s, func() error { return f(s) }); err != nil {
			return err
		}
	}
	return nil
}

// totals is how a transaction changes the counts of its destination.
type totals struct {
	files, others, bytes, fuzzy, gone, excluded int64
	newest                                      int64
}

// forget takes what is known of a path out of the totals.
func (t *totals) forget(find *sqlite.Stmt, destination int64, path string) error {
	find.BindInt64(1, destination)
	find.BindBytes(2, []byte(path))
	return rows(find, func() error {
		t.count(-1, State(find.ColumnInt(0)), facts.Type(find.ColumnInt(1)), find.ColumnInt64(2), find.ColumnBool(3))
		return nil
	})
}

func (t *totals) count(n int, state State, typ facts.Type, size int64, fuzzy bool) {
	by := int64(n)
	switch {
	case state == Gone:
		t.gone += by
	case state == Excluded:
		t.excluded += by
	case typ == facts.Regular:
		t.files += by
		t.bytes += by * size
	default:
		t.others += by
	}
	if state == Present && fuzzy {
		t.fuzzy += by
	}
}

func (t *totals) save(conn *sqlite.Conn, destination int64) error {
	s := conn.Prep(`UPDATE destination SET files = files + ?, others = others + ?, bytes = bytes + ?, fuzzy = fuzzy + ?,
		gone = gone + ?, excluded = excluded + ?, newest = max(newest, ?) WHERE id = ?`)
	for i, v := range []int64{t.files, t.others, t.bytes, t.fuzzy, t.gone, t.excluded, t.newest, destination} {
		s.BindInt64(i+1, v)
	}
	return exec(s)
}

// Volume returns what SetVolume recorded for root, 0 if nothing was.
func (c *Catalog) Volume(ctx context.Context, root string) (uint64, error) {
	var volume uint64
	err := c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT volume FROM root WHERE path = ?")
		s.BindBytes(1, []byte(root))
		return rows(s, func() error {
			volume = uint64(s.ColumnInt64(0))
			return nil
		})
	})
	if err != nil {
		return 0, fmt.Errorf("volume of %q: %w", root, err)
	}
	return volume, nil
}

// SetVolume records the identity of the file system that root was last found on.
func (c *Catalog) SetVolume(ctx context.Context, root string, volume uint64) error {
	err := c.update(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("INSERT INTO root (path, volume) VALUES (?, ?) ON CONFLICT DO UPDATE SET volume = excluded.volume")
		s.BindBytes(1, []byte(root))
		s.BindInt64(2, int64(volume))
		return exec(s)
	})
	if err != nil {
		return fmt.Errorf("record volume of %q: %w", root, err)
	}
	return nil
}

// Roots returns the roots that were scanned and not forgotten.
func (c *Catalog) Roots(ctx context.Context) ([]string, error) {
	var roots []string
	err := c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT path FROM root ORDER BY path")
		return rows(s, func() error {
			roots = append(roots, s.ColumnText(0))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("roots in the catalog: %w", err)
	}
	return roots, nil
}

// ForgetRoot drops what SetVolume recorded.
func (c *Catalog) ForgetRoot(ctx context.Context, root string) error {
	err := c.update(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("DELETE FROM root WHERE path = ?")
		s.BindBytes(1, []byte(root))
		return exec(s)
	})
	if err != nil {
		return fmt.Errorf("forget root %q: %w", root, err)
	}
	return nil
}
