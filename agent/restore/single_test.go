package restore

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	session "backstay/agent/v4"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

var _ Prover = (*session.Session)(nil)

// History implements Prover.
func (l *lab) History(_ context.Context, _ vault.DeviceID, path vault.PathID) iter.Seq2[wire.Row, error] {
	return func(yield func(wire.Row, error) bool) {
		found := false
		for _, e := range slices.Backward(l.log) {
			for _, r := range e.rows {
				if r.Path == path {
					found = true
					if !yield(r, nil) {
						return
					}
				}
			}
		}
		if !found {
			yield(wire.Row{}, wire.ErrNotFound)
		}
	}
}

// Prove implements Prover.
func (l *lab) Prove(_ context.Context, _ vault.DeviceID, seq uint64, record vault.ObjectID) (wire.Proof, error) {
	for _, e := range l.log {
		if e.commit.Seq != seq {
			continue
		}
		var ids []vault.ObjectID
		for _, r := range e.rows {
			ids = append(ids, r.Record)
		}
		i := slices.Index(ids, record)
		if i < 0 {
			return wire.Proof{}, wire.ErrNotFound
		}
		return wire.Proof{Head: e.Head, Index: i, Path: vault.AuditPath(ids, i)}, nil
	}
	return wire.Proof{}, wire.ErrNotFound
}

// prover tells lies about single paths.
type prover struct {
	*lab
	row   func(*wire.Row)
	proof func(*wire.Proof)
}

func (p prover) History(ctx context.Context, d vault.DeviceID, path vault.PathID) iter.Seq2[wire.Row, error] {
	return func(yield func(wire.Row, error) bool) {
		for r, err := range p.lab.History(ctx, d, path) {
			if p.row != nil {
				p.row(&r)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func (p prover) Prove(ctx context.Context, d vault.DeviceID, seq uint64, record vault.ObjectID) (wire.Proof, error) {
	proof, err := p.lab.Prove(ctx, d, seq, record)
	if p.proof != nil {
		p.proof(&proof)
	}
	return proof, err
}

func TestSingle(t *testing.T) {
	l := newLab(t)
	first := l.commit(put("/home/a", inline("one")), put("/home/b", inline("b")), put("/home/c", inline("c")))
	second := l.commit(put("/home/a", inline("two")), put("/home/d", inline("d")))
	third := l.commit(removed(vault.OpDelete, "/home/b"), put("/home", folderRecord()), removed(vault.OpOutOfScope, "/home/e", first.rows[0].Record),
		put("/home/f", inline("f")), put("/home/g", inline("g")))
	delete(l.objects, third.rows[3].Record)
	l.objects[third.rows[4].Record] = l.objects[first.rows[0].Record]
	query := l.query()
	other := first.rows[1].Record
	for _, tt := range []struct {
		name string
		path string
		at   time.Time
		lie  prover
		seq  uint64
		want error
	}{
		{"the newest", "/home/a", time.Time{}, prover{}, 2, nil},
		{"an older one", "/home/a", first.time, prover{}, 1, nil},
		{"deleted", "/home/b", time.Time{}, prover{}, 0, ErrNotFound},
		{"before it was deleted", "/home/b", second.time, prover{}, 1, nil},
		{"not there yet", "/home/d", first.time, prover{}, 0, ErrNotFound},
		{"a folder", "/home", time.Time{}, prover{}, 0, ErrNotAlone},
		{"out of scope", "/home/e", time.Time{}, prover{}, 0, ErrNotAlone},
		{"with a record that is lost", "/home/f", time.Time{}, prover{}, 0, ErrNotAlone},
		{"with another's record", "/home/g", time.Time{}, prover{}, 0, ErrRecord},
		{"never there", "/home/x", time.Time{}, prover{}, 0, ErrNotFound},
		{"another path's row", "/home/a", time.Time{}, prover{row: func(r *wire.Row) { r.Path[0] ^= 1 }}, 0, ErrState},
		{"another record of the commit", "/home/a", first.time, prover{proof: func(p *wire.Proof) { p.Index = 1 }}, 0, ErrRecord},
		{"a record that was never committed", "/home/c", time.Time{}, prover{
			row: func(r *wire.Row) { r.Record = other }, proof: func(p *wire.Proof) { p.Index = 2 },
		}, 0, ErrRecord},
		{"another commit", "/home/a", time.Time{}, prover{proof: func(p *wire.Proof) { p.Head = first.Head }}, 0, ErrOrder},
		{"a commit of nobody", "/home/a", time.Time{}, prover{proof: func(p *wire.Proof) { p.Commit = slices.Clone(p.Commit); p.Commit[3] ^= 1 }}, 0, ErrForged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := query.Open(t.Context(), l, tt.at)
			if err != nil {
				t.Fatal(err)
			}
			tt.lie.lab = l
			s, err := query.Single(t.Context(), tt.lie, m, l.keys, l.path(tt.path))
			if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && (s.Len() != 1 || s.rows.at(0).seq != tt.seq) {
				t.Errorf("%d paths, of commit %d; want one of commit %d", s.Len(), s.rows.at(0).seq, tt.seq)
			}
		})
	}
}
