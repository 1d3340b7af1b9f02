package restore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"backstay/protocol/vault"
)

// A State is every path that was there at a moment, known to be what the device
// signed. It takes 80 bytes of memory for each path, a [Selection] 10 more.
type State struct {
	Moment *Moment
	rows   table // ascending by path
}

// A table is a list of rows that grows without being copied: a copy of a million
// would take more room than the rest of a restore.
type table struct {
	blocks [][]row // full but for the last
	n      int
}

const blockRows = 1 << 12

func (t *table) add(r row) {
	if t.n%blockRows == 0 {
		t.blocks = append(t.blocks, make([]row, 0, blockRows))
	}
	last := &t.blocks[len(t.blocks)-1]
	*last = append(*last, r)
	t.n++
}

func (t *table) at(i int32) *row { return &t.blocks[i/blockRows][i%blockRows] }

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
	var before vault.PathID
	for r, err := range src.State(ctx, m.Commit.Device, m.Time) {
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		switch {
		case s.rows.n > 0 && bytes.Compare(before[:], r.Path[:]) >= 0:
			err = fmt.Errorf("%w: path %v is out of order", ErrState, r.Path)
		case r.Op != vault.OpPut && r.Op != vault.OpOutOfScope:
			err = fmt.Errorf("%w: path %v with operation %d", ErrState, r.Path, r.Op)
		case r.Seq == 0 || r.Seq > m.Commit.Seq:
			err = fmt.Errorf("%w: path %v of commit %d, after commit %d", ErrState, r.Path, r.Seq, m.Commit.Seq)
		}
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		digest.Add(r.Path, r.Parent, r.Record)
		s.rows.add(row{r.Path, r.Parent, r.Seq, r.Record, r.Op})
		before = r.Path
	}
	if digest.Sum() != m.Commit.Digest {
		return nil, fmt.Errorf("read state of commit %d: %w", m.Commit.Seq, ErrDigest)
	}
	return s, nil
}

// Len returns the number of paths.
func (s *State) Len() int { return s.rows.n }

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
	var tops []int32
	for i := range int32(s.rows.n) {
		if _, inside := s.find(s.rows.at(i).parent); !inside {
			tops = append(tops, i)
		}
	}
	sel := s.descend(tops, s.byParent())
	sel.all = true
	if sel.Len() != s.rows.n {
		return nil, fmt.Errorf("%w: folders that lie in each other", ErrState)
	}
	return sel, nil
}

// Select selects a path and everything below it, by the parents that the digest
// signs. A folder that is not recorded itself can be selected by what is in it.
//
// Errors: [ErrNotFound].
func (s *State) Select(path vault.PathID) (*Selection, error) {
	byParent := s.byParent()
	top, found := s.find(path)
	tops := []int32{top}
	if !found {
		tops = slices.Clone(s.children(byParent, path))
	}
	if len(tops) == 0 {
		return nil, ErrNotFound
	}
	return s.descend(tops, byParent), nil
}

func (s *State) find(path vault.PathID) (int32, bool) {
	i, found := sort.Find(s.rows.n, func(i int) int { return bytes.Compare(path[:], s.rows.at(int32(i)).path[:]) })
	return int32(i), found
}

// byParent returns the rows ascending by parent.
func (s *State) byParent() []int32 {
	index := make([]int32, s.rows.n)
	for i := range index {
		index[i] = int32(i)
	}
	slices.SortFunc(index, func(a, b int32) int { return bytes.Compare(s.rows.at(a).parent[:], s.rows.at(b).parent[:]) })
	return index
}

// children returns the rows in a folder.
func (s *State) children(byParent []int32, folder vault.PathID) []int32 {
	first, _ := slices.BinarySearchFunc(byParent, folder, func(i int32, p vault.PathID) int { return bytes.Compare(s.rows.at(i).parent[:], p[:]) })
	n := 0
	for first+n < len(byParent) && s.rows.at(byParent[first+n]).parent == folder {
		n++
	}
	return byParent[first : first+n]
}

// descend selects rows and all that is below them. Each row has one parent, so
// nothing is met twice but a path that is said to lie in itself.
func (s *State) descend(tops, byParent []int32) *Selection {
	sel := &Selection{state: s}
	seen := make([]bool, s.rows.n)
	for level := tops; len(level) > 0; {
		var folders, below []int32
		for _, i := range level {
			if seen[i] {
				continue
			}
			seen[i] = true
			children := s.children(byParent, s.rows.at(i).path)
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
	x, y := s.rows.at(a), s.rows.at(b)
	return cmp.Or(cmp.Compare(x.seq, y.seq), bytes.Compare(x.parent[:], y.parent[:]), cmp.Compare(a, b))
}
