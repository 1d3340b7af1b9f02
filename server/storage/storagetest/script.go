package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

// world is everything that may stand in a store under test, so that its whole
// state can be asked for.
type world struct {
	vaults  []vault.ID
	devices []vault.DeviceID
	objects [][]byte
	paths   []vault.PathID
	parents []vault.PathID
	kinds   []storage.Kind
}

// dump says all that the store holds of the world, one fact a line. Stamp times
// are left out unless times is set.
func (w *world) dump(s storage.Store, times bool) (string, error) {
	var b strings.Builder
	when := func(t time.Time) string {
		if !times {
			return ""
		}
		return t.Format(time.RFC3339Nano)
	}
	list := func(what string, seq iter.Seq2[storage.Version, error]) error {
		for v, err := range seq {
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s: path %v parent %v op %d seq %d record %v %s\n", what, v.Path, v.Parent, v.Op, v.Seq, v.Record, when(v.Time))
		}
		return nil
	}
	for _, v := range w.vaults {
		if err := w.dumpObjects(&b, s, v); err != nil {
			return "", err
		}
		for _, d := range w.devices {
			h, err := s.Head(ctx, v, d)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "vault %v device %v head %d %q %q %s\n", v, d, h.Seq, h.Body, h.Stamp, when(h.Time))
			at := []time.Time{{}}
			for h, err := range s.Commits(ctx, v, d, 0, math.MaxUint64) {
				if err != nil {
					return "", err
				}
				fmt.Fprintf(&b, "commit %d %q %q %s\n", h.Seq, h.Body, h.Stamp, when(h.Time))
				if err := list("record", s.Records(ctx, v, d, h.Seq)); err != nil {
					return "", err
				}
				at = append(at, h.Time.Add(-1), h.Time)
			}
			for _, p := range w.paths {
				if err := list("version", s.Versions(ctx, v, d, p)); err != nil {
					return "", err
				}
			}
			for _, at := range at {
				h, err := s.CommitAt(ctx, v, d, at)
				if err != nil {
					return "", err
				}
				fmt.Fprintf(&b, "at %s: commit %d\n", when(at), h.Seq)
				if err := list("state", s.State(ctx, v, d, at)); err != nil {
					return "", err
				}
				for _, p := range w.parents {
					if err := list("child", s.Children(ctx, v, d, p, at)); err != nil {
						return "", err
					}
				}
			}
		}
		for d, err := range s.Devices(ctx, v) {
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "vault %v: device %v at %d %s\n", v, d.Device, d.Seq, when(d.Time))
		}
	}
	for _, k := range w.kinds {
		for it, err := range s.Items(ctx, k, storage.Key{}) {
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "item %d %x rev %d %q\n", it.Kind, it.Key[:4], it.Rev, it.Body)
		}
	}
	st, err := s.Stats(ctx)
	if err != nil {
		return "", err
	}
	st.BytesStored = 0
	fmt.Fprintf(&b, "%+v\n", st)
	return b.String(), nil
}

func (w *world) dumpObjects(b *strings.Builder, s storage.Store, v vault.ID) error {
	ids := identify(w.objects)
	has, err := s.Has(ctx, v, ids)
	if err != nil {
		return err
	}
	state := map[vault.ObjectID]string{}
	for o, err := range s.Get(ctx, v, ids) {
		i := slices.Index(ids, o.ID)
		switch {
		case errors.Is(err, storage.ErrNotFound) && !has[i]:
			state[o.ID] = "absent"
		case err != nil:
			return fmt.Errorf("object %d, has %v: %w", i, has[i], err)
		case !has[i] || !bytes.Equal(o.Data, w.objects[i]):
			return fmt.Errorf("object %d, has %v: other bytes", i, has[i])
		default:
			state[o.ID] = "whole"
		}
	}
	for i, id := range ids {
		fmt.Fprintf(b, "vault %v object %d %s\n", v, i, state[id])
	}
	return nil
}

// step is one change of the script.
type step struct {
	name string
	do   func(Store) error
	// parts are what may be found of the change when it was not acknowledged,
	// other than nothing and all of it.
	parts []func(Store) error
}

// script is a fixed workload that comes by every way of changing a store. Packs
// of some 100 KiB make it come by new and freed packs as well.
func script() (steps []step, w *world) {
	w = &world{
		vaults:  []vault.ID{home},
		devices: []vault.DeviceID{mine},
		parents: []vault.PathID{pathID("/"), pathID("/d")},
		kinds:   []storage.Kind{storage.KindV3Client},
	}
	add := func(name string, do func(Store) error, parts ...func(Store) error) {
		steps = append(steps, step{name, do, parts})
	}
	put := func(name string, objects ...[]byte) {
		w.objects = append(w.objects, objects...)
		var parts []func(Store) error
		for mask := range 1<<len(objects) - 1 {
			var some [][]byte
			for i, o := range objects {
				if mask&(1<<i) != 0 {
					some = append(some, o)
				}
			}
			if len(some) > 0 {
				parts = append(parts, func(s Store) error { return put(ctx, s, home, some...) })
			}
		}
		add(name, func(s Store) error { return put(ctx, s, home, objects...) }, parts...)
	}
	seq, after := uint64(0), uint64(0)
	commitStep := func(name string, state, objects [][]byte, records ...[]byte) {
		c := digested(follow(after, seq, records...), state...)
		c.Objects = objects
		after = seq
		w.objects = append(w.objects, objects...)
		for _, r := range records {
			h, _, _ := vault.ParseHeader(r)
			w.paths = append(w.paths, h.Record.Path)
		}
		add(name, func(s Store) error {
			_, _, err := s.Commit(ctx, c)
			return err
		})
	}
	remove := func(name string, objects ...[]byte) {
		add(name, func(s Store) error { return s.Delete(ctx, home, identify(objects)...) })
	}
	set := func(name string, items ...storage.Item) {
		add(name, func(s Store) error { return s.Set(ctx, items...) })
	}

	a, b := text("a"), text("b")
	l := List("l", a, b)
	wide := Chunk(bytes.Repeat([]byte("wide"), 30_000))
	huge := Chunk(bytes.Repeat([]byte("huge"), 80_000))

	// Packs that later hold nothing any more.
	put("put a wide object alone", wide)
	put("put a huge object, written without a copy", huge)
	put("put objects that depend on each other", a, b, l)
	seq = 1
	r1 := record(seq, "/", "/a", vault.OpPut, l)
	c1 := text("c1")
	commitStep("commit with objects", [][]byte{r1}, [][]byte{c1, r1}, r1)
	set("set items", item("x", 1), item("y", 1))
	seq = 2
	r2, r3 := record(seq, "/d", "/d/x", vault.OpPut, a), record(seq, "/", "/a", vault.OpDelete)
	put("put a record ahead", r2)
	commitStep("commit with a stored record", [][]byte{r2}, [][]byte{r3}, r2, r3)
	remove("delete what frees packs", wide, huge)
	set("set items again", item("x", 2), item("z", 1))
	put("put again what was deleted", wide)
	seq = 3
	commitStep("commit nothing", [][]byte{r2}, nil)
	seq = 7
	r4, r5 := record(seq, "/d", "/d/x", vault.OpOutOfScope, r2), record(seq, "/", "/b", vault.OpPut)
	commitStep("commit over a gap", [][]byte{r4, r5}, [][]byte{r4, r5}, r4, r5)
	remove("delete again", wide)
	return steps, w
}

// afterwards are changes that any state of the script allows, to show that a store
// works on.
func afterwards(s Store, w *world) error {
	h, err := s.Head(ctx, home, mine)
	if err != nil {
		return err
	}
	o := text("afterwards")
	r := record(h.Seq+1, "/", "/after", vault.OpPut, o)
	w.objects = append(w.objects, o, r)
	w.paths = append(w.paths, pathID("/after"))
	if err := put(ctx, s, home, o); err != nil {
		return err
	}
	if err := commitStated(s, commit(h.Seq+1, r)); err != nil {
		return err
	}
	return s.Set(ctx, item("after", 1))
}

// commitStated commits c with the digest of the state that the store itself shows
// and c's records, which are among its objects, make of it.
func commitStated(s Store, c storage.Commit) error {
	sum, err := sumAfter(s, c)
	if err != nil {
		return err
	}
	c.Digest = &sum
	_, _, err = s.Commit(ctx, c)
	return err
}

func sumAfter(s storage.History, c storage.Commit) (sum [32]byte, err error) {
	type newest struct {
		parent vault.PathID
		record vault.ObjectID
	}
	state := map[vault.PathID]newest{}
	for v, err := range s.State(ctx, c.Vault, c.Device, time.Time{}) {
		if err != nil {
			return sum, err
		}
		state[v.Path] = newest{v.Parent, v.Record}
	}
	for _, o := range c.Objects {
		h, _, err := vault.ParseHeader(o)
		switch {
		case err != nil:
			return sum, err
		case h.Record == nil || storage.Judges(h.Record.Op):
		case storage.InState(h.Record.Op):
			state[h.Record.Path] = newest{h.Record.Parent, vault.Identify(o)}
		default:
			delete(state, h.Record.Path)
		}
	}
	var d vault.Digest
	for path, n := range state {
		d.Add(path, n.parent, n.record)
	}
	return d.Sum(), nil
}

// confirm commits nothing for every device, so that the store compares its digests
// with the states it shows.
func (w *world) confirm(s Store) error {
	for _, v := range w.vaults {
		for _, d := range w.devices {
			h, err := s.Head(ctx, v, d)
			if err == nil {
				err = commitStated(s, storage.Commit{Vault: v, Device: d, After: h.Seq, Seq: h.Seq + 1})
			}
			if err != nil {
				return fmt.Errorf("the state of device %v: %w", d, err)
			}
		}
	}
	return nil
}

// outcome is what a run of the script was told.
type outcome struct {
	acked []step
	open  *step // the change during which the store failed or the power went
}

// allowed are the states that may be found: all that was acknowledged, and of the
// open change nothing, all, or a part where the contract lets that be.
func (o outcome) allowed(w *world) ([]string, error) {
	tries := []func(Store) error{func(Store) error { return nil }}
	if o.open != nil {
		tries = append(append(tries, o.open.do), o.open.parts...)
	}
	var states []string
	for _, try := range tries {
		m := memory.New(nil)
		for _, st := range o.acked {
			if err := st.do(m); err != nil {
				return nil, fmt.Errorf("model refuses %q: %w", st.name, err)
			}
		}
		if try(m) != nil {
			continue // a part that cannot stand alone
		}
		state, err := w.dump(m, false)
		if err != nil {
			return nil, err
		}
		states = append(states, state)
	}
	return states, nil
}

// verify compares a store with what may be found after o.
func (o outcome) verify(s Store, w *world) error {
	states, err := o.allowed(w)
	if err != nil {
		return err
	}
	state, err := w.dump(s, false)
	if err != nil {
		return err
	}
	if !slices.Contains(states, state) {
		return fmt.Errorf("found:\n%s\nacknowledged:\n%s", state, states[0])
	}
	return nil
}

// settle verifies a store that was opened again after o, works on with it, opens
// it once more and verifies that as well. It leaves the store closed.
func (o outcome) settle(s Store, w *world, reopen func() (Store, error)) error {
	// Work goes on in a world of its own.
	v := *w
	v.objects, v.paths = slices.Clone(w.objects), slices.Clone(w.paths)
	err := o.verify(s, &v)
	if err == nil {
		err = afterwards(s, &v)
	}
	var left string
	if err == nil {
		left, err = v.dump(s, true)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if s, err = reopen(); err != nil {
		return fmt.Errorf("open after working on: %w", err)
	}
	found, err := v.dump(s, true)
	if err == nil {
		err = v.confirm(s)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if found != left {
		return fmt.Errorf("after working on and opening again found:\n%s\nleft:\n%s", found, left)
	}
	return nil
}
