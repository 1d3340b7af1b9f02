package v4

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
	"backstay/server/storage/storagetest"
)

// arena is a server with two accounts and everybody who means harm.
type arena struct {
	*home
	t   *testing.T
	ada *device // the member that attacks, of account a
	bob *device // another member of its vault
	out *device // enrolled in account a, no member
	mal *device // a member of another account's vault
}

func newArena(t *testing.T) *arena {
	h := newHome(t, nil)
	a := &arena{home: h, t: t}
	a.ada = h.enrol("a").found()
	a.bob = a.ada.admit(h.enrol("a"))
	a.out = h.enrol("a")
	a.mal = h.enrol("b").found()
	return a
}

func (a *arena) rootSession() *client { return a.mustDial(a.ada.root.TLS()) }

func (a *arena) stranger() *client { return a.mustDial(newIdentity(a.t, vault.RoleDevice).TLS()) }

// tampered is a commit of the device, changed before it is signed.
func (a *arena) tampered(d *device, change func(*vault.Commit)) error {
	record := d.record("file")
	c := d.draft(record)
	change(&c)
	_, err := d.send(d.sign(c), record)
	return err
}

// with sends a commit whose records are those given.
func (a *arena) with(d *device, records ...[]byte) error {
	_, err := d.send(d.sign(d.draft(records...)), records...)
	return err
}

func entry(raw []byte) []byte { return wire.MembersRequest{Entry: raw}.Append(nil) }

func ids(objects ...[]byte) []byte { return wire.IDsRequest{IDs: identify(objects...)}.Append(nil) }

func fail(_ [][]byte, err error) error { return err }

// bodies are a well-formed request of each verb.
func bodies(d vault.DeviceID) map[wire.Type][]byte {
	return map[wire.Type][]byte{
		wire.TypeHave:    ids(randomChunk(9)),
		wire.TypePut:     wire.AppendEmpty(nil),
		wire.TypeCommit:  wire.CommitRequest{Commit: make([]byte, 100)}.Append(nil),
		wire.TypeHead:    wire.HeadRequest{Device: &d}.Append(nil),
		wire.TypeLog:     wire.LogRequest{Device: d, First: 1}.Append(nil),
		wire.TypeList:    wire.ListRequest{Device: d}.Append(nil),
		wire.TypeHistory: wire.HistoryRequest{Device: d}.Append(nil),
		wire.TypeGet:     ids(randomChunk(9)),
		wire.TypeProve:   wire.ProveRequest{Device: d, Seq: 1}.Append(nil),
		wire.TypeMembers: wire.MembersRequest{}.Append(nil),
		wire.TypeMailbox: wire.MailboxRequest{Message: []byte{1}}.Append(nil),
		wire.TypeDevices: wire.AppendEmpty(nil),
		wire.TypePing:    wire.AppendEmpty(nil),
		wire.TypeEnroll:  wire.EnrollRequest{Name: "x"}.Append(nil),
	}
}

func TestPermissions(t *testing.T) {
	a := newArena(t)
	// An enrolled device may ask to enrol, and a signature that is none is
	// forbidden all the same.
	for name, tt := range map[string]struct {
		c   *client
		may []wire.Type
	}{
		"stranger": {a.stranger(), nil},
		"outsider": {a.out.client, []wire.Type{wire.TypeMembers, wire.TypeMailbox, wire.TypeDevices, wire.TypePing}},
		"root": {a.rootSession(), []wire.Type{wire.TypeHave, wire.TypeHead, wire.TypeLog, wire.TypeList, wire.TypeHistory,
			wire.TypeGet, wire.TypeProve, wire.TypeMembers, wire.TypeDevices, wire.TypePing}},
		"member": {a.ada.client, []wire.Type{wire.TypeHave, wire.TypePut, wire.TypeHead, wire.TypeLog, wire.TypeList,
			wire.TypeHistory, wire.TypeGet, wire.TypeProve, wire.TypeMembers, wire.TypeMailbox, wire.TypeDevices, wire.TypePing}},
	} {
		for verb, body := range bodies(a.bob.id.ID()) {
			_, err := tt.c.ask(verb, body)
			if got, want := !errors.Is(err, wire.ErrForbidden), slices.Contains(tt.may, verb); got != want {
				t.Errorf("%s, %v: %v, may it: %v", name, verb, err, want)
			}
		}
		if _, err := tt.c.ask(99, wire.AppendEmpty(nil)); !errors.Is(err, wire.ErrUnsupported) {
			t.Errorf("%s, a verb that is none: %v", name, err)
		}
	}
}

func TestHostileClients(t *testing.T) {
	for _, tt := range []struct {
		name   string
		attack func(a *arena) error
		want   error
	}{
		// Sequence and chain.
		{"sequence number reused", func(a *arena) error {
			a.ada.save("one")
			return a.tampered(a.ada, func(c *vault.Commit) { c.Seq, c.Prev, c.PrevStamp = 1, nil, nil })
		}, wire.ErrConflict},
		{"first commit made again", func(a *arena) error {
			first := a.ada.sign(a.ada.draft())
			a.ada.save("one")
			_, err := a.ada.send(first)
			return err
		}, wire.ErrConflict},
		{"commit replayed", func(a *arena) error {
			raw := a.ada.sign(a.ada.draft())
			if err := a.ada.commit(nil); err != nil {
				return err
			}
			_, err := a.ada.send(raw)
			return err
		}, wire.ErrConflict},
		{"sequence number left out", func(a *arena) error {
			a.ada.save("one")
			a.ada.seq++
			return a.with(a.ada)
		}, wire.ErrConflict},
		{"after a commit that never was", func(a *arena) error {
			a.ada.save("one")
			a.ada.prev = &vault.CommitHash{1}
			return a.with(a.ada)
		}, wire.ErrConflict},
		{"gap signed that is none", func(a *arena) error {
			a.ada.save("one")
			return a.tampered(a.ada, func(c *vault.Commit) { c.After = &vault.Position{} })
		}, wire.ErrConflict},
		{"gap after another commit", func(a *arena) error {
			a.ada.save("one")
			return a.tampered(a.ada, func(c *vault.Commit) { c.After = &vault.Position{Seq: 1, Hash: &vault.CommitHash{9}} })
		}, wire.ErrConflict},

		// Who signs.
		{"commit of another device", func(a *arena) error {
			_, err := a.ada.send(a.bob.sign(a.bob.draft()))
			return err
		}, wire.ErrForbidden},
		{"commit signed for another vault", func(a *arena) error {
			raw, err := a.ada.draft().Sign(a.mal.log.Vault(), a.ada.id)
			if err != nil {
				return err
			}
			_, err = a.ada.send(raw)
			return err
		}, wire.ErrForbidden},
		{"commit altered after it was signed", func(a *arena) error {
			raw := a.ada.sign(a.ada.draft())
			raw[len(raw)-1] ^= 1
			_, err := a.ada.send(raw)
			return err
		}, wire.ErrForbidden},
		{"commit that is none", func(a *arena) error {
			_, err := a.ada.send([]byte("commit"))
			return err
		}, wire.ErrMalformed},

		// What a commit states.
		{"membership head of nobody", func(a *arena) error {
			return a.tampered(a.ada, func(c *vault.Commit) { c.Members = vault.EntryHash{1} })
		}, wire.ErrStaleMembers},
		{"membership head of before", func(a *arena) error {
			old := a.ada.log.Head()
			a.ada.extend(must(a.ada.log.SignRotate(a.ada.id, a.ada.keys, time.Now())))
			return a.tampered(a.ada, func(c *vault.Commit) { c.Members = old })
		}, wire.ErrStaleMembers},
		{"digest of another state", func(a *arena) error {
			return a.tampered(a.ada, func(c *vault.Commit) { c.Digest[5] ^= 1 })
		}, wire.ErrDigest},
		{"root of other records", func(a *arena) error {
			return a.tampered(a.ada, func(c *vault.Commit) { c.Root[5] ^= 1 })
		}, wire.ErrMalformed},
		{"more records stated", func(a *arena) error {
			return a.tampered(a.ada, func(c *vault.Commit) { c.Count++ })
		}, wire.ErrMalformed},
		{"records in another order", func(a *arena) error {
			one, two := a.ada.record("one"), a.ada.record("two")
			_, err := a.ada.send(a.ada.sign(a.ada.draft(one, two)), two, one)
			return err
		}, wire.ErrMalformed},
		{"record left out", func(a *arena) error {
			one, two := a.ada.record("one"), a.ada.record("two")
			_, err := a.ada.send(a.ada.sign(a.ada.draft(one, two)), one)
			return err
		}, wire.ErrMalformed},
		{"record of another device", func(a *arena) error {
			return a.with(a.ada, a.bob.record("file"))
		}, wire.ErrMalformed},
		{"record of another commit", func(a *arena) error {
			a.ada.seq += 7
			record := a.ada.record("file")
			a.ada.seq -= 7
			return a.with(a.ada, record)
		}, wire.ErrMalformed},
		{"record of the legacy area", func(a *arena) error {
			return a.with(a.ada, storagetest.Record(vault.RecordHeader{Device: a.ada.id.ID(), Seq: 1, Op: vault.OpVoid}))
		}, wire.ErrMalformed},
		{"path twice", func(a *arena) error {
			chunk := randomChunk(10)
			if err := a.ada.put(chunk); err != nil {
				return err
			}
			return a.with(a.ada, a.ada.record("file"), a.ada.record("file", chunk))
		}, wire.ErrMalformed},

		// References.
		{"content never sent", func(a *arena) error {
			return a.with(a.ada, a.ada.record("file", randomChunk(9)))
		}, wire.ErrMissingRefs},
		{"content of another account", func(a *arena) error {
			_, chunk := a.mal.save("secret")
			return a.with(a.ada, a.ada.record("file", chunk))
		}, wire.ErrMissingRefs},
		{"object with refs to nothing", func(a *arena) error {
			return a.ada.put(storagetest.List("list", randomChunk(9)))
		}, wire.ErrMissingRefs},
		{"object with refs to what follows", func(a *arena) error {
			chunk := randomChunk(9)
			return a.ada.put(storagetest.List("list", chunk), chunk)
		}, wire.ErrMissingRefs},
		{"object with refs to another account's", func(a *arena) error {
			_, chunk := a.mal.save("secret")
			return a.ada.put(storagetest.List("list", chunk))
		}, wire.ErrMissingRefs},

		// Forms and sizes.
		{"object of garbage", func(a *arena) error { return a.ada.put([]byte(strings.Repeat("x", 200))) }, wire.ErrMalformed},
		{"object of nothing", func(a *arena) error { return a.ada.put(nil) }, wire.ErrMalformed},
		{"object cut off", func(a *arena) error {
			_, _, err := a.ada.exchange(context.Background(), wire.TypePut, wire.AppendEmpty(nil), append(wire.AppendObjectHead(nil, 500), 1, 2, 3))
			return err
		}, wire.ErrMalformed},
		{"size cut off", func(a *arena) error {
			_, _, err := a.ada.exchange(context.Background(), wire.TypePut, wire.AppendEmpty(nil), []byte{7, 0})
			return err
		}, wire.ErrMalformed},
		{"object too large", func(a *arena) error {
			_, _, err := a.ada.exchange(context.Background(), wire.TypePut, wire.AppendEmpty(nil), wire.AppendObjectHead(nil, vault.MaxObject+1))
			return err
		}, wire.ErrTooLarge},
		{"size of gigabytes", func(a *arena) error {
			_, _, err := a.ada.exchange(context.Background(), wire.TypePut, wire.AppendEmpty(nil), []byte{255, 255, 255, 255})
			return err
		}, wire.ErrTooLarge},
		{"too many objects", func(a *arena) error {
			return a.ada.put(slices.Repeat([][]byte{randomChunk(1)}, wire.MaxPutObjects+1)...)
		}, wire.ErrTooLarge},
		{"too many bytes", func(a *arena) error {
			return a.ada.put(slices.Repeat([][]byte{randomChunk(1 << 20)}, 9)...)
		}, wire.ErrTooLarge},
		{"commit of too many bytes", func(a *arena) error {
			_, err := a.ada.send(a.ada.sign(a.ada.draft()), slices.Repeat([][]byte{randomChunk(1 << 20)}, 9)...)
			return err
		}, wire.ErrTooLarge},
		{"too many ids", func(a *arena) error {
			return fail(a.ada.ask(wire.TypeHave, wire.IDsRequest{IDs: make([]vault.ObjectID, wire.MaxIDs+1)}.Append(nil)))
		}, wire.ErrMalformed},
		{"request that is not CBOR", func(a *arena) error {
			return fail(a.ada.ask(wire.TypeList, []byte("list")))
		}, wire.ErrMalformed},
		{"critical key of another revision", func(a *arena) error {
			return fail(a.ada.ask(wire.TypePing, []byte{0xa1, 0x20, 0x01}))
		}, wire.ErrUnsupported},

		// What other accounts have is as what nobody has.
		{"log of another account's device", func(a *arena) error {
			a.mal.save("secret")
			return fail(a.ada.ask(wire.TypeLog, wire.LogRequest{Device: a.mal.id.ID(), First: 1}.Append(nil)))
		}, wire.ErrNotFound},
		{"log of nobody's device", func(a *arena) error {
			return fail(a.ada.ask(wire.TypeLog, wire.LogRequest{First: 1}.Append(nil)))
		}, wire.ErrNotFound},
		{"state of another account's device", func(a *arena) error {
			a.mal.save("secret")
			return fail(a.ada.ask(wire.TypeList, wire.ListRequest{Device: a.mal.id.ID()}.Append(nil)))
		}, wire.ErrNotFound},
		{"history of another account's path", func(a *arena) error {
			a.mal.save("secret")
			return fail(a.ada.ask(wire.TypeHistory, wire.HistoryRequest{Device: a.mal.id.ID(), Path: a.mal.path("secret")}.Append(nil)))
		}, wire.ErrNotFound},
		{"proof of another account's record", func(a *arena) error {
			record, _ := a.mal.save("secret")
			return fail(a.ada.ask(wire.TypeProve, wire.ProveRequest{Device: a.mal.id.ID(), Seq: 1, Record: vault.Identify(record)}.Append(nil)))
		}, wire.ErrNotFound},
		{"proof of a record that is not in the commit", func(a *arena) error {
			record, _ := a.ada.save("one")
			a.ada.save("two")
			return fail(a.ada.ask(wire.TypeProve, wire.ProveRequest{Device: a.ada.id.ID(), Seq: 2, Record: vault.Identify(record)}.Append(nil)))
		}, wire.ErrNotFound},

		// Membership.
		{"entry that is none", func(a *arena) error { return fail(a.ada.ask(wire.TypeMembers, entry(make([]byte, 300)))) }, wire.ErrMalformed},
		{"entry of another vault", func(a *arena) error {
			return fail(a.ada.ask(wire.TypeMembers, entry(must(a.mal.log.SignRotate(a.mal.id, a.mal.keys, time.Now())))))
		}, wire.ErrConflict},
		{"entry by who is no member", func(a *arena) error {
			// Well-formed for a log in which the outsider is a member.
			log := a.ada.log.Clone()
			raw := must(log.SignAdd(a.ada.id, a.ada.keys, a.out.id.Public(), "me", time.Now()))
			raw[0] ^= 1
			return fail(a.out.ask(wire.TypeMembers, entry(raw)))
		}, wire.ErrMalformed},
		{"entry twice", func(a *arena) error {
			raw := must(a.ada.log.SignRotate(a.ada.id, a.ada.keys, time.Now()))
			a.ada.extend(raw)
			return fail(a.ada.ask(wire.TypeMembers, entry(raw)))
		}, wire.ErrConflict},
		{"second genesis", func(a *arena) error {
			raw := must(vault.NewMembers(vault.NewID()).SignGenesis(newIdentity(a.t, vault.RoleRoot), time.Now()))
			return fail(a.ada.ask(wire.TypeMembers, entry(raw)))
		}, wire.ErrConflict},
		{"genesis of another account's vault", func(a *arena) error {
			eve := a.enrol("c")
			raw := must(vault.NewMembers(a.ada.log.Vault()).SignGenesis(newIdentity(a.t, vault.RoleRoot), time.Now()))
			return fail(eve.ask(wire.TypeMembers, entry(raw)))
		}, wire.ErrConflict},
		{"genesis by another account's root", func(a *arena) error {
			eve := a.enrol("c")
			raw := must(vault.NewMembers(vault.NewID()).SignGenesis(a.ada.root, time.Now()))
			return fail(eve.ask(wire.TypeMembers, entry(raw)))
		}, wire.ErrConflict},
		{"genesis of the server's own vault", func(a *arena) error {
			eve := a.enrol("c")
			raw := must(vault.NewMembers(reserved).SignGenesis(newIdentity(a.t, vault.RoleRoot), time.Now()))
			return fail(eve.ask(wire.TypeMembers, entry(raw)))
		}, wire.ErrConflict},
		{"flood of entries", func(a *arena) error {
			for range 40 {
				if err := fail(a.ada.ask(wire.TypeMembers, entry(make([]byte, 300)))); !errors.Is(err, wire.ErrMalformed) {
					return err
				}
			}
			return nil
		}, wire.ErrBusy},

		// Pairing.
		{"message written over", func(a *arena) error {
			m := wire.MailboxRequest{Message: []byte("key")}
			if err := fail(a.ada.ask(wire.TypeMailbox, m.Append(nil))); err != nil {
				return err
			}
			return fail(a.out.ask(wire.TypeMailbox, m.Append(nil)))
		}, wire.ErrConflict},
		{"flood of messages", func(a *arena) error {
			for i := range maxSlots + 1 {
				if err := fail(a.ada.ask(wire.TypeMailbox, wire.MailboxRequest{Slot: wire.Slot{byte(i)}, Message: []byte("key")}.Append(nil))); err != nil {
					return err
				}
			}
			return nil
		}, wire.ErrBusy},

		// Invitations.
		{"invitation of nobody", func(a *arena) error {
			return a.redeem(newIdentity(a.t, vault.RoleDevice), wire.Invitation{Secret: wire.Secret{1}}, nil)
		}, wire.ErrInvitationUnknown},
		{"invitation expired", func(a *arena) error {
			i := a.invite("a")
			a.ahead.Store(int64(2 * time.Hour))
			return a.redeem(newIdentity(a.t, vault.RoleDevice), i, nil)
		}, wire.ErrInvitationExpired},
		{"invitation used", func(a *arena) error {
			i := a.invite("a")
			if err := a.redeem(newIdentity(a.t, vault.RoleDevice), i, nil); err != nil {
				return err
			}
			return a.redeem(newIdentity(a.t, vault.RoleDevice), i, nil)
		}, wire.ErrInvitationUsed},
		{"enrolment replayed on another connection", func(a *arena) error {
			id, i := newIdentity(a.t, vault.RoleDevice), a.invite("a")
			r := a.mustDial(id.TLS()).signEnroll(a.t, i, id.Public())
			return fail(a.mustDial(id.TLS()).ask(wire.TypeEnroll, r.Append(nil)))
		}, wire.ErrForbidden},
		{"enrolment of somebody else's keys", func(a *arena) error {
			c, victim := a.stranger(), newIdentity(a.t, vault.RoleDevice)
			return fail(c.ask(wire.TypeEnroll, c.signEnroll(a.t, a.invite("a"), victim.Public()).Append(nil)))
		}, wire.ErrForbidden},
		{"enrolment with a changed name", func(a *arena) error {
			return a.redeem(newIdentity(a.t, vault.RoleDevice), a.invite("a"), func(r *wire.EnrollRequest) { r.Name = "other" })
		}, wire.ErrForbidden},
		{"enrolment with an invitation's public half only", func(a *arena) error {
			i := a.invite("a")
			return a.redeem(newIdentity(a.t, vault.RoleDevice), wire.Invitation{}, func(r *wire.EnrollRequest) {
				copy(r.Invitation[:], i.Key()[32:])
			})
		}, wire.ErrForbidden},
		{"enrolment of keys nobody can wrap to", func(a *arena) error {
			id := newIdentity(a.t, vault.RoleDevice)
			public := id.Public()
			copy(public[64:], slices.Repeat([]byte{255}, len(public)-64))
			c := a.mustDial(id.TLS())
			return fail(c.ask(wire.TypeEnroll, c.signEnroll(a.t, a.invite("a"), public).Append(nil)))
		}, wire.ErrMalformed},
		{"enrolment of a second identity with the same certificate", func(a *arena) error {
			public := newIdentity(a.t, vault.RoleDevice).Public()
			copy(public[:32], a.ada.id.Public().TLS())
			return fail(a.ada.ask(wire.TypeEnroll, a.ada.signEnroll(a.t, a.invite("a"), public).Append(nil)))
		}, wire.ErrForbidden},
		{"enrolment of a device in a second account", func(a *arena) error {
			return fail(a.ada.ask(wire.TypeEnroll, a.ada.signEnroll(a.t, a.invite("b"), a.ada.id.Public()).Append(nil)))
		}, wire.ErrForbidden},
		{"flood of enrolments", func(a *arena) error {
			for range 40 {
				err := a.redeem(newIdentity(a.t, vault.RoleDevice), wire.Invitation{}, nil)
				if !errors.Is(err, wire.ErrInvitationUnknown) {
					return err
				}
			}
			return nil
		}, wire.ErrBusy},

		// Revoked.
		{"revoked, on its session", func(a *arena) error {
			a.ada.extend(must(a.ada.log.SignRevoke(a.ada.id, a.ada.keys, a.bob.id.ID(), time.Now())))
			<-a.bob.Done()
			return a.bob.Err()
		}, wire.ErrRevoked},
		{"revoked, on a new session", func(a *arena) error {
			a.ada.extend(must(a.ada.log.SignRevoke(a.ada.id, a.ada.keys, a.bob.id.ID(), time.Now())))
			_, err := a.dial(a.bob.id.TLS())
			return err
		}, wire.ErrRevoked},
		{"taken back by the root", func(a *arena) error {
			keep := a.ada.log.Genesis()
			a.ada.extend(must(a.ada.log.SignVoid(a.ada.root, a.ada.keys, keep, time.Now())))
			_, err := a.dial(a.bob.id.TLS())
			return err
		}, wire.ErrRevoked},

		// The server's own troubles.
		{"commit while the clock is not confirmed", func(a *arena) error {
			a.leapt.Store(true)
			return a.with(a.ada)
		}, wire.ErrClock},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newArena(t)
			if err := tt.attack(a); !errors.Is(err, tt.want) || wire.CodeOf(err) != wire.CodeOf(tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			// Whatever it was, others go on.
			if _, err := a.mal.ask(wire.TypePing, wire.AppendEmpty(nil)); err != nil {
				t.Fatalf("afterwards: %v", err)
			}
		})
	}
}

func TestMissingRefsAreNamed(t *testing.T) {
	a := newArena(t)
	there, first, second := randomChunk(9), randomChunk(9), randomChunk(9)
	if err := a.ada.put(there); err != nil {
		t.Fatal(err)
	}
	with := randomChunk(9)
	record := a.ada.record("file", there, first, with, second, first)
	_, err := a.ada.send(a.ada.sign(a.ada.draft(record)), with, record)
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || e.Code != wire.CodeMissingRefs || !slices.Equal(e.IDs, identify(first, second)) {
		t.Fatalf("%v, %+v", err, e)
	}
	if have := a.ada.have(t, with, record); have[0] || have[1] {
		t.Fatal("objects of a refused commit are stored")
	}
}

func TestOtherAccountsObjectsAreAsNone(t *testing.T) {
	a := newArena(t)
	record, chunk := a.mal.save("secret")
	if have := a.ada.have(t, chunk, record); have[0] || have[1] {
		t.Fatal("HAVE tells of another account's objects")
	}
	if got := a.ada.get(t, identify(chunk, record)...); len(got) != 0 {
		t.Fatal("GET gives another account's objects")
	}
	mal, nobody := a.mal.id.ID(), vault.DeviceID{1}
	for _, d := range []vault.DeviceID{mal, nobody} {
		m, err := a.ada.ask(wire.TypeHead, wire.HeadRequest{Device: &d}.Append(nil))
		if h, perr := wire.ParseHead(m[0]); err != nil || perr != nil || h.Commit != nil {
			t.Fatalf("HEAD of %v: %v, %v, %v", d, h, err, perr)
		}
	}
	// What one account stores does not become the other's by asking for it.
	if err := a.ada.put(chunk); err != nil {
		t.Fatal(err)
	}
	if have := a.ada.have(t, chunk); !have[0] {
		t.Fatal("stored, and not there")
	}
	m, err := a.ada.ask(wire.TypeDevices, wire.AppendEmpty(nil))
	if err != nil {
		t.Fatal(err)
	}
	devices, err := wire.ParseDevices(nil, m[0])
	if err != nil || len(devices) != 3 {
		t.Fatalf("%+v, %v", devices, err)
	}
}

func TestNobodyPoisonsAnObject(t *testing.T) {
	a := newArena(t)
	chunk := randomChunk(5000)
	id := vault.Identify(chunk)
	forged := slices.Clone(chunk)
	forged[len(forged)-1] ^= 1
	if err := a.bob.put(forged); err != nil {
		t.Fatal(err)
	}
	if a.ada.have(t, chunk)[0] {
		t.Fatal("the forged one counts as the other")
	}
	if err := a.ada.put(chunk); err != nil {
		t.Fatal(err)
	}
	if err := a.bob.put(forged); err != nil {
		t.Fatal(err)
	}
	if got := a.ada.get(t, id); !slices.Equal(got[id], chunk) {
		t.Fatal("not what was stored")
	}
}

func TestStrangersAreLimited(t *testing.T) {
	h := newHome(t, nil)
	conn := h.connect(newIdentity(t, vault.RoleDevice).TLS())
	if _, err := conn.Write(wire.Header{Type: wire.TypeEnroll, Stream: 1, Length: wire.MaxBodyUnknown + 1}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	c, err := mux.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-c.Done()
	if err := c.Err(); !errors.Is(err, wire.ErrTooLarge) {
		t.Fatalf("a large body: %v", err)
	}
}

func TestStrangersOfOneAddressAreLimited(t *testing.T) {
	h := newHome(t, nil)
	key := newIdentity(t, vault.RoleDevice).TLS()
	for range maxStrangers {
		if _, err := h.dial(key); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := tls.Dial("tcp", h.addr, wire.ClientConfig(key, h.pin))
	if err == nil {
		conn.Close()
		t.Fatal("one more was heard")
	}
}

func TestHandshakesRefused(t *testing.T) {
	h := newHome(t, nil)
	key := newIdentity(t, vault.RoleDevice).TLS()
	for name, change := range map[string]func(*tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ALPN":        func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil },
		"another ALPN":   func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{"h2"}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := wire.ClientConfig(key, h.pin)
			change(c)
			conn, err := tls.Dial("tcp", h.addr, c)
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := mux.Connect(t.Context(), conn); err == nil {
				t.Fatal("served")
			}
		})
	}
}

// troubled is a store that cannot commit.
type troubled struct {
	*memory.Store
	err error
}

func (s *troubled) Commit(context.Context, storage.Commit) (time.Time, []byte, error) {
	return time.Time{}, nil, s.err
}

func (s *troubled) Put(context.Context, vault.ID, ...[]byte) ([]vault.ObjectID, error) {
	return nil, s.err
}

func TestTroublesOfTheStoreAreNamed(t *testing.T) {
	secret := errors.New("write /srv/backstay/packs/7: input/output error")
	for _, tt := range []struct{ err, want error }{
		{storage.ErrFull, wire.ErrFull},
		{storage.ErrFailed, wire.ErrFailed},
		{storage.ErrCorrupt, wire.ErrCorrupt},
		{storage.ErrClosed, wire.ErrClosing},
		{storage.ErrConflict, wire.ErrConflict},
		{errors.New("anything else"), wire.ErrInternal},
	} {
		store := &troubled{Store: memory.New(nil)}
		d := newHome(t, store).enrol("a").found()
		store.err = tt.err
		if tt.err != storage.ErrConflict {
			store.err = errors.Join(tt.err, secret)
		}
		for verb, err := range map[string]error{"put": d.put(randomChunk(9)), "commit": d.commit(nil)} {
			if !errors.Is(err, tt.want) || wire.CodeOf(err) != wire.CodeOf(tt.want) || strings.Contains(err.Error(), "/srv") {
				t.Errorf("%s, %v: %v", verb, tt.err, err)
			}
		}
	}
}
