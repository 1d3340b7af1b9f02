package restore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// history has six commits of one path each, a minute apart.
func history(t testing.TB) *lab {
	l := newLab(t)
	for i := range 6 {
		l.commit(put("/home/"+string(rune('a'+i)), inline("content")))
	}
	return l
}

// A liar is a lab's server with some answers of its own.
type liar struct {
	*lab
	log    []wire.Head // instead of the log's
	lookUp bool        // Head goes by the times in log
	newer  int         // Head answers this many commits later (earlier if negative)
	rows   func([]wire.Row) []wire.Row
	sorted []wire.Row // what State answers, if set
}

func (s *liar) heads() []wire.Head {
	if s.log != nil {
		return s.log
	}
	var heads []wire.Head
	for _, e := range s.lab.log {
		heads = append(heads, e.Head)
	}
	return heads
}

func (s *liar) Head(_ context.Context, _ vault.DeviceID, at time.Time) (wire.Head, error) {
	heads, found := s.heads(), -1
	for i, h := range heads {
		stamp, err := vault.ParseStamp(h.Stamp)
		if err != nil {
			return wire.Head{}, err
		}
		if at.IsZero() || !stamp.Time.After(at) {
			found = i
		}
	}
	return heads[found+s.newer], nil
}

func (s *liar) Log(_ context.Context, _ vault.DeviceID, first, last uint64) iter.Seq2[wire.Head, error] {
	return func(yield func(wire.Head, error) bool) {
		for _, h := range s.heads() {
			c, err := vault.ParseCommit(h.Commit)
			if err == nil && c.Device == s.device.ID() && (c.Seq < first || last > 0 && c.Seq > last) {
				continue
			}
			if !yield(h, nil) {
				return
			}
		}
	}
}

func (s *liar) State(ctx context.Context, d vault.DeviceID, at time.Time) iter.Seq2[wire.Row, error] {
	return func(yield func(wire.Row, error) bool) {
		rows := s.sorted
		if rows == nil {
			rows = state(s.lab.log, at)
		}
		if s.rows != nil {
			rows = s.rows(rows)
		}
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// restamp gives a commit another stamp.
func (l *lab) restamp(h wire.Head, at time.Time, key ed25519.PrivateKey) wire.Head {
	h.Stamp = vault.SignStamp(l.id, vault.HashCommit(h.Commit), at, key)
	return h
}

// reform signs a commit of the log again with something changed.
func (l *lab) reform(i int, by *vault.Identity, edit func(*vault.Commit)) wire.Head {
	c := l.log[i].commit
	edit(&c)
	return l.sign(c, by, l.log[i].time)
}

func TestOpenAttacks(t *testing.T) {
	_, elsewhere, _ := ed25519.GenerateKey(nil)
	// Commits are numbered from 0 here; the moment asked for is that of commit 2.
	tests := []struct {
		name string
		lie  func(l *lab, s *liar)
		want error
	}{
		{"nothing", func(l *lab, s *liar) {}, nil},
		{"a later commit", func(l *lab, s *liar) { s.newer = 1 }, ErrLater},
		{"an earlier commit", func(l *lab, s *liar) { s.newer = -1 }, ErrOmitted},
		{"left out: the commit", func(l *lab, s *liar) { s.log = slices.Delete(s.heads(), 2, 3); s.lookUp = true }, ErrOmitted},
		{"left out, and the next given", func(l *lab, s *liar) { s.log = slices.Delete(s.heads(), 2, 3) }, ErrLater},
		{"left out: the next commit", func(l *lab, s *liar) { s.log = slices.Delete(s.heads(), 3, 4) }, ErrOmitted},
		{"cut off, and an earlier one given", func(l *lab, s *liar) { s.log = s.heads()[:3]; s.newer = -1 }, ErrOmitted},
		{"swapped: stamps", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2].Stamp, s.log[3].Stamp = s.log[3].Stamp, s.log[2].Stamp
		}, ErrStamp},
		{"swapped: commits", func(l *lab, s *liar) { s.log = s.heads(); s.log[3], s.log[4] = s.log[4], s.log[3] }, ErrOmitted},
		{"replayed: an old commit as the next", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[3] = l.reform(1, l.device, func(*vault.Commit) {})
			s.log[3].Commit = l.log[1].Commit
		}, ErrOmitted},
		{"another device's commit", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2] = l.reform(2, l.other, func(c *vault.Commit) { c.Device = l.other.ID() })
		}, ErrForeign},
		{"signed by another device", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2].Commit = slices.Concat(l.reform(2, l.other, func(c *vault.Commit) { c.Device = l.other.ID() }).Commit[:64], l.log[2].Commit[64:])
			s.log[2] = l.restamp(s.log[2], l.log[2].time, l.server)
		}, ErrForged},
		{"altered", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2].Commit = slices.Clone(s.log[2].Commit)
			s.log[2].Commit[0] ^= 1
			s.log[2] = l.restamp(s.log[2], l.log[2].time, l.server)
		}, ErrForged},
		{"not a commit", func(l *lab, s *liar) {
			s.log = s.heads()[:3]
			s.log[2] = l.restamp(wire.Head{Commit: make([]byte, 100)}, l.log[2].time, l.server)
		}, ErrForged},
		{"of another vault", func(l *lab, s *liar) {
			s.log = s.heads()
			raw, err := l.log[2].commit.Sign(vault.NewID(), l.device)
			if err != nil {
				l.t.Fatal(err)
			}
			s.log[2] = l.restamp(wire.Head{Commit: raw}, l.log[2].time, l.server)
		}, ErrForged},
		{"a membership of nobody's", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2] = l.reform(2, l.device, func(c *vault.Commit) { c.Members = vault.EntryHash{1} })
		}, ErrNotMember},
		{"a membership before the device", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2] = l.reform(2, l.device, func(c *vault.Commit) { c.Members = l.members.Genesis() })
		}, ErrNotMember},
		{"a fork", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2] = l.reform(2, l.device, func(c *vault.Commit) { c.Count++ })
		}, ErrFork},
		{"a fork behind", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[3] = l.reform(3, l.device, func(c *vault.Commit) { c.Count++ })
		}, ErrFork},
		{"another time for the commit", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2] = l.restamp(s.log[2], l.log[2].time.Add(-time.Second), l.server)
		}, ErrRetimed},
		{"another time for the next", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[3] = l.restamp(s.log[3], l.log[3].time.Add(time.Second), l.server)
		}, ErrRetimed},
		{"times that do not increase", func(l *lab, s *liar) {
			s.log = s.heads()
			s.log[2] = l.restamp(s.log[2], l.log[2].time.Add(-time.Hour), l.server)
			s.log[3] = l.restamp(s.log[3], l.log[2].time.Add(-time.Hour), l.server)
			s.newer = -3
		}, ErrOrder},
		{"another server's word on the newest", func(l *lab, s *liar) {
			s.log = s.heads()[:3]
			s.log[2] = l.restamp(s.log[2], l.log[2].time, elsewhere)
		}, ErrStamp},
		{"another server's word on the one behind", func(l *lab, s *liar) {
			s.log = s.heads()[:4]
			s.log[3] = l.restamp(s.log[3], l.log[3].time, elsewhere)
		}, ErrStamp},
		{"a stamp of another commit", func(l *lab, s *liar) { s.log = s.heads()[:3]; s.log[2].Stamp = s.log[1].Stamp; s.newer = 0 }, ErrStamp},
		{"no stamp", func(l *lab, s *liar) { s.log = s.heads(); s.log[3].Stamp = nil }, ErrStamp},
		{"an older membership than before", func(l *lab, s *liar) {
			before := l.members.Head()
			l.append(l.members.SignRotate(l.root, l.keys, l.clock))
			s.log = s.heads()
			s.log[2] = l.reform(2, l.device, func(c *vault.Commit) { c.Members = l.members.Head() })
			s.log[3] = l.reform(3, l.device, func(c *vault.Commit) {
				c.Members = before
				c.Prev, c.PrevStamp = new(vault.HashCommit(s.log[2].Commit)), s.log[2].Stamp
			})
		}, ErrOrder},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := history(t)
			at := l.log[2].time
			s := &liar{lab: l}
			tt.lie(l, s)
			src := Source(s)
			if s.log != nil && s.newer == 0 && !s.lookUp {
				src = &fixed{s, s.log[2]}
			}
			m, err := l.query().Open(context.Background(), src, at)
			if !errors.Is(err, tt.want) || tt.want != nil && !errors.Is(err, ErrIntegrity) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && (m.Commit.Seq != 3 || !m.Time.Equal(at) || m.Newest || !m.Bound || !m.Complete || m.Passed != 0) {
				t.Fatalf("moment %+v", m)
			}
		})
	}
}

// fixed answers Head with one commit.
type fixed struct {
	*liar
	head wire.Head
}

func (f *fixed) Head(context.Context, vault.DeviceID, time.Time) (wire.Head, error) {
	return f.head, nil
}

func TestOpen(t *testing.T) {
	l := history(t)
	ctx := context.Background()
	tests := []struct {
		name   string
		at     time.Time
		seq    uint64
		newest bool
	}{
		{"the newest", time.Time{}, 6, true},
		{"long after", l.clock.Add(time.Hour), 6, true},
		{"at the newest", l.log[5].time, 6, true},
		{"just before the newest", l.log[5].time.Add(-1), 5, false},
		{"the first", l.log[0].time, 1, false},
	}
	for _, tt := range tests {
		m, err := l.query().Open(ctx, l, tt.at)
		if err != nil || m.Commit.Seq != tt.seq || m.Newest != tt.newest || m.Bound == tt.newest {
			t.Errorf("%s: %+v, %v", tt.name, m, err)
		}
	}
	if _, err := l.query().Open(ctx, l, l.log[0].time.Add(-1)); !errors.Is(err, ErrNoCommit) || errors.Is(err, ErrIntegrity) {
		t.Errorf("before all: %v", err)
	}
	l.commitBy(func(c *vault.Commit) { c.Roots[0].Complete = 0 })
	if m, err := l.query().Open(ctx, l, time.Time{}); err != nil || m.Complete {
		t.Errorf("unfinished: %+v, %v", m, err)
	}
	// The server moved: what it stamped before has its old key.
	_, l.server, _ = ed25519.GenerateKey(nil)
	l.commit(put("/home/x", inline("")))
	if _, err := l.query().Open(ctx, l, l.log[2].time); err != nil {
		t.Errorf("after a move: %v", err)
	}
}

// TestKept has the server pass over commits, which it may where the policy lets go
// of them.
func TestKept(t *testing.T) {
	l := history(t)
	s := &liar{lab: l, newer: -2}
	for _, tt := range []struct {
		name string
		now  time.Duration // after the last commit
		want error
	}{
		{"within two days", 47 * time.Hour, ErrOmitted},
		{"after a week", 7 * 24 * time.Hour, nil},
	} {
		q := l.query()
		q.Now = l.clock.Add(tt.now)
		m, err := q.Open(context.Background(), s, l.log[4].time)
		if !errors.Is(err, tt.want) || err == nil && (m.Passed != 2 || m.Commit.Seq != 3) {
			t.Errorf("%s: %+v, %v", tt.name, m, err)
		}
	}
	q := l.query()
	q.Now = l.clock.Add(365 * 24 * time.Hour)
	if _, err := q.Open(context.Background(), s, l.clock); !errors.Is(err, ErrOmitted) {
		t.Errorf("the newest of all passed over: %v", err)
	}
}

func TestChain(t *testing.T) {
	ctx := context.Background()
	l := history(t)
	if c, err := l.query().Chain(ctx, l, 0, 0); c.Commits != 6 || err != nil {
		t.Fatalf("%+v, %v", c, err)
	}
	if c, err := l.query().Chain(ctx, l, 2, 4); c.Commits != 3 || err != nil {
		t.Fatalf("%+v, %v", c, err)
	}
	for i := range 6 {
		s := &liar{lab: l, log: slices.Delete((&liar{lab: l}).heads(), i, i+1)}
		want := ErrOmitted
		if i == 5 { // the end of a log can only be named
			want = nil
		}
		if _, err := l.query().Chain(ctx, s, 0, 0); !errors.Is(err, want) {
			t.Errorf("without commit %d: %v", i+1, err)
		}
		if _, err := l.query().Chain(ctx, s, 0, 6); !errors.Is(err, ErrOmitted) {
			t.Errorf("without commit %d, asked for: %v", i+1, err)
		}
	}
}

// TestChainGap has the server lose commits, and the device go on from its own number.
func TestChainGap(t *testing.T) {
	tests := []struct {
		name string
		edit func(c *vault.Commit, l *lab)
		want error
	}{
		{"as it is", func(*vault.Commit, *lab) {}, nil},
		{"after another commit", func(c *vault.Commit, _ *lab) { c.After.Hash = &vault.CommitHash{1} }, ErrFork},
		{"after an earlier one", func(c *vault.Commit, l *lab) {
			c.After = &vault.Position{Seq: 1, Hash: new(vault.HashCommit(l.log[0].Commit))}
		}, ErrFork},
		{"after one that is gone, too", func(c *vault.Commit, l *lab) {
			c.After = &vault.Position{Seq: 4, Hash: new(vault.HashCommit(l.log[3].Commit))}
		}, ErrOmitted},
		{"unsigned", func(c *vault.Commit, _ *lab) { c.After = nil }, ErrOmitted},
		{"with a stamp of nothing", func(c *vault.Commit, l *lab) { c.PrevStamp = l.log[0].Stamp }, ErrStamp},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := history(t)
			e := l.commitBy(func(c *vault.Commit) {
				c.After = &vault.Position{Seq: 3, Hash: new(vault.HashCommit(l.log[2].Commit))}
				tt.edit(c, l)
			}, put("/home/g", inline("again")))
			heads := (&liar{lab: l}).heads()
			s := &liar{lab: l, log: append(heads[:3:3], e.Head)}
			if _, err := l.query().Chain(context.Background(), s, 0, 0); !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			m, err := l.query().Open(context.Background(), s, l.log[2].time)
			if !errors.Is(err, tt.want) || err == nil && m.Bound {
				t.Fatalf("moment %+v, error %v, want %v", m, err, tt.want)
			}
		})
	}
}

// rotten is a server that cannot give some commits, and says so, with which the one
// before may be lost on its way.
type rotten struct {
	*liar
	bad []uint64
}

func (s *rotten) Log(ctx context.Context, d vault.DeviceID, first, last uint64) iter.Seq2[wire.Head, error] {
	return func(yield func(wire.Head, error) bool) {
		var held []wire.Head
		for h := range s.liar.Log(ctx, d, first, last) {
			if c, _ := vault.ParseCommit(h.Commit); slices.Contains(s.bad, c.Seq) {
				yield(wire.Head{}, fmt.Errorf("log: %w", wire.ErrCorrupt))
				return
			}
			if len(held) > 0 && !yield(held[0], nil) {
				return
			}
			held = []wire.Head{h}
		}
		for _, h := range held {
			yield(h, nil)
		}
	}
}

func TestChainDamaged(t *testing.T) {
	stamped := func(l *lab, seq int) time.Time { return l.log[seq-1].time }
	for _, tt := range []struct {
		name string
		bad  []uint64
		lie  func(l *lab, heads []wire.Head) []wire.Head // default: nothing
		gaps [][2]int                                    // the commits around each, 0 for none
		want error
	}{
		{name: "nothing"},
		{name: "one", bad: []uint64{3}, gaps: [][2]int{{2, 4}}},
		{name: "the first", bad: []uint64{1}, gaps: [][2]int{{0, 2}}},
		{name: "several", bad: []uint64{1, 3, 4}, gaps: [][2]int{{0, 2}, {2, 5}}},
		{name: "the newest", bad: []uint64{6}, want: wire.ErrCorrupt},
		{name: "up to the newest", bad: []uint64{4, 5, 6}, want: wire.ErrCorrupt},
		{name: "and the next left out", bad: []uint64{3}, want: ErrOmitted,
			lie: func(_ *lab, heads []wire.Head) []wire.Head { return slices.Delete(heads, 3, 4) }},
		{name: "and the next another's", bad: []uint64{3}, want: ErrStamp, // which is not that of the hash
			lie: func(l *lab, heads []wire.Head) []wire.Head {
				heads[3] = l.reform(3, l.device, func(c *vault.Commit) { c.Prev = &vault.CommitHash{1} })
				return heads
			}},
		{name: "behind a leap", bad: []uint64{7}, gaps: [][2]int{{3, 8}},
			lie: func(l *lab, heads []wire.Head) []wire.Head {
				l.commitBy(func(c *vault.Commit) {
					c.After = &vault.Position{Seq: 3, Hash: new(vault.HashCommit(l.log[2].Commit))}
				})
				l.commit(put("/home/h", inline("more")))
				return append(heads[:3:3], l.log[6].Head, l.log[7].Head)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := history(t)
			s := &rotten{&liar{lab: l}, tt.bad}
			if tt.lie != nil {
				s.log = tt.lie(l, s.heads())
			}
			c, err := l.query().Chain(context.Background(), s, 0, 0)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			if len(c.Damaged) != len(tt.gaps) || c.Commits != len(s.heads())-len(tt.bad) {
				t.Fatalf("%+v", c)
			}
			for i, g := range c.Damaged {
				want := Gap{First: uint64(tt.gaps[i][0] + 1), Last: uint64(tt.gaps[i][1] - 1), Before: stamped(l, tt.gaps[i][1])}
				if tt.gaps[i][0] > 0 {
					want.After = stamped(l, tt.gaps[i][0])
				}
				if g != want {
					t.Errorf("gap %+v, want %+v", g, want)
				}
			}
		})
	}
}

// TestIntruder has the root void the entry by which a thief added a device.
func TestIntruder(t *testing.T) {
	l := newLab(t)
	keep := l.members.Head()
	thief, err := vault.NewIdentity(vault.RoleDevice, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	l.append(l.members.SignAdd(l.root, l.keys, thief.Public(), "thief", l.clock))
	l.device = thief
	l.commit(put("/home/x", inline("planted")))
	if _, err := l.query().Open(context.Background(), l, time.Time{}); err != nil {
		t.Fatal(err)
	}
	l.append(l.members.SignVoid(l.root, l.keys, keep, l.clock))
	if _, err := l.query().Open(context.Background(), l, time.Time{}); !errors.Is(err, ErrNotMember) {
		t.Fatal(err)
	}
}

func TestStateAttacks(t *testing.T) {
	tests := []struct {
		name string
		lie  func([]wire.Row) []wire.Row
		want error
	}{
		{"nothing", nil, nil},
		{"a row left out", func(r []wire.Row) []wire.Row { return r[1:] }, ErrDigest},
		{"none at all", func(r []wire.Row) []wire.Row { return nil }, ErrDigest},
		{"records swapped", func(r []wire.Row) []wire.Row { r[0].Record, r[1].Record = r[1].Record, r[0].Record; return r }, ErrDigest},
		{"an older record", func(r []wire.Row) []wire.Row { r[0].Record[0] ^= 1; return r }, ErrDigest},
		{"out of order", func(r []wire.Row) []wire.Row { r[0], r[1] = r[1], r[0]; return r }, ErrState},
		{"a row twice", func(r []wire.Row) []wire.Row { return append([]wire.Row{r[0]}, r...) }, ErrState},
		{"a deleted path", func(r []wire.Row) []wire.Row { r[0].Op = vault.OpDelete; return r }, ErrState},
		{"a row of a later commit", func(r []wire.Row) []wire.Row { r[0].Seq = 99; return r }, ErrState},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := history(t)
			s := &liar{lab: l, rows: tt.lie}
			m, err := l.query().Open(context.Background(), s, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = ReadState(context.Background(), s, m); !errors.Is(err, tt.want) || tt.want != nil && !errors.Is(err, ErrIntegrity) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	l := newLab(t)
	var changes []change
	for _, dir := range []string{"/home/a", "/home/a/b", "/home/a/b/c", "/home/z"} {
		changes = append(changes, put(dir, folderRecord()))
	}
	for i := range 20 {
		changes = append(changes, put(fmt.Sprintf("/home/a/b/%02d", i), inline("")), put(fmt.Sprintf("/home/z/%02d", i), inline("")))
	}
	l.commit(changes...)
	s := l.moment(l)
	for _, tt := range []struct {
		path string
		want int
	}{{"/home/a", 23}, {"/home/a/b", 22}, {"/home/a/b/c", 1}, {"/home/z/03", 1}, {"/home", 44}} {
		sel, err := s.Select(l.path(tt.path))
		if err != nil || sel.Len() != tt.want {
			t.Errorf("%s: %d paths, %v; want %d", tt.path, sel.Len(), err, tt.want)
		}
	}
	if _, err := s.Select(l.path("/etc")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if sel, err := s.All(); err != nil || sel.Len() != s.Len() {
		t.Error(sel.Len(), err)
	}
	// Folders that the server says lie in each other.
	a, _ := s.find(l.path("/home/a"))
	s.rows.at(a).parent = l.path("/home/a/b")
	if _, err := s.All(); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if sel, err := s.Select(l.path("/home/a")); err != nil || sel.Len() != 23 {
		t.Error(sel.Len(), err)
	}
}
