package v3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"testing"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

// TestVerdicts: which version a file has after a history of attempts, in one or
// several sessions, also for a server that starts anew on the same store.
func TestVerdicts(t *testing.T) {
	one, two, three := []byte("one"), fill(10_000), []byte("a third, of two blocks")
	valid := func(c *client) { c.valid("f") }
	resend := func(c *client) { c.write(c.request(wire.Message{Kind: wire.ChecksumResending, Name: "f"})) }
	giveUp := func(c *client) { c.ask(wire.Message{Kind: wire.ChecksumGivingUp, Name: "f"}, wire.Acknowledged) }
	refused := func(k wire.Kind) func(c *client) {
		return func(c *client) { c.ask(wire.Message{Kind: k, Name: "f"}, wire.GeneralError) }
	}
	send := func(data []byte) func(c *client) { return func(c *client) { c.send("f", data) } }
	fail := func(c *client) {
		b := c.packets("f", three, 1)[0]
		b[wire.RequestHeaderSize+4] ^= 16 // original size
		c.write(b)
		c.answer(wire.GeneralError)
	}
	broken := func(c *client) { c.write(c.packets("f", three, 2)[0]) }
	last := func(c *client) { c.ask(wire.Message{Kind: wire.ChecksumValid}, wire.GeneralError) }
	var newSession func(c *client) // nil: a new session
	tests := []struct {
		name     string
		steps    []func(c *client)
		want     []byte
		verified bool
		versions int
	}{
		{"unverified", []func(*client){send(one)}, one, false, 1},
		{"valid", []func(*client){send(one), valid}, one, true, 1},
		{"void", []func(*client){send(one), giveUp}, nil, false, 0},
		{"newest", []func(*client){send(one), valid, send(two)}, two, false, 2},
		{"newest is void", []func(*client){send(one), valid, send(two), giveUp}, one, true, 1},
		{"two newest are void", []func(*client){send(one), send(two), giveUp, send(three), giveUp}, one, false, 1},
		{"the one between is void", []func(*client){send(one), send(two), giveUp, send(three), valid}, three, true, 2},
		{"resent", []func(*client){send(two), resend, send(one), valid}, one, true, 1},
		{"resent twice, given up", []func(*client){send(two), resend, send(two), resend, send(two), giveUp}, nil, false, 0},
		{"the same content again", []func(*client){send(two), valid, send(two), valid}, two, true, 2},
		{"judged twice", []func(*client){send(one), valid, refused(wire.ChecksumGivingUp)}, one, true, 1},
		{"void, then valid", []func(*client){send(one), giveUp, refused(wire.ChecksumValid)}, nil, false, 0},
		{"valid after a refused attempt", []func(*client){send(one), fail, refused(wire.ChecksumValid)}, one, false, 1},
		{"valid for the last, which was refused", []func(*client){send(one), fail, last}, one, false, 1},
		{"given up after a refused attempt", []func(*client){send(one), fail, refused(wire.ChecksumGivingUp)}, one, false, 1},
		{"valid after a broken attempt", []func(*client){send(one), broken, refused(wire.ChecksumValid)}, one, false, 1},
		{"a later session judges nothing", []func(*client){send(one), newSession, refused(wire.ChecksumGivingUp)}, one, false, 1},
		{"a later session voids its own only", []func(*client){send(one), newSession, send(two), giveUp}, one, false, 1},
		{"a verdict means the newest of its name", []func(*client){send(one), send(two), giveUp, refused(wire.ChecksumGivingUp)}, one, false, 1},
		{"lost between resending and the file", []func(*client){send(one), valid, send(two), resend, newSession}, one, true, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := memory.New(nil)
			a := open(t, store, Options{})
			c := ready(t, a, wire.Field, "ada")
			for _, step := range tt.steps {
				if step == nil {
					c.close()
					id := c.id
					a = open(t, store, Options{})
					c = dial(t, a, wire.Field)
					c.id = id
					c.unwrap(c.ask(wire.Message{Kind: wire.Reconnect, Name: "ada"}, wire.ReconnectAccepted))
					continue
				}
				step(c)
			}
			c.close()
			for _, a := range []*Area{a, open(t, store, Options{})} {
				wantFile(t, a, "ada", "f", tt.want)
				f := files(t, a)["ada/f"]
				if f.Verified != tt.verified || f.Versions != tt.versions || f.Size != int64(len(tt.want)) {
					t.Errorf("listed as %+v", f)
				}
				if tt.want != nil && (f.Checksum != cksum.Sum32(tt.want) || f.Time.IsZero()) {
					t.Errorf("listed as %+v", f)
				}
			}
		})
	}
}

// TestUnjudgedIsBounded: a client that never judges takes no more memory with
// every file, and can still judge the newest.
func TestUnjudgedIsBounded(t *testing.T) {
	a := open(t, nil, Options{})
	c := ready(t, a, wire.Field, "ada")
	for i := range maxUnjudged + 1 {
		c.send(fmt.Sprint(i), nil)
	}
	c.valid("1")
	c.valid("")
	c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "0"}, wire.GeneralError)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: what the store or a thief has changed is named, and never passed off
// as absent or as another file.
func TestDamage(t *testing.T) {
	store := memory.New(nil)
	a := open(t, store, Options{})
	c := ready(t, a, wire.Field, "ada")
	c.send("small", fill(10))
	c.send("large", fill(2<<20))
	c.close()
	damaged := open(t, &corrupting{Store: store}, Options{})
	for _, name := range []string{"small", "large"} {
		if err := damaged.Get(t.Context(), "ada", name, io.Discard); !errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := 0
	for f, err := range damaged.Files(t.Context()) {
		if n++; f.Client != "ada" || !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%+v %v", f, err)
		}
	}
	if n != 2 {
		t.Errorf("%d files", n)
	}
	lost := open(t, &corrupting{Store: store, lost: true}, Options{})
	if err := lost.Get(t.Context(), "ada", "large", io.Discard); !errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("large without its chunks: %v", err)
	}
	misled := open(t, &corrupting{Store: store, misplaced: true}, Options{})
	if err := misled.Get(t.Context(), "ada", "small", io.Discard); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("small at another place in history: %v", err)
	}
	if err := a.Get(t.Context(), "bob", "small", io.Discard); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("client that is not there: %v", err)
	}

	// Authentic records that are not about what they stand for.
	path, sum := a.keys.Path(vault.DeviceID(c.id), []byte("odd")), cksum.Sum32([]byte("x"))
	wrong := sum + 1
	put := func(name string, sum *uint32) change {
		rec := vault.Record{Name: []byte(name), Type: vault.TypeFile, Content: vault.Content{Size: 1, Inline: []byte("x")}, CKSum: sum}
		return change{path: path, op: vault.OpPut, rec: rec}
	}
	for name, change := range map[string]change{
		"another file's record": put("small", &sum),
		"another checksum":      put("odd", &wrong),
		"no checksum":           put("odd", nil),
		"verdict on nothing":    {path: path, op: vault.OpVoid},
	} {
		if _, err := a.commit(t.Context(), c.id, change); err != nil {
			t.Fatal(err)
		}
		if err := a.Get(t.Context(), "ada", "odd", io.Discard); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMisplacedItems: a sealed item counts only where it was set.
func TestMisplacedItems(t *testing.T) {
	store := memory.New(nil)
	a := open(t, store, Options{OnlyAllowed: true})
	for _, name := range []string{"ada", "bob"} {
		if err := a.Allow(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	ada, bob := ready(t, a, wire.Field, "ada"), ready(t, a, wire.Field, "bob")
	ada.close()
	bob.close()
	// move puts the body of one item into the place of another.
	move := func(from, to note) {
		t.Helper()
		body, err := store.Lookup(t.Context(), from.kind, a.key(from))
		if err != nil {
			t.Fatal(err)
		}
		place, err := store.Lookup(t.Context(), to.kind, a.key(to))
		if err != nil {
			t.Fatal(err)
		}
		place.Body = body.Body
		place.Rev++
		if err := store.Set(t.Context(), place); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.lookup(t.Context(), to); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("kind %d in the place of kind %d: %v", from.kind, to.kind, err)
		}
	}
	move(note{kind: storage.KindV3Client, id: bob.id}, note{kind: storage.KindV3Client, id: ada.id})
	move(note{kind: storage.KindV3Name, name: "ada"}, note{kind: storage.KindV3Allowed, name: "ada"})
	if err := a.Get(t.Context(), "ada", "small", io.Discard); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("get from a client with a wrong item: %v", err)
	}
	for _, err := range a.Files(t.Context()) {
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("files: %v", err)
		}
	}
}

// corrupting is a store that gives every object damaged, or loses every chunk, or
// has an index that is wrong about every record.
type corrupting struct {
	storage.Store
	lost, misplaced bool
}

func (s *corrupting) Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		for o, err := range s.Store.Get(ctx, v, ids) {
			switch h, _, _ := vault.ParseHeader(o.Data); {
			case s.misplaced:
			case !s.lost:
				o.Data = slices.Clone(o.Data)
				o.Data[len(o.Data)-1] ^= 1
			case h.Type == vault.TypeChunk:
				o, err = vault.Object{ID: o.ID}, storage.ErrNotFound
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (s *corrupting) Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		for v, err := range s.Store.Versions(ctx, v, d, p) {
			if s.misplaced {
				v.Seq++
			}
			if !yield(v, err) {
				return
			}
		}
	}
}
