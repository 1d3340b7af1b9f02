package vault

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var testTime = time.Unix(1_700_000_000, 5).UTC()

func testIdentity(t testing.TB, role Role, n byte) *Identity {
	id, err := NewIdentity(role, Key{n})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// testVault is a vault and all who may act on it. Device 0 is the root.
type testVault struct {
	*Members
	people []*Identity
}

func newTestVault(t testing.TB, devices int) *testVault {
	v := &testVault{Members: NewMembers(ID{7}), people: []*Identity{testIdentity(t, RoleRoot, 0)}}
	for n := range devices {
		v.people = append(v.people, testIdentity(t, RoleDevice, byte(n+1)))
	}
	raw, err := v.SignGenesis(v.people[0], testTime)
	v.append(t, raw, err)
	return v
}

func (v *testVault) append(t testing.TB, raw []byte, err error) {
	t.Helper()
	if err == nil {
		err = v.Append(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unlock returns the keyring of one of the people.
func (v *testVault) unlock(t testing.TB, who int) *Keyring {
	t.Helper()
	k, err := v.Unlock(v.people[who], v.Genesis())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (v *testVault) add(t testing.TB, signer, device int) {
	t.Helper()
	raw, err := v.SignAdd(v.people[signer], v.unlock(t, signer), v.people[device].Public(), fmt.Sprint("device ", device), testTime)
	v.append(t, raw, err)
}

func (v *testVault) revoke(t testing.TB, signer, device int) {
	t.Helper()
	raw, err := v.SignRevoke(v.people[signer], v.unlock(t, signer), v.people[device].ID(), testTime)
	v.append(t, raw, err)
}

func (v *testVault) rotate(t testing.TB, signer int) {
	t.Helper()
	raw, err := v.SignRotate(v.people[signer], v.unlock(t, signer), testTime)
	v.append(t, raw, err)
}

func (v *testVault) void(t testing.TB, keep EntryHash) {
	t.Helper()
	raw, err := v.SignVoid(v.people[0], v.unlock(t, 0), keep, testTime)
	v.append(t, raw, err)
}

// forge changes an entry and signs it, as a member that means harm could.
func (v *testVault) forge(t testing.TB, raw []byte, signer int, edit func(e *entry)) []byte {
	t.Helper()
	e, err := parseEntry(raw[64:])
	if err != nil {
		t.Fatal(err)
	}
	e.signer = v.people[signer].ID()
	edit(e)
	return sign(v.people[signer].sign, labelEntry, v.vault, e.append(nil))
}

// TestMembersModel makes random histories and compares them with a model that
// keeps every state as a set and a link to the state it was made from.
func TestMembersModel(t *testing.T) {
	const devices = 4
	people := newTestVault(t, devices).people
	type state struct {
		from int // the state it was made from
		live map[int]bool
	}
	rapid.Check(t, func(rt *rapid.T) {
		v := &testVault{Members: NewMembers(ID{7}), people: people}
		raw, err := v.SignGenesis(people[0], testTime)
		v.append(t, raw, err)
		states := []state{{from: -1}}
		heads := []EntryHash{v.Head()}
		added := make(map[int]int)
		epoch, newestVoid := 1, 0
		rt.Repeat(map[string]func(*rapid.T){"entry": func(rt *rapid.T) {
			last := states[len(states)-1]
			next := state{from: len(states) - 1, live: maps.Clone(last.live)}
			if next.live == nil {
				next.live = make(map[int]bool)
			}
			signer := rapid.IntRange(0, devices).Draw(rt, "signer")
			device := rapid.IntRange(1, devices).Draw(rt, "device")
			keep := rapid.IntRange(0, len(states)-1).Draw(rt, "keep")
			allowed := signer == 0 || last.live[signer]
			keys, err := v.Unlock(people[signer], v.Genesis())
			if err != nil && allowed {
				rt.Fatalf("unlock as %d: %v", signer, err)
			}
			kind := rapid.SampledFrom([]string{"add", "add", "revoke", "rotate", "void"}).Draw(rt, "kind")
			switch kind {
			case "add":
				_, before := added[device]
				allowed = allowed && !before
				next.live[device] = true
				raw, err = v.SignAdd(people[signer], keys, people[device].Public(), "d", testTime)
			case "revoke":
				allowed = allowed && last.live[device]
				delete(next.live, device)
				raw, err = v.SignRevoke(people[signer], keys, people[device].ID(), testTime)
			case "rotate":
				raw, err = v.SignRotate(people[signer], keys, testTime)
			case "void":
				allowed = signer == 0 && keep >= newestVoid
				next = state{from: keep, live: states[keep].live}
				raw, err = v.SignVoid(people[signer], keys, heads[keep], testTime)
			}
			if (err == nil) != allowed {
				rt.Fatalf("%s by %d of %d: error %v, allowed: %v", kind, signer, device, err, allowed)
			}
			if !allowed {
				return
			}
			before := v.Clone()
			if err := v.Append(raw); err != nil {
				rt.Fatal(err)
			}
			if before.Len()+1 != v.Len() || before.Head() == v.Head() {
				rt.Fatal("the clone went along")
			}
			if kind == "add" {
				added[device] = len(states)
			} else {
				epoch++
			}
			if kind == "void" {
				newestVoid = len(states)
			}
			states, heads = append(states, next), append(heads, v.Head())
		}, "": func(rt *rapid.T) {
			last := states[len(states)-1]
			kept := make(map[int]bool)
			for i := len(states) - 1; i >= 0; i = states[i].from {
				kept[i] = true
			}
			if int(v.Epoch()) != epoch || int(v.Len()) != len(states) || len(v.Live()) != len(last.live) {
				rt.Fatalf("epoch %d after %d entries, %d live; want %d, %d, %d", v.Epoch(), v.Len(), len(v.Live()), epoch, len(states), len(last.live))
			}
			for n := 1; n <= devices; n++ {
				want := StatusUnknown
				if at, ok := added[n]; ok {
					switch want = StatusRevoked; {
					case last.live[n]:
						want = StatusLive
					case !kept[at]:
						want = StatusVoided
					}
				}
				if _, got := v.Member(people[n].ID()); got != want {
					rt.Fatalf("device %d is %v, want %v", n, got, want)
				}
			}
			for i, s := range states {
				at, ok := v.At(heads[i])
				if !ok || at.Number != uint64(i) || at.Voided == kept[i] || len(at.Live()) != len(s.live) {
					rt.Fatalf("after entry %d: %+v, %v", i, at, ok)
				}
				for n := range s.live {
					if d, ok := at.Device(people[n].ID()); !ok || d.Public != people[n].Public() {
						rt.Fatalf("after entry %d device %d is not live", i, n)
					}
				}
			}
		}})
		again := NewMembers(ID{7})
		for raw := range v.Entries(0) {
			if err := again.Append(raw); err != nil {
				rt.Fatal(err)
			}
		}
		// Everybody who is to have a key has the same.
		root := v.unlock(t, 0)
		for n := range states[len(states)-1].live {
			k := v.unlock(t, n)
			for e := uint32(1); e <= v.Epoch(); e++ {
				if k.epoch(e) == nil || k.epoch(e).key != root.epoch(e).key {
					rt.Fatalf("device %d has not the key of epoch %d", n, e)
				}
			}
		}
	})
}

// TestMembersRefuse makes entries that break one rule each.
func TestMembersRefuse(t *testing.T) {
	// Entries: 0 genesis, 1 to 3 add 1 to 3, 4 revokes 3, 5 adds 4, 6 voids 5,
	// 7 adds 5. Number 6 is a stranger.
	v := newTestVault(t, 6)
	v.add(t, 0, 1)
	v.add(t, 1, 2)
	v.add(t, 2, 3)
	v.revoke(t, 2, 3)
	keep := v.Head()
	v.add(t, 1, 4)
	v.void(t, keep)
	v.add(t, 1, 5)
	keys := v.unlock(t, 1)
	signed := func(raw []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	add := signed(v.SignAdd(v.people[1], keys, v.people[6].Public(), "six", testTime))
	revoke := signed(v.SignRevoke(v.people[1], keys, v.people[2].ID(), testTime))
	rotate := signed(v.SignRotate(v.people[1], keys, testTime))
	void := signed(v.SignVoid(v.people[0], v.unlock(t, 0), v.log[6].hash, testTime))
	genesis := v.log[0].raw
	empty := &testVault{Members: NewMembers(v.vault), people: v.people}
	same := func(*entry) {}
	edit := func(raw []byte, at int) []byte {
		raw = slices.Clone(raw)
		raw[(at+len(raw))%len(raw)] ^= 1
		return raw
	}
	other := &testVault{Members: NewMembers(ID{8}), people: v.people}
	stranger := wrapped{v.people[6].ID(), make([]byte, wrappedSize)}
	reused := func(n int) func(*entry) {
		return func(e *entry) { p := v.people[n].Public(); e.public, e.wraps[0].to = &p, p.ID() }
	}

	for _, test := range []struct {
		name string
		to   *testVault
		raw  []byte
		want error
		text string
	}{
		{"nothing", v, nil, ErrMalformed, "no more than a signature"},
		{"signature alone", v, make([]byte, 64), ErrMalformed, "no more than a signature"},
		{"too long", v, make([]byte, MaxEntry+1), ErrMember, "the limit is 200000"},
		{"trailing byte", v, append(slices.Clone(add), 0), ErrMalformed, "after the value"},
		{"kind 0", v, v.forge(t, rotate, 1, func(e *entry) { e.kind = 0 }), ErrMalformed, "field 1"},
		{"kind 6", v, v.forge(t, rotate, 1, func(e *entry) { e.kind = 6 }), ErrMalformed, "field 1"},
		{"field of another kind", v, sign(v.people[1].sign, labelEntry, v.vault, slices.Concat([]byte{rotate[64] + 1}, rotate[65:], []byte{13, 0x40})), ErrMalformed, "field 13: does not belong"},
		{"field too much", v, sign(v.people[1].sign, labelEntry, v.vault, slices.Concat([]byte{rotate[64] + 1}, rotate[65:], []byte{14, 0})), ErrMalformed, "unknown field 14"},
		{"add without name", v, v.forge(t, add, 1, func(e *entry) { e.name = "" }), ErrMalformed, "field 7: name of 0 bytes"},
		{"name too long", v, v.forge(t, add, 1, func(e *entry) { e.name = strings.Repeat("n", MaxName+1) }), ErrMalformed, "field 7: name of 255 bytes"},
		{"name not UTF-8", v, v.forge(t, add, 1, func(e *entry) { e.name = "\xff" }), ErrMalformed, "not UTF-8"},
		{"key wrapped to something shorter", v, v.forge(t, rotate, 1, func(e *entry) { e.wraps[0].key = e.wraps[0].key[1:] }), ErrMalformed, "field 10: 1167 bytes"},
		{"epoch 0", v, v.forge(t, rotate, 1, func(e *entry) { e.epoch = 0 }), ErrMalformed, "field 9"},
		{"identity that nothing can be wrapped to", v, v.forge(t, add, 1, func(e *entry) { clear(e.public[64:]) }), ErrMalformed, "field 6: public identity"},
		{"void with one key", v, v.forge(t, void, 0, func(e *entry) { e.previous = e.previous[:sealedKeySize] }), ErrMalformed, "field 11: 48 bytes"},

		{"replayed", v, v.log[7].raw, ErrNotNext, "it is number 7"},
		{"number skipped", v, v.forge(t, add, 1, func(e *entry) { e.number++ }), ErrNotNext, "it is number 9"},
		{"after another entry", v, v.forge(t, add, 1, func(e *entry) { e.prev = v.log[6].hash }), ErrNotNext, "it is number 8"},
		{"second genesis", v, v.forge(t, genesis, 0, func(e *entry) { e.number = 8 }), ErrNotNext, "it is number 8"},

		{"signature altered", v, edit(add, 0), ErrSignature, "does not verify"},
		{"body altered", v, edit(add, -1), ErrSignature, "does not verify"},
		{"signed by another member", v, v.forge(t, add, 2, func(e *entry) { e.signer = v.people[1].ID() }), ErrSignature, "does not verify"},
		{"signed for another vault", v, other.forge(t, add, 1, same), ErrSignature, "does not verify"},
		{"signed as a commit", v, sign(v.people[1].sign, labelCommit, v.vault, add[64:]), ErrSignature, "does not verify"},

		{"first entry an add", empty, v.forge(t, add, 0, func(e *entry) { e.number, e.prev = 0, EntryHash{} }), ErrMember, "the first entry is no genesis"},
		{"genesis of another vault", other, genesis, ErrMember, "genesis of vault 07"},
		{"genesis by another than its root", empty, v.forge(t, genesis, 1, same), ErrMember, "not by the root it states"},
		{"genesis with epoch 2", empty, v.forge(t, genesis, 0, func(e *entry) { e.epoch = 2 }), ErrMember, "epoch 2, want 1"},
		{"genesis wrapped to a stranger", empty, v.forge(t, genesis, 0, func(e *entry) { e.wraps[0].to = stranger.to }), ErrMember, "who is not to have it"},
		{"genesis wrapped to nobody", empty, v.forge(t, genesis, 0, func(e *entry) { e.wraps = nil }), ErrMember, "key not wrapped to"},
		{"genesis whose signature is altered", empty, edit(genesis, 1), ErrSignature, "does not verify"},

		{"by a revoked device", v, v.forge(t, add, 3, same), ErrMember, "neither the root nor a live device"},
		{"by a voided device", v, v.forge(t, rotate, 4, same), ErrMember, "neither the root nor a live device"},
		{"by a stranger", v, v.forge(t, add, 6, same), ErrMember, "neither the root nor a live device"},
		{"void by a device", v, v.forge(t, void, 1, same), ErrMember, "a void is for the root"},

		{"device that is live", v, v.forge(t, add, 1, reused(2)), ErrMember, "was added before, by entry 2"},
		{"device that was revoked", v, v.forge(t, add, 1, reused(3)), ErrMember, "was added before, by entry 3"},
		{"device that was voided", v, v.forge(t, add, 1, reused(4)), ErrMember, "was added before, by entry 5"},
		{"root as a device", v, v.forge(t, add, 1, reused(0)), ErrMember, "the root is no device"},
		{"add with a new epoch", v, v.forge(t, add, 1, func(e *entry) { e.epoch++ }), ErrMember, "epoch 4, want 3"},
		{"add with an old epoch", v, v.forge(t, add, 1, func(e *entry) { e.epoch-- }), ErrMember, "epoch 2, want 3"},
		{"add wrapped to another", v, v.forge(t, add, 1, func(e *entry) { e.wraps[0].to = v.people[3].ID() }), ErrMember, "who is not to have it"},
		{"add wrapped to another, too", v, v.forge(t, add, 1, func(e *entry) { e.wraps = append(e.wraps, wrapped{v.people[3].ID(), stranger.key}) }), ErrMember, "who is not to have it"},
		{"add wrapped twice", v, v.forge(t, add, 1, func(e *entry) { e.wraps = append(e.wraps, e.wraps[0]) }), ErrMember, "not ascending"},

		{"revoked device not live", v, v.forge(t, revoke, 1, func(e *entry) { e.target = v.people[3].ID() }), ErrMember, "is not live"},
		{"root revoked", v, v.forge(t, revoke, 1, func(e *entry) { e.target = v.people[0].ID() }), ErrMember, "is not live"},
		{"revoke without a new epoch", v, v.forge(t, revoke, 1, func(e *entry) { e.epoch-- }), ErrMember, "epoch 3, want 4"},
		{"revoke wrapped to the revoked", v, v.forge(t, revoke, 1, func(e *entry) {
			at := slices.IndexFunc(e.wraps, func(w wrapped) bool { return bytes.Compare(w.to[:], e.target[:]) > 0 })
			if at < 0 {
				at = len(e.wraps)
			}
			e.wraps = slices.Insert(e.wraps, at, wrapped{e.target, stranger.key})
		}), ErrMember, "who is not to have it"},

		{"rotate without a new epoch", v, v.forge(t, rotate, 1, func(e *entry) { e.epoch-- }), ErrMember, "epoch 3, want 4"},
		{"rotate two epochs on", v, v.forge(t, rotate, 1, func(e *entry) { e.epoch++ }), ErrMember, "epoch 5, want 4"},
		{"rotate wrapped to a stranger, too", v, v.forge(t, rotate, 1, func(e *entry) { e.wraps = append(e.wraps, stranger) }), ErrMember, "who is not to have it"},
		{"rotate not wrapped to one", v, v.forge(t, rotate, 1, func(e *entry) { e.wraps = e.wraps[1:] }), ErrMember, "key not wrapped to"},
		{"rotate wrapped out of order", v, v.forge(t, rotate, 1, func(e *entry) { slices.Reverse(e.wraps) }), ErrMember, "not ascending"},
		{"rotate wrapped twice to one", v, v.forge(t, rotate, 1, func(e *entry) { e.wraps = append(e.wraps[:1], e.wraps...) }), ErrMember, "not ascending"},

		{"void before the newest void", v, v.forge(t, void, 0, func(e *entry) { e.keep = keep }), ErrMember, "is before the newest void, entry 6"},
		{"void of an unknown entry", v, v.forge(t, void, 0, func(e *entry) { e.keep[0] ^= 1 }), ErrMember, "is not in the log"},
		{"void wrapped to who was voided", v, v.forge(t, void, 0, func(e *entry) { e.wraps = append(e.wraps, wrapped{v.people[5].ID(), stranger.key}) }), ErrMember, "who is not to have it"},
		{"void of the epoch before", v, v.forge(t, void, 0, func(e *entry) { e.epoch-- }), ErrMember, "epoch 3, want 4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := test.to.Clone()
			err := test.to.Append(test.raw)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Fatalf("error %v, want %v: %q", err, test.want, test.text)
			}
			if errors.Is(err, ErrNotNext) == errors.Is(err, ErrMember) || errors.Is(err, ErrMember) != errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v is of no class, or of two", err)
			}
			if test.to.Head() != before.Head() || test.to.Len() != before.Len() || test.to.Epoch() != before.Epoch() || len(test.to.Live()) != len(before.Live()) {
				t.Error("the log has changed")
			}
		})
	}
	// What they were made from is right, and the log is as it was.
	for _, raw := range [][]byte{add, revoke, rotate, void} {
		if err := v.Clone().Append(raw); err != nil {
			t.Error(err)
		}
	}
}

// TestSignRefuses checks that no entry is made that others would refuse.
func TestSignRefuses(t *testing.T) {
	v := newTestVault(t, 3)
	v.add(t, 0, 1)
	keys := v.unlock(t, 1)
	v.rotate(t, 0)
	now := testTime
	public := v.people[2].Public()
	low := public
	clear(low[64+1184:]) // an X25519 key of low order
	fresh := v.unlock(t, 1)
	for _, test := range []struct {
		name string
		sign func() ([]byte, error)
		want string
	}{
		{"genesis again", func() ([]byte, error) { return v.SignGenesis(v.people[0], now) }, "a second genesis"},
		{"genesis by a device", func() ([]byte, error) { return NewMembers(ID{7}).SignAdd(v.people[0], fresh, public, "x", now) }, "epoch 0"},
		{"add with an old keyring", func() ([]byte, error) { return v.SignAdd(v.people[1], keys, public, "x", now) }, "no key for epoch 2"},
		{"rotate with an old keyring", func() ([]byte, error) { return v.SignRotate(v.people[1], keys, now) }, "no key for epoch 2"},
		{"void with an old keyring", func() ([]byte, error) { return v.SignVoid(v.people[0], keys, v.Head(), now) }, "no key for epoch 2"},
		{"rotate without a keyring", func() ([]byte, error) { return v.SignRotate(v.people[1], nil, now) }, "of another vault"},
		{"rotate with another vault's keyring", func() ([]byte, error) { return v.SignRotate(v.people[1], NewKeyring(ID{9}, Key{}), now) }, "of another vault"},
		{"by a stranger", func() ([]byte, error) { return v.SignRotate(v.people[2], fresh, now) }, "neither the root nor"},
		{"revoke of a stranger", func() ([]byte, error) { return v.SignRevoke(v.people[1], fresh, v.people[2].ID(), now) }, "not live"},
		{"add without name", func() ([]byte, error) { return v.SignAdd(v.people[1], fresh, public, "", now) }, "name of 0 bytes"},
		{"add of a key of low order", func() ([]byte, error) { return v.SignAdd(v.people[1], fresh, low, "x", now) }, "wrap key to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw, err := test.sign()
			if err == nil || raw != nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%d bytes, error %v; want %q", len(raw), err, test.want)
			}
		})
	}
}

func TestMembersLimit(t *testing.T) {
	v := newTestVault(t, MaxDevices+1)
	for n := range MaxDevices {
		v.add(t, 0, n+1)
	}
	keys := v.unlock(t, 0)
	if _, err := v.SignAdd(v.people[0], keys, v.people[MaxDevices+1].Public(), "x", testTime); err == nil || !strings.Contains(err.Error(), "the limit") {
		t.Errorf("one device too many: %v", err)
	}
	raw, err := v.SignRotate(v.people[MaxDevices], v.unlock(t, MaxDevices), testTime)
	v.append(t, raw, err)
	if len(raw) > MaxEntry {
		t.Errorf("an entry for all devices has %d bytes", len(raw))
	}
	v.revoke(t, MaxDevices, MaxDevices)
	v.add(t, 1, MaxDevices+1)
	v.unlock(t, MaxDevices+1)
}

func TestUnlock(t *testing.T) {
	v := newTestVault(t, 4)
	v.add(t, 0, 1)
	v.add(t, 1, 2)
	record := []byte("what an early epoch sealed")
	early, _, err := v.unlock(t, 1).Seal(nil, Header{Type: TypeNote}, record)
	if err != nil {
		t.Fatal(err)
	}
	v.revoke(t, 1, 2)
	v.rotate(t, 1)
	late, _, err := v.unlock(t, 0).Seal(nil, Header{Type: TypeNote}, record)
	if err != nil {
		t.Fatal(err)
	}
	v.add(t, 1, 3)

	opens := func(k *Keyring, object []byte) bool {
		out, _, err := k.Open(nil, object)
		return err == nil && bytes.Equal(out, record)
	}
	for _, who := range []int{0, 1, 3} {
		if k := v.unlock(t, who); !opens(k, early) || !opens(k, late) || k.Epoch() != 3 {
			t.Errorf("%d does not open everything", who)
		}
	}
	revoked := v.unlock(t, 2)
	if _, _, err := revoked.Open(nil, late); !opens(revoked, early) || !errors.Is(err, ErrNoKey) {
		t.Errorf("the revoked device opens something else: %v", err)
	}
	if _, _, err := revoked.Seal(nil, Header{Type: TypeNote}, record); !errors.Is(err, ErrNoKey) {
		t.Errorf("the revoked device seals: %v", err)
	}
	if _, err := v.Unlock(v.people[4], v.Genesis()); !errors.Is(err, ErrNoKey) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a stranger: %v", err)
	}

	// A server that makes up a vault, and wraps its key to a device it knows.
	liar := &testVault{Members: NewMembers(ID{7}), people: slices.Clone(v.people)}
	liar.people[0] = testIdentity(t, RoleRoot, 99)
	raw, err := liar.SignGenesis(liar.people[0], testTime)
	liar.append(t, raw, err)
	liar.add(t, 0, 1)
	if _, err := liar.Unlock(v.people[1], v.Genesis()); !errors.Is(err, ErrMember) {
		t.Errorf("a device in a made-up vault: %v", err)
	}
	if _, err := liar.Unlock(v.people[0], liar.Genesis()); !errors.Is(err, ErrNoKey) {
		t.Errorf("the root in a made-up vault: %v", err)
	}
	if _, err := NewMembers(ID{7}).Unlock(v.people[1], EntryHash{}); !errors.Is(err, ErrMember) {
		t.Errorf("an empty log: %v", err)
	}
}

// TestThief has a thief with a device's keys begin an epoch whose keys are garbage
// to all others, and then the root take it back.
func TestThief(t *testing.T) {
	const thief = 2
	v := newTestVault(t, 4)
	v.add(t, 0, 1)
	v.add(t, 1, thief)
	v.rotate(t, 1)
	keep := v.Head()
	garbage := func(e *entry) {
		for _, w := range e.wraps {
			if w.to != v.people[thief].ID() {
				rand.Read(w.key)
			}
		}
		rand.Read(e.previous)
	}
	for range 2 {
		rotate, err := v.SignRotate(v.people[1], v.unlock(t, 1), testTime)
		if err != nil { // the second time: of an epoch nobody else knows
			rotate, err = v.SignRotate(v.people[thief], v.unlock(t, thief), testTime)
		}
		v.append(t, v.forge(t, rotate, thief, garbage), err)
	}
	seal := func(k *Keyring) error {
		_, _, err := k.Seal(nil, Header{Type: TypeNote}, nil)
		return err
	}
	for _, who := range []int{0, 1} {
		k := v.unlock(t, who)
		if k.epoch(1) == nil || k.epoch(2) == nil || k.epoch(3) != nil || !errors.Is(seal(k), ErrNoKey) {
			t.Errorf("%d: %v", who, seal(k))
		}
	}
	if _, err := v.SignRevoke(v.people[1], v.unlock(t, 1), v.people[thief].ID(), testTime); !errors.Is(err, ErrNoKey) {
		t.Errorf("revoke in an epoch without key: %v", err)
	}
	v.void(t, keep)
	v.revoke(t, 1, thief)
	v.add(t, 1, 3)
	want := v.unlock(t, 0)
	for _, who := range []int{0, 1, 3} {
		k := v.unlock(t, who)
		for _, e := range []uint32{1, 2, 5, 6} {
			if k.epoch(e) == nil || k.epoch(e).key != want.epoch(e).key {
				t.Errorf("%d has not the key of epoch %d", who, e)
			}
		}
		if err := seal(k); err != nil {
			t.Errorf("%d: %v", who, err)
		}
	}
	if _, status := v.Member(v.people[thief].ID()); status != StatusRevoked {
		t.Errorf("the thief is %v", status)
	}
}

// TestFalseKeyHandedDown has a member hand down a key that is not the one of the
// epoch before: those to whom that was wrapped believe their own.
func TestFalseKeyHandedDown(t *testing.T) {
	v := newTestVault(t, 3)
	v.add(t, 0, 1)
	v.add(t, 1, 2)
	want := v.unlock(t, 1).epoch(1).key
	raw, err := v.SignRotate(v.people[2], v.unlock(t, 2), testTime)
	v.append(t, v.forge(t, raw, 2, func(e *entry) {
		for _, w := range e.wraps {
			if w.to != v.people[2].ID() {
				continue
			}
			key, err := v.people[2].unwrap(v.vault, e.epoch, w.key)
			if err != nil {
				t.Fatal(err)
			}
			e.previous = sealPrevious(key, v.vault, e.epoch, 0, Key{66})
		}
	}), err)
	for who := range 3 {
		if k := v.unlock(t, who); k.epoch(1).key != want || k.epoch(2) == nil {
			t.Errorf("%d believes the false key", who)
		}
	}
}

// TestUnlockFirstEpoch checks that there is no keyring without the first epoch.
func TestUnlockFirstEpoch(t *testing.T) {
	v := newTestVault(t, 2)
	v.add(t, 0, 1)
	raw, err := v.SignAdd(v.people[1], v.unlock(t, 1), v.people[2].Public(), "x", testTime)
	if err != nil {
		t.Fatal(err)
	}
	v.append(t, v.forge(t, raw, 1, func(e *entry) { rand.Read(e.wraps[0].key) }), nil)
	if _, err := v.Unlock(v.people[2], v.Genesis()); !errors.Is(err, ErrOpen) {
		t.Errorf("error %v", err)
	}
}

func FuzzMemberEntry(f *testing.F) {
	v := newTestVault(f, 2)
	v.add(f, 0, 1)
	v.revoke(f, 0, 1)
	v.void(f, v.Genesis())
	for _, l := range v.log {
		f.Add(l.raw[64:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parseEntry(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again := e.append(nil); !bytes.Equal(again, body) {
			t.Fatalf("%x was encoded again as %x", body, again)
		}
	})
}
