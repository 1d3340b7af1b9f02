package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// A Prover is where a single path's history lies.
type Prover interface {
	// History yields the rows of a path, the newest first; wire.ErrNotFound if
	// there are none.
	History(ctx context.Context, device vault.DeviceID, path vault.PathID) iter.Seq2[wire.Row, error]
	// Prove returns a commit and where in it a record is.
	Prove(ctx context.Context, device vault.DeviceID, seq uint64, record vault.ObjectID) (wire.Proof, error)
}

// Single is a state of one path alone, without reading the others: its newest record
// at a moment, proven to be in a commit that the device signed. That it is the newest,
// and not an older one while a newer is withheld, rests on the server's word; a
// [ReadState] proves that, too, and takes as long as there are paths.
//
// Errors: [ErrNotFound], one of the class [ErrIntegrity], or the source's.
func (q Query) Single(ctx context.Context, src Prover, m *Moment, path vault.PathID) (*State, error) {
	for r, err := range src.History(ctx, q.Device, path) {
		switch {
		case errors.Is(err, wire.ErrNotFound):
			return nil, ErrNotFound
		case err != nil:
			return nil, fmt.Errorf("read history: %w", err)
		case r.Time.After(m.Time):
			continue
		case r.Op != vault.OpPut && r.Op != vault.OpOutOfScope:
			return nil, ErrNotFound
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
		return s, nil
	}
	return nil, ErrNotFound
}
