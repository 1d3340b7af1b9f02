package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// A History is where this device's own history stands at a destination of
// protocol 4: its newest commit that was acknowledged, and what follows from all
// before.
type History struct {
	// Seq is the commit's sequence number, 0 before the first.
	Seq uint64
	// Head is the commit's hash, Stamp what the server answered to it.
	Head  vault.CommitHash
	Stamp []byte
	// Digest is the state digest that the next commit goes on from.
	Digest vault.Digest
	// After is the server's newest commit where that is not Seq: it has lost
	// some, and the next commit says so.
	After *vault.Position
	// Partial: the catalog was made from the server's state, which does not list
	// what had been deleted by then.
	Partial bool
}

// A Chunk is a piece of content that the destination holds.
type Chunk struct {
	Hash vault.Hash
	Size int
	ID   vault.ObjectID
}

// History returns where the history stands; the zero History if there is none.
func (d *Destination) History(ctx context.Context) (History, error) {
	var h History
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT seq, head, stamp, digest, after_seq, after_head, partial FROM history WHERE destination = ?")
		s.BindInt64(1, d.id)
		return rows(s, func() error {
			h.Seq = uint64(s.ColumnInt64(0))
			s.ColumnBytes(1, h.Head[:])
			h.Stamp = blob(s, 2)
			if s.ColumnType(4) != sqlite.TypeNull {
				h.After = &vault.Position{Seq: uint64(s.ColumnInt64(4))}
				if h.After.Seq > 0 {
					h.After.Hash = new(vault.CommitHash)
					s.ColumnBytes(5, h.After.Hash[:])
				}
			}
			h.Partial = s.ColumnBool(6)
			var err error
			h.Digest, err = vault.ParseDigest(blob(s, 3))
			return err
		})
	})
	if err != nil {
		return h, fmt.Errorf("history in the catalog: %w", err)
	}
	return h, nil
}

// Advance records that a commit was acknowledged: where the history stands after
// it and what it said of paths, all of it or, on an error, nothing. A Version that
// is Gone or Excluded keeps the facts that are known of its path.
func (d *Destination) Advance(ctx context.Context, h History, versions []Version) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		w := d.writer(conn)
		for _, v := range versions {
			f := w.put
			if v.State != Present {
				f = w.retire
			}
			if err := f(v); err != nil {
				return err
			}
		}
		if err := w.finish(); err != nil {
			return err
		}
		if err := d.tally(conn, time.Now(), versions); err != nil {
			return err
		}
		return d.setHistory(conn, h)
	})
	if err != nil {
		return fmt.Errorf("record commit %d: %w", h.Seq, err)
	}
	return nil
}

func (d *Destination) setHistory(conn *sqlite.Conn, h History) error {
	s := conn.Prep(`INSERT INTO history (destination, seq, head, stamp, digest, after_seq, after_head, partial) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET seq = excluded.seq, head = excluded.head, stamp = excluded.stamp, digest = excluded.digest,
			after_seq = excluded.after_seq, after_head = excluded.after_head, partial = excluded.partial`)
	s.BindInt64(1, d.id)
	s.BindInt64(2, int64(h.Seq))
	s.BindBytes(3, h.Head[:])
	s.BindBytes(4, h.Stamp)
	s.BindBytes(5, h.Digest.Bytes())
	s.BindNull(6)
	s.BindNull(7)
	s.BindBool(8, h.Partial)
	if h.After != nil {
		s.BindInt64(6, int64(h.After.Seq))
		if h.After.Hash != nil {
			s.BindBytes(7, h.After.Hash[:])
		}
	}
	return exec(s)
}

// Found is a path that a destination was found to hold, and what is known of its
// content.
type Found struct {
	Version
	Chunks []Chunk
}

// Adopt replaces everything that is known of paths and chunks by what the destination
// was found to hold, in one transaction: where the catalog was lost, or is behind or
// ahead of the server. Versions that keep says yes to, given their path, state and
// record, stay as they are; the others are dropped and those of found, which have
// no facts, put in. A path without facts is captured again.
func (d *Destination) Adopt(ctx context.Context, h History, keep func(path string, state State, record vault.ObjectID) bool, found iter.Seq2[Found, error]) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		w := d.writer(conn)
		var drop []string
		list := conn.Prep("SELECT path, state, record FROM version WHERE destination = ?")
		list.BindInt64(1, d.id)
		err := rows(list, func() error {
			var id vault.ObjectID
			list.ColumnBytes(2, id[:])
			if path := list.ColumnText(0); !keep(path, State(list.ColumnInt(1)), id) {
				drop = append(drop, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		remove := conn.Prep("DELETE FROM version WHERE destination = ? AND path = ?")
		for _, path := range drop {
			if err := w.forget(w.find, d.id, path); err != nil {
				return err
			}
			remove.BindInt64(1, d.id)
			remove.BindBytes(2, []byte(path))
			if err := exec(remove); err != nil {
				return err
			}
		}
		forget := conn.Prep("DELETE FROM chunk WHERE destination = ?")
		forget.BindInt64(1, d.id)
		if err := exec(forget); err != nil {
			return err
		}
		for f, err := range found {
			if err == nil {
				err = w.put(f.Version)
			}
			if err == nil {
				err = d.addChunks(conn, slices.Values(f.Chunks))
			}
			if err != nil {
				return err
			}
		}
		if err := w.finish(); err != nil {
			return err
		}
		return d.setHistory(conn, h)
	})
	if err != nil {
		return fmt.Errorf("adopt the server's state: %w", err)
	}
	return nil
}

// Current returns what is known of each path, in order; the zero Version for a
// path that is not known.
func (d *Destination) Current(ctx context.Context, paths []string) ([]Version, error) {
	versions := make([]Version, len(paths))
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT " + versionColumns + " FROM version WHERE destination = ? AND path = ?")
		for i, path := range paths {
			s.BindInt64(1, d.id)
			s.BindBytes(2, []byte(path))
			if err := rows(s, func() error {
				versions[i] = scanVersion(s)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("versions of %d paths: %w", len(paths), err)
	}
	return versions, nil
}

// Held returns up to limit paths that the destination holds, Present or Excluded,
// below those given, not these themselves.
func (d *Destination) Held(ctx context.Context, paths []string, limit int) ([]Version, error) {
	var held []Version
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		for _, path := range paths {
			err := d.below(conn, versionColumns, " AND state <> 2", path, func(s *sqlite.Stmt) error {
				if len(held) == limit {
					return errStop
				}
				if v := scanVersion(s); v.Path != path {
					held = append(held, v)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("what is held below %d paths: %w", len(paths), err)
	}
	return held, nil
}

// Chunk returns the object that holds a plaintext with this hash and size.
func (d *Destination) Chunk(ctx context.Context, hash vault.Hash, size int) (id vault.ObjectID, ok bool, err error) {
	err = d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT object FROM chunk WHERE destination = ? AND hash = ? AND size = ?")
		s.BindInt64(1, d.id)
		s.BindBytes(2, hash[:])
		s.BindInt64(3, int64(size))
		return rows(s, func() error {
			s.ColumnBytes(0, id[:])
			ok = true
			return nil
		})
	})
	if err != nil {
		return id, false, fmt.Errorf("chunk in the catalog: %w", err)
	}
	return id, ok, nil
}

// AddChunks records that the destination holds chunks.
func (d *Destination) AddChunks(ctx context.Context, chunks iter.Seq[Chunk]) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error { return d.addChunks(conn, chunks) })
	if err != nil {
		return fmt.Errorf("record chunks: %w", err)
	}
	return nil
}

func (d *Destination) addChunks(conn *sqlite.Conn, chunks iter.Seq[Chunk]) error {
	s := conn.Prep(`INSERT INTO chunk (destination, hash, size, object) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET size = excluded.size, object = excluded.object`)
	for c := range chunks {
		s.BindInt64(1, d.id)
		s.BindBytes(2, c.Hash[:])
		s.BindInt64(3, int64(c.Size))
		s.BindBytes(4, c.ID[:])
		if err := exec(s); err != nil {
			return err
		}
	}
	return nil
}

// ForgetChunks drops chunks that the destination turned out not to hold, or all
// of them if none is named.
func (d *Destination) ForgetChunks(ctx context.Context, ids ...vault.ObjectID) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		if len(ids) == 0 {
			s := conn.Prep("DELETE FROM chunk WHERE destination = ?")
			s.BindInt64(1, d.id)
			return exec(s)
		}
		// One pass over all of them: it happens when a server has lost objects.
		lost := map[vault.ObjectID]bool{}
		for _, id := range ids {
			lost[id] = true
		}
		var hashes []vault.Hash
		list := conn.Prep("SELECT hash, object FROM chunk WHERE destination = ?")
		list.BindInt64(1, d.id)
		err := rows(list, func() error {
			var h vault.Hash
			var id vault.ObjectID
			list.ColumnBytes(0, h[:])
			if list.ColumnBytes(1, id[:]); lost[id] {
				hashes = append(hashes, h)
			}
			return nil
		})
		if err != nil {
			return err
		}
		s := conn.Prep("DELETE FROM chunk WHERE destination = ? AND hash = ?")
		for _, h := range hashes {
			s.BindInt64(1, d.id)
			s.BindBytes(2, h[:])
			if err := exec(s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget chunks: %w", err)
	}
	return nil
}

// Recapture drops the facts of paths that are present, and what their records state,
// so that they are captured and recorded again although they have not changed. It
// returns those paths.
func (d *Destination) Recapture(ctx context.Context, paths []string) ([]string, error) {
	versions, err := d.Current(ctx, paths)
	if err != nil {
		return nil, err
	}
	var present []string
	err = d.c.update(ctx, func(conn *sqlite.Conn) error {
		w := d.writer(conn)
		for _, v := range versions {
			if v.State != Present {
				continue
			}
			v.Facts, v.Stated = facts.Facts{}, vault.Hash{}
			if err := w.put(v); err != nil {
				return err
			}
			present = append(present, v.Path)
		}
		return w.finish()
	})
	if err != nil {
		return nil, fmt.Errorf("have %d paths captured again: %w", len(paths), err)
	}
	return present, nil
}

// Members returns the entries of the membership log as they were last verified.
func (d *Destination) Members(ctx context.Context) ([][]byte, error) {
	var entries [][]byte
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT entry FROM member WHERE destination = ? ORDER BY number")
		s.BindInt64(1, d.id)
		return rows(s, func() error {
			entries = append(entries, blob(s, 0))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("members in the catalog: %w", err)
	}
	return entries, nil
}

// AddMembers appends verified entries, of which first is the number of the first.
func (d *Destination) AddMembers(ctx context.Context, first uint64, entries [][]byte) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("INSERT INTO member (destination, number, entry) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
		for i, e := range entries {
			s.BindInt64(1, d.id)
			s.BindInt64(2, int64(first)+int64(i))
			s.BindBytes(3, e)
			if err := exec(s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record members: %w", err)
	}
	return nil
}

// Passes returns, for each root whose first pass is complete, the number of the
// commit with which it was.
func (d *Destination) Passes(ctx context.Context) (map[string]uint64, error) {
	passes := map[string]uint64{}
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT root, seq FROM pass WHERE destination = ?")
		s.BindInt64(1, d.id)
		return rows(s, func() error {
			passes[s.ColumnText(0)] = uint64(s.ColumnInt64(1))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("passes in the catalog: %w", err)
	}
	return passes, nil
}

// SetPass records the commit with which the first pass over a root was complete;
// 0 says that it is not.
func (d *Destination) SetPass(ctx context.Context, root string, seq uint64) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("INSERT INTO pass (destination, root, seq) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq")
		if seq == 0 {
			s = conn.Prep("DELETE FROM pass WHERE destination = ? AND root = ?")
		}
		s.BindInt64(1, d.id)
		s.BindBytes(2, []byte(root))
		if seq != 0 {
			s.BindInt64(3, int64(seq))
		}
		return exec(s)
	})
	if err != nil {
		return fmt.Errorf("record pass over %q: %w", root, err)
	}
	return nil
}

// An Alarm is something that stays until a person has taken note of it.
type Alarm struct {
	Kind string
	At   time.Time
	Text string
}

// Alarms returns what nobody has taken note of yet.
func (d *Destination) Alarms(ctx context.Context) ([]Alarm, error) {
	var alarms []Alarm
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT kind, at, text FROM alarm WHERE destination = ? ORDER BY kind")
		s.BindInt64(1, d.id)
		return rows(s, func() error {
			alarms = append(alarms, Alarm{s.ColumnText(0), time.Unix(0, s.ColumnInt64(1)), s.ColumnText(2)})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("alarms in the catalog: %w", err)
	}
	return alarms, nil
}

// RaiseAlarm keeps an alarm; one of the same kind is replaced.
func (d *Destination) RaiseAlarm(ctx context.Context, a Alarm) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("INSERT INTO alarm (destination, kind, at, text) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, text = excluded.text")
		s.BindInt64(1, d.id)
		s.BindText(2, a.Kind)
		s.BindInt64(3, a.At.UnixNano())
		s.BindText(4, a.Text)
		return exec(s)
	})
	if err != nil {
		return fmt.Errorf("raise alarm: %w", err)
	}
	return nil
}

// ClearAlarms drops all alarms: a person has taken note.
func (d *Destination) ClearAlarms(ctx context.Context) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("DELETE FROM alarm WHERE destination = ?")
		s.BindInt64(1, d.id)
		return exec(s)
	})
	if err != nil {
		return fmt.Errorf("clear alarms: %w", err)
	}
	return nil
}

func blob(s *sqlite.Stmt, col int) []byte {
	b := make([]byte, s.ColumnLen(col))
	s.ColumnBytes(col, b)
	return b
}
