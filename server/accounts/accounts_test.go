package accounts

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

func open(t *testing.T, store storage.Registry, o Options) *Accounts {
	t.Helper()
	a, err := Open(t.Context(), store, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func identity(t *testing.T, role vault.Role) *vault.Identity {
	t.Helper()
	id, err := vault.NewIdentity(role, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func invite(t *testing.T, a *Accounts, name string) wire.Invitation {
	t.Helper()
	i, err := a.Invite(t.Context(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// enrol makes a device as a session does that has checked the signature.
func enrol(t *testing.T, a *Accounts, name string) *vault.Identity {
	t.Helper()
	id := identity(t, vault.RoleDevice)
	if _, err := a.Redeem(t.Context(), wire.SignEnroll(nil, invite(t, a, name), id.Public(), "laptop")); err != nil {
		t.Fatal(err)
	}
	return id
}

func entry(t *testing.T, log *vault.Members) func(raw []byte, err error) []byte {
	return func(raw []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
}

// TestEverythingIsThereAgain compares what a server knows with what one that is
// started on its store does.
func TestEverythingIsThereAgain(t *testing.T) {
	store := memory.New(nil)
	a := open(t, store, Options{})
	ada, bob := enrol(t, a, "a"), enrol(t, a, "a")
	enrol(t, a, "")
	root := identity(t, vault.RoleRoot)
	log := vault.NewMembers(vault.NewID())
	do := entry(t, log)
	grow := func(raw []byte) {
		t.Helper()
		if err := log.Append(raw); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Append(t.Context(), "a", raw); err != nil {
			t.Fatal(err)
		}
	}
	grow(do(log.SignGenesis(root, time.Now())))
	keys, err := log.Unlock(root, vault.EntryHash{})
	if err != nil {
		t.Fatal(err)
	}
	grow(do(log.SignAdd(root, keys, ada.Public(), "ada's", time.Now())))
	grow(do(log.SignAdd(ada, keys, bob.Public(), "bob's", time.Now())))
	grow(do(log.SignRevoke(ada, keys, bob.ID(), time.Now())))
	left := invite(t, a, "late")

	b := open(t, store, Options{})
	for name, a := range map[string]*Accounts{"first": a, "second": b} {
		who := a.Who(ada.Public().TLS())
		if who.Device == nil || who.Device.ID != ada.ID() || who.Account != "a" || *who.Vault != log.Vault() || who.Root {
			t.Errorf("%s: %+v", name, who)
		}
		if who := a.Who(root.Public().TLS()); !who.Root || who.Device != nil || who.Account != "a" || *who.Vault != log.Vault() {
			t.Errorf("%s: root %+v", name, who)
		}
		if who := a.Who(root.Public().SignKey()); who != (Client{}) {
			t.Errorf("%s: nobody %+v", name, who)
		}
		m, err := a.Members(t.Context(), log.Vault())
		if err != nil || m.Now().Head() != log.Head() || Ended(m.Now(), ada.ID()) || !Ended(m.Now(), bob.ID()) {
			t.Errorf("%s: members %v", name, err)
		}
		all := a.Accounts()
		if len(all) != 2 || all[0].Name != "a" || all[0].Devices != 2 || all[1].Name != DefaultAccount || all[1].Vault != nil {
			t.Errorf("%s: %+v", name, all)
		}
	}
	if _, err := b.Redeem(t.Context(), wire.SignEnroll(nil, left, identity(t, vault.RoleDevice).Public(), "x")); err != nil {
		t.Errorf("an invitation from before: %v", err)
	}
}

func TestInviteRefuses(t *testing.T) {
	a := open(t, memory.New(nil), Options{})
	for name, tt := range map[string]struct {
		account string
		ttl     time.Duration
	}{
		"long name":       {string(make([]byte, 255)), 0},
		"control":         {"a\x1b[2J", 0},
		"not UTF-8":       {"\xff", 0},
		"no time":         {"a", time.Millisecond},
		"negative":        {"a", -time.Hour},
		"longer than all": {"a", 400 * 24 * time.Hour},
	} {
		if _, err := a.Invite(t.Context(), tt.account, tt.ttl); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheServerKeepsNoSecret(t *testing.T) {
	store := memory.New(nil)
	i := invite(t, open(t, store, Options{}), "a")
	for it, err := range store.Items(t.Context(), storage.KindInvitation, storage.Key{}) {
		if err != nil || storage.Key(i.Key().Public().(ed25519.PublicKey)) != it.Key {
			t.Fatal(err)
		}
		for n := range len(it.Body) {
			if end := n + 8; end <= len(it.Body) && slices.Equal(it.Body[n:end], i.Secret[:8]) {
				t.Fatal("the secret is in the registry")
			}
		}
	}
}

// full is a registry that takes nothing more.
type full struct{ storage.Registry }

func (full) Set(context.Context, ...storage.Item) error { return storage.ErrFull }

func TestWhatIsNotDurableIsNotKnown(t *testing.T) {
	store := memory.New(nil)
	a := open(t, store, Options{})
	i := invite(t, a, "a")
	id := identity(t, vault.RoleDevice)
	request := wire.SignEnroll(nil, i, id.Public(), "laptop")
	a.store = full{store}
	if _, err := a.Redeem(t.Context(), request); !errors.Is(err, storage.ErrFull) {
		t.Fatal(err)
	}
	if who := a.Who(id.Public().TLS()); who != (Client{}) || len(a.Accounts()) != 0 {
		t.Fatalf("%+v", who)
	}
	a.store = store
	if _, err := a.Redeem(t.Context(), request); err != nil {
		t.Fatalf("the invitation is lost: %v", err)
	}
	root := identity(t, vault.RoleRoot)
	log := vault.NewMembers(vault.NewID())
	genesis := entry(t, log)(log.SignGenesis(root, time.Now()))
	a.store = full{store}
	if _, err := a.Append(t.Context(), "a", genesis); !errors.Is(err, storage.ErrFull) {
		t.Fatal(err)
	}
	if a.Vault("a") != nil || a.Who(root.Public().TLS()) != (Client{}) {
		t.Fatal("a vault that is not durable")
	}
	a.store = store
	m, err := a.Append(t.Context(), "a", genesis)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append(genesis); err != nil {
		t.Fatal(err)
	}
	keys, err := log.Unlock(root, vault.EntryHash{})
	if err != nil {
		t.Fatal(err)
	}
	a.store = full{store}
	if _, err := a.Append(t.Context(), "a", entry(t, log)(log.SignAdd(root, keys, id.Public(), "x", time.Now()))); !errors.Is(err, storage.ErrFull) {
		t.Fatal(err)
	}
	if m.Now().Len() != 1 {
		t.Fatal("an entry that is not durable")
	}
}

func TestDamageIsToldWhenAccountsAreRead(t *testing.T) {
	id := identity(t, vault.RoleDevice)
	device := (&Device{ID: id.ID(), Name: "x", Account: "a"}).encode(id.Public())
	account := (&Account{Name: "a"}).encode()
	for name, it := range map[string]storage.Item{
		"account under another key": {Kind: storage.KindAccount, Key: storage.Key{1}, Body: account},
		"account cut off":           {Kind: storage.KindAccount, Key: accountKey("a"), Body: account[:5]},
		"device under another key":  {Kind: storage.KindDevice, Key: storage.Key{1}, Body: device},
		"device of no account":      {Kind: storage.KindDevice, Key: deviceKey(id.ID()), Body: device},
		"root of nothing":           {Kind: storage.KindRoot, Body: []byte{0xa0}},
	} {
		store := memory.New(nil)
		it.Rev = 1
		if err := store.Set(t.Context(), it); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), store, Options{}); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamageOfALogIsTold(t *testing.T) {
	store := memory.New(nil)
	a := open(t, store, Options{})
	enrol(t, a, "a")
	log := vault.NewMembers(vault.NewID())
	genesis := entry(t, log)(log.SignGenesis(identity(t, vault.RoleRoot), time.Now()))
	if _, err := a.Append(t.Context(), "a", genesis); err != nil {
		t.Fatal(err)
	}
	for name, it := range map[string]storage.Item{
		"entry that does not verify": memberItem(log.Vault(), 1, genesis),
		"entry left out":             memberItem(vault.ID{7}, 1, genesis),
	} {
		if err := store.Set(t.Context(), it); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, store, Options{}).Members(t.Context(), vault.ID(it.Key[:16])); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALogIsHeldByWhoUsesIt(t *testing.T) {
	a := open(t, memory.New(nil), Options{})
	enrol(t, a, "a")
	log := vault.NewMembers(vault.NewID())
	m, err := a.Append(t.Context(), "a", entry(t, log)(log.SignGenesis(identity(t, vault.RoleRoot), time.Now())))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if again, err := a.Members(t.Context(), log.Vault()); err != nil || again != m {
		t.Fatalf("there are two logs of one vault: %v", err)
	}
	runtime.KeepAlive(m)
	m = nil
	runtime.GC()
	if a.held(log.Vault()) != nil {
		t.Fatal("held by nobody, and kept")
	}
}

func TestLastSeen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seen")
	store := memory.New(nil)
	a := open(t, store, Options{SeenFile: file})
	id, never := enrol(t, a, "a"), enrol(t, a, "a")
	when := time.Unix(1_700_000_000, 7).UTC()
	a.Device(id.ID()).Seen(when)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.Run(ctx)
	if got := open(t, store, Options{SeenFile: file}).Device(id.ID()).LastSeen(); !got.Equal(when) {
		t.Fatalf("seen %v", got)
	}
	if err := os.WriteFile(file, []byte("nonsense\n"+id.ID().String()+" x\n"+never.ID().String()+" 5\n00 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, store, Options{SeenFile: file})
	if !c.Device(id.ID()).LastSeen().IsZero() || !c.Device(never.ID()).LastSeen().Equal(time.Unix(0, 5)) {
		t.Fatal("a damaged file")
	}
}

func FuzzBodies(f *testing.F) {
	id, err := vault.NewIdentity(vault.RoleDevice, vault.Key{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add((&Account{Name: "a", Vault: &vault.ID{1}}).encode())
	f.Add((&Device{Name: "x", Account: "a"}).encode(id.Public()))
	f.Add(invitation{account: "a", used: time.Unix(5, 0)}.encode())
	f.Add(root{account: "a"}.encode())
	f.Fuzz(func(t *testing.T, body []byte) {
		if a, err := decodeAccount(body); err == nil && !slices.Equal(a.encode(), body) {
			t.Error("account")
		}
		if i, err := decodeInvitation(body); err == nil && !slices.Equal(i.encode(), body) {
			t.Error("invitation")
		}
		if r, err := decodeRoot(body); err == nil && !slices.Equal(r.encode(), body) {
			t.Error("root")
		}
		if d, err := decodeDevice(body); err == nil {
			var public vault.Public
			m := parse(body, 4)
			m.bytes(1, public[:])
			if !slices.Equal(d.encode(public), body) {
				t.Error("device")
			}
		}
		if v, err := foundedVault(body); err != nil && v != (vault.ID{}) {
			t.Error("genesis")
		}
	})
}
