package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// A Prover is where a single path's history lies. Nothing it says is believed.
type Prover interface {
	Getter
	// History yields the rows of a path, the newest first; wire.ErrNotFound if
	// there are none.
	History(ctx context.Context, device vault.DeviceID, path vault.PathID) iter.Seq2[wire.Row, error]
	// Prove returns a commit and where in it a record is.
	Prove(ctx context.Context, device vault.DeviceID, seq uint64, record vault.ObjectID) (wire.Proof, error)
}

// Single is a state of one path alone, without reading the others: its newest record
// at a moment, proven to be in a commit that the device signed. That it is the newest,
// and not an older one while a newer is withheld, rests on the server's word; a
// [ReadState] proves that, too, and takes as long as there are paths. The same holds
// for a path that is said not to be there.
//
// Errors: [ErrNotFound], [ErrNotAlone], one of the class [ErrIntegrity], or the
// source's.
func (q Query) Single(ctx context.Context, src Prover, m *Moment, keys *vault.Keyring, path vault.PathID) (*State, error) {
	for r, err := range src.History(ctx, q.Device, path) {
		switch {
		case errors.Is(err, wire.ErrNotFound):
			return nil, ErrNotFound
		case err != nil:
			return nil, fmt.Errorf("read history: %w", err)
		case r.Time.After(m.Time):
			continue
		case r.Op == vault.OpDelete:
			return nil, ErrNotFound
		case r.Op == vault.OpOutOfScope: // what it was another record says
			return nil, ErrNotAlone
		case r.Path != path || r.Seq == 0 || r.Seq > m.Commit.Seq:
			return nil, fmt.Errorf("path %v of commit %d: %w", r.Path, r.Seq, ErrState)
		}
		proof, err := src.Prove(ctx, q.Device, r.Seq, r.Record)
		if err != nil {
			return nil, fmt.Errorf("prove record: %w", err)
		}
		l, err := q.link(proof.Head)
		if err != nil {
			return nil, err
		}
		if l.commit.Seq != r.Seq {
			return nil, fmt.Errorf("commit %d for %d: %w", l.commit.Seq, r.Seq, ErrOrder)
		}
		if err := vault.VerifyAudit(l.commit.Root, l.commit.Count, proof.Index, r.Record, proof.Path); err != nil {
			return nil, fmt.Errorf("commit %d: %w: %w", r.Seq, ErrRecord, err)
		}
		s := &State{Moment: m}
		s.rows.add(row{r.Path, r.Parent, r.Seq, r.Record, r.Op})
		return s, s.isLeaf(ctx, src, keys)
	}
	return nil, ErrNotFound
}

// isLeaf is ErrNotAlone if the state's one path is a folder, or nobody knows.
func (s *State) isLeaf(ctx context.Context, src Getter, keys *vault.Keyring) error {
	only := want{0, s.rows.at(0).record}
	for o, err := range src.Get(ctx, []vault.ObjectID{only.record}) {
		var rec *vault.Record
		if err == nil {
			rec, _, err = openRecord(keys, s, sealed{only, o.Data})
		}
		switch {
		case errors.Is(err, ErrIntegrity), err != nil && !gone(err):
			return fmt.Errorf("fetch record: %w", err)
		case err == nil && rec.Type != vault.TypeFolder:
			return nil
		}
	}
	return ErrNotAlone
}

// Record returns the record of a path; false if the state does not have the path.
func (s *State) Record(path vault.PathID) (vault.ObjectID, bool) {
	i, found := s.find(path)
	if !found {
		return vault.ObjectID{}, false
	}
	return s.rows.at(i).record, true
}
