// Package storagetest holds what every store must pass: the contract of package
// storage, one subtest a promise ([Run]); the same promises under a storage call
// that fails, each one in turn ([RunFaults]), and under a power cut at each flush
// ([RunCrashes]); and long random histories compared with package memory
// ([RunModel]).
//
// It is for tests of stores only, and knows none of them.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

// Store is what the suite tests.
type Store interface {
	storage.Store
	storage.Deleter
}

// Backend is how the suite gets at stores of one kind.
type Backend struct {
	// Open opens the store of the folder dir, which is empty the first time.
	// Stamps are taken from now.
	Open func(dir string, now func() time.Time) (Store, error)
	// Damage changes the stored bytes of an object of the open or closed store
	// of dir; nil when there is no way.
	Damage func(dir string, object []byte) error
	// Forget destroys what the closed store of dir can rebuild; nil when it
	// cannot rebuild anything.
	Forget func(dir string) error
	// Volatile stores keep nothing beyond Close.
	Volatile bool
}

// bench is one test's store.
type bench struct {
	testing.TB
	Store
	b   Backend
	dir string
	now func() time.Time
}

// open opens the store of dir, which becomes the bench's.
func (b *bench) open(dir string, now func() time.Time) {
	b.Helper()
	s, err := b.b.Open(dir, now)
	if err != nil {
		b.Fatal("open:", err)
	}
	b.Store, b.dir, b.now = s, dir, now
}

func (b *bench) reopen() {
	b.Helper()
	if err := b.Close(); err != nil {
		b.Fatal("close:", err)
	}
	b.open(b.dir, b.now)
}

// Run checks every promise of the contract against stores of one kind.
func Run(t *testing.T, b Backend) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &bench{TB: t, b: b}
			s.open(t.TempDir(), time.Now)
			t.Cleanup(func() {
				if err := s.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
					t.Error("close:", err)
				}
			})
			c.test(t, s)
		})
	}
}

var (
	ctx  = context.Background()
	home = vaultID("home")
	mine = deviceID("mine")
)

var contract = []struct {
	name string
	test func(*testing.T, *bench)
}{
	{"put, has and get give back the same bytes", putGet},
	{"put of nothing does nothing", putNothing},
	{"storing again is no error and costs nothing", dedup},
	{"a vault sees nothing of another", isolation},
	{"put refuses what does not parse", putInvalid},
	{"put refuses refs that are not live", putMissingRef},
	{"put takes refs to what stands earlier in the call", putEarlierRef},
	{"the largest and the smallest object", objectSizes},
	{"get yields each object once, in storage order", getOrder},
	{"get names what is missing and goes on", getMissing},
	{"get names what is damaged and goes on", getDamaged},
	{"get can be left early", getEarly},
	{"commit stores objects, records and body together", commitWhole},
	{"commit takes records stored before", commitStoredRecords},
	{"commit refuses a sequence number that is not next", commitConflict},
	{"of concurrent commits with one number one wins", commitRace},
	{"commit refuses records that are not stored", commitMissing},
	{"commit refuses records of another device, number or type", commitForeign},
	{"a refused commit stores none of its objects", commitRefusedWhole},
	{"commit keeps its bounds", commitBounds},
	{"stamps increase strictly whatever the clock does", stamps},
	{"head of a device without commits is zero", headZero},
	{"heads of devices are apart", headApart},
	{"versions of a path, newest first", versions},
	{"children of a folder at a time", children},
	{"children follow a path to its new parent", childrenMoved},
	{"many versions and children", manyVersions},
	{"set and lookup of items", items},
	{"set keeps all items or none", itemsAtomic},
	{"set refuses a revision that is not next", itemsConflict},
	{"of concurrent sets with one revision one wins", itemsRace},
	{"set keeps its bounds", itemBounds},
	{"items of a kind in the order of their keys", itemsOrder},
	{"delete removes what nothing refers to", deleteFree},
	{"delete refuses what is referred to and then deletes nothing", deleteReferenced},
	{"delete takes an object and its referrers together", deleteTogether},
	{"delete frees what only the deleted referred to", deleteReleases},
	{"delete keeps its bound", deleteBounds},
	{"what was deleted can be stored again", deletePut},
	{"stats count what is stored", stats},
	{"a cancelled context ends every call", cancelled},
	{"a closed store refuses every call", closed},
	{"close waits for calls in progress", closeWaits},
	{"everything is there after opening again", reopen},
	{"stamps go on after opening again with a clock behind", reopenStamps},
	{"many callers at once", concurrent},
}

// put is Put where the ids do not matter.
func put(ctx context.Context, s storage.Objects, v vault.ID, objects ...[]byte) error {
	_, err := s.Put(ctx, v, objects...)
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

// collect drains an iteration that must not fail.
func collect[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	var all []T
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// got is what Get yielded, in order.
type got struct {
	ids  []vault.ObjectID
	data map[vault.ObjectID][]byte
	errs map[vault.ObjectID]error
}

func get(t testing.TB, s storage.Objects, v vault.ID, ids ...vault.ObjectID) got {
	t.Helper()
	g := got{data: map[vault.ObjectID][]byte{}, errs: map[vault.ObjectID]error{}}
	for o, err := range s.Get(ctx, v, ids) {
		if o.ID == (vault.ObjectID{}) {
			t.Fatalf("get ended: %v", err)
		}
		g.ids = append(g.ids, o.ID)
		if err != nil {
			g.errs[o.ID] = err
			if o.Data != nil {
				t.Fatalf("object %v comes with data and an error", o.ID)
			}
			continue
		}
		g.data[o.ID] = bytes.Clone(o.Data)
	}
	return g
}

// holds fails unless the objects are stored whole in v.
func holds(t testing.TB, s storage.Objects, v vault.ID, objects ...[]byte) {
	t.Helper()
	g := get(t, s, v, identify(objects)...)
	for _, o := range objects {
		id := vault.Identify(o)
		if err := g.errs[id]; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g.data[id], o) {
			t.Fatalf("object %v: other bytes came back", id)
		}
	}
	has, err := s.Has(ctx, v, identify(objects))
	must(t, err)
	if slices.Contains(has, false) {
		t.Fatalf("has: %v", has)
	}
}

// lacks fails unless none of the objects is stored in v.
func lacks(t testing.TB, s storage.Objects, v vault.ID, objects ...[]byte) {
	t.Helper()
	has, err := s.Has(ctx, v, identify(objects))
	must(t, err)
	if slices.Contains(has, true) {
		t.Fatalf("has: %v, want none", has)
	}
	for id, err := range get(t, s, v, identify(objects)...).errs {
		if !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("object %v: %v", id, err)
		}
	}
}

// put returns a put of a path; parent and path are words.
func record(seq uint64, parent, path string, op vault.Op, refs ...[]byte) []byte {
	return Record(vault.RecordHeader{Device: mine, Seq: seq, Path: pathID(path), Parent: pathID(parent), Op: op}, refs...)
}

// commit returns a commit of the device mine that carries its records.
func commit(seq uint64, records ...[]byte) storage.Commit {
	return storage.Commit{
		Vault: home, Device: mine, Seq: seq, Objects: records, Records: identify(records),
		Body: fmt.Appendf(nil, "body of commit %d", seq),
	}
}

func putGet(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	l := List("l", a, b)
	ids, err := s.Put(ctx, home, a, b, l, a)
	must(t, err)
	if want := identify([][]byte{a, b, l, a}); !slices.Equal(ids, want) {
		t.Fatalf("returns the ids %v, want %v", ids, want)
	}
	holds(t, s, home, a, b, l)
	lacks(t, s, home, text("c"))
}

func putNothing(t *testing.T, s *bench) {
	must(t, put(ctx, s, home))
	must(t, s.Set(ctx))
	must(t, s.Delete(ctx, home))
	if n := len(get(t, s, home).ids); n != 0 {
		t.Fatalf("%d objects", n)
	}
}

func dedup(t *testing.T, s *bench) {
	big := Chunk(bytes.Repeat([]byte("x"), 100_000))
	l := List("l", big)
	must(t, put(ctx, s, home, big, l, big))
	before, err := s.Stats(ctx)
	must(t, err)
	for range 10 {
		must(t, put(ctx, s, home, l, big))
	}
	after, err := s.Stats(ctx)
	must(t, err)
	if before.Objects != 2 || after.Objects != 2 || after.BytesObjects != before.BytesObjects {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	if grown := after.BytesStored - before.BytesStored; grown > 50_000 {
		t.Fatalf("storing again took %d bytes", grown)
	}
	holds(t, s, home, big, l)
}

func isolation(t *testing.T, s *bench) {
	other := vaultID("other")
	a := text("a")
	l := List("l", a)
	must(t, put(ctx, s, home, a))
	lacks(t, s, other, a)
	want(t, put(ctx, s, other, l), storage.ErrMissingRef)
	c := commit(1, record(1, "/", "/a", vault.OpPut, a))
	c.Vault = other
	_, err := s.Commit(ctx, c)
	want(t, err, storage.ErrMissingRef)
	must(t, s.Delete(ctx, other, vault.Identify(a)))
	must(t, put(ctx, s, other, a, l))
	must(t, s.Delete(ctx, home, vault.Identify(a)))
	lacks(t, s, home, a)
	holds(t, s, other, a, l)
	_, err = s.Commit(ctx, c)
	must(t, err)
	if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 0 {
		t.Fatalf("head in the first vault: %+v, %v", h, err)
	}
	if n := len(collect(t, s.Versions(ctx, home, mine, pathID("/a")))); n != 0 {
		t.Fatalf("%d versions in the first vault", n)
	}
}

func putInvalid(t *testing.T, s *bench) {
	good := text("good")
	for name, bad := range map[string][]byte{
		"empty":        {},
		"not sealed":   bytes.Repeat([]byte("x"), 200),
		"unknown type": seal(99, nil, nil, nil),
		"chunk refs":   seal(vault.TypeChunk, identify([][]byte{good}), nil, nil),
		"too large":    Chunk(make([]byte, vault.MaxObject)),
	} {
		if err := put(ctx, s, home, good, bad); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		c := commit(1)
		c.Objects = [][]byte{bad}
		if _, err := s.Commit(ctx, c); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s in a commit: %v", name, err)
		}
	}
	lacks(t, s, home, seal(99, nil, nil, nil))
}

func putMissingRef(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	l := List("l", a, b)
	must(t, put(ctx, s, home, a))
	want(t, put(ctx, s, home, l), storage.ErrMissingRef)
	lacks(t, s, home, l)
	must(t, put(ctx, s, home, b))
	must(t, put(ctx, s, home, l))
	holds(t, s, home, a, b, l)
}

func putEarlierRef(t *testing.T, s *bench) {
	a := text("a")
	l := List("l", a, a)
	want(t, put(ctx, s, home, l, a), storage.ErrMissingRef)
	must(t, put(ctx, s, home, a, l, List("top", l)))
}

func objectSizes(t *testing.T, s *bench) {
	smallest := Chunk(nil)
	largest := Chunk(bytes.Repeat([]byte{7}, vault.MaxObject-len(smallest)))
	if len(largest) != vault.MaxObject {
		t.Fatalf("built %d bytes", len(largest))
	}
	must(t, put(ctx, s, home, smallest, largest))
	holds(t, s, home, smallest, largest)
}

func getOrder(t *testing.T, s *bench) {
	var objects [][]byte
	for i := range 500 {
		objects = append(objects, text("object %d", i))
	}
	for part := range slices.Chunk(objects, 50) {
		must(t, put(ctx, s, home, part...))
	}
	ids := identify(objects)
	asked := slices.Concat(ids[300:], ids[:400], ids[:10])
	slices.Reverse(asked)
	if g := get(t, s, home, asked...); !slices.Equal(g.ids, ids) {
		t.Fatal("not each once in storage order")
	}
}

func getMissing(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	must(t, put(ctx, s, home, a, b))
	gone := vault.Identify(text("gone"))
	g := get(t, s, home, vault.Identify(a), gone, vault.Identify(b))
	if len(g.ids) != 3 || len(g.data) != 2 {
		t.Fatalf("yielded %d, whole %d", len(g.ids), len(g.data))
	}
	want(t, g.errs[gone], storage.ErrNotFound)
}

func getDamaged(t *testing.T, s *bench) {
	if s.b.Damage == nil {
		t.Skip("this store gives no way to damage it")
	}
	a, b, c := text("a"), Chunk(bytes.Repeat([]byte("bad"), 5000)), text("c")
	must(t, put(ctx, s, home, a, b, c))
	must(t, s.b.Damage(s.dir, b))
	id := vault.Identify(b)
	g := get(t, s, home, identify([][]byte{a, b, c})...)
	want(t, g.errs[id], storage.ErrCorrupt)
	if errors.Is(g.errs[id], storage.ErrNotFound) || len(g.data) != 2 {
		t.Fatalf("error %v, %d whole", g.errs[id], len(g.data))
	}
}

func getEarly(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	must(t, put(ctx, s, home, a, b))
	for range s.Get(ctx, home, identify([][]byte{a, b})) {
		break
	}
	for range s.Items(ctx, storage.KindV3Name) {
		break
	}
	holds(t, s, home, a, b)
}

func commitWhole(t *testing.T, s *bench) {
	a := text("a")
	r := record(1, "/", "/a", vault.OpPut, a)
	c := commit(1, r)
	c.Objects = [][]byte{a, r}
	before := time.Now()
	at, err := s.Commit(ctx, c)
	must(t, err)
	if at.Before(before) || at.After(time.Now()) {
		t.Fatalf("stamped %v", at)
	}
	holds(t, s, home, a, r)
	h, err := s.Head(ctx, home, mine)
	must(t, err)
	if h.Seq != 1 || !h.Time.Equal(at) || string(h.Body) != string(c.Body) {
		t.Fatalf("head %+v", h)
	}
	ver := collect(t, s.Versions(ctx, home, mine, pathID("/a")))
	if len(ver) != 1 || ver[0] != (storage.Version{
		Path: pathID("/a"), Parent: pathID("/"), Op: vault.OpPut, Seq: 1, Time: at, Record: vault.Identify(r),
	}) {
		t.Fatalf("versions %+v", ver)
	}
	empty := commit(2)
	empty.Body = nil
	_, err = s.Commit(ctx, empty)
	must(t, err)
	if h, err = s.Head(ctx, home, mine); err != nil || h.Seq != 2 || len(h.Body) != 0 {
		t.Fatalf("head of an empty commit %+v, %v", h, err)
	}
}

func commitStoredRecords(t *testing.T, s *bench) {
	a, r1, r2 := text("a"), record(1, "/", "/a", vault.OpDelete), record(1, "/", "/b", vault.OpDelete)
	must(t, put(ctx, s, home, a, r1))
	c := commit(1, r1, r2)
	c.Objects = [][]byte{r2}
	_, err := s.Commit(ctx, c)
	must(t, err)
	if n := len(collect(t, s.Children(ctx, home, mine, pathID("/"), time.Time{}))); n != 2 {
		t.Fatalf("%d children", n)
	}
}

func commitConflict(t *testing.T, s *bench) {
	for _, seq := range []uint64{0, 2, 1 << 63} {
		_, err := s.Commit(ctx, commit(seq))
		want(t, err, storage.ErrConflict)
	}
	for _, seq := range []uint64{1, 2} {
		_, err := s.Commit(ctx, commit(seq))
		must(t, err)
	}
	for _, seq := range []uint64{0, 1, 2, 4} {
		_, err := s.Commit(ctx, commit(seq))
		want(t, err, storage.ErrConflict)
	}
	if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 2 {
		t.Fatalf("head %+v, %v", h, err)
	}
}

// race runs n calls at once and fails unless exactly one returns nil and the
// others ErrConflict; it returns the winner.
func race(t *testing.T, n int, call func(i int) error) int {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = call(i) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Fatal("two callers won")
		case !errors.Is(err, storage.ErrConflict):
			t.Fatal(err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	return winner
}

func commitRace(t *testing.T, s *bench) {
	for seq := uint64(1); seq <= 10; seq++ {
		winner := race(t, 8, func(i int) error {
			c := commit(seq, record(seq, "/", fmt.Sprint("/", i), vault.OpPut))
			c.Body = fmt.Append(nil, i)
			_, err := s.Commit(ctx, c)
			return err
		})
		h, err := s.Head(ctx, home, mine)
		if err != nil || h.Seq != seq || string(h.Body) != fmt.Sprint(winner) {
			t.Fatalf("head %+v, %v; winner %d", h, err, winner)
		}
	}
}

func commitMissing(t *testing.T, s *bench) {
	c := commit(1, record(1, "/", "/a", vault.OpDelete))
	c.Objects = nil
	_, err := s.Commit(ctx, c)
	want(t, err, storage.ErrMissingRef)
	_, err = s.Commit(ctx, commit(1, record(1, "/", "/a", vault.OpPut, text("missing"))))
	want(t, err, storage.ErrMissingRef)
}

func commitForeign(t *testing.T, s *bench) {
	for name, o := range map[string][]byte{
		"number": record(2, "/", "/a", vault.OpDelete),
		"device": Record(vault.RecordHeader{Device: deviceID("other"), Seq: 1, Op: vault.OpDelete}),
		"type":   text("a"),
	} {
		_, err := s.Commit(ctx, commit(1, o))
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, put(ctx, s, home, o))
		c := commit(1, o)
		c.Objects = nil
		if _, err = s.Commit(ctx, c); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s, stored before: %v", name, err)
		}
	}
}

func commitRefusedWhole(t *testing.T, s *bench) {
	a, r := text("a"), record(1, "/", "/a", vault.OpDelete)
	bad := commit(1, r, record(7, "/", "/b", vault.OpDelete))
	bad.Objects = append([][]byte{a}, bad.Objects...)
	_, err := s.Commit(ctx, bad)
	want(t, err, storage.ErrInvalid)
	late := commit(2, record(2, "/", "/c", vault.OpDelete))
	_, err = s.Commit(ctx, late)
	want(t, err, storage.ErrConflict)
	lacks(t, s, home, slices.Concat(bad.Objects, late.Objects)...)
	if n := len(collect(t, s.Versions(ctx, home, mine, pathID("/a")))); n != 0 {
		t.Fatalf("%d versions", n)
	}
	st, err := s.Stats(ctx)
	must(t, err)
	st.BytesStored = 0
	if st != (storage.Stats{}) {
		t.Fatalf("stats %+v", st)
	}
}

func commitBounds(t *testing.T, s *bench) {
	c := commit(1)
	c.Body = make([]byte, storage.MaxBody+1)
	_, err := s.Commit(ctx, c)
	want(t, err, storage.ErrInvalid)

	r := record(1, "/", "/a", vault.OpPut)
	_, err = s.Commit(ctx, commit(1, r, r))
	want(t, err, storage.ErrInvalid)

	var records [][]byte
	for i := range storage.MaxRecords + 1 {
		records = append(records, record(1, "/", fmt.Sprint("/", i), vault.OpPut))
	}
	_, err = s.Commit(ctx, commit(1, records...))
	want(t, err, storage.ErrInvalid)

	c = commit(1, records[1:]...)
	c.Body = bytes.Repeat([]byte("b"), storage.MaxBody)
	_, err = s.Commit(ctx, c)
	must(t, err)
	h, err := s.Head(ctx, home, mine)
	if err != nil || !bytes.Equal(h.Body, c.Body) {
		t.Fatalf("head %d with %d bytes, %v", h.Seq, len(h.Body), err)
	}
	if n := len(collect(t, s.Children(ctx, home, mine, pathID("/"), time.Time{}))); n != storage.MaxRecords {
		t.Fatalf("%d children", n)
	}
}

func stamps(t *testing.T, s *bench) {
	must(t, s.Close())
	clock := time.Unix(1_700_000_000, 0).UTC()
	s.open(t.TempDir(), func() time.Time { return clock })
	var last time.Time
	for i, step := range []time.Duration{0, 0, time.Hour, -24 * time.Hour, 0, time.Nanosecond, 48 * time.Hour} {
		clock = clock.Add(step)
		c := commit(1)
		c.Vault = vaultID(fmt.Sprint(i)) // over all commits of the store
		at, err := s.Commit(ctx, c)
		must(t, err)
		if !at.After(last) {
			t.Fatalf("stamp %v after %v", at, last)
		}
		if i == 2 && !at.Equal(clock) || at.Sub(clock) > 30*time.Hour {
			t.Fatalf("stamp %v at %v", at, clock)
		}
		last = at
	}
	if !last.Equal(clock) {
		t.Fatalf("last stamp %v at %v", last, clock)
	}
}

func headZero(t *testing.T, s *bench) {
	h, err := s.Head(ctx, home, mine)
	if err != nil || h.Seq != 0 || !h.Time.IsZero() || h.Body != nil {
		t.Fatalf("%+v, %v", h, err)
	}
}

func headApart(t *testing.T, s *bench) {
	for i, word := range []string{"one", "two"} {
		for seq := uint64(1); seq <= uint64(i)+2; seq++ {
			c := commit(seq)
			c.Device = deviceID(word)
			_, err := s.Commit(ctx, c)
			must(t, err)
		}
	}
	for i, word := range []string{"one", "two"} {
		h, err := s.Head(ctx, home, deviceID(word))
		if err != nil || h.Seq != uint64(i)+2 {
			t.Fatalf("%s: %+v, %v", word, h, err)
		}
	}
}

func versions(t *testing.T, s *bench) {
	var expect []storage.Version
	for seq := uint64(1); seq <= 5; seq++ {
		op := vault.OpPut
		if seq == 3 {
			op = vault.OpDelete
		}
		r := record(seq, "/", "/a", op)
		at, err := s.Commit(ctx, commit(seq, record(seq, "/", "/b", vault.OpPut), r))
		must(t, err)
		expect = append(expect, storage.Version{
			Path: pathID("/a"), Parent: pathID("/"), Op: op, Seq: seq, Time: at, Record: vault.Identify(r),
		})
	}
	// Twice in one commit: the later one is the newer one.
	first, second := record(6, "/", "/a", vault.OpDelete), record(6, "/", "/a", vault.OpPut)
	at, err := s.Commit(ctx, commit(6, first, second))
	must(t, err)
	expect = append(expect,
		storage.Version{Path: pathID("/a"), Parent: pathID("/"), Op: vault.OpDelete, Seq: 6, Time: at, Record: vault.Identify(first)},
		storage.Version{Path: pathID("/a"), Parent: pathID("/"), Op: vault.OpPut, Seq: 6, Time: at, Record: vault.Identify(second)})
	slices.Reverse(expect)
	if got := collect(t, s.Versions(ctx, home, mine, pathID("/a"))); !slices.Equal(got, expect) {
		t.Fatalf("got %+v\nwant %+v", got, expect)
	}
	if now := collect(t, s.Children(ctx, home, mine, pathID("/"), time.Time{})); len(now) != 2 || !slices.Contains(now, expect[0]) {
		t.Fatalf("children %+v", now)
	}
}

// show says which sequence number each child has.
func show(t testing.TB, s storage.Log, parent string, at time.Time) string {
	t.Helper()
	got := collect(t, s.Children(ctx, home, mine, pathID(parent), at))
	if !slices.IsSortedFunc(got, func(a, b storage.Version) int { return bytes.Compare(a.Path[:], b.Path[:]) }) {
		t.Fatal("children are not ordered by path id")
	}
	line := ""
	for _, word := range []string{"/a", "/b", "/c", "/d/x"} {
		for _, v := range got {
			if v.Path == pathID(word) {
				line += fmt.Sprintf("%s:%d:%d ", word, v.Seq, v.Op)
			}
		}
	}
	return line
}

func children(t *testing.T, s *bench) {
	at := []time.Time{{}}
	for i, records := range [][][]byte{
		{record(1, "/", "/a", vault.OpPut), record(1, "/", "/b", vault.OpPut)},
		{record(2, "/", "/a", vault.OpPut), record(2, "/d", "/d/x", vault.OpPut)},
		{record(3, "/", "/b", vault.OpDelete), record(3, "/", "/c", vault.OpOutOfScope)},
	} {
		stamp, err := s.Commit(ctx, commit(uint64(i)+1, records...))
		must(t, err)
		at = append(at, stamp)
	}
	for _, c := range []struct {
		name, parent string
		at           time.Time
		want         string
	}{
		{"before all", "/", at[1].Add(-1), ""},
		{"at the first", "/", at[1], "/a:1:1 /b:1:1 "},
		{"just before the second", "/", at[2].Add(-1), "/a:1:1 /b:1:1 "},
		{"at the second", "/", at[2], "/a:2:1 /b:1:1 "},
		{"at the third", "/", at[3], "/a:2:1 /b:3:2 /c:3:3 "},
		{"now", "/", time.Time{}, "/a:2:1 /b:3:2 /c:3:3 "},
		{"far ahead", "/", at[3].AddDate(2000, 0, 0), "/a:2:1 /b:3:2 /c:3:3 "},
		{"far back", "/", at[3].AddDate(-1500, 0, 0), ""},
		{"another folder", "/d", time.Time{}, "/d/x:2:1 "},
		{"another folder, before", "/d", at[1], ""},
		{"no folder", "/nowhere", time.Time{}, ""},
	} {
		if got := show(t, s, c.parent, c.at); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func childrenMoved(t *testing.T, s *bench) {
	first, err := s.Commit(ctx, commit(1, record(1, "/", "/a", vault.OpPut)))
	must(t, err)
	_, err = s.Commit(ctx, commit(2, record(2, "/d", "/a", vault.OpPut)))
	must(t, err)
	if got := show(t, s, "/", first) + "|" + show(t, s, "/", time.Time{}) + "|" + show(t, s, "/d", time.Time{}); got != "/a:1:1 ||/a:2:1 " {
		t.Fatal(got)
	}
}

func manyVersions(t *testing.T, s *bench) {
	const paths, rounds = 700, 3
	for seq := uint64(1); seq <= rounds; seq++ {
		var records [][]byte
		for i := range paths {
			records = append(records, record(seq, "/", fmt.Sprint("/", i), vault.OpPut))
		}
		_, err := s.Commit(ctx, commit(seq, records...))
		must(t, err)
	}
	for seq := uint64(rounds + 1); seq <= 600; seq++ {
		_, err := s.Commit(ctx, commit(seq, record(seq, "/", "/0", vault.OpPut)))
		must(t, err)
	}
	all := collect(t, s.Versions(ctx, home, mine, pathID("/0")))
	if len(all) != 600 {
		t.Fatalf("%d versions", len(all))
	}
	for i, v := range all {
		if v.Seq != uint64(600-i) {
			t.Fatalf("version %d has number %d", i, v.Seq)
		}
	}
	now := collect(t, s.Children(ctx, home, mine, pathID("/"), time.Time{}))
	if len(now) != paths {
		t.Fatalf("%d children", len(now))
	}
	for _, v := range now {
		if v.Seq != rounds && v.Path != pathID("/0") {
			t.Fatalf("child of number %d", v.Seq)
		}
	}
}

func key(word string) storage.Key { return storage.Key(vault.Identify([]byte(word))) }

func item(word string, rev uint64) storage.Item {
	return storage.Item{Kind: storage.KindV3Client, Key: key(word), Rev: rev, Body: fmt.Appendf(nil, "%s at %d", word, rev)}
}

func sameItem(t testing.TB, s storage.Registry, it storage.Item) {
	t.Helper()
	got, err := s.Lookup(ctx, it.Kind, it.Key)
	must(t, err)
	if got.Kind != it.Kind || got.Key != it.Key || got.Rev != it.Rev || !bytes.Equal(got.Body, it.Body) {
		t.Fatalf("got %+v, want %+v", got, it)
	}
}

func items(t *testing.T, s *bench) {
	_, err := s.Lookup(ctx, storage.KindV3Client, key("a"))
	want(t, err, storage.ErrNotFound)
	for rev := uint64(1); rev <= 3; rev++ {
		must(t, s.Set(ctx, item("a", rev)))
		sameItem(t, s, item("a", rev))
	}
	_, err = s.Lookup(ctx, storage.KindV3Name, key("a"))
	want(t, err, storage.ErrNotFound)
	must(t, s.Set(ctx, storage.Item{Kind: storage.KindV3Name, Key: key("a"), Rev: 1}))
	sameItem(t, s, storage.Item{Kind: storage.KindV3Name, Key: key("a"), Rev: 1})
}

func itemsAtomic(t *testing.T, s *bench) {
	must(t, s.Set(ctx, item("a", 1)))
	want(t, s.Set(ctx, item("b", 1), item("a", 1), item("c", 1)), storage.ErrConflict)
	for _, word := range []string{"b", "c"} {
		_, err := s.Lookup(ctx, storage.KindV3Client, key(word))
		want(t, err, storage.ErrNotFound)
	}
	must(t, s.Set(ctx, item("b", 1), item("a", 2), item("c", 1)))
	for _, it := range []storage.Item{item("b", 1), item("a", 2), item("c", 1)} {
		sameItem(t, s, it)
	}
}

func itemsConflict(t *testing.T, s *bench) {
	for _, rev := range []uint64{0, 2} {
		want(t, s.Set(ctx, item("a", rev)), storage.ErrConflict)
	}
	must(t, s.Set(ctx, item("a", 1)))
	for _, rev := range []uint64{0, 1, 3} {
		want(t, s.Set(ctx, item("a", rev)), storage.ErrConflict)
	}
	sameItem(t, s, item("a", 1))
}

func itemsRace(t *testing.T, s *bench) {
	for rev := uint64(1); rev <= 10; rev++ {
		winner := race(t, 8, func(i int) error {
			it := item("a", rev)
			it.Body = fmt.Append(nil, i)
			return s.Set(ctx, it, item(fmt.Sprint(i, "/", rev), 1))
		})
		it := item("a", rev)
		it.Body = fmt.Append(nil, winner)
		sameItem(t, s, it)
	}
	if n := len(collect(t, s.Items(ctx, storage.KindV3Client))); n != 11 {
		t.Fatalf("%d items", n)
	}
}

func itemBounds(t *testing.T, s *bench) {
	it := item("a", 1)
	it.Body = make([]byte, storage.MaxBody+1)
	want(t, s.Set(ctx, it), storage.ErrInvalid)
	want(t, s.Set(ctx, item("a", 1), item("a", 2)), storage.ErrInvalid)
	it.Body = it.Body[1:]
	must(t, s.Set(ctx, it))
	sameItem(t, s, it)
}

func itemsOrder(t *testing.T, s *bench) {
	var all []storage.Item
	for i := range 600 {
		all = append(all, item(fmt.Sprint(i), 1))
	}
	must(t, s.Set(ctx, all...))
	must(t, s.Set(ctx, storage.Item{Kind: storage.KindV3Name, Key: key("x"), Rev: 1}))
	slices.SortFunc(all, func(a, b storage.Item) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	got := collect(t, s.Items(ctx, storage.KindV3Client))
	if !slices.EqualFunc(got, all, func(a, b storage.Item) bool { return a.Key == b.Key && bytes.Equal(a.Body, b.Body) }) {
		t.Fatalf("%d items, not the %d set in order", len(got), len(all))
	}
}

func deleteFree(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	must(t, put(ctx, s, home, a, b))
	must(t, s.Delete(ctx, home, vault.Identify(a), vault.Identify(text("never stored")), vault.Identify(a)))
	lacks(t, s, home, a)
	holds(t, s, home, b)
	want(t, put(ctx, s, home, List("l", a)), storage.ErrMissingRef)
}

func deleteReferenced(t *testing.T, s *bench) {
	a, b, free := text("a"), text("b"), text("free")
	l := List("l", a)
	r := record(1, "/", "/b", vault.OpPut, b)
	must(t, put(ctx, s, home, a, b, free, l))
	_, err := s.Commit(ctx, commit(1, r))
	must(t, err)
	for name, o := range map[string][]byte{"by a list": a, "by a record": b, "by a commit": r} {
		if err := s.Delete(ctx, home, vault.Identify(free), vault.Identify(o)); !errors.Is(err, storage.ErrReferenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	holds(t, s, home, a, b, free, l, r)
}

func deleteTogether(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	l := List("l", a, b, a)
	top := List("top", l)
	must(t, put(ctx, s, home, a, b, l, top))
	must(t, s.Delete(ctx, home, identify([][]byte{a, l, top})...))
	lacks(t, s, home, a, l, top)
	holds(t, s, home, b)
}

func deleteReleases(t *testing.T, s *bench) {
	a := text("a")
	l1, l2 := List("1", a, a), List("2", a)
	must(t, put(ctx, s, home, a, l1, l2))
	must(t, s.Delete(ctx, home, vault.Identify(l1)))
	want(t, s.Delete(ctx, home, vault.Identify(a)), storage.ErrReferenced)
	must(t, s.Delete(ctx, home, vault.Identify(l2)))
	must(t, s.Delete(ctx, home, vault.Identify(a)))
	lacks(t, s, home, a, l1, l2)
}

func deleteBounds(t *testing.T, s *bench) {
	want(t, s.Delete(ctx, home, make([]vault.ObjectID, storage.MaxDelete+1)...), storage.ErrInvalid)
	must(t, s.Delete(ctx, home, make([]vault.ObjectID, storage.MaxDelete)...))
}

func deletePut(t *testing.T, s *bench) {
	a := text("a")
	l := List("l", a)
	for range 3 {
		must(t, put(ctx, s, home, a, l))
		must(t, s.Delete(ctx, home, vault.Identify(a), vault.Identify(l)))
	}
	must(t, put(ctx, s, home, a, l))
	holds(t, s, home, a, l)
	if !s.b.Volatile {
		s.reopen()
		holds(t, s, home, a, l)
	}
}

func stats(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	r1, r2 := record(1, "/", "/a", vault.OpPut, a), record(1, "/", "/b", vault.OpPut, b)
	r3, r4 := record(2, "/", "/a", vault.OpPut, b), record(2, "/", "/b", vault.OpDelete)
	must(t, put(ctx, s, home, a, b))
	must(t, put(ctx, s, vaultID("other"), a))
	_, err := s.Commit(ctx, commit(1, r1, r2))
	must(t, err)
	_, err = s.Commit(ctx, commit(2, r3, r4))
	must(t, err)
	extra := text("extra")
	must(t, put(ctx, s, home, extra))
	must(t, s.Delete(ctx, home, vault.Identify(extra)))
	expect := storage.Stats{Vaults: 2, Devices: 1, Paths: 2, Versions: 3, Objects: 7, BytesObjects: int64(len(a))}
	for _, o := range [][]byte{a, b, r1, r2, r3, r4} {
		expect.BytesObjects += int64(len(o))
	}
	for range 2 {
		got, err := s.Stats(ctx)
		must(t, err)
		if got.BytesStored < got.BytesObjects {
			t.Fatalf("%d bytes stored, objects alone %d", got.BytesStored, got.BytesObjects)
		}
		got.BytesStored = 0
		if got != expect {
			t.Fatalf("got %+v, want %+v", got, expect)
		}
		if s.b.Volatile {
			return
		}
		s.reopen()
	}
}

// calls are all the calls of a store, each returning its error.
func calls(ctx context.Context, s Store) map[string]error {
	a := text("a")
	ids := []vault.ObjectID{vault.Identify(a)}
	errs := map[string]error{"put": put(ctx, s, home, a), "set": s.Set(ctx, item("a", 1)), "delete": s.Delete(ctx, home, ids...)}
	_, errs["has"] = s.Has(ctx, home, ids)
	_, errs["commit"] = s.Commit(ctx, commit(1))
	_, errs["head"] = s.Head(ctx, home, mine)
	_, errs["lookup"] = s.Lookup(ctx, storage.KindV3Client, key("a"))
	_, errs["stats"] = s.Stats(ctx)
	for _, errs["get"] = range s.Get(ctx, home, ids) {
	}
	for _, errs["versions"] = range s.Versions(ctx, home, mine, pathID("/a")) {
	}
	for _, errs["children"] = range s.Children(ctx, home, mine, pathID("/"), time.Time{}) {
	}
	for _, errs["items"] = range s.Items(ctx, storage.KindV3Client) {
	}
	return errs
}

func cancelled(t *testing.T, s *bench) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	for name, err := range calls(ctx, s) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lacks(t, s, home, text("a"))
}

func closed(t *testing.T, s *bench) {
	must(t, s.Close())
	for name, err := range calls(ctx, s) {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, s.Close(), storage.ErrClosed)
}

func closeWaits(t *testing.T, s *bench) {
	var wg sync.WaitGroup
	var acked sync.Map
	started := make(chan struct{}, 8)
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				o := text("%d of %d", n, i)
				if err := put(ctx, s, home, o); err != nil {
					if !errors.Is(err, storage.ErrClosed) {
						t.Errorf("put: %v", err)
					}
					return
				}
				acked.Store(string(o), true)
				if n == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	must(t, s.Close())
	wg.Wait()
	if s.b.Volatile {
		return
	}
	s.open(s.dir, s.now)
	for o := range acked.Range {
		holds(t, s, home, []byte(o.(string)))
	}
}

func reopen(t *testing.T, s *bench) {
	if s.b.Volatile {
		t.Skip("this store keeps nothing")
	}
	a := text("a")
	r := record(1, "/", "/a", vault.OpPut, a)
	must(t, put(ctx, s, home, a))
	at, err := s.Commit(ctx, commit(1, r))
	must(t, err)
	must(t, s.Set(ctx, item("a", 1)))
	for range 3 {
		s.reopen()
		holds(t, s, home, a, r)
		sameItem(t, s, item("a", 1))
		h, err := s.Head(ctx, home, mine)
		if err != nil || h.Seq != 1 || !h.Time.Equal(at) || string(h.Body) != "body of commit 1" {
			t.Fatalf("head %+v, %v", h, err)
		}
		if got := show(t, s, "/", time.Time{}); got != "/a:1:1 " {
			t.Fatal(got)
		}
		want(t, s.Delete(ctx, home, vault.Identify(a)), storage.ErrReferenced)
	}
	_, err = s.Commit(ctx, commit(1))
	want(t, err, storage.ErrConflict)
	_, err = s.Commit(ctx, commit(2))
	must(t, err)
}

func reopenStamps(t *testing.T, s *bench) {
	if s.b.Volatile {
		t.Skip("this store keeps nothing")
	}
	first, err := s.Commit(ctx, commit(1))
	must(t, err)
	s.now = func() time.Time { return time.Unix(1, 0) }
	s.reopen()
	second, err := s.Commit(ctx, commit(2))
	must(t, err)
	if !second.After(first) {
		t.Fatalf("%v after %v", second, first)
	}
}

func concurrent(t *testing.T, s *bench) {
	var wg sync.WaitGroup
	var shared atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			dev := deviceID(fmt.Sprint(i))
			for seq := uint64(1); seq <= 15; seq++ {
				common, own := text("common %d", shared.Add(1)/4), text("%d of %d", seq, i)
				if err := put(ctx, s, home, common, own); err != nil {
					t.Error(err)
					return
				}
				r := Record(vault.RecordHeader{Device: dev, Seq: seq, Path: pathID("/a"), Parent: pathID("/"), Op: vault.OpPut}, common, own)
				c := storage.Commit{Vault: home, Device: dev, Seq: seq, Objects: [][]byte{r}, Records: identify([][]byte{r})}
				if _, err := s.Commit(ctx, c); err != nil {
					t.Error(err)
					return
				}
				free := text("free %d of %d", seq, i)
				if err := errors.Join(put(ctx, s, home, free), s.Delete(ctx, home, vault.Identify(free)), s.Set(ctx, item(fmt.Sprint(i), seq))); err != nil {
					t.Error(err)
					return
				}
				for range s.Get(ctx, home, identify([][]byte{common, free, own})) {
				}
				if n := len(collect(t, s.Versions(ctx, home, dev, pathID("/a")))); n != int(seq) {
					t.Errorf("%d versions after %d", n, seq)
				}
				if _, err := s.Stats(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(collect(t, s.Items(ctx, storage.KindV3Client))); n != 8 {
		t.Fatalf("%d items", n)
	}
}
