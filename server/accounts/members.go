package accounts

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"weak"

	"backstay/protocol/cbor"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// Members is the membership log of a vault, verified from its first entry on. There
// is one for each vault, for as long as somebody holds it.
type Members struct {
	// gate is held for reading while something is done that must not outlive the
	// membership it was checked against, for writing while an entry is appended.
	gate sync.RWMutex
	log  atomic.Pointer[vault.Members] // never changed, but replaced
}

// Now returns the log as it is. It is not changed any more, and must not be.
func (m *Members) Now() *vault.Members { return m.log.Load() }

// While calls f with the log and keeps it as it is until f returns.
func (m *Members) While(f func(*vault.Members) error) error {
	m.gate.RLock()
	defer m.gate.RUnlock()
	return f(m.Now())
}

// Ended says whether a device was revoked, or what added it was taken back.
func Ended(log *vault.Members, id vault.DeviceID) bool {
	_, status := log.Member(id)
	return status == vault.StatusRevoked || status == vault.StatusVoided
}

// Members returns the membership log of a vault, reading and verifying it if nobody
// holds it. Errors: [storage.ErrCorrupt] for entries that do not verify.
func (a *Accounts) Members(ctx context.Context, v vault.ID) (*Members, error) {
	if m := a.held(v); m != nil {
		return m, nil
	}
	// Appending waits, too: what is read is what there is.
	a.write.Lock()
	defer a.write.Unlock()
	return a.members(ctx, v)
}

func (a *Accounts) held(v vault.ID) *Members {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.logs[v].Value()
}

// members is Members for who holds write.
func (a *Accounts) members(ctx context.Context, v vault.ID) (*Members, error) {
	if m := a.held(v); m != nil {
		return m, nil
	}
	log := vault.NewMembers(v)
	for it, err := range a.store.Items(ctx, storage.KindMember, memberKey(v, 0)) {
		if err == nil && vault.ID(it.Key[:len(v)]) != v {
			break
		}
		if err == nil && it.Key != memberKey(v, log.Len()) {
			err = fmt.Errorf("entry %d is missing: %w", log.Len(), storage.ErrCorrupt)
		}
		if err == nil {
			if err = log.Append(it.Body); err != nil {
				err = fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("members of vault %v: %w", v, err)
		}
	}
	if log.Len() == 0 {
		return nil, fmt.Errorf("members of vault %v: none: %w", v, storage.ErrCorrupt)
	}
	m := &Members{}
	m.log.Store(log)
	a.keep(v, m)
	return m, nil
}

// keep remembers a log for as long as others hold it.
func (a *Accounts) keep(v vault.ID, m *Members) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for v, p := range a.logs {
		if p.Value() == nil {
			delete(a.logs, v)
		}
	}
	a.logs[v] = weak.Make(m)
}

// Append verifies the next entry of the log of an account's vault and makes it
// durable. The first entry makes the vault. It returns the log with the entry in it.
//
// Errors: [wire.ErrConflict] if the entry is not the next, or names a vault or root
// that there is already; [wire.ErrMalformed] if it breaks the rules.
func (a *Accounts) Append(ctx context.Context, name string, entry []byte) (*Members, error) {
	a.write.Lock()
	defer a.write.Unlock()
	v := a.Vault(name)
	if v == nil {
		return a.found(ctx, name, entry)
	}
	m, err := a.members(ctx, *v)
	if err != nil {
		return nil, err
	}
	next := m.Now().Clone()
	number := next.Len()
	if err := next.Append(entry); err != nil {
		return nil, refusal(err)
	}
	m.gate.Lock()
	defer m.gate.Unlock()
	if err := a.store.Set(context.WithoutCancel(ctx), memberItem(*v, number, entry)); err != nil {
		return nil, fmt.Errorf("member entry %d: %w", number, err)
	}
	m.log.Store(next)
	a.o.Log.Info("membership goes on", "vault", *v, "entry", number)
	return m, nil
}

// found makes the vault of an account by its first entry.
func (a *Accounts) found(ctx context.Context, name string, entry []byte) (*Members, error) {
	v, err := foundedVault(entry)
	if err != nil {
		return nil, fmt.Errorf("%w: first member entry: %w", wire.ErrMalformed, err)
	}
	log := vault.NewMembers(v)
	if err := log.Append(entry); err != nil {
		return nil, refusal(err)
	}
	key := tlsKey(log.Root().TLS())
	a.mu.RLock()
	next := *a.accounts[name]
	taken := a.byTLS[key] != nil
	a.mu.RUnlock()
	for _, reserved := range a.o.Reserved {
		taken = taken || v == reserved
	}
	if taken {
		return nil, fmt.Errorf("%w: the vault or its root is somebody's already", wire.ErrConflict)
	}
	next.Vault = &v
	next.rev++
	r := root{v, name}
	err = a.store.Set(context.WithoutCancel(ctx), memberItem(v, 0, entry), next.item(),
		storage.Item{Kind: storage.KindRoot, Key: storage.Key(key), Rev: 1, Body: r.encode()})
	if errors.Is(err, storage.ErrConflict) {
		return nil, fmt.Errorf("%w: the vault or its root is somebody's already", wire.ErrConflict)
	}
	if err != nil {
		return nil, fmt.Errorf("first member entry: %w", err)
	}
	m := &Members{}
	m.log.Store(log)
	a.keep(v, m)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accounts[name], a.roots[key] = &next, r
	a.o.Log.Info("vault made", "vault", v)
	return m, nil
}

// refusal tells an entry that came too late from one that is wrong.
func refusal(err error) error {
	if errors.Is(err, vault.ErrNotNext) {
		return fmt.Errorf("%w: %w", wire.ErrConflict, err)
	}
	return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
}

// foundedVault returns the vault that a first entry names, which its signature is
// for: key 13 of its body (SPEC.md, "Members").
func foundedVault(entry []byte) (v vault.ID, err error) {
	if len(entry) <= ed25519.SignatureSize {
		return v, fmt.Errorf("%d bytes", len(entry))
	}
	body, err := cbor.Parse(entry[ed25519.SignatureSize:])
	if err != nil {
		return v, err
	}
	_, pairs, err := body.Map()
	if err != nil {
		return v, err
	}
	for key, value := range pairs {
		if key == 13 {
			id, err := value.Bytes()
			if err == nil && len(id) != len(v) {
				err = fmt.Errorf("vault id of %d bytes", len(id))
			}
			copy(v[:], id)
			return v, err
		}
	}
	return v, errors.New("it names no vault")
}

func memberKey(v vault.ID, number uint64) (k storage.Key) {
	copy(k[:], v[:])
	binary.BigEndian.PutUint64(k[24:], number)
	return k
}

func memberItem(v vault.ID, number uint64, entry []byte) storage.Item {
	return storage.Item{Kind: storage.KindMember, Key: memberKey(v, number), Rev: 1, Body: entry}
}
