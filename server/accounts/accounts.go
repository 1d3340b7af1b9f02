// Package accounts knows who may come to a server: accounts, the invitations to
// them, enrolled devices, and the membership log of each account's vault (SPEC.md,
// "Accounts").
//
// The one invariant: what a method has acknowledged is durable in the registry, and
// what is in memory is never ahead of it. An invitation is consumed in the step that
// makes its device durable; an entry of a membership log is kept only if it verifies
// and is the next.
//
// It speaks no protocol, judges no verb and deletes nothing: a device ends by an
// entry that revokes it, made by its owner. Enter at [Open].
package accounts

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// DefaultAccount is the account of an invitation that names none.
const DefaultAccount = "default"

// How long an invitation holds.
const (
	DefaultTTL = 7 * 24 * time.Hour
	maxTTL     = 366 * 24 * time.Hour
)

// Options adjust what Open returns.
type Options struct {
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Reserved are vaults that no account may have: those the server itself
	// seals for.
	Reserved []vault.ID
	// SeenFile is where [Accounts.Run] keeps when each device came last; default
	// none. It may be lost.
	SeenFile string
	// Log takes no name and no key. Default: discarded.
	Log *slog.Logger
}

// Accounts is the accounts of one registry, which nobody else may write. All methods
// are safe for concurrent use.
type Accounts struct {
	o     Options
	store storage.Registry

	// write is held by whoever changes the registry, so that of two who redeem
	// one invitation the second finds it used.
	write sync.Mutex

	mu       sync.RWMutex // guards what follows
	accounts map[string]*account
	devices  map[vault.DeviceID]*Device
	byTLS    map[tlsKey]*Device
	roots    map[tlsKey]root
	logs     map[vault.ID]weak.Pointer[Members]
}

type tlsKey [ed25519.PublicKeySize]byte

// account is an account and its place in the registry. It is replaced, not changed.
type account struct {
	Account
	rev uint64
}

// Account is a person's or a household's place on the server.
type Account struct {
	Name string
	// Vault is nil until a device has made it.
	Vault   *vault.ID
	Created time.Time
	Devices int
}

// Device is an enrolled device. It is never changed but for when it was last seen.
type Device struct {
	ID       vault.DeviceID
	Name     string
	Account  string
	Enrolled time.Time
	// Sign verifies its commits.
	Sign ed25519.PublicKey

	tls  tlsKey
	seen atomic.Int64 // nanoseconds since 1970; 0: never
}

// Seen notes that the device is here.
func (d *Device) Seen(now time.Time) { d.seen.Store(now.UnixNano()) }

// LastSeen returns when the device was here last; the zero time if it never was.
func (d *Device) LastSeen() time.Time {
	if ns := d.seen.Load(); ns != 0 {
		return time.Unix(0, ns).UTC()
	}
	return time.Time{}
}

// Client says whose key it is that a client shows. It is the zero Client if nobody
// knows it, and one of Device and Root otherwise.
type Client struct {
	Device  *Device
	Root    bool
	Account string
	// Vault is nil if the account has none.
	Vault *vault.ID
}

// Open reads the accounts of a registry.
func Open(ctx context.Context, store storage.Registry, o Options) (*Accounts, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Accounts{
		o: o, store: store,
		accounts: make(map[string]*account),
		devices:  make(map[vault.DeviceID]*Device),
		byTLS:    make(map[tlsKey]*Device),
		roots:    make(map[tlsKey]root),
		logs:     make(map[vault.ID]weak.Pointer[Members]),
	}
	for kind, load := range map[storage.Kind]func(storage.Item) error{
		storage.KindAccount: a.loadAccount,
		storage.KindDevice:  a.loadDevice,
		storage.KindRoot:    a.loadRoot,
	} {
		for it, err := range store.Items(ctx, kind, storage.Key{}) {
			if err == nil {
				err = load(it)
			}
			if err != nil {
				return nil, fmt.Errorf("read accounts: %w", err)
			}
		}
	}
	for _, d := range a.devices {
		if a.accounts[d.Account] == nil {
			return nil, fmt.Errorf("read accounts: device %v is of no account: %w", d.ID, storage.ErrCorrupt)
		}
		a.accounts[d.Account].Devices++
	}
	a.loadSeen()
	return a, nil
}

func (a *Accounts) loadAccount(it storage.Item) error {
	acc, err := decodeAccount(it.Body)
	if err != nil || it.Key != accountKey(acc.Name) {
		return fmt.Errorf("account: %w", errors.Join(storage.ErrCorrupt, err))
	}
	a.accounts[acc.Name] = &account{acc, it.Rev}
	return nil
}

func (a *Accounts) loadDevice(it storage.Item) error {
	d, err := decodeDevice(it.Body)
	if err != nil || it.Key != deviceKey(d.ID) {
		return fmt.Errorf("device: %w", errors.Join(storage.ErrCorrupt, err))
	}
	a.devices[d.ID], a.byTLS[d.tls] = d, d
	return nil
}

func (a *Accounts) loadRoot(it storage.Item) error {
	r, err := decodeRoot(it.Body)
	if err != nil {
		return fmt.Errorf("root: %w", errors.Join(storage.ErrCorrupt, err))
	}
	a.roots[tlsKey(it.Key)] = r
	return nil
}

// Who says whose key it is that a client has shown.
func (a *Accounts) Who(tls ed25519.PublicKey) Client {
	if len(tls) != len(tlsKey{}) {
		return Client{}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	// A device first: that it has the key was shown when it enrolled, and what an
	// account calls its root was not.
	if d := a.byTLS[tlsKey(tls)]; d != nil {
		return Client{Device: d, Account: d.Account, Vault: a.accounts[d.Account].Vault}
	}
	if r, ok := a.roots[tlsKey(tls)]; ok {
		return Client{Root: true, Account: r.account, Vault: &r.vault}
	}
	return Client{}
}

// Vault returns the vault of an account, nil if it has none.
func (a *Accounts) Vault(name string) *vault.ID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if acc := a.accounts[name]; acc != nil {
		return acc.Vault
	}
	return nil
}

// Accounts lists the accounts by name.
func (a *Accounts) Accounts() []Account {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]Account, 0, len(a.accounts))
	for _, acc := range a.accounts {
		all = append(all, acc.Account)
	}
	slices.SortFunc(all, func(x, y Account) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// Devices lists the devices of an account, or of all if name is empty, by account,
// name and time of enrolment.
func (a *Accounts) Devices(name string) []*Device {
	a.mu.RLock()
	all := make([]*Device, 0, len(a.devices))
	for _, d := range a.devices {
		if name == "" || d.Account == name {
			all = append(all, d)
		}
	}
	a.mu.RUnlock()
	slices.SortFunc(all, func(x, y *Device) int {
		if c := strings.Compare(x.Account, y.Account); c != 0 {
			return c
		}
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return x.Enrolled.Compare(y.Enrolled)
	})
	return all
}

// Invite makes an invitation to an account, which need not exist. Empty means
// [DefaultAccount], and a ttl of 0 [DefaultTTL]. The caller adds addresses and pin;
// the secret is nowhere but in what is returned. Errors: [storage.ErrInvalid] for a
// name or span that no invitation can have.
func (a *Accounts) Invite(ctx context.Context, name string, ttl time.Duration) (wire.Invitation, error) {
	if name == "" {
		name = DefaultAccount
	}
	if err := checkAccount(name); err != nil {
		return wire.Invitation{}, err
	}
	if ttl == 0 {
		ttl = DefaultTTL
	}
	if ttl < time.Second || ttl > maxTTL {
		return wire.Invitation{}, fmt.Errorf("an invitation holds for 1s to %v, not %v: %w", maxTTL, ttl, storage.ErrInvalid)
	}
	i := wire.Invitation{Account: name, Expires: a.o.Now().Add(ttl).UTC().Truncate(time.Second)}
	rand.Read(i.Secret[:]) // never fails: it ends the process instead
	public := i.Key().Public().(ed25519.PublicKey)
	item := storage.Item{
		Kind: storage.KindInvitation, Key: storage.Key(public), Rev: 1,
		Body: invitation{account: name, expires: i.Expires}.encode(),
	}
	a.write.Lock()
	defer a.write.Unlock()
	if err := a.store.Set(context.WithoutCancel(ctx), item); err != nil {
		return wire.Invitation{}, fmt.Errorf("invite: %w", err)
	}
	a.o.Log.Info("invited", "expires", i.Expires)
	return i, nil
}

// Redeem makes a device of whoever holds an invitation, and consumes it. The caller
// has checked the request's signature, and that the client has the identity's tls
// key. A device that is enrolled in the same account already stays as it is.
//
// Errors: [wire.ErrInvitationUnknown], [wire.ErrInvitationExpired],
// [wire.ErrInvitationUsed]; [wire.ErrForbidden] if the client's key is that of
// another device, a root, or a device of another account; [wire.ErrMalformed] for
// an identity that is none.
func (a *Accounts) Redeem(ctx context.Context, r wire.EnrollRequest) (Client, error) {
	public, err := vault.ParsePublic(r.Identity[:])
	if err != nil {
		return Client{}, fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	if r.Name == "" || len(r.Name) > wire.MaxName {
		return Client{}, fmt.Errorf("%w: name of %d bytes", wire.ErrMalformed, len(r.Name))
	}
	a.write.Lock()
	defer a.write.Unlock()
	item, err := a.store.Lookup(ctx, storage.KindInvitation, storage.Key(r.Invitation))
	if errors.Is(err, storage.ErrNotFound) {
		return Client{}, fmt.Errorf("%w: ask the server's administrator for a new one", wire.ErrInvitationUnknown)
	}
	if err != nil {
		return Client{}, err
	}
	i, err := decodeInvitation(item.Body)
	now := a.o.Now()
	switch {
	case err != nil:
		return Client{}, fmt.Errorf("invitation: %w: %w", storage.ErrCorrupt, err)
	case !i.used.IsZero():
		return Client{}, fmt.Errorf("%w: each serves one device; ask for a new one", wire.ErrInvitationUsed)
	case now.After(i.expires):
		return Client{}, fmt.Errorf("%w on %s: ask for a new one", wire.ErrInvitationExpired, i.expires.Format(time.DateTime+" MST"))
	}
	d := &Device{ID: public.ID(), Name: r.Name, Account: i.account, Enrolled: now.UTC(), Sign: public.SignKey(), tls: tlsKey(public.TLS())}
	i.used, i.device = now.UTC(), d.ID
	item.Rev, item.Body = item.Rev+1, i.encode()
	items := []storage.Item{item}

	a.mu.RLock()
	known, acc := a.byTLS[d.tls], a.accounts[i.account]
	_, isRoot := a.roots[d.tls]
	a.mu.RUnlock()
	switch {
	case known != nil && known.ID != d.ID, isRoot:
		return Client{}, fmt.Errorf("%w: the certificate's key belongs to another identity", wire.ErrForbidden)
	case known != nil && known.Account != i.account:
		return Client{}, fmt.Errorf("%w: this device belongs to another account; enrol it as a new device", wire.ErrForbidden)
	case known == nil:
		items = append(items, storage.Item{Kind: storage.KindDevice, Key: deviceKey(d.ID), Rev: 1, Body: d.encode(public)})
	}
	if acc == nil {
		acc = &account{Account{Name: i.account, Created: now.UTC()}, 1}
		items = append(items, acc.item())
	}
	if err := a.store.Set(context.WithoutCancel(ctx), items...); err != nil {
		return Client{}, fmt.Errorf("enrol: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if known == nil {
		next := *acc
		next.Devices++
		a.accounts[i.account] = &next
		a.devices[d.ID], a.byTLS[d.tls], known = d, d, d
		a.o.Log.Info("enrolled", "device", d.ID)
	}
	return Client{Device: known, Account: i.account, Vault: acc.Vault}, nil
}

// Device returns an enrolled device, nil if there is none with the id.
func (a *Accounts) Device(id vault.DeviceID) *Device {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.devices[id]
}
