package upload_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// fakeServer is a server of one vault: it checks what a real one does.
type fakeServer struct {
	t     *testing.T
	vault vault.ID
	key   ed25519.PrivateKey
	sign  ed25519.PublicKey // of the one device

	mu      sync.Mutex // guards what follows
	objects map[vault.ObjectID][]byte
	commits []fakeCommit
	state   map[vault.PathID]v4.Row
	history map[vault.PathID][]v4.Row
	clock   time.Time
	// puts counts the objects that PUT brought, have those that HAVE found.
	puts, have int
	// fail, if set, is asked before each request and may break it; afterwards
	// says whether the request is carried out all the same.
	fail func(verb string) (err error, afterwards bool)
}

type fakeCommit struct {
	head   v4.Head
	hash   vault.CommitHash
	seq    uint64
	at     time.Time
	state  map[vault.PathID]v4.Row
	commit vault.Commit
}

func newFakeServer(t *testing.T, id vault.ID, sign ed25519.PublicKey) *fakeServer {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeServer{
		t: t, vault: id, key: key, sign: sign, clock: time.Now(),
		objects: map[vault.ObjectID][]byte{}, state: map[vault.PathID]v4.Row{}, history: map[vault.PathID][]v4.Row{},
	}
}

func (s *fakeServer) pin() v4.Pin { return v4.PinOf(s.key.Public().(ed25519.PublicKey)) }

func (s *fakeServer) failing(verb string) (before, after error) {
	if s.fail == nil {
		return nil, nil
	}
	err, afterwards := s.fail(verb)
	if afterwards {
		return nil, err
	}
	return err, nil
}

func (s *fakeServer) Have(_ context.Context, ids []vault.ObjectID) ([]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err, _ := s.failing("have"); err != nil {
		return nil, err
	}
	have := make([]bool, len(ids))
	for i, id := range ids {
		if _, have[i] = s.objects[id]; have[i] {
			s.have++
		}
	}
	return have, nil
}

func (s *fakeServer) Put(_ context.Context, objects ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, after := s.failing("put")
	if before != nil {
		return before
	}
	for _, o := range objects {
		if err := s.put(o); err != nil {
			return err
		}
		s.puts++
	}
	return after
}

func (s *fakeServer) put(object []byte) error {
	h, _, err := vault.ParseHeader(object)
	if err != nil {
		return err
	}
	for _, ref := range h.Refs {
		if _, ok := s.objects[ref]; !ok {
			return &v4.Error{Code: v4.CodeMissingRefs, IDs: []vault.ObjectID{ref}}
		}
	}
	s.objects[vault.Identify(object)] = slices.Clone(object)
	return nil
}

func (s *fakeServer) Commit(_ context.Context, raw []byte, objects [][]byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, after := s.failing("commit")
	if before != nil {
		return nil, before
	}
	c, err := vault.OpenCommit(s.vault, raw, s.sign)
	if err != nil {
		return nil, err
	}
	head := uint64(0)
	var prev *vault.CommitHash
	if n := len(s.commits); n > 0 {
		head, prev = s.commits[n-1].seq, &s.commits[n-1].hash
	}
	claims := vault.Position{Seq: c.Seq - 1, Hash: c.Prev}
	if c.After != nil {
		claims = *c.After
	}
	if claims.Seq != head || (prev == nil) != (claims.Hash == nil) || prev != nil && *prev != *claims.Hash {
		return nil, &v4.Error{Code: v4.CodeConflict}
	}
	state := maps.Clone(s.state)
	s.clock = s.clock.Add(time.Millisecond)
	var ids []vault.ObjectID
	var rows []v4.Row
	for _, o := range objects {
		if err := s.put(o); err != nil {
			return nil, err
		}
		h, _, err := vault.ParseHeader(o)
		if err != nil || h.Record == nil {
			return nil, err
		}
		id := vault.Identify(o)
		ids = append(ids, id)
		row := v4.Row{Path: h.Record.Path, Parent: h.Record.Parent, Op: h.Record.Op, Seq: c.Seq, Time: s.clock, Record: id}
		if h.Record.Seq != c.Seq || h.Record.Device != c.Device {
			return nil, errors.New("record of another commit")
		}
		delete(state, row.Path)
		if row.Op != vault.OpDelete {
			state[row.Path] = row
		}
		rows = append(rows, row)
	}
	var digest vault.Digest
	for _, row := range state {
		digest.Add(row.Path, row.Parent, row.Record)
	}
	if digest.Sum() != c.Digest {
		return nil, &v4.Error{Code: v4.CodeDigest}
	}
	if vault.RecordsRoot(ids) != c.Root || c.Count != len(ids) {
		s.t.Error("root or count of the commit is wrong")
	}
	hash := vault.HashCommit(raw)
	stamp := vault.SignStamp(s.vault, hash, s.clock, s.key)
	s.state = state
	for _, row := range rows {
		s.history[row.Path] = append(s.history[row.Path], row)
	}
	s.commits = append(s.commits, fakeCommit{v4.Head{Commit: slices.Clone(raw), Stamp: stamp}, hash, c.Seq, s.clock, maps.Clone(state), c})
	return stamp, after
}

// rollBack forgets the commits after the first n, and what only they brought.
func (s *fakeServer) rollBack(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits = s.commits[:n]
	s.state = map[vault.PathID]v4.Row{}
	if n > 0 {
		s.state = maps.Clone(s.commits[n-1].state)
	}
}

func (s *fakeServer) Head(context.Context, vault.DeviceID, time.Time) (v4.Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err, _ := s.failing("head"); err != nil {
		return v4.Head{}, err
	}
	if len(s.commits) == 0 {
		return v4.Head{}, nil
	}
	return s.commits[len(s.commits)-1].head, nil
}

func (s *fakeServer) State(context.Context, vault.DeviceID, time.Time) iter.Seq2[v4.Row, error] {
	return func(yield func(v4.Row, error) bool) {
		s.mu.Lock()
		rows := slices.Collect(maps.Values(s.state))
		s.mu.Unlock()
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

func (s *fakeServer) Get(_ context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		for _, id := range ids {
			s.mu.Lock()
			data, ok := s.objects[id]
			s.mu.Unlock()
			var err error
			if !ok {
				err = vault.ErrMissing
			}
			if !yield(vault.Object{ID: id, Data: data}, err) {
				return
			}
		}
	}
}
