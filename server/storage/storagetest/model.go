package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

// RunModel runs random histories of n changes, each made by a seed, against a
// store and against package memory, and compares answers and states.
func RunModel(t *testing.T, b Backend, n int, seeds ...uint64) {
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, b, n, seed)
		})
	}
}

// gambler makes random changes to a world.
type gambler struct {
	*rand.Rand
	w     *world
	model *memory.Store
}

func runModel(t *testing.T, b Backend, n int, seed uint64) {
	clock := time.Unix(1_700_000_000, 0)
	now := func() time.Time { return clock }
	dir := t.TempDir()
	s, err := b.Open(dir, now)
	must(t, err)
	g := &gambler{rand.New(rand.NewPCG(seed, 0)), newWorld(seed), memory.New(now)}
	for i := range n {
		clock = clock.Add(time.Duration(g.IntN(2000)-500) * time.Millisecond)
		name, change := g.change()
		err, modelErr := change(s), change(g.model)
		if !sameError(err, modelErr) {
			t.Fatalf("change %d, %s: %v; the model says %v", i, name, err, modelErr)
		}
		ways := 40
		switch way := g.IntN(ways); {
		case way == 0 || i == n-1:
			must(t, s.Close())
			s, err = b.Open(dir, now)
			must(t, err)
		case way == 1:
			must(t, s.Close())
			s, err = b.reopen(dir, now)
			must(t, err)
			must(t, errors.Join(g.w.confirm(s), g.w.confirm(g.model)))
		case way > 3:
			continue
		}
		got, err := g.w.dump(s, true)
		must(t, err)
		expect, err := g.w.dump(g.model, true)
		must(t, err)
		if got != expect {
			t.Fatalf("after change %d, %s, found:\n%s\nthe model:\n%s", i, name, got, expect)
		}
	}
	must(t, s.Close())
}

func sameError(a, b error) bool {
	for _, target := range []error{
		storage.ErrInvalid, storage.ErrMissingRef, storage.ErrConflict, storage.ErrDigest, storage.ErrReferenced,
	} {
		if errors.Is(a, target) != errors.Is(b, target) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}

func newWorld(seed uint64) *world {
	w := &world{
		vaults:  []vault.ID{home, vaultID("other")},
		devices: []vault.DeviceID{mine, deviceID("other")},
		kinds:   []storage.Kind{storage.KindV3Client, storage.KindV3Name},
	}
	for i := range 4 {
		w.parents = append(w.parents, pathID(fmt.Sprint("/", i)))
	}
	for i := range 12 {
		w.paths = append(w.paths, pathID(fmt.Sprint("/x/", i)))
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range 40 {
		o := text("%d: %0*d", i, r.IntN(3000), 0)
		if i >= 20 {
			var refs [][]byte
			for range r.IntN(4) {
				refs = append(refs, w.objects[r.IntN(i)])
			}
			o = List(fmt.Sprint(i), refs...)
		}
		w.objects = append(w.objects, o)
	}
	return w
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// some returns up to n objects, which may repeat.
func (g *gambler) some(n int) [][]byte {
	objects := make([][]byte, g.IntN(n)+1)
	for i := range objects {
		objects[i] = pick(g.Rand, g.w.objects[:40])
	}
	return objects
}

func (g *gambler) change() (string, func(Store) error) {
	v := pick(g.Rand, g.w.vaults)
	switch g.IntN(6) {
	case 0, 1:
		objects := g.some(6)
		return "put", func(s Store) error { return put(ctx, s, v, objects...) }
	case 2, 3:
		c := g.commit(v)
		return "commit", func(s Store) error {
			_, _, err := s.Commit(ctx, c)
			return err
		}
	case 4:
		items := make([]storage.Item, g.IntN(3)+1)
		for i := range items {
			k, word := pick(g.Rand, g.w.kinds), key(fmt.Sprint(g.IntN(6)))
			cur, _ := g.model.Lookup(ctx, k, word) // the zero Item when there is none
			items[i] = storage.Item{Kind: k, Key: word, Rev: g.near(cur.Rev + 1), Body: fmt.Append(nil, g.Uint32())}
		}
		return "set", func(s Store) error { return s.Set(ctx, items...) }
	default:
		ids := identify(g.some(8))
		return "delete", func(s Store) error { return s.Delete(ctx, v, ids...) }
	}
}

// near returns n or, now and then, a number beside it.
func (g *gambler) near(n uint64) uint64 {
	if g.IntN(10) == 0 {
		return n + uint64(g.IntN(3)) - 1
	}
	return n
}

func (g *gambler) commit(v vault.ID) storage.Commit {
	d := pick(g.Rand, g.w.devices)
	h, err := g.model.Head(ctx, v, d)
	if err != nil {
		panic(err)
	}
	c := storage.Commit{
		Vault: v, Device: d, After: g.near(h.Seq), Body: fmt.Append(nil, g.Uint64()),
		Stamp: func(at time.Time) []byte { return fmt.Append(nil, "stamped at ", at.UnixNano()) },
	}
	c.Seq = g.near(c.After + 1)
	paths := g.Perm(len(g.w.paths))
	for range g.IntN(5) {
		var refs [][]byte
		if g.IntN(2) == 0 {
			refs = g.some(2)
			if g.IntN(3) > 0 {
				c.Objects = append(c.Objects, refs...)
			}
		}
		if g.IntN(30) > 0 { // else the path comes again
			paths = paths[1:]
		}
		r := Record(vault.RecordHeader{
			Device: d, Seq: c.Seq, Path: g.w.paths[paths[0]], Parent: pick(g.Rand, g.w.parents),
			Op: pick(g.Rand, []vault.Op{vault.OpPut, vault.OpPut, vault.OpDelete, vault.OpOutOfScope, vault.OpValid, vault.OpVoid}),
		}, refs...)
		g.w.objects = append(g.w.objects, r)
		c.Objects = append(c.Objects, r)
		c.Records = append(c.Records, vault.Identify(r))
	}
	if g.IntN(2) == 0 {
		sum, err := sumAfter(g.model, c)
		if err != nil {
			panic(err)
		}
		if g.IntN(8) == 0 {
			sum[0] ^= 1
		}
		c.Digest = &sum
	}
	return c
}
