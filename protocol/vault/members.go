package vault

import (
	"crypto/ed25519"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Members is a vault's membership log, verified from its first entry on by the
// rules of SPEC.md, "Members": who may write to the vault, and who can open it.
//
// The log proves that its root approved of it, and nothing about who the root is.
// That is for [Members.Unlock] to ask, without which nobody gets a key.
//
// It keeps all entries in memory, and is not safe for concurrent use while
// [Members.Append] runs.
type Members struct {
	vault ID
	root  *Member // as a member, who is in no state's live
	log   []logEntry
	index map[EntryHash]int // of each entry in log
	added map[DeviceID]int  // the entry that added each device there ever was
	// void is the number of the newest void, 0 if there is none.
	void int
}

// logEntry is an accepted entry and the state after it.
type logEntry struct {
	*entry
	raw  []byte
	hash EntryHash
	// voided says that a later void does not keep the entry.
	voided bool
	// live are the live devices, ascending by id. It is never changed, and so
	// shared between states.
	live []*Member
	// newest is the highest epoch of any entry so far.
	newest uint32
}

// Member is a device of a vault.
type Member struct {
	ID DeviceID
	// Name is what its owner called it: text of up to MaxName bytes, of any
	// characters.
	Name   string
	Public Public
	// Added is the number of the entry that added it.
	Added uint64
}

// Status is what a membership log says about a device.
type Status uint8

// The states of a device.
const (
	// StatusUnknown: no entry added it.
	StatusUnknown Status = 0
	// StatusLive: it may write, and begin epochs.
	StatusLive Status = 1
	// StatusRevoked: an entry revoked it.
	StatusRevoked Status = 2
	// StatusVoided: the entry that added it was voided.
	StatusVoided Status = 3
)

func (s Status) String() string {
	switch s {
	case StatusLive:
		return "live"
	case StatusRevoked:
		return "revoked"
	case StatusVoided:
		return "voided"
	}
	return "unknown"
}

// NewMembers returns the empty log of a vault.
func NewMembers(vault ID) *Members {
	return &Members{vault: vault, index: make(map[EntryHash]int), added: make(map[DeviceID]int)}
}

// Clone returns a copy that goes its own way.
func (m *Members) Clone() *Members {
	c := *m
	c.log, c.index, c.added = slices.Clone(m.log), maps.Clone(m.index), maps.Clone(m.added)
	return &c
}

// Append verifies the entry that follows the head and takes a copy of it into the
// log. On error nothing changes.
//
// Errors: [ErrNotNext] if it has another number or follows another entry than the
// head; otherwise [ErrMember], with the rule that is broken.
func (m *Members) Append(raw []byte) error {
	raw = slices.Clone(raw)
	e, live, err := m.check(raw)
	if err != nil {
		return fmt.Errorf("member entry %d: %w", len(m.log), err)
	}
	n := len(m.log)
	switch e.kind {
	case kindGenesis:
		m.root = &Member{ID: e.signer, Public: *e.public}
	case kindAdd:
		m.added[e.public.ID()] = n
	case kindVoid:
		for i := m.index[e.keep] + 1; i < n; i++ {
			m.log[i].voided = true
		}
		m.void = n
	}
	hash := hashEntry(raw)
	m.index[hash] = n
	m.log = append(m.log, logEntry{entry: e, raw: raw, hash: hash, live: live, newest: e.epoch})
	return nil
}

// check verifies the entry that follows the head, and returns it with the devices
// that are live after it.
func (m *Members) check(raw []byte) (*entry, []*Member, error) {
	if len(raw) > MaxEntry {
		return nil, nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrMember, len(raw), MaxEntry)
	}
	body, err := bodyOf(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMember, err)
	}
	e, err := parseEntry(body)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMember, err)
	}
	if e.number != m.Len() || e.prev != m.Head() {
		return nil, nil, fmt.Errorf("%w: it is number %d after %v", ErrNotNext, e.number, e.prev)
	}
	signer, live, err := m.step(e)
	if err == nil {
		err = e.checkWraps(m.recipients(e, live))
	}
	if err == nil {
		_, err = verify(signer, labelEntry, m.vault, raw)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMember, err)
	}
	return e, live, nil
}

// step applies the rules that do not depend on signature and wrapped keys. It
// returns the key that must have signed the entry, and the devices that are live
// after it.
func (m *Members) step(e *entry) (ed25519.PublicKey, []*Member, error) {
	if len(m.log) == 0 || e.kind == kindGenesis {
		return m.genesis(e)
	}
	last := &m.log[len(m.log)-1]
	live := last.live
	byRoot := e.signer == m.root.ID
	signer := m.root
	if !byRoot {
		if signer = find(live, e.signer); signer == nil {
			return nil, nil, fmt.Errorf("signer %v is neither the root nor a live device", e.signer)
		}
	}
	epoch := uint64(last.newest)
	if e.kind.newEpoch() {
		epoch++
	}
	if uint64(e.epoch) != epoch {
		return nil, nil, fmt.Errorf("epoch %d, want %d", e.epoch, epoch)
	}
	switch e.kind {
	case kindAdd:
		device := &Member{ID: e.public.ID(), Name: e.name, Public: *e.public, Added: e.number}
		if at, ok := m.added[device.ID]; ok {
			return nil, nil, fmt.Errorf("device %v was added before, by entry %d", device.ID, at)
		}
		if device.ID == m.root.ID {
			return nil, nil, fmt.Errorf("the root is no device")
		}
		if len(live) == MaxDevices {
			return nil, nil, fmt.Errorf("the vault has %d live devices, the limit", len(live))
		}
		at, _ := slices.BinarySearchFunc(live, device, compareMembers)
		live = slices.Insert(slices.Clone(live), at, device)
	case kindRevoke:
		device := find(live, e.target)
		if device == nil {
			return nil, nil, fmt.Errorf("device %v is not live", e.target)
		}
		live = slices.DeleteFunc(slices.Clone(live), func(d *Member) bool { return d == device })
	case kindVoid:
		if !byRoot {
			return nil, nil, fmt.Errorf("a void is for the root to sign, not for %v", e.signer)
		}
		keep, ok := m.index[e.keep]
		if !ok {
			return nil, nil, fmt.Errorf("entry %v, the last to stay, is not in the log", e.keep)
		}
		if keep < m.void {
			return nil, nil, fmt.Errorf("entry %d, the last to stay, is before the newest void, entry %d", keep, m.void)
		}
		live = m.log[keep].live
	}
	return signer.Public.SignKey(), live, nil
}

// genesis applies the rules of the first entry.
func (m *Members) genesis(e *entry) (ed25519.PublicKey, []*Member, error) {
	switch {
	case len(m.log) > 0:
		return nil, nil, fmt.Errorf("a second genesis")
	case e.kind != kindGenesis:
		return nil, nil, fmt.Errorf("the first entry is no genesis")
	case e.vault != m.vault:
		return nil, nil, fmt.Errorf("genesis of vault %v, want %v", e.vault, m.vault)
	case e.signer != e.public.ID():
		return nil, nil, fmt.Errorf("genesis signed by %v and not by the root it states", e.signer)
	case e.epoch != FirstEpoch:
		return nil, nil, fmt.Errorf("epoch %d, want %d", e.epoch, FirstEpoch)
	}
	return e.public.SignKey(), nil, nil
}

// recipients returns whom the key of an entry is wrapped to, ascending by id.
func (m *Members) recipients(e *entry, live []*Member) []*Member {
	switch e.kind {
	case kindGenesis:
		return []*Member{{ID: e.signer, Public: *e.public}}
	case kindAdd:
		return []*Member{{ID: e.public.ID(), Public: *e.public}}
	}
	at, _ := slices.BinarySearchFunc(live, m.root, compareMembers)
	return slices.Insert(slices.Clone(live), at, m.root)
}

func find(live []*Member, id DeviceID) *Member {
	if i, ok := slices.BinarySearchFunc(live, &Member{ID: id}, compareMembers); ok {
		return live[i]
	}
	return nil
}

// Vault returns the id of the log's vault.
func (m *Members) Vault() ID { return m.vault }

// Len returns the number of entries, which is the number of the next one.
func (m *Members) Len() uint64 { return uint64(len(m.log)) }

// Head returns the hash of the last entry, zero if there is none.
func (m *Members) Head() EntryHash {
	if len(m.log) == 0 {
		return EntryHash{}
	}
	return m.log[len(m.log)-1].hash
}

// Genesis returns the hash of the first entry, zero if there is none. It names
// the vault's root beyond doubt.
func (m *Members) Genesis() EntryHash {
	if len(m.log) == 0 {
		return EntryHash{}
	}
	return m.log[0].hash
}

// Root returns the root's public identity, zero if there is no entry.
func (m *Members) Root() Public {
	if m.root == nil {
		return Public{}
	}
	return m.root.Public
}

// Epoch returns the current epoch, 0 if there is no entry.
func (m *Members) Epoch() uint32 {
	if len(m.log) == 0 {
		return 0
	}
	return m.log[len(m.log)-1].newest
}

// Entries returns the entries from a number on, as they were appended. They must
// not be changed.
func (m *Members) Entries(from uint64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, l := range m.log[min(from, m.Len()):] {
			if !yield(l.raw) {
				return
			}
		}
	}
}

// Live returns the live devices, ascending by id.
func (m *Members) Live() []Member {
	s, _ := m.At(m.Head())
	return s.Live()
}

// All returns every device that was ever added, whatever became of it, in the
// order of the log.
func (m *Members) All() []Member {
	var all []Member
	for _, l := range m.log {
		if l.kind == kindAdd {
			member, _ := m.Member(l.public.ID())
			all = append(all, member)
		}
	}
	return all
}

// Member returns what the log says about a device. The Member is zero if the
// device is unknown.
func (m *Members) Member(id DeviceID) (Member, Status) {
	at, ok := m.added[id]
	if !ok {
		return Member{}, StatusUnknown
	}
	e := m.log[at]
	switch device := find(e.live, id); {
	case find(m.log[len(m.log)-1].live, id) != nil:
		return *device, StatusLive
	case e.voided:
		return *device, StatusVoided
	default:
		return *device, StatusRevoked
	}
}

// Snapshot is the membership of a vault after one entry.
type Snapshot struct {
	// Number is that of the entry.
	Number uint64
	// Voided says that a later entry voided this one: what it says was made by,
	// or behind the back of, somebody who was not to.
	Voided bool
	live   []*Member
}

// At returns the membership after the entry with a hash, such as the head that a
// commit names.
func (m *Members) At(head EntryHash) (s Snapshot, ok bool) {
	i, ok := m.index[head]
	if !ok {
		return Snapshot{}, false
	}
	l := m.log[i]
	return Snapshot{Number: l.number, Voided: l.voided, live: l.live}, true
}

// Device returns a device if it was live then.
func (s Snapshot) Device(id DeviceID) (Member, bool) {
	if d := find(s.live, id); d != nil {
		return *d, true
	}
	return Member{}, false
}

// Live returns the devices that were live then, ascending by id.
func (s Snapshot) Live() []Member {
	live := make([]Member, 0, len(s.live))
	for _, d := range s.live {
		live = append(live, *d)
	}
	return live
}
