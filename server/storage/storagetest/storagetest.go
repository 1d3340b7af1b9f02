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
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
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
	// Damage changes given bytes, an object of the vault Home, where they are
	// stored last by the open or closed store of dir; nil when there is no way.
	Damage func(dir string, stored []byte) error
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

// rebuild opens the store again with nothing but what it cannot rebuild.
func (b *bench) rebuild() {
	b.Helper()
	if err := b.Close(); err != nil {
		b.Fatal("close:", err)
	}
	s, err := b.b.reopen(b.dir, b.now)
	if err != nil {
		b.Fatal("open again:", err)
	}
	b.Store = s
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

// Home is the vault of which objects are damaged.
func Home() vault.ID { return home }

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
	{"what get found damaged is absent until it is stored again", damagedAbsent},
	{"a commit that carries what was found damaged stores it anew", damagedCommit},
	{"what is not a put may refer to what was found damaged", damagedStated},
	{"what was found damaged counts its referrers once", damagedCounts},
	{"get can be left early", getEarly},
	{"commit stores objects, records and body together", commitWhole},
	{"commit takes records stored before", commitStoredRecords},
	{"commit refuses to follow what is not the head", commitConflict},
	{"commit may leave a gap", commitGap},
	{"of concurrent commits with one number one wins", commitRace},
	{"commit refuses records that are not stored", commitMissing},
	{"commit refuses records of another device, number or type", commitForeign},
	{"a refused commit stores none of its objects", commitRefusedWhole},
	{"commit keeps its bounds", commitBounds},
	{"stamps increase strictly whatever the clock does", stamps},
	{"commit refuses a digest that is not that of the state", commitDigest},
	{"the digest is that of the state after opening again", reopenDigest},
	{"a stamp is made of the stamp time, last of all, and kept", commitStamp},
	{"head of a device without commits is zero", headZero},
	{"heads of devices are apart", headApart},
	{"the commit at a time, inclusive", commitAt},
	{"commits of a range, ascending", commits},
	{"records of a commit, in its order", records},
	{"versions of a path, newest first", versions},
	{"children of a folder at a time", children},
	{"children follow a path to its new parent", childrenMoved},
	{"the state at a time", states},
	{"what is out of scope keeps what was in it", outOfScope},
	{"a verdict leaves the state as it is", verdicts},
	{"iterations show one moment", moment},
	{"many versions and children", manyVersions},
	{"set and lookup of items", items},
	{"set keeps all items or none", itemsAtomic},
	{"set refuses a revision that is not next", itemsConflict},
	{"of concurrent sets with one revision one wins", itemsRace},
	{"set keeps its bounds", itemBounds},
	{"items of a kind in the order of their keys", itemsOrder},
	{"items from a key on", itemsFrom},
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
		Vault: home, Device: mine, After: seq - 1, Seq: seq, Objects: records, Records: identify(records),
		Body:  fmt.Appendf(nil, "body of commit %d", seq),
		Stamp: func(time.Time) []byte { return fmt.Appendf(nil, "stamp of commit %d", seq) },
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
	_, _, err := s.Commit(ctx, c)
	want(t, err, storage.ErrMissingRef)
	must(t, s.Delete(ctx, other, vault.Identify(a)))
	must(t, put(ctx, s, other, a, l))
	must(t, s.Delete(ctx, home, vault.Identify(a)))
	lacks(t, s, home, a)
	holds(t, s, other, a, l)
	_, _, err = s.Commit(ctx, c)
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
		if _, _, err := s.Commit(ctx, c); !errors.Is(err, storage.ErrInvalid) {
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

// spoil damages an object and has that found.
func (b *bench) spoil(object []byte) {
	b.Helper()
	if b.b.Damage == nil {
		b.Skip("this store gives no way to damage it")
	}
	must(b, b.b.Damage(b.dir, object))
	id := vault.Identify(object)
	want(b, get(b, b, home, id).errs[id], storage.ErrCorrupt)
}

// absent fails unless the object counts as absent and as damaged.
func (b *bench) absent(object []byte) {
	b.Helper()
	id := vault.Identify(object)
	has, err := b.Has(ctx, home, []vault.ObjectID{id})
	must(b, err)
	if has[0] {
		b.Fatal("what was found damaged is said to be there")
	}
	want(b, get(b, b, home, id).errs[id], storage.ErrCorrupt)
}

func damagedAbsent(t *testing.T, s *bench) {
	a, bad := text("a"), Chunk(bytes.Repeat([]byte("bad"), 5000))
	must(t, put(ctx, s, home, a, bad))
	before, err := s.Stats(ctx)
	must(t, err)
	s.spoil(bad)
	for range 2 {
		s.absent(bad)
		holds(t, s, home, a)
		want(t, put(ctx, s, home, List("l", a, bad)), storage.ErrMissingRef)
		_, _, err := s.Commit(ctx, commit(1, record(1, "/", "/a", vault.OpPut, a, bad)))
		want(t, err, storage.ErrMissingRef)
		if !s.b.Volatile {
			s.reopen()
		}
	}
	for range 2 {
		must(t, put(ctx, s, home, bad, List("l", a, bad)))
		holds(t, s, home, a, bad, List("l", a, bad))
		if !s.b.Volatile {
			s.reopen()
		}
	}
	// Again: the new copy can come to harm as well.
	s.spoil(bad)
	s.absent(bad)
	c := commit(1, record(1, "/", "/a", vault.OpPut, a, bad))
	c.Objects = append([][]byte{bad}, c.Objects...)
	_, _, err = s.Commit(ctx, c)
	must(t, err)
	holds(t, s, home, bad)
	if after, err := s.Stats(ctx); err != nil || after.Objects != before.Objects+2 {
		t.Fatalf("%d objects, then %d, %v", before.Objects, after.Objects, err)
	}
}

func damagedCommit(t *testing.T, s *bench) {
	bad, r := Chunk(bytes.Repeat([]byte("bad"), 5000)), record(1, "/", "/a", vault.OpPut, text("other"))
	must(t, put(ctx, s, home, bad, text("other"), r))
	s.spoil(bad)
	s.spoil(r)
	c := storage.Commit{Vault: home, Device: mine, Seq: 1, Records: identify([][]byte{r})}
	_, _, err := s.Commit(ctx, c)
	want(t, err, storage.ErrMissingRef)
	c.Objects = [][]byte{bad, r}
	_, _, err = s.Commit(ctx, c)
	must(t, err)
	holds(t, s, home, bad, r)
}

func damagedStated(t *testing.T, s *bench) {
	r := record(1, "/", "/a", vault.OpPut)
	_, _, err := s.Commit(ctx, commit(1, r))
	must(t, err)
	s.spoil(r)
	never := record(1, "/", "/never", vault.OpPut)
	_, _, err = s.Commit(ctx, commit(2, record(2, "/", "/a", vault.OpOutOfScope, never)))
	want(t, err, storage.ErrMissingRef)
	_, _, err = s.Commit(ctx, commit(2, record(2, "/", "/a", vault.OpOutOfScope, r)))
	must(t, err)
	s.absent(r)
	must(t, put(ctx, s, home, r))
	want(t, s.Delete(ctx, home, vault.Identify(r)), storage.ErrReferenced)
}

func damagedCounts(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	l := List("list of two", a, b)
	must(t, put(ctx, s, home, a, b, l))
	s.spoil(l)
	must(t, s.Delete(ctx, home, vault.Identify(text("never stored"))))
	want(t, s.Delete(ctx, home, vault.Identify(a)), storage.ErrReferenced)
	for range 2 {
		must(t, put(ctx, s, home, l))
	}
	must(t, s.Delete(ctx, home, vault.Identify(l)))
	must(t, s.Delete(ctx, home, identify([][]byte{a, b})...))
	lacks(t, s, home, a, b, l)
	// What is damaged and not referred to can go.
	must(t, put(ctx, s, home, a))
	s.spoil(a)
	must(t, s.Delete(ctx, home, vault.Identify(a)))
	lacks(t, s, home, a)
}

func getEarly(t *testing.T, s *bench) {
	a, b := text("a"), text("b")
	must(t, put(ctx, s, home, a, b))
	for range s.Get(ctx, home, identify([][]byte{a, b})) {
		break
	}
	for range s.Items(ctx, storage.KindV3Name, storage.Key{}) {
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
	at, _, err := s.Commit(ctx, c)
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
	empty.Body, empty.Stamp = nil, nil
	_, _, err = s.Commit(ctx, empty)
	must(t, err)
	if h, err = s.Head(ctx, home, mine); err != nil || h.Seq != 2 || len(h.Body) != 0 || len(h.Stamp) != 0 {
		t.Fatalf("head of an empty commit %+v, %v", h, err)
	}
}

// follow returns a commit that follows the one numbered after.
func follow(after, seq uint64, records ...[]byte) storage.Commit {
	c := commit(seq, records...)
	c.After = after
	return c
}

func commitGap(t *testing.T, s *bench) {
	for _, c := range []storage.Commit{
		follow(0, 3, record(3, "/", "/a", vault.OpPut)),
		follow(3, 1000),
		follow(1000, math.MaxInt64-1, record(math.MaxInt64-1, "/", "/b", vault.OpPut)),
	} {
		_, _, err := s.Commit(ctx, follow(c.After+1, c.After+2))
		want(t, err, storage.ErrConflict)
		_, _, err = s.Commit(ctx, c)
		must(t, err)
		if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != c.Seq {
			t.Fatalf("head %+v, %v", h, err)
		}
	}
	for range 2 {
		if got := seqs(t, s.Commits(ctx, home, mine, 0, math.MaxUint64)); !slices.Equal(got, []uint64{3, 1000, math.MaxInt64 - 1}) {
			t.Fatal(got)
		}
		if got := show(t, s, "/", time.Time{}); got != fmt.Sprintf("/a:3:1 /b:%d:1 ", math.MaxInt64-1) {
			t.Fatal(got)
		}
		if s.b.Volatile {
			return
		}
		s.rebuild()
	}
}

// digested returns c with the digest of the state that records make up, named by
// the objects themselves.
func digested(c storage.Commit, state ...[]byte) storage.Commit {
	var d vault.Digest
	for _, o := range state {
		if h, _, err := vault.ParseHeader(o); err == nil && h.Record != nil {
			d.Add(h.Record.Path, h.Record.Parent, vault.Identify(o))
			continue
		}
		d.Add(vault.PathID{}, vault.PathID{}, vault.Identify(o))
	}
	sum := d.Sum()
	c.Digest = &sum
	return c
}

func commitDigest(t *testing.T, s *bench) {
	a1, b1 := record(1, "/", "/a", vault.OpPut), record(1, "/", "/b", vault.OpPut)
	a2, c2 := record(2, "/", "/a", vault.OpPut), record(2, "/", "/c", vault.OpDelete)
	a5, b5 := record(5, "/", "/a", vault.OpDelete), record(5, "/", "/b", vault.OpOutOfScope, b1)
	b6 := record(6, "/", "/b", vault.OpPut)
	a7, b7 := record(7, "/", "/a", vault.OpValid), record(7, "/", "/b", vault.OpVoid)
	b9 := record(9, "/", "/b", vault.OpDelete)
	for _, step := range []struct {
		after   uint64
		records [][]byte
		state   [][]byte
	}{
		{0, [][]byte{a1, b1}, [][]byte{b1, a1}},
		{1, [][]byte{a2, c2}, [][]byte{a2, b1}},
		{2, nil, [][]byte{a2, b1}},
		{3, [][]byte{a5, b5}, [][]byte{b5}}, // over a gap
		{5, [][]byte{b6}, [][]byte{b6}},
		{6, [][]byte{a7, b7}, [][]byte{b6}},
		{7, nil, nil}, // not compared
		{8, [][]byte{b9}, nil},
	} {
		seq := step.after + 1
		if len(step.records) > 0 {
			h, _, err := vault.ParseHeader(step.records[0])
			must(t, err)
			seq = h.Record.Seq
		}
		c := follow(step.after, seq, step.records...)
		extra := text("with commit %d", seq)
		c.Objects = append([][]byte{extra}, c.Objects...)
		if seq != 8 {
			for name, wrong := range map[string][][]byte{
				"one more":    append(slices.Clone(step.state), text("more")),
				"one less":    step.state[:max(0, len(step.state)-1)],
				"without all": nil,
				"before":      {a1, b1, c2},
			} {
				if slices.EqualFunc(wrong, step.state, bytes.Equal) {
					continue
				}
				if _, _, err := s.Commit(ctx, digested(c, wrong...)); !errors.Is(err, storage.ErrDigest) {
					t.Fatalf("commit %d, %s: %v", seq, name, err)
				}
				lacks(t, s, home, c.Objects...)
				if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != step.after {
					t.Fatalf("head after a refusal %+v, %v", h, err)
				}
			}
			c = digested(c, step.state...)
		}
		if _, _, err := s.Commit(ctx, c); err != nil {
			t.Fatalf("commit %d: %v", seq, err)
		}
	}
	other := digested(commit(1))
	other.Vault = vaultID("other")
	_, _, err := s.Commit(ctx, other) // the empty state
	must(t, err)
}

func reopenDigest(t *testing.T, s *bench) {
	if s.b.Volatile {
		t.Skip("this store keeps nothing")
	}
	a, b := record(1, "/", "/a", vault.OpPut), record(1, "/", "/b", vault.OpPut)
	_, _, err := s.Commit(ctx, commit(1, a, b))
	must(t, err)
	b2 := record(2, "/", "/b", vault.OpDelete)
	_, _, err = s.Commit(ctx, commit(2, b2, record(2, "/", "/c", vault.OpDelete)))
	must(t, err)
	for seq, again := range []func(){func() {}, s.reopen, s.rebuild, s.rebuild} {
		again()
		_, _, err = s.Commit(ctx, digested(commit(uint64(seq)+3), a, b2))
		want(t, err, storage.ErrDigest)
		_, _, err = s.Commit(ctx, digested(commit(uint64(seq)+3), a))
		must(t, err)
	}
}

func commitStamp(t *testing.T, s *bench) {
	var made time.Time
	stamped := func(c storage.Commit) storage.Commit {
		c.Stamp = func(at time.Time) []byte { made = at; return fmt.Append(nil, at.UnixNano(), " of ", c.Seq) }
		return c
	}
	for name, c := range map[string]storage.Commit{
		"conflict":    follow(3, 4),
		"missing ref": commit(1, record(1, "/", "/a", vault.OpPut, text("missing"))),
		"path twice":  commit(1, record(1, "/", "/a", vault.OpPut), record(1, "/", "/a", vault.OpDelete)),
		"bounds":      follow(1, 1),
		"digest":      digested(commit(1), text("not in the state")),
	} {
		if _, _, err := s.Commit(ctx, stamped(c)); err == nil || !made.IsZero() {
			t.Errorf("%s: %v, stamp made for %v", name, err, made)
		}
	}
	type stamp struct {
		at   time.Time
		text string
	}
	var expect []stamp
	for seq := uint64(1); seq <= 3; seq++ {
		at, text, err := s.Commit(ctx, stamped(commit(seq)))
		must(t, err)
		if !at.Equal(made) || string(text) != fmt.Sprint(at.UnixNano(), " of ", seq) {
			t.Fatalf("stamp %q of %v, made for %v", text, at, made)
		}
		expect = append(expect, stamp{at, string(text)})
	}
	for range 2 {
		var got []stamp
		for _, h := range collect(t, s.Commits(ctx, home, mine, 1, 3)) {
			got = append(got, stamp{h.Time, string(h.Stamp)})
		}
		h, err := s.Head(ctx, home, mine)
		must(t, err)
		if !slices.Equal(got, expect) || string(h.Stamp) != expect[2].text {
			t.Fatalf("got %+v, head %q; want %+v", got, h.Stamp, expect)
		}
		if s.b.Volatile {
			return
		}
		s.rebuild()
	}
}

func commitStoredRecords(t *testing.T, s *bench) {
	a, r1, r2 := text("a"), record(1, "/", "/a", vault.OpDelete), record(1, "/", "/b", vault.OpDelete)
	must(t, put(ctx, s, home, a, r1))
	c := commit(1, r1, r2)
	c.Objects = [][]byte{r2}
	_, _, err := s.Commit(ctx, c)
	must(t, err)
	if n := len(collect(t, s.Children(ctx, home, mine, pathID("/"), time.Time{}))); n != 2 {
		t.Fatalf("%d children", n)
	}
}

func commitConflict(t *testing.T, s *bench) {
	for _, seq := range []uint64{2, 3, 1 << 40} {
		_, _, err := s.Commit(ctx, commit(seq))
		want(t, err, storage.ErrConflict)
	}
	for _, seq := range []uint64{1, 2} {
		_, _, err := s.Commit(ctx, commit(seq))
		must(t, err)
	}
	for _, seq := range []uint64{1, 2, 4} {
		_, _, err := s.Commit(ctx, commit(seq))
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
			_, _, err := s.Commit(ctx, c)
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
	_, _, err := s.Commit(ctx, c)
	want(t, err, storage.ErrMissingRef)
	_, _, err = s.Commit(ctx, commit(1, record(1, "/", "/a", vault.OpPut, text("missing"))))
	want(t, err, storage.ErrMissingRef)
}

func commitForeign(t *testing.T, s *bench) {
	for name, o := range map[string][]byte{
		"number": record(2, "/", "/a", vault.OpDelete),
		"device": Record(vault.RecordHeader{Device: deviceID("other"), Seq: 1, Op: vault.OpDelete}),
		"type":   text("a"),
	} {
		_, _, err := s.Commit(ctx, commit(1, o))
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, put(ctx, s, home, o))
		c := commit(1, o)
		c.Objects = nil
		if _, _, err = s.Commit(ctx, c); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s, stored before: %v", name, err)
		}
	}
}

func commitRefusedWhole(t *testing.T, s *bench) {
	a, r := text("a"), record(1, "/", "/a", vault.OpDelete)
	bad := commit(1, r, record(7, "/", "/b", vault.OpDelete))
	bad.Objects = append([][]byte{a}, bad.Objects...)
	_, _, err := s.Commit(ctx, bad)
	want(t, err, storage.ErrInvalid)
	late := commit(2, record(2, "/", "/c", vault.OpDelete))
	_, _, err = s.Commit(ctx, late)
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
	_, _, err := s.Commit(ctx, c)
	want(t, err, storage.ErrInvalid)

	r := record(1, "/", "/a", vault.OpPut)
	_, _, err = s.Commit(ctx, commit(1, r, r))
	want(t, err, storage.ErrInvalid)
	_, _, err = s.Commit(ctx, commit(1, r, record(1, "/", "/b", vault.OpPut), record(1, "/", "/a", vault.OpDelete)))
	want(t, err, storage.ErrInvalid)

	for _, n := range [][2]uint64{{0, 0}, {1, 1}, {2, 1}, {0, math.MaxInt64}, {math.MaxUint64, 0}, {0, math.MaxUint64}} {
		_, _, err = s.Commit(ctx, follow(n[0], n[1]))
		want(t, err, storage.ErrInvalid)
	}

	c = commit(1)
	c.Stamp = func(time.Time) []byte { return make([]byte, storage.MaxStamp+1) }
	_, _, err = s.Commit(ctx, c)
	want(t, err, storage.ErrInvalid)

	var records [][]byte
	for i := range storage.MaxRecords + 1 {
		records = append(records, record(1, "/", fmt.Sprint("/", i), vault.OpPut))
	}
	_, _, err = s.Commit(ctx, commit(1, records...))
	want(t, err, storage.ErrInvalid)

	c = commit(1, records[1:]...)
	c.Body = bytes.Repeat([]byte("b"), storage.MaxBody)
	stamp := bytes.Repeat([]byte("s"), storage.MaxStamp)
	c.Stamp = func(time.Time) []byte { return stamp }
	_, _, err = s.Commit(ctx, c)
	must(t, err)
	h, err := s.Head(ctx, home, mine)
	if err != nil || !bytes.Equal(h.Body, c.Body) || !bytes.Equal(h.Stamp, stamp) {
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
		at, _, err := s.Commit(ctx, c)
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
			_, _, err := s.Commit(ctx, c)
			must(t, err)
		}
	}
	var expect []storage.DeviceHead
	for i, word := range []string{"one", "two"} {
		h, err := s.Head(ctx, home, deviceID(word))
		if err != nil || h.Seq != uint64(i)+2 {
			t.Fatalf("%s: %+v, %v", word, h, err)
		}
		expect = append(expect, storage.DeviceHead{Device: deviceID(word), Seq: h.Seq, Time: h.Time})
	}
	slices.SortFunc(expect, func(a, b storage.DeviceHead) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	if got := collect(t, s.Devices(ctx, home)); !slices.Equal(got, expect) {
		t.Fatalf("devices %+v, want %+v", got, expect)
	}
	if got := collect(t, s.Devices(ctx, vaultID("other"))); len(got) != 0 {
		t.Fatalf("devices of another vault: %+v", got)
	}
}

// seqs returns the numbers of commits.
func seqs(t testing.TB, commits iter.Seq2[storage.Head, error]) (all []uint64) {
	t.Helper()
	for _, h := range collect(t, commits) {
		all = append(all, h.Seq)
	}
	return all
}

func commitAt(t *testing.T, s *bench) {
	var at []time.Time
	for _, n := range [][2]uint64{{0, 1}, {1, 2}, {2, 9}} {
		stamp, _, err := s.Commit(ctx, follow(n[0], n[1]))
		must(t, err)
		at = append(at, stamp)
		other := commit(n[1])
		other.Vault, other.After = vaultID("other"), n[0]
		_, _, err = s.Commit(ctx, other)
		must(t, err)
	}
	for _, c := range []struct {
		name string
		at   time.Time
		want uint64
	}{
		{"before all", at[0].Add(-1), 0},
		{"at the first", at[0], 1},
		{"just before the second", at[1].Add(-1), 1},
		{"at the second", at[1], 2},
		{"just behind the second", at[1].Add(1), 2},
		{"at the third", at[2], 9},
		{"now", time.Time{}, 9},
		{"far ahead", at[2].AddDate(2000, 0, 0), 9},
		{"far back", at[0].AddDate(-500, 0, 0), 0},
	} {
		h, err := s.CommitAt(ctx, home, mine, c.at)
		must(t, err)
		body := ""
		if c.want != 0 {
			body = fmt.Sprint("body of commit ", c.want)
		}
		if h.Seq != c.want || string(h.Body) != body {
			t.Errorf("%s: %d %q, want %d", c.name, h.Seq, h.Body, c.want)
		}
	}
	if h, err := s.CommitAt(ctx, home, deviceID("other"), at[2]); err != nil || h.Seq != 0 {
		t.Errorf("another device: %+v, %v", h, err)
	}
}

func commits(t *testing.T, s *bench) {
	const n = 600
	var all []uint64
	after := uint64(0)
	for i := range uint64(n) {
		seq := i + 1 + i/50 // now and then a number is left out
		_, _, err := s.Commit(ctx, follow(after, seq))
		must(t, err)
		all, after = append(all, seq), seq
	}
	for _, c := range []struct {
		name        string
		first, last uint64
	}{
		{"all", 0, math.MaxUint64},
		{"one", 1, 1},
		{"none", 51, 51},
		{"empty", 9, 8},
		{"behind the last", after + 1, math.MaxUint64},
		{"far behind", math.MaxUint64, math.MaxUint64},
		{"the last", after, after},
		{"some", 200, 560},
	} {
		var expect []uint64
		for _, seq := range all {
			if seq >= c.first && seq <= c.last {
				expect = append(expect, seq)
			}
		}
		if got := seqs(t, s.Commits(ctx, home, mine, c.first, c.last)); !slices.Equal(got, expect) {
			t.Errorf("%s: %v, want %v", c.name, got, expect)
		}
	}
	for h, err := range s.Commits(ctx, home, mine, 7, 9) {
		must(t, err)
		if string(h.Body) != fmt.Sprint("body of commit ", h.Seq) || string(h.Stamp) != fmt.Sprint("stamp of commit ", h.Seq) || h.Time.IsZero() {
			t.Fatalf("%+v", h)
		}
	}
}

func records(t *testing.T, s *bench) {
	var objects [][]byte
	var expect []storage.Version
	for i := range 600 {
		path, op := fmt.Sprint("/", i), []vault.Op{vault.OpPut, vault.OpDelete}[i%2]
		r := record(5, "/", path, op)
		objects = append(objects, r)
		expect = append(expect, storage.Version{Path: pathID(path), Parent: pathID("/"), Op: op, Seq: 5, Record: vault.Identify(r)})
	}
	_, _, err := s.Commit(ctx, commit(1, record(1, "/", "/0", vault.OpPut)))
	must(t, err)
	at, _, err := s.Commit(ctx, follow(1, 5, objects...))
	must(t, err)
	_, _, err = s.Commit(ctx, commit(6))
	must(t, err)
	for i := range expect {
		expect[i].Time = at
	}
	if got := collect(t, s.Records(ctx, home, mine, 5)); !slices.Equal(got, expect) {
		t.Fatalf("%d records, not the commit's", len(got))
	}
	if got := collect(t, s.Records(ctx, home, mine, 6)); len(got) != 0 {
		t.Fatalf("records of an empty commit: %+v", got)
	}
	for _, seq := range []uint64{0, 2, 7, math.MaxInt64, math.MaxUint64} {
		n := 0
		for _, err := range s.Records(ctx, home, mine, seq) {
			want(t, err, storage.ErrNotFound)
			n++
		}
		if n != 1 {
			t.Fatalf("commit %d, which is none: %d steps", seq, n)
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
		at, _, err := s.Commit(ctx, commit(seq, record(seq, "/", "/b", vault.OpPut), r))
		must(t, err)
		expect = append(expect, storage.Version{
			Path: pathID("/a"), Parent: pathID("/"), Op: op, Seq: seq, Time: at, Record: vault.Identify(r),
		})
	}
	slices.Reverse(expect)
	if got := collect(t, s.Versions(ctx, home, mine, pathID("/a"))); !slices.Equal(got, expect) {
		t.Fatalf("got %+v\nwant %+v", got, expect)
	}
	if now := collect(t, s.Children(ctx, home, mine, pathID("/"), time.Time{})); len(now) != 2 || !slices.Contains(now, expect[0]) {
		t.Fatalf("children %+v", now)
	}
}

// show says which sequence number and operation each child has.
func show(t testing.TB, s storage.History, parent string, at time.Time) string {
	t.Helper()
	return line(t, s.Children(ctx, home, mine, pathID(parent), at))
}

// line says which sequence number and operation each version has, and fails unless
// they are ordered by path id.
func line(t testing.TB, versions iter.Seq2[storage.Version, error]) string {
	t.Helper()
	got := collect(t, versions)
	if !slices.IsSortedFunc(got, func(a, b storage.Version) int { return bytes.Compare(a.Path[:], b.Path[:]) }) {
		t.Fatal("not ordered by path id")
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
		stamp, _, err := s.Commit(ctx, commit(uint64(i)+1, records...))
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
		{"far back", "/", at[3].AddDate(-500, 0, 0), ""},
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
	first, _, err := s.Commit(ctx, commit(1, record(1, "/", "/a", vault.OpPut)))
	must(t, err)
	_, _, err = s.Commit(ctx, commit(2, record(2, "/d", "/a", vault.OpPut)))
	must(t, err)
	if got := show(t, s, "/", first) + "|" + show(t, s, "/", time.Time{}) + "|" + show(t, s, "/d", time.Time{}); got != "/a:1:1 ||/a:2:1 " {
		t.Fatal(got)
	}
}

func states(t *testing.T, s *bench) {
	at := []time.Time{{}}
	for i, records := range [][][]byte{
		{record(1, "/", "/a", vault.OpPut), record(1, "/", "/b", vault.OpPut)},
		{record(2, "/", "/a", vault.OpPut), record(2, "/d", "/d/x", vault.OpPut)},
		{record(3, "/", "/b", vault.OpDelete), record(3, "/", "/c", vault.OpPut), record(3, "/d", "/d/x", vault.OpOutOfScope)},
		{record(4, "/", "/b", vault.OpPut), record(4, "/", "/c", vault.OpDelete)},
	} {
		stamp, _, err := s.Commit(ctx, commit(uint64(i)+1, records...))
		must(t, err)
		at = append(at, stamp)
	}
	for range 2 {
		for _, c := range []struct {
			name string
			at   time.Time
			want string
		}{
			{"before all", at[1].Add(-1), ""},
			{"at the first", at[1], "/a:1:1 /b:1:1 "},
			{"just before the second", at[2].Add(-1), "/a:1:1 /b:1:1 "},
			{"at the second", at[2], "/a:2:1 /b:1:1 /d/x:2:1 "},
			{"at the third", at[3], "/a:2:1 /c:3:1 /d/x:3:3 "},
			{"at the fourth", at[4], "/a:2:1 /b:4:1 /d/x:3:3 "},
			{"now", time.Time{}, "/a:2:1 /b:4:1 /d/x:3:3 "},
			{"far ahead", at[4].AddDate(2000, 0, 0), "/a:2:1 /b:4:1 /d/x:3:3 "},
			{"far back", at[1].AddDate(-500, 0, 0), ""},
		} {
			if got := line(t, s.State(ctx, home, mine, c.at)); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
		if got := collect(t, s.State(ctx, home, deviceID("other"), time.Time{})); len(got) != 0 {
			t.Errorf("another device: %+v", got)
		}
		if s.b.Volatile {
			return
		}
		s.rebuild()
	}
}

func outOfScope(t *testing.T, s *bench) {
	a := text("a")
	put := record(1, "/", "/a", vault.OpPut, a)
	c := commit(1, put)
	c.Objects = [][]byte{a, put}
	_, _, err := s.Commit(ctx, c)
	must(t, err)
	_, _, err = s.Commit(ctx, commit(2, record(2, "/", "/a", vault.OpOutOfScope, text("no record"))))
	want(t, err, storage.ErrMissingRef)
	out := record(2, "/", "/a", vault.OpOutOfScope, put)
	_, _, err = s.Commit(ctx, commit(2, out))
	must(t, err)
	state := collect(t, s.State(ctx, home, mine, time.Time{}))
	if len(state) != 1 || state[0].Record != vault.Identify(out) {
		t.Fatalf("state %+v", state)
	}
	want(t, s.Delete(ctx, home, vault.Identify(put), vault.Identify(a)), storage.ErrReferenced)
	holds(t, s, home, a, put, out)
}

func verdicts(t *testing.T, s *bench) {
	for i, op := range []vault.Op{vault.OpPut, vault.OpValid, vault.OpVoid, vault.OpDelete, vault.OpValid, vault.OpPut} {
		seq := uint64(i) + 1
		_, _, err := s.Commit(ctx, commit(seq, record(seq, "/", "/a", op)))
		must(t, err)
		expect := []string{"/a:1:1 ", "/a:1:1 ", "/a:1:1 ", "", "", "/a:6:1 "}[i]
		if got := line(t, s.State(ctx, home, mine, time.Time{})); got != expect {
			t.Errorf("after operation %d: %q, want %q", op, got, expect)
		}
		if got := show(t, s, "/", time.Time{}); got != fmt.Sprintf("/a:%d:%d ", seq, op) {
			t.Errorf("after operation %d: child %q", op, got)
		}
	}
}

func moment(t *testing.T, s *bench) {
	const n = 600
	next := func(seq uint64) {
		var records [][]byte
		for i := range n {
			records = append(records, record(seq, "/", fmt.Sprint("/", i), vault.OpPut))
		}
		_, _, err := s.Commit(ctx, commit(seq, records...))
		must(t, err)
	}
	children := s.Children(ctx, home, mine, pathID("/"), time.Time{})
	state := s.State(ctx, home, mine, time.Time{})
	next(1)
	for i, versions := range []iter.Seq2[storage.Version, error]{children, state, children} {
		now, count := uint64(i)+1, 0
		for v, err := range versions {
			must(t, err)
			if count == 0 {
				next(now + 1)
			}
			if count++; v.Seq != now {
				t.Fatalf("iteration %d shows number %d", i, v.Seq)
			}
		}
		if count != n {
			t.Fatalf("iteration %d: %d versions", i, count)
		}
	}
}

func manyVersions(t *testing.T, s *bench) {
	const paths, rounds = 700, 3
	for seq := uint64(1); seq <= rounds; seq++ {
		var records [][]byte
		for i := range paths {
			records = append(records, record(seq, "/", fmt.Sprint("/", i), vault.OpPut))
		}
		_, _, err := s.Commit(ctx, commit(seq, records...))
		must(t, err)
	}
	for seq := uint64(rounds + 1); seq <= 600; seq++ {
		_, _, err := s.Commit(ctx, commit(seq, record(seq, "/", "/0", vault.OpPut)))
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
	if state := collect(t, s.State(ctx, home, mine, time.Time{})); !slices.Equal(state, now) {
		t.Fatalf("a state of %d, not the children", len(state))
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
	if n := len(collect(t, s.Items(ctx, storage.KindV3Client, storage.Key{}))); n != 11 {
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
	got := collect(t, s.Items(ctx, storage.KindV3Client, storage.Key{}))
	if !slices.EqualFunc(got, all, func(a, b storage.Item) bool { return a.Key == b.Key && bytes.Equal(a.Body, b.Body) }) {
		t.Fatalf("%d items, not the %d set in order", len(got), len(all))
	}
}

func itemsFrom(t *testing.T, s *bench) {
	// Entries of three logs, each by log and number, as those of members are.
	const n = 300
	member := func(log, number int) (k storage.Key) {
		k[0] = byte(log)
		binary.BigEndian.PutUint64(k[24:], uint64(number))
		return k
	}
	for log := 1; log <= 3; log++ {
		var all []storage.Item
		for i := range n {
			all = append(all, storage.Item{Kind: storage.KindMember, Key: member(log, i), Rev: 1, Body: fmt.Append(nil, log, i)})
		}
		must(t, s.Set(ctx, all...))
	}
	for _, c := range []struct {
		name string
		from storage.Key
		want int
	}{
		{"all", storage.Key{}, 3 * n},
		{"the second log", member(2, 0), 2 * n},
		{"within the second log", member(2, 257), 2*n - 257},
		{"behind the second log", member(2, n), n},
		{"the last", member(3, n-1), 1},
		{"behind the last", member(3, n), 0},
	} {
		got := collect(t, s.Items(ctx, storage.KindMember, c.from))
		if len(got) != c.want || len(got) > 0 && bytes.Compare(got[0].Key[:], c.from[:]) < 0 {
			t.Errorf("%s: %d items, want %d", c.name, len(got), c.want)
		}
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
	_, _, err := s.Commit(ctx, commit(1, r))
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
	_, _, err := s.Commit(ctx, commit(1, r1, r2))
	must(t, err)
	_, _, err = s.Commit(ctx, commit(2, r3, r4))
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
	_, _, errs["commit"] = s.Commit(ctx, commit(1))
	_, errs["head"] = s.Head(ctx, home, mine)
	_, errs["lookup"] = s.Lookup(ctx, storage.KindV3Client, key("a"))
	_, errs["stats"] = s.Stats(ctx)
	for _, errs["get"] = range s.Get(ctx, home, ids) {
	}
	_, errs["commit at"] = s.CommitAt(ctx, home, mine, time.Now())
	for _, errs["commits"] = range s.Commits(ctx, home, mine, 0, 1) {
	}
	for _, errs["devices"] = range s.Devices(ctx, home) {
	}
	for _, errs["records"] = range s.Records(ctx, home, mine, 1) {
	}
	for _, errs["state"] = range s.State(ctx, home, mine, time.Time{}) {
	}
	for _, errs["versions"] = range s.Versions(ctx, home, mine, pathID("/a")) {
	}
	for _, errs["children"] = range s.Children(ctx, home, mine, pathID("/"), time.Time{}) {
	}
	for _, errs["items"] = range s.Items(ctx, storage.KindV3Client, storage.Key{}) {
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
	at, _, err := s.Commit(ctx, commit(1, r))
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
	_, _, err = s.Commit(ctx, commit(1))
	want(t, err, storage.ErrConflict)
	_, _, err = s.Commit(ctx, commit(2))
	must(t, err)
}

func reopenStamps(t *testing.T, s *bench) {
	if s.b.Volatile {
		t.Skip("this store keeps nothing")
	}
	first, _, err := s.Commit(ctx, commit(1))
	must(t, err)
	s.now = func() time.Time { return time.Unix(1, 0) }
	s.reopen()
	second, _, err := s.Commit(ctx, commit(2))
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
				c := storage.Commit{Vault: home, Device: dev, After: seq - 1, Seq: seq, Objects: [][]byte{r}, Records: identify([][]byte{r})}
				if _, _, err := s.Commit(ctx, c); err != nil {
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
	if n := len(collect(t, s.Items(ctx, storage.KindV3Client, storage.Key{}))); n != 8 {
		t.Fatalf("%d items", n)
	}
}
