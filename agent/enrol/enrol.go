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
	"path/filepath"
	"time"

	"backstay/agent/config"
	"backstay/agent/device"
	client "backstay/agent/v4"
	"backstay/internal/durable"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Errors that callers branch on.
var (
	// ErrNeedsMember: the account has a vault already, and this machine is
	// enrolled but no member of it yet.
	ErrNeedsMember = errors.New("this machine is enrolled, but no member of the account's vault yet: " +
		"on one that is run \"agent pair\", and here \"agent pair CODE\" with the code it shows; or give the same \"agent join\" again with --phrase-file and the recovery kit")
	// ErrOtherVault: the server's account has another vault than the one this
	// machine, or the phrase, belongs to.
	ErrOtherVault = errors.New("the account's vault is another one")
	// ErrOtherKit: the account has no vault yet, and the kit is that of one on
	// another server.
	ErrOtherKit = errors.New("the account has no vault yet, and the recovery kit is that of a vault on another server: " +
		"name a file that does not exist, for a new kit; or ask for an invitation to that server")
	// ErrNoLog: the server does not know the vault of this machine, and neither
	// does this machine know who its members are.
	ErrNoLog = errors.New("the server does not know this machine's vault, and the list of its members, which the state folder held, is lost: " +
		"name the --state folder that this machine used; or move me.info and vault.info away and join as a new machine")
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
	// none. An account without a vault gets the one that the kit is for, as after
	// a join that was broken off when the kit had just been written.
	Kit *vault.Kit
	// Keep is given the kit of a new vault before the vault is made, and must
	// have shown or stored it when it returns nil.
	Keep func(vault.Kit) error
	// Former are the membership entries of the vault this machine belongs to,
	// for a server that does not have them; nil where it belongs to none.
	Former [][]byte
	Log    *slog.Logger
}

// Joined is what came of it.
type Joined struct {
	Device device.Device
	// Address is the one of the invitation's that answered.
	Address string
	// Anew: the server did not know the vault, so it holds nothing of it.
	Anew bool
}

// Join makes this machine a device and, if it can, a member. On a machine that is
// a member already it trusts the invitation's server from now on, and keeps keys,
// vault and catalog; if that does not work everything stays as it was. Where the
// server knows the machine the invitation is not used up, so that a join that was
// broken off can be given again.
//
// Errors: [ErrNeedsMember], with which the machine is enrolled all the same;
// [ErrOtherVault], [ErrOtherKit], [ErrNoLog]; the session's.
func Join(ctx context.Context, j Joining) (Joined, error) {
	var joined Joined
	d, err := device.Load(j.Folder)
	if errors.Is(err, device.ErrNotEnrolled) {
		if err = nil; d.Identity == nil {
			d, err = device.New(j.Name)
		}
	}
	if err != nil {
		return joined, err
	}
	// Before anything is used up: can all of it be written down?
	if _, err := transfer(j.Folder, j.Invitation.Addresses[0], d.Name, j.Paths); err != nil {
		return joined, err
	}
	d.Pin = j.Invitation.Pin
	s, err := enroll(ctx, j, &d, &joined)
	if err != nil {
		return joined, err
	}
	defer s.Close()
	err = member(ctx, j, &d, s, &joined)
	joined.Device = d
	if err != nil && !errors.Is(err, ErrNeedsMember) {
		return joined, err
	}
	data, terr := transfer(j.Folder, joined.Address, d.Name, j.Paths)
	if terr == nil {
		terr = d.Save(j.Folder)
	}
	if terr == nil {
		terr = durable.WriteFile(filepath.Join(j.Folder, config.TransferFile), data, 0o600)
	}
	return joined, errors.Join(terr, err)
}

// enroll returns a session as a device with the first of the invitation's addresses
// that answers. It redeems the invitation if the server does not know the device.
func enroll(ctx context.Context, j Joining, d *device.Device, joined *Joined) (*client.Session, error) {
	var errs []error
	for _, address := range j.Invitation.Addresses {
		dial := func() (*client.Session, error) {
			return client.Dial(ctx, client.Options{Address: address, Pin: d.Pin, Key: d.Identity.TLS(), Log: j.Log})
		}
		s, err := dial()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		joined.Address = address
		if s.Hello().Client == v4.ClientUnknown {
			if err = redeem(ctx, j, d, s); err == nil {
				s.Close()
				s, err = dial()
			}
		}
		if err == nil && s.Hello().Account != j.Invitation.Account {
			err = fmt.Errorf("this machine belongs to the account %q there, and the invitation is to %q; ask for one to the former, or move me.info and vault.info away and join as a new machine",
				s.Hello().Account, j.Invitation.Account)
		}
		if err != nil {
			if s != nil {
				s.Close()
			}
			return nil, err
		}
		d.Account = s.Hello().Account
		return s, nil
	}
	return nil, errors.Join(errs...)
}

func redeem(ctx context.Context, j Joining, d *device.Device, s *client.Session) error {
	// The keys are durable before the server knows them.
	if err := d.SaveKeys(j.Folder); err != nil {
		return err
	}
	_, _, err := s.Enroll(ctx, j.Invitation, d.Identity, d.Name)
	return err
}

// member makes the device a member of the account's vault, and the vault if there
// is none.
func member(ctx context.Context, j Joining, d *device.Device, s *client.Session, joined *Joined) error {
	hello := s.Hello()
	switch {
	case d.Vault != (vault.ID{}):
		if hello.Vault != nil && *hello.Vault != d.Vault {
			return fmt.Errorf("%w: this machine's is %v, the server's %v; ask for an invitation to the right account, or move me.info and vault.info away and join as a new machine",
				ErrOtherVault, d.Vault, *hello.Vault)
		}
		joined.Anew = hello.Vault == nil
		return bring(ctx, j, s, joined.Anew)
	case hello.Vault == nil:
		return found(ctx, j, d, joined.Address, s)
	case j.Kit == nil:
		return ErrNeedsMember
	}
	return byPhrase(ctx, j, d, s)
}

// bring tells a server that does not know all members of the vault who they are.
func bring(ctx context.Context, j Joining, s *client.Session, anew bool) error {
	if anew && len(j.Former) == 0 {
		return ErrNoLog
	}
	known := 0
	if !anew {
		entries, err := s.Members(ctx, 0)
		if err != nil {
			return err
		}
		known = len(entries)
	}
	for _, entry := range j.Former[min(known, len(j.Former)):] {
		if err := s.AppendMember(ctx, entry); err != nil {
			return err
		}
	}
	return nil
}

// found makes a vault with this device as its first.
func found(ctx context.Context, j Joining, d *device.Device, address string, s *client.Session) error {
	pin, id := [32]byte(d.Pin), vault.NewID()
	kit := vault.Kit{Seed: vault.NewKey(), Servers: []string{address}, Pin: &pin, Vault: &id}
	if j.Kit != nil {
		if j.Kit.Pin != nil && *j.Kit.Pin != pin {
			return ErrOtherKit
		}
		if kit.Seed = j.Kit.Seed; j.Kit.Vault != nil {
			kit.Vault = j.Kit.Vault
		}
	} else if err := j.Keep(kit); err != nil {
		return err
	}
	root, err := vault.NewIdentity(vault.RoleRoot, kit.Seed)
	if err != nil {
		return err
	}
	m := vault.NewMembers(*kit.Vault)
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
	return admit(ctx, d, s, m, root)
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
		return fmt.Errorf("%w: the phrase belongs to another; look for the kit that was made with this account's first machine", ErrOtherVault)
	}
	return admit(ctx, d, s, m, root)
}

// admit adds this device to the log with the root's right, if it is not there, and
// notes the vault.
func admit(ctx context.Context, d *device.Device, s *client.Session, m *vault.Members, root *vault.Identity) error {
	if _, status := m.Member(d.Identity.ID()); status == vault.StatusUnknown {
		if err := add(ctx, s, m, root, m.Genesis(), d.Identity.Public(), d.Name); err != nil {
			return err
		}
	}
	d.Vault, d.Genesis = m.Vault(), m.Genesis()
	return nil
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
