package v4

import (
	"context"
	"fmt"
	"sync"
	"time"

	wire "backstay/protocol/v4"
)

// Limits of the mailbox.
const (
	mailTime = 10 * time.Minute // how long a message is kept
	mailWait = 30 * time.Second // how long a request waits for one
	// maxSlots and maxReaders bound the messages, and the requests that wait, of one
	// account, and thereby how fast codes can be guessed; allSlots and allReaders
	// those of all.
	maxSlots, allSlots     = 32, 1024
	maxReaders, allReaders = 8, 64
)

// mailbox holds the messages of pairing, in memory: devices that pair are both
// connected. The zero value is ready.
type mailbox struct {
	mu       sync.Mutex // guards what follows
	accounts map[string]*box
	slots    int
	readers  int
}

// box is the part of an account. It is there while anything is in it.
type box struct {
	slots   map[wire.Slot]mail
	readers int
	changed chan struct{} // closed when a message comes
}

type mail struct {
	message []byte
	until   time.Time
}

// open returns the account's part without what is over; mu is held.
func (m *mailbox) open(account string, now time.Time) *box {
	if m.accounts == nil {
		m.accounts = make(map[string]*box)
	}
	for name, b := range m.accounts {
		for slot, mail := range b.slots {
			if !now.Before(mail.until) {
				delete(b.slots, slot)
				m.slots--
			}
		}
		m.close(name)
	}
	b := m.accounts[account]
	if b == nil {
		b = &box{slots: make(map[wire.Slot]mail), changed: make(chan struct{})}
		m.accounts[account] = b
	}
	return b
}

// close forgets the account's part if nothing is in it; mu is held.
func (m *mailbox) close(account string) {
	if b := m.accounts[account]; b != nil && len(b.slots) == 0 && b.readers == 0 {
		delete(m.accounts, account)
	}
}

// put leaves a message in a slot. Errors: [wire.ErrConflict] if there is one,
// [wire.ErrBusy].
func (m *mailbox) put(account string, slot wire.Slot, message []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	b := m.open(account, now)
	defer m.close(account)
	if _, taken := b.slots[slot]; taken {
		return fmt.Errorf("%w: the slot has a message", wire.ErrConflict)
	}
	if len(b.slots) >= maxSlots || m.slots >= allSlots {
		return fmt.Errorf("%w: too many pairings at once", wire.ErrBusy)
	}
	b.slots[slot] = mail{append([]byte(nil), message...), now.Add(mailTime)}
	m.slots++
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

// get waits for the message of a slot. Errors: [wire.ErrNotFound] if none comes,
// [wire.ErrBusy], ctx's cause.
func (m *mailbox) get(ctx context.Context, account string, slot wire.Slot) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.open(account, time.Now())
	defer m.close(account)
	if b.readers >= maxReaders || m.readers >= allReaders {
		return nil, fmt.Errorf("%w: too many pairings at once", wire.ErrBusy)
	}
	b.readers++
	m.readers++
	defer func() { b.readers--; m.readers-- }()
	over := time.NewTimer(mailWait)
	defer over.Stop()
	for {
		if mail, ok := b.slots[slot]; ok && time.Now().Before(mail.until) {
			return mail.message, nil
		}
		changed := b.changed
		m.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-over.C:
			err = fmt.Errorf("%w: no message came", wire.ErrNotFound)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		m.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
}
