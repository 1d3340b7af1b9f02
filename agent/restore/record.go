package restore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"backstay/protocol/vault"
)

const (
	// batch is how many objects are asked for at once: what one GET holds.
	batch = 4096
	// groupBytes bounds the records that are handed on together.
	groupBytes = 1 << 20
)

// A want is a row of a state and the record wanted for it: its own, or the one that
// an out of scope record refers to.
type want struct {
	row    int32
	record vault.ObjectID
}

// sealed is a record as it came.
type sealed struct {
	want
	data []byte
}

// wants wants the own records of rows.
func (s *State) wants(rows []int32) iter.Seq[want] {
	return func(yield func(want) bool) {
		for _, i := range rows {
			if !yield(want{i, s.rows.at(i).record}) {
				return
			}
		}
	}
}

// getRecords gets records and gives them on in groups, in each of them those of one
// folder together. What cannot be had is told to fail; the error is the source's.
func getRecords(ctx context.Context, src Getter, s *State, wants iter.Seq[want], give func([]sealed), fail func(want, error)) error {
	var group []sealed
	size := 0
	flush := func() {
		slices.SortFunc(group, func(a, b sealed) int {
			return cmp.Or(bytes.Compare(s.rows.at(a.row).parent[:], s.rows.at(b.row).parent[:]), cmp.Compare(a.row, b.row))
		})
		give(group)
		group, size = nil, 0
	}
	waiting := make(map[vault.ObjectID]want, batch)
	ids := make([]vault.ObjectID, 0, batch)
	get := func() error {
		for o, err := range src.Get(ctx, ids) {
			w, ok := waiting[o.ID]
			switch {
			case err != nil && (!ok || !gone(err)):
				return fmt.Errorf("fetch records: %w", err)
			case err != nil:
				fail(w, err)
			case ok:
				group = append(group, sealed{w, bytes.Clone(o.Data)})
				size += len(o.Data)
			}
			delete(waiting, o.ID)
			if size >= groupBytes {
				flush()
			}
		}
		for _, w := range waiting {
			fail(w, vault.ErrMissing)
		}
		clear(waiting)
		ids = ids[:0]
		return nil
	}
	for w := range wants {
		// Two paths may claim one record; each claim is looked at.
		if _, twice := waiting[w.record]; twice || len(ids) == batch {
			if err := get(); err != nil {
				return err
			}
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		waiting[w.record] = w
		ids = append(ids, w.record)
	}
	if len(ids) > 0 {
		if err := get(); err != nil {
			return err
		}
	}
	flush()
	return nil
}

// gone reports whether an object, and no more than that, cannot be had.
func gone(err error) bool {
	return errors.Is(err, vault.ErrMissing) || errors.Is(err, vault.ErrCorrupt)
}

// openRecord opens a record and verifies everything that its row states of it, and
// that its name is its path's. For an out of scope record there is one ref.
func openRecord(keys *vault.Keyring, state *State, s sealed) (*vault.Record, []vault.ObjectID, error) {
	row, device := state.rows.at(s.row), state.Moment.Commit.Device
	if vault.Identify(s.data) != s.record {
		return nil, nil, fmt.Errorf("%w: another object came", ErrRecord)
	}
	plain, h, err := keys.Open(nil, s.data)
	if err != nil {
		return nil, nil, err
	}
	if h.Record == nil {
		return nil, nil, fmt.Errorf("%w: it is a %v", ErrRecord, h.Type)
	}
	want := vault.RecordHeader{Device: device, Seq: row.seq, Path: row.path, Parent: row.parent, Op: row.op}
	if s.record != row.record { // what was there when the path went out of scope
		want.Op, want.Parent = vault.OpPut, h.Record.Parent
		if h.Record.Seq < row.seq {
			want.Seq = h.Record.Seq
		}
	}
	if *h.Record != want {
		return nil, nil, fmt.Errorf("%w: it says %+v", ErrRecord, *h.Record)
	}
	rec, err := vault.DecodeRecord(plain, h.Refs)
	switch {
	case err != nil:
		return nil, nil, err
	case keys.Path(device, rec.Name) != row.path:
		err = fmt.Errorf("%w: its name is another path's", ErrRecord)
	case want.Op == vault.OpOutOfScope && len(h.Refs) != 1:
		err = fmt.Errorf("%w: out of scope with %d refs", ErrRecord, len(h.Refs))
	case want.Op == vault.OpPut && rec.Type == 0:
		err = fmt.Errorf("%w: it does not say what is there", ErrRecord)
	}
	return &rec, h.Refs, err
}
