// Package enrol makes this machine a device of a server and a member of a vault:
// by an invitation and then, where the vault exists already, by a pairing code or
// the recovery phrase. It also reads who the other members are, and revokes them.
//
// The one invariant: nothing that would be the only copy of a key is used before it
// is durable: the device's seed before the server hears of it, the recovery phrase
// before the vault is made. And a key is wrapped only to who was verified from the
// first entry of the membership log on.
package enrol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"backstay/agent/config"
	"backstay/agent/device"
	client "backstay/agent/v4"
	"backstay/protocol/info"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Errors that callers branch on.
var (
	// ErrNeedsMember: the account has a vault already, and this machine is
	// enrolled but no member of it yet.
	ErrNeedsMember = errors.New("this machine is enrolled, but another device made the account's vault before: " +
		"on that one run \"agent pair\", and here \"agent pair CODE\" with the code it shows; or join again with --phrase-file and the recovery kit")
	// ErrOtherVault: the server's account has another vault than the one this
	// machine, or the phrase, belongs to.
	ErrOtherVault = errors.New("the account's vault is another one")
)

// Joining says how to join.
type Joining struct {
	// Folder is the config folder.
	Folder     string
	Invitation v4.Invitation
	// Name is what this machine is to be called.
	Name string
	// Paths are what to protect, absolute; they are added to transfer.info.
	Paths []string
	// Kit is the recovery kit, to join a vault that exists; nil where there is
	// none.
	Kit *vault.Kit
	// Keep is given the kit of a new vault before the vault is made, and must
	// have shown or stored it when it returns nil.
	Keep func(vault.Kit) error
	// Former are the membership entries of the vault this machine belongs to,
	// for a server that does not have them; nil where it belongs to none.
	Former [][]byte
	Log    *slog.Logger
}

// Join makes this machine a device and, if it can, a member. On a machine that is
// enrolled already it trusts the invitation's server from now on, and keeps keys,
// vault and catalog. Errors: ErrNeedsMember, ErrOtherVault, the session's.
func Join(ctx context.Context, j Joining) (device.Device, error) {
	d, err := device.Load(j.Folder)
	if errors.Is(err, device.ErrNotEnrolled) {
		d, err = device.New(j.Name)
	}
	if err != nil {
		return d, err
	}
	d.Pin, d.Account = j.Invitation.Pin, j.Invitation.Account
	// Before anything is used up: is there something that cannot be understood?
	if err := editTransfer(j.Folder, func(*info.Transfer) error { return nil }); err != nil && !errors.Is(err, config.ErrNotSetUp) {
		return d, err
	}
	address, err := enroll(ctx, j, &d)
	if err != nil {
		return d, err
	}
	if err := writeTransfer(j.Folder, address, d.Name, j.Paths); err != nil {
		return d, err
	}
	return d, member(ctx, j, &d, address)
}

// enroll redeems the invitation at the first of its addresses that answers.
func enroll(ctx context.Context, j Joining, d *device.Device) (string, error) {
	var errs []error
	for _, address := range j.Invitation.Addresses {
		s, err := client.Dial(ctx, client.Options{Address: address, Pin: d.Pin, Key: d.Identity.TLS(), Log: j.Log})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
			continue
		}
		defer s.Close()
		// The keys are durable before the server knows them.
		if err := d.Save(j.Folder); err != nil {
			return "", err
		}
		account, _, err := s.Enroll(ctx, j.Invitation, d.Identity, d.Name)
		if err != nil {
			return "", err
		}
		d.Account = account
		return address, d.Save(j.Folder)
	}
	return "", errors.Join(errs...)
}

// member makes the device a member of the account's vault, and the vault if there
// is none.
func member(ctx context.Context, j Joining, d *device.Device, address string) error {
	s, err := client.Dial(ctx, client.Options{Address: address, Pin: d.Pin, Key: d.Identity.TLS(), Log: j.Log})
	if err != nil {
		return err
	}
	defer s.Close()
	hello := s.Hello()
	switch {
	case hello.Vault == nil && d.Vault != (vault.ID{}):
		// A new server for a vault that exists: it learns who the members are.
		for _, entry := range j.Former {
			if err := s.AppendMember(ctx, entry); err != nil {
				return err
			}
		}
		return nil
	case hello.Vault == nil:
		return found(ctx, j, d, address, s)
	case d.Vault != (vault.ID{}):
		if *hello.Vault != d.Vault {
			return fmt.Errorf("%w: this machine's is %v, the server's %v", ErrOtherVault, d.Vault, *hello.Vault)
		}
		return nil
	case j.Kit == nil:
		return ErrNeedsMember
	}
	return byPhrase(ctx, j, d, s)
}

// found makes a vault with this device as its first.
func found(ctx context.Context, j Joining, d *device.Device, address string, s *client.Session) error {
	seed := vault.NewKey()
	if j.Kit != nil {
		seed = j.Kit.Seed
	}
	root, err := vault.NewIdentity(vault.RoleRoot, seed)
	if err != nil {
		return err
	}
	id := vault.NewID()
	pin := [32]byte(d.Pin)
	if j.Kit == nil {
		if err := j.Keep(vault.Kit{Seed: seed, Servers: []string{address}, Pin: &pin, Vault: &id}); err != nil {
			return err
		}
	}
	m := vault.NewMembers(id)
	genesis, err := m.SignGenesis(root, time.Now())
	if err != nil {
		return err
	}
	if err := m.Append(genesis); err != nil {
		return err
	}
	if err := s.AppendMember(ctx, genesis); err != nil {
		return err
	}
	return admit(ctx, j.Folder, d, s, m, root)
}

// byPhrase makes this device a member with the right of the recovery phrase.
func byPhrase(ctx context.Context, j Joining, d *device.Device, s *client.Session) error {
	root, err := vault.NewIdentity(vault.RoleRoot, j.Kit.Seed)
	if err != nil {
		return err
	}
	m, err := Members(ctx, s, *s.Hello().Vault)
	if err != nil {
		return err
	}
	if m.Root() != root.Public() {
		return fmt.Errorf("%w: the phrase belongs to another", ErrOtherVault)
	}
	return admit(ctx, j.Folder, d, s, m, root)
}

// admit adds this device to the log with the root's right, if it is not there, and
// notes the vault.
func admit(ctx context.Context, folder string, d *device.Device, s *client.Session, m *vault.Members, root *vault.Identity) error {
	if _, status := m.Member(d.Identity.ID()); status == vault.StatusUnknown {
		if err := add(ctx, s, m, root, m.Genesis(), d.Identity.Public(), d.Name); err != nil {
			return err
		}
	}
	d.Vault, d.Genesis = m.Vault(), m.Genesis()
	return d.Save(folder)
}

// attempts is how often an entry is made anew when others append at the same time.
const attempts = 5

// add appends a device to the log. m goes on to the newest entry.
func add(ctx context.Context, s *client.Session, m *vault.Members, signer *vault.Identity, genesis vault.EntryHash, public vault.Public, name string) error {
	return appendEntry(ctx, s, m, signer, genesis, func(keys *vault.Keyring) ([]byte, error) {
		return m.SignAdd(signer, keys, public, name, time.Now())
	})
}

func appendEntry(ctx context.Context, s *client.Session, m *vault.Members, signer *vault.Identity, genesis vault.EntryHash, make func(*vault.Keyring) ([]byte, error)) error {
	for n := 1; ; n++ {
		keys, err := m.Unlock(signer, genesis)
		if err != nil {
			return err
		}
		entry, err := make(keys)
		if err != nil {
			return err
		}
		err = s.AppendMember(ctx, entry)
		if err == nil {
			return m.Append(entry)
		}
		if !errors.Is(err, v4.ErrConflict) || n == attempts {
			return err
		}
		if err := update(ctx, s, m); err != nil {
			return err
		}
	}
}

// Members reads a vault's membership log and verifies it from its first entry. That
// the first entry is the right one is for the caller to say.
func Members(ctx context.Context, s *client.Session, id vault.ID) (*vault.Members, error) {
	m := vault.NewMembers(id)
	return m, update(ctx, s, m)
}

func update(ctx context.Context, s *client.Session, m *vault.Members) error {
	entries, err := s.Members(ctx, m.Len())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := m.Append(entry); err != nil {
			return fmt.Errorf("the server's membership log does not verify, it may have been tampered with: %w", err)
		}
	}
	return nil
}
