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
	// damaged: Get found other bytes, and it counts as absent.
	damaged bool
}

type device struct {
	commits  []storage.Head    // oldest first
	versions []storage.Version // oldest first
}

// head returns the newest commit, the zero Head if there is none.
func (d *device) head() storage.Head {
	if len(d.commits) == 0 {
		return storage.Head{}
	}
	return d.commits[len(d.commits)-1]
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

// live returns an object that can be referred to, or nil.
func (s *Store) live(v vault.ID, id vault.ObjectID) *object {
	if o := s.objects[objectKey{v, id}]; o != nil && !o.damaged {
		return o
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
		if o := s.live(v, id); o != nil {
			byID[id] = o
			continue
		}
		find := s.live
		if h.Record != nil && h.Record.Op != vault.OpPut { // what it says something of may be damaged
			find = func(v vault.ID, id vault.ObjectID) *object { return s.objects[objectKey{v, id}] }
		}
		for _, r := range h.Refs {
			if byID[r] == nil && find(v, r) == nil {
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
		k := objectKey{v, vault.Identify(o.data)}
		was := s.objects[k]
		s.objects[k] = o
		if was != nil { // damaged; what it refers to was counted then
			o.refs = was.refs
			continue
		}
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
		has[i] = s.live(v, id) != nil
	}
	return has, nil
}

// Get implements [storage.Objects]. Data may be kept, but not changed.
func (s *Store) Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		if err := s.enter(ctx); err != nil {
			yield(vault.Object{}, err)
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
				yield(vault.Object{}, err)
				return
			}
			o, err := vault.Object{ID: id}, error(nil)
			switch f := found[id]; {
			case f == nil:
				err = fmt.Errorf("object %v: %w", id, storage.ErrNotFound)
			case vault.Identify(f.data) != id:
				err = fmt.Errorf("object %v: %w", id, storage.ErrCorrupt)
				s.spoil(f)
			default:
				o.Data = f.data
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// spoil notes that an object was found damaged.
func (s *Store) spoil(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.damaged = true
}

// Commit implements [storage.Log].
func (s *Store) Commit(ctx context.Context, c storage.Commit) (time.Time, []byte, error) {
	if err := s.enter(ctx); err != nil {
		return time.Time{}, nil, err
	}
	defer s.mu.Unlock()
	h, err := s.commit(c)
	return h.Time, bytes.Clone(h.Stamp), err
}

func (s *Store) commit(c storage.Commit) (h storage.Head, err error) {
	if err := c.Check(); err != nil {
		return h, err
	}
	d := s.devices[deviceKey{c.Vault, c.Device}]
	if d == nil {
		d = &device{}
	}
	if c.After != d.head().Seq {
		return h, fmt.Errorf("commit %d after %d, the head is %d: %w", c.Seq, c.After, d.head().Seq, storage.ErrConflict)
	}
	fresh, given, err := s.admit(c.Vault, c.Objects)
	if err != nil {
		return h, err
	}
	at := time.Unix(0, max(s.now().UnixNano(), s.last+1)).UTC()
	versions := d.versions
	paths := map[vault.PathID]bool{}
	for _, id := range c.Records {
		o := cmp.Or(given[id], s.live(c.Vault, id))
		if o == nil {
			return h, fmt.Errorf("record %v: %w", id, storage.ErrMissingRef)
		}
		r := o.header.Record
		if r == nil || r.Device != c.Device || r.Seq != c.Seq {
			return h, fmt.Errorf("object %v is no record of this commit: %w", id, storage.ErrInvalid)
		}
		if paths[r.Path] {
			return h, fmt.Errorf("commit %d: path %v twice: %w", c.Seq, r.Path, storage.ErrInvalid)
		}
		paths[r.Path] = true
		versions = append(versions, storage.Version{Path: r.Path, Parent: r.Parent, Op: r.Op, Seq: c.Seq, Time: at, Record: id})
	}
	if c.Digest != nil && digest(state(versions, time.Time{})) != *c.Digest {
		return h, fmt.Errorf("commit %d: %w", c.Seq, storage.ErrDigest)
	}
	h = storage.Head{Seq: c.Seq, Time: at, Body: bytes.Clone(c.Body)}
	stamp, err := c.MakeStamp(at)
	if err != nil {
		return storage.Head{}, err
	}
	h.Stamp = bytes.Clone(stamp)
	s.keep(c.Vault, fresh)
	s.last = at.UnixNano()
	for _, id := range c.Records {
		s.objects[objectKey{c.Vault, id}].refs++
	}
	d.versions = versions
	d.commits = append(d.commits, h)
	s.devices[deviceKey{c.Vault, c.Device}] = d
	return h, nil
}

// history returns a device's commits and versions so far, oldest first; they never
// change.
func (s *Store) history(ctx context.Context, v vault.ID, d vault.DeviceID) (device, error) {
	if err := s.enter(ctx); err != nil {
		return device{}, err
	}
	defer s.mu.Unlock()
	if dev := s.devices[deviceKey{v, d}]; dev != nil {
		return *dev, nil
	}
	return device{}, nil
}

// reached says whether a time is at or before at, which is now when zero.
func reached(t, at time.Time) bool { return at.IsZero() || !t.After(at) }

// Head implements [storage.Log].
func (s *Store) Head(ctx context.Context, v vault.ID, d vault.DeviceID) (storage.Head, error) {
	return s.CommitAt(ctx, v, d, time.Time{})
}

// CommitAt implements [storage.Log].
func (s *Store) CommitAt(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time) (storage.Head, error) {
	dev, err := s.history(ctx, v, d)
	for _, h := range slices.Backward(dev.commits) {
		if reached(h.Time, at) {
			return clone(h), nil
		}
	}
	return storage.Head{}, err
}

func clone(h storage.Head) storage.Head {
	h.Body, h.Stamp = bytes.Clone(h.Body), bytes.Clone(h.Stamp)
	return h
}

// Commits implements [storage.Log].
func (s *Store) Commits(ctx context.Context, v vault.ID, d vault.DeviceID, first, last uint64) iter.Seq2[storage.Head, error] {
	return func(yield func(storage.Head, error) bool) {
		dev, err := s.history(ctx, v, d)
		if err != nil {
			yield(storage.Head{}, err)
			return
		}
		for _, h := range dev.commits {
			if h.Seq >= first && h.Seq <= last && !yield(clone(h), nil) {
				return
			}
		}
	}
}

// Devices implements [storage.Log].
func (s *Store) Devices(ctx context.Context, v vault.ID) iter.Seq2[storage.DeviceHead, error] {
	return func(yield func(storage.DeviceHead, error) bool) {
		if err := s.enter(ctx); err != nil {
			yield(storage.DeviceHead{}, err)
			return
		}
		var all []storage.DeviceHead
		for k, d := range s.devices {
			if h := d.head(); k.vault == v {
				all = append(all, storage.DeviceHead{Device: k.device, Seq: h.Seq, Time: h.Time})
			}
		}
		s.mu.Unlock()
		slices.SortFunc(all, func(a, b storage.DeviceHead) int { return bytes.Compare(a.Device[:], b.Device[:]) })
		for _, d := range all {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// choose yields what choice makes of a device's history.
func (s *Store) choose(ctx context.Context, v vault.ID, d vault.DeviceID, choice func(device) ([]storage.Version, error)) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		dev, err := s.history(ctx, v, d)
		var chosen []storage.Version
		if err == nil {
			chosen, err = choice(dev)
		}
		if err != nil {
			yield(storage.Version{}, err)
			return
		}
		for _, ver := range chosen {
			if !yield(ver, nil) {
				return
			}
		}
	}
}

// Records implements [storage.History].
func (s *Store) Records(ctx context.Context, v vault.ID, d vault.DeviceID, seq uint64) iter.Seq2[storage.Version, error] {
	return s.choose(ctx, v, d, func(dev device) (found []storage.Version, err error) {
		if !slices.ContainsFunc(dev.commits, func(h storage.Head) bool { return h.Seq == seq }) {
			return nil, fmt.Errorf("commit %d: %w", seq, storage.ErrNotFound)
		}
		for _, ver := range dev.versions {
			if ver.Seq == seq {
				found = append(found, ver)
			}
		}
		return found, nil
	})
}

// Versions implements [storage.History].
func (s *Store) Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[storage.Version, error] {
	return s.choose(ctx, v, d, func(dev device) (found []storage.Version, err error) {
		for _, ver := range slices.Backward(dev.versions) {
			if ver.Path == p {
				found = append(found, ver)
			}
		}
		return found, nil
	})
}

// newest returns, by path, the newest of the versions up to at that are wanted.
func newest(versions []storage.Version, at time.Time, wanted func(storage.Version) bool) (found []storage.Version) {
	byPath := map[vault.PathID]storage.Version{}
	for _, ver := range versions {
		if reached(ver.Time, at) && wanted(ver) {
			byPath[ver.Path] = ver
		}
	}
	return slices.SortedFunc(maps.Values(byPath), func(a, b storage.Version) int { return bytes.Compare(a.Path[:], b.Path[:]) })
}

// Children implements [storage.History].
func (s *Store) Children(ctx context.Context, v vault.ID, d vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[storage.Version, error] {
	return s.choose(ctx, v, d, func(dev device) ([]storage.Version, error) {
		all := newest(dev.versions, at, func(storage.Version) bool { return true })
		return slices.DeleteFunc(all, func(ver storage.Version) bool { return ver.Parent != parent }), nil
	})
}

// State implements [storage.History].
func (s *Store) State(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time) iter.Seq2[storage.Version, error] {
	return s.choose(ctx, v, d, func(dev device) ([]storage.Version, error) { return state(dev.versions, at), nil })
}

func state(versions []storage.Version, at time.Time) []storage.Version {
	all := newest(versions, at, func(ver storage.Version) bool { return !storage.Judges(ver.Op) })
	return slices.DeleteFunc(all, func(ver storage.Version) bool { return !storage.InState(ver.Op) })
}

// digest returns the SHA-256 of a state's digest, made from nothing.
func digest(state []storage.Version) [32]byte {
	var d vault.Digest
	for _, ver := range state {
		d.Add(ver.Path, ver.Parent, ver.Record)
	}
	return d.Sum()
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
func (s *Store) Items(ctx context.Context, k storage.Kind, from storage.Key) iter.Seq2[storage.Item, error] {
	return func(yield func(storage.Item, error) bool) {
		if err := s.enter(ctx); err != nil {
			yield(storage.Item{}, err)
			return
		}
		var items []storage.Item
		for key, it := range s.items {
			if key.kind == k && bytes.Compare(key.key[:], from[:]) >= 0 {
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
