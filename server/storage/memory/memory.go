// Package memory is a store that lives and dies with the process.
//
// It keeps the contract of package storage in the plainest way there is, one mutex
// and maps, so that it serves as the model other stores are compared with and as
// the store of tests. Nothing in it survives the process, which is the one promise
// of the contract it does not keep.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

var (
	_ storage.Store   = (*Store)(nil)
	_ storage.Deleter = (*Store)(nil)
)

type objectKey struct {
	vault vault.ID
	id    vault.ObjectID
}

type deviceKey struct {
	vault  vault.ID
	device vault.DeviceID
}

type itemKey struct {
	kind storage.Kind
	key  storage.Key
}

type object struct {
	data   []byte
	header vault.Header
	refs   int   // live objects and commits that refer to it
	order  int64 // place in storage
}

type device struct {
	head     storage.Head
	versions []storage.Version // oldest first
}

// Store is a store in memory. All methods are safe for concurrent use.
type Store struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	closed  bool
	order   int64
	last    int64 // newest stamp, Unix nanoseconds
	vaults  map[vault.ID]bool
	objects map[objectKey]*object
	devices map[deviceKey]*device
	items   map[itemKey]storage.Item
}

// New returns an empty store. Stamps are taken from now; nil means time.Now.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{
		now:     now,
		vaults:  map[vault.ID]bool{},
		objects: map[objectKey]*object{},
		devices: map[deviceKey]*device{},
		items:   map[itemKey]storage.Item{},
	}
}

// enter locks the store for one call.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return storage.ErrClosed
	}
	return nil
}

// admit checks objects against each other and against what is live, and returns
// those that are new. It stores nothing.
func (s *Store) admit(v vault.ID, objects [][]byte) ([]*object, map[vault.ObjectID]*object, error) {
	var fresh []*object
	byID := map[vault.ObjectID]*object{}
	for _, b := range objects {
		h, _, err := vault.ParseHeader(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", storage.ErrInvalid, err)
		}
		id := vault.Identify(b)
		if byID[id] != nil {
			continue
		}
		if o := s.objects[objectKey{v, id}]; o != nil {
			byID[id] = o
			continue
		}
		for _, r := range h.Refs {
			if byID[r] == nil && s.objects[objectKey{v, r}] == nil {
				return nil, nil, fmt.Errorf("object %v: object %v: %w", id, r, storage.ErrMissingRef)
			}
		}
		o := &object{data: b, header: h}
		byID[id] = o
		fresh = append(fresh, o)
	}
	return fresh, byID, nil
}

// keep stores what admit returned.
func (s *Store) keep(v vault.ID, fresh []*object) {
	s.vaults[v] = true
	for _, o := range fresh {
		s.order++
		o.order = s.order
		o.data = bytes.Clone(o.data)
		s.objects[objectKey{v, vault.Identify(o.data)}] = o
	}
	for _, o := range fresh {
		for _, r := range o.header.Refs {
			s.objects[objectKey{v, r}].refs++
		}
	}
}

// Put implements [storage.Objects].
func (s *Store) Put(ctx context.Context, v vault.ID, objects ...[]byte) ([]vault.ObjectID, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	fresh, _, err := s.admit(v, objects)
	if err != nil || len(objects) == 0 {
		return nil, err
	}
	s.keep(v, fresh)
	ids := make([]vault.ObjectID, len(objects))
	for i, b := range objects {
		ids[i] = vault.Identify(b)
	}
	return ids, nil
}

// Has implements [storage.Objects].
func (s *Store) Has(ctx context.Context, v vault.ID, ids []vault.ObjectID) ([]bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	has := make([]bool, len(ids))
	for i, id := range ids {
		has[i] = s.objects[objectKey{v, id}] != nil
	}
	return has, nil
}

// Get implements [storage.Objects]. Data may be kept, but not changed.
func (s *Store) Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := s.enter(ctx); err != nil {
			yield(storage.Object{}, err)
			return
		}
		found := map[vault.ObjectID]*object{}
		for _, id := range ids {
			found[id] = s.objects[objectKey{v, id}]
		}
		s.mu.Unlock()
		place := func(id vault.ObjectID) int64 {
			if o := found[id]; o != nil {
				return o.order
			}
			return 0
		}
		order := slices.SortedFunc(maps.Keys(found), func(a, b vault.ObjectID) int { return cmp.Compare(place(a), place(b)) })
		for _, id := range order {
			if err := ctx.Err(); err != nil {
				yield(storage.Object{}, err)
				return
			}
			o, err := storage.Object{ID: id}, error(nil)
			switch f := found[id]; {
			case f == nil:
				err = fmt.Errorf("object %v: %w", id, storage.ErrNotFound)
			case vault.Identify(f.data) != id:
				err = fmt.Errorf("object %v: %w", id, storage.ErrCorrupt)
			default:
				o.Data = f.data
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// Commit implements [storage.Log].
func (s *Store) Commit(ctx context.Context, c storage.Commit) (time.Time, error) {
	if err := s.enter(ctx); err != nil {
		return time.Time{}, err
	}
	defer s.mu.Unlock()
	if err := c.Check(); err != nil {
		return time.Time{}, err
	}
	d := s.devices[deviceKey{c.Vault, c.Device}]
	if d == nil {
		d = &device{}
	}
	if c.Seq != d.head.Seq+1 {
		return time.Time{}, fmt.Errorf("commit %d after %d: %w", c.Seq, d.head.Seq, storage.ErrConflict)
	}
	fresh, given, err := s.admit(c.Vault, c.Objects)
	if err != nil {
		return time.Time{}, err
	}
	records := make([]*object, len(c.Records))
	for i, id := range c.Records {
		o := cmp.Or(given[id], s.objects[objectKey{c.Vault, id}])
		if o == nil {
			return time.Time{}, fmt.Errorf("record %v: %w", id, storage.ErrMissingRef)
		}
		if r := o.header.Record; r == nil || r.Device != c.Device || r.Seq != c.Seq {
			return time.Time{}, fmt.Errorf("object %v is no record of this commit: %w", id, storage.ErrInvalid)
		}
		records[i] = o
	}
	s.keep(c.Vault, fresh)
	s.last = max(s.now().UnixNano(), s.last+1)
	at := time.Unix(0, s.last).UTC()
	for i, o := range records {
		o.refs++
		r := o.header.Record
		d.versions = append(d.versions, storage.Version{Path: r.Path, Parent: r.Parent, Op: r.Op, Seq: c.Seq, Time: at, Record: c.Records[i]})
	}
	d.head = storage.Head{Seq: c.Seq, Time: at, Body: bytes.Clone(c.Body)}
	s.devices[deviceKey{c.Vault, c.Device}] = d
	return at, nil
}

// Head implements [storage.Log].
func (s *Store) Head(ctx context.Context, v vault.ID, d vault.DeviceID) (storage.Head, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Head{}, err
	}
	defer s.mu.Unlock()
	dev := s.devices[deviceKey{v, d}]
	if dev == nil {
		return storage.Head{}, nil
	}
	h := dev.head
	h.Body = bytes.Clone(h.Body)
	return h, nil
}

// history returns a device's versions so far, oldest first; they never change.
func (s *Store) history(ctx context.Context, v vault.ID, d vault.DeviceID) ([]storage.Version, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if dev := s.devices[deviceKey{v, d}]; dev != nil {
		return dev.versions, nil
	}
	return nil, nil
}

// Versions implements [storage.Log].
func (s *Store) Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		all, err := s.history(ctx, v, d)
		if err != nil {
			yield(storage.Version{}, err)
			return
		}
		for _, ver := range slices.Backward(all) {
			if ver.Path == p && !yield(ver, nil) {
				return
			}
		}
	}
}

// Children implements [storage.Log].
func (s *Store) Children(ctx context.Context, v vault.ID, d vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		all, err := s.history(ctx, v, d)
		if err != nil {
			yield(storage.Version{}, err)
			return
		}
		newest := map[vault.PathID]storage.Version{}
		for _, ver := range all {
			if at.IsZero() || !ver.Time.After(at) {
				newest[ver.Path] = ver
			}
		}
		paths := slices.SortedFunc(maps.Keys(newest), func(a, b vault.PathID) int { return bytes.Compare(a[:], b[:]) })
		for _, p := range paths {
			if newest[p].Parent == parent && !yield(newest[p], nil) {
				return
			}
		}
	}
}

// Set implements [storage.Registry].
func (s *Store) Set(ctx context.Context, items ...storage.Item) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := storage.CheckItems(items); err != nil {
		return err
	}
	for _, it := range items {
		if cur := s.items[itemKey{it.Kind, it.Key}]; it.Rev != cur.Rev+1 {
			return fmt.Errorf("item of kind %d at revision %d, not %d: %w", it.Kind, cur.Rev, int64(it.Rev)-1, storage.ErrConflict)
		}
	}
	for _, it := range items {
		it.Body = bytes.Clone(it.Body)
		s.items[itemKey{it.Kind, it.Key}] = it
	}
	return nil
}

// Lookup implements [storage.Registry].
func (s *Store) Lookup(ctx context.Context, k storage.Kind, key storage.Key) (storage.Item, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Item{}, err
	}
	defer s.mu.Unlock()
	it, ok := s.items[itemKey{k, key}]
	if !ok {
		return storage.Item{}, fmt.Errorf("item of kind %d: %w", k, storage.ErrNotFound)
	}
	it.Body = bytes.Clone(it.Body)
	return it, nil
}

// Items implements [storage.Registry].
func (s *Store) Items(ctx context.Context, k storage.Kind) iter.Seq2[storage.Item, error] {
	return func(yield func(storage.Item, error) bool) {
		if err := s.enter(ctx); err != nil {
			yield(storage.Item{}, err)
			return
		}
		var items []storage.Item
		for key, it := range s.items {
			if key.kind == k {
				it.Body = bytes.Clone(it.Body)
				items = append(items, it)
			}
		}
		s.mu.Unlock()
		slices.SortFunc(items, func(a, b storage.Item) int { return bytes.Compare(a.Key[:], b.Key[:]) })
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}
}

// Stats implements [storage.Store].
func (s *Store) Stats(ctx context.Context) (storage.Stats, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Stats{}, err
	}
	defer s.mu.Unlock()
	st := storage.Stats{Vaults: int64(len(s.vaults)), Devices: int64(len(s.devices)), Objects: int64(len(s.objects))}
	for _, o := range s.objects {
		st.BytesObjects += int64(len(o.data))
	}
	for _, d := range s.devices {
		paths := map[vault.PathID]bool{}
		for _, v := range d.versions {
			paths[v.Path] = true
			if v.Op == vault.OpPut {
				st.Versions++
			}
		}
		st.Paths += int64(len(paths))
	}
	st.BytesStored = st.BytesObjects
	return st, nil
}

// Delete implements [storage.Deleter].
func (s *Store) Delete(ctx context.Context, v vault.ID, ids ...vault.ObjectID) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if len(ids) > storage.MaxDelete {
		return fmt.Errorf("delete of %d objects, at most %d: %w", len(ids), storage.MaxDelete, storage.ErrInvalid)
	}
	going := map[vault.ObjectID]*object{}
	lose := map[vault.ObjectID]int{}
	for _, id := range ids {
		o := s.objects[objectKey{v, id}]
		if o == nil || going[id] != nil {
			continue
		}
		going[id] = o
		for _, r := range o.header.Refs {
			lose[r]++
		}
	}
	for id, o := range going {
		if o.refs > lose[id] {
			return fmt.Errorf("object %v: %w", id, storage.ErrReferenced)
		}
	}
	for id, n := range lose {
		s.objects[objectKey{v, id}].refs -= n
	}
	for id := range going {
		delete(s.objects, objectKey{v, id})
	}
	return nil
}

// Close implements [storage.Store].
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return storage.ErrClosed
	}
	s.closed = true
	return nil
}
