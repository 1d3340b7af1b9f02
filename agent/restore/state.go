package restore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"backstay/protocol/vault"
)

// A State is every path that was there at a moment, known to be what the device
// signed. It takes 80 bytes of memory for each path.
type State struct {
	Moment *Moment
	rows   []row // ascending by path
}

type row struct {
	path, parent vault.PathID
	seq          uint64
	record       vault.ObjectID
	op           vault.Op
}

// ReadState reads the state at a moment and compares its digest with the commit's.
//
// Errors: [ErrState], [ErrDigest], or the source's.
func ReadState(ctx context.Context, src Source, m *Moment) (*State, error) {
	s := &State{Moment: m}
	var digest vault.Digest
	for r, err := range src.State(ctx, m.Commit.Device, m.Time) {
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		n := len(s.rows)
		switch {
		case n > 0 && bytes.Compare(s.rows[n-1].path[:], r.Path[:]) >= 0:
			err = fmt.Errorf("%w: path %v is out of order", ErrState, r.Path)
		case r.Op != vault.OpPut && r.Op != vault.OpOutOfScope:
			err = fmt.Errorf("%w: path %v with operation %d", ErrState, r.Path, r.Op)
		case r.Seq == 0 || r.Seq > m.Commit.Seq:
			err = fmt.Errorf("%w: path %v of commit %d, after commit %d", ErrState, r.Path, r.Seq, m.Commit.Seq)
		}
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		digest.Add(r.Path, r.Record)
		s.rows = append(s.rows, row{r.Path, r.Parent, r.Seq, r.Record, r.Op})
	}
	if digest.Sum() != m.Commit.Digest {
		return nil, fmt.Errorf("read state of commit %d: %w", m.Commit.Seq, ErrDigest)
	}
	return s, nil
}

// Len returns the number of paths.
func (s *State) Len() int { return len(s.rows) }

// A Selection is what of a state is restored, in the order in which it is asked for.
type Selection struct {
	state *State
	// all says that nothing was left out on the server's word.
	all bool
	// leaves are rows that no row has for its parent, in the order of the log.
	leaves []int32
	// folders are the others by depth: their times and rights are set after
	// everything in them, the deepest first.
	folders [][]int32
}

// Len returns the number of paths selected.
func (s *Selection) Len() int {
	n := len(s.leaves)
	for _, f := range s.folders {
		n += len(f)
	}
	return n
}

// All selects every path.
//
// Errors: [ErrState] if folders lie in each other.
func (s *State) All() (*Selection, error) {
	byParent := s.byParent()
	var tops []int32
	for i := range s.rows {
		if _, inside := s.find(s.rows[i].parent); !inside || s.rows[i].parent == s.rows[i].path {
			tops = append(tops, int32(i))
		}
	}
	sel := s.descend(tops, byParent)
	sel.all = true
	if sel.Len() != len(s.rows) {
		return nil, fmt.Errorf("%w: folders that lie in each other", ErrState)
	}
	return sel, nil
}

// Select selects a path and everything below it, by the parents that the server
// states. A folder that is not recorded itself can be selected by what is in it.
//
// Errors: [ErrNotFound].
func (s *State) Select(path vault.PathID) (*Selection, error) {
	byParent := s.byParent()
	top, found := s.find(path)
	tops := []int32{int32(top)}
	if !found {
		tops = slices.Clone(s.children(byParent, path))
	}
	if len(tops) == 0 {
		return nil, ErrNotFound
	}
	return s.descend(tops, byParent), nil
}

func (s *State) find(path vault.PathID) (int, bool) {
	return slices.BinarySearchFunc(s.rows, path, func(r row, p vault.PathID) int { return bytes.Compare(r.path[:], p[:]) })
}

// byParent returns the rows ascending by parent.
func (s *State) byParent() []int32 {
	index := make([]int32, len(s.rows))
	for i := range index {
		index[i] = int32(i)
	}
	slices.SortFunc(index, func(a, b int32) int { return bytes.Compare(s.rows[a].parent[:], s.rows[b].parent[:]) })
	return index
}

// children returns the rows in a folder.
func (s *State) children(byParent []int32, folder vault.PathID) []int32 {
	first, _ := slices.BinarySearchFunc(byParent, folder, func(i int32, p vault.PathID) int { return bytes.Compare(s.rows[i].parent[:], p[:]) })
	n := 0
	for first+n < len(byParent) && s.rows[byParent[first+n]].parent == folder {
		n++
	}
	return byParent[first : first+n]
}

// descend selects rows and all that is below them. Each row has one parent, so
// nothing is met twice but a path that is said to lie in itself.
func (s *State) descend(tops, byParent []int32) *Selection {
	sel := &Selection{state: s}
	seen := make([]bool, len(s.rows))
	for level := tops; len(level) > 0; {
		var folders, below []int32
		for _, i := range level {
			if seen[i] {
				continue
			}
			seen[i] = true
			children := s.children(byParent, s.rows[i].path)
			if len(children) == 0 {
				sel.leaves = append(sel.leaves, i)
				continue
			}
			folders = append(folders, i)
			below = append(below, children...)
		}
		if len(folders) > 0 {
			sel.folders = append(sel.folders, folders)
		}
		level = below
	}
	slices.SortFunc(sel.leaves, s.bySeq)
	return sel
}

// bySeq orders rows roughly as their records are stored: those of one commit lie
// together. Within it those of one folder are asked for, and so written, together.
func (s *State) bySeq(a, b int32) int {
	x, y := &s.rows[a], &s.rows[b]
	return cmp.Or(cmp.Compare(x.seq, y.seq), bytes.Compare(x.parent[:], y.parent[:]), cmp.Compare(a, b))
}
