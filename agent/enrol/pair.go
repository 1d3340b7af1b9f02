package enrol

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backstay/agent/device"
	client "backstay/agent/v4"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// codeLife is how long a pairing code is good for.
const codeLife = 10 * time.Minute

// Admit waits for a device that was given the code and makes it a member, with the
// right of this one. It returns the new device's name. Errors: v4.ErrPairing if
// somebody answered who does not know the code; the context's; the session's.
func Admit(ctx context.Context, s *client.Session, d device.Device, code v4.PairingCode) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, codeLife)
	defer cancel()
	message, err := wait(ctx, s, code.Slot(v4.SideJoiner))
	if err != nil {
		return "", err
	}
	body, err := code.Open(v4.SideJoiner, message)
	if err != nil {
		return "", err
	}
	joiner, err := v4.ParseJoinerBody(body)
	if err != nil {
		return "", err
	}
	m, err := Members(ctx, s, d.Vault)
	if err != nil {
		return "", err
	}
	if _, status := m.Member(joiner.Identity.ID()); status == vault.StatusUnknown {
		if err := add(ctx, s, m, d.Identity, d.Genesis, joiner.Identity, joiner.Name); err != nil {
			return "", err
		}
	}
	answer := v4.MemberBody{Vault: d.Vault, Genesis: d.Genesis, Entry: m.Len() - 1}
	return joiner.Name, s.MailboxPut(ctx, code.Slot(v4.SideMember), code.Seal(v4.SideMember, answer.Append(nil)))
}

// Pair makes this device a member with the help of the one that showed the code.
func Pair(ctx context.Context, s *client.Session, folder string, d *device.Device, code v4.PairingCode) error {
	ctx, cancel := context.WithTimeout(ctx, codeLife)
	defer cancel()
	me := v4.JoinerBody{Identity: d.Identity.Public(), Name: d.Name}
	if err := s.MailboxPut(ctx, code.Slot(v4.SideJoiner), code.Seal(v4.SideJoiner, me.Append(nil))); err != nil {
		return err
	}
	message, err := wait(ctx, s, code.Slot(v4.SideMember))
	if err != nil {
		return err
	}
	body, err := code.Open(v4.SideMember, message)
	if err != nil {
		return err
	}
	member, err := v4.ParseMemberBody(body)
	if err != nil {
		return err
	}
	m, err := Members(ctx, s, member.Vault)
	if err != nil {
		return err
	}
	// The other device vouches for the first entry; the rest follows from it.
	if _, err := m.Unlock(d.Identity, member.Genesis); err != nil {
		return err
	}
	d.Vault, d.Genesis = member.Vault, member.Genesis
	return d.Save(folder)
}

// wait reads a slot when there is a message in it.
func wait(ctx context.Context, s *client.Session, slot v4.Slot) ([]byte, error) {
	for {
		message, err := s.MailboxGet(ctx, slot)
		switch {
		case err == nil:
			return message, nil
		case errors.Is(err, context.DeadlineExceeded):
			return nil, fmt.Errorf("nobody used the code within %v; start again with a new one", codeLife)
		case !errors.Is(err, v4.ErrNotFound):
			return nil, err
		}
	}
}

// Revoke ends a device's membership and begins a new epoch, so that it cannot open
// what is stored from now on. The server refuses it at once.
func Revoke(ctx context.Context, s *client.Session, d device.Device, id vault.DeviceID) error {
	m, err := Members(ctx, s, d.Vault)
	if err != nil {
		return err
	}
	return appendEntry(ctx, s, m, d.Identity, d.Genesis, func(keys *vault.Keyring) ([]byte, error) {
		return m.SignRevoke(d.Identity, keys, id, time.Now())
	})
}
