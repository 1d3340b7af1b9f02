package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"

	"backstay/protocol/cbor"
)

// Limits of a membership log (SPEC.md, "Limits").
const (
	// MaxEntry bounds an entry, in bytes.
	MaxEntry = 200_000
	// MaxDevices is how many live devices a vault has at most.
	MaxDevices = 128
	// MaxName bounds the name of a device, in bytes.
	MaxName = 254
)

// entryKind says what an entry of a membership log states. The values are stored.
type entryKind uint8

const (
	kindGenesis entryKind = 1
	kindAdd     entryKind = 2
	kindRevoke  entryKind = 3
	kindRotate  entryKind = 4
	kindVoid    entryKind = 5
)

// Keys of an entry's map (SPEC.md, "Members").
const (
	entryKindKey  = 1
	entryNumber   = 2
	entryPrev     = 3
	entrySigner   = 4
	entryTime     = 5
	entryPublic   = 6
	entryName     = 7
	entryTarget   = 8
	entryEpoch    = 9
	entryWraps    = 10
	entryPrevious = 11
	entryKeep     = 12
	entryVault    = 13
)

// has says whether entries of the kind have a key.
func (k entryKind) has(key int64) bool {
	switch key {
	case entryKindKey, entryNumber, entrySigner, entryTime, entryEpoch, entryWraps:
		return true
	case entryPrev:
		return k != kindGenesis
	case entryPublic:
		return k == kindGenesis || k == kindAdd
	case entryName:
		return k == kindAdd
	case entryTarget:
		return k == kindRevoke
	case entryPrevious:
		return k.newEpoch() && k != kindGenesis
	case entryKeep:
		return k == kindVoid
	case entryVault:
		return k == kindGenesis
	}
	return false
}

// newEpoch says whether entries of the kind begin an epoch.
func (k entryKind) newEpoch() bool { return k != kindAdd }

// previousKeys is how many keys of earlier epochs entries of the kind hand down.
func (k entryKind) previousKeys() int {
	if k == kindVoid {
		return 2
	}
	return 1
}

// entry is the body of an entry. Slices of a parsed one alias its bytes.
type entry struct {
	kind   entryKind
	number uint64
	prev   EntryHash
	signer DeviceID
	time   int64
	public *Public
	name   string
	target DeviceID
	epoch  uint32
	wraps  []wrapped
	// previous are the sealed keys of earlier epochs.
	previous []byte
	keep     EntryHash
	vault    ID
}

// wrapped is a vault key wrapped to one identity.
type wrapped struct {
	to  DeviceID
	key []byte
}

// append appends the body that parseEntry reads.
func (e *entry) append(dst []byte) []byte {
	n := 0
	for key := int64(entryKindKey); key <= entryVault; key++ {
		if e.kind.has(key) {
			n++
		}
	}
	dst = cbor.AppendMap(dst, n)
	for key := int64(entryKindKey); key <= entryVault; key++ {
		if !e.kind.has(key) {
			continue
		}
		dst = cbor.AppendInt(dst, key)
		switch key {
		case entryKindKey:
			dst = cbor.AppendUint(dst, uint64(e.kind))
		case entryNumber:
			dst = cbor.AppendUint(dst, e.number)
		case entryPrev:
			dst = cbor.AppendBytes(dst, e.prev[:])
		case entrySigner:
			dst = cbor.AppendBytes(dst, e.signer[:])
		case entryTime:
			dst = cbor.AppendInt(dst, e.time)
		case entryPublic:
			dst = cbor.AppendBytes(dst, e.public[:])
		case entryName:
			dst = cbor.AppendText(dst, e.name)
		case entryTarget:
			dst = cbor.AppendBytes(dst, e.target[:])
		case entryEpoch:
			dst = cbor.AppendUint(dst, uint64(e.epoch))
		case entryWraps:
			dst = cbor.AppendArray(dst, len(e.wraps))
			for _, w := range e.wraps {
				dst = cbor.AppendBytes(cbor.AppendBytes(cbor.AppendArray(dst, 2), w.to[:]), w.key)
			}
		case entryPrevious:
			dst = cbor.AppendBytes(dst, e.previous)
		case entryKeep:
			dst = cbor.AppendBytes(dst, e.keep[:])
		case entryVault:
			dst = cbor.AppendBytes(dst, e.vault[:])
		}
	}
	return dst
}

// parseEntry reads the body of an entry. It knows the form, not the rules.
func parseEntry(body []byte) (*entry, error) {
	d := unpackMap(body, entryVault)
	e := &entry{kind: entryKind(d.uint(d.field(entryKindKey), uint64(kindGenesis), uint64(kindVoid)))}
	for key := int64(entryKindKey); key <= entryVault && d.err == nil; key++ {
		v := d.field(key)
		if !e.kind.has(key) {
			if d.has(key) {
				d.fail(fmt.Errorf("does not belong to an entry of kind %d", e.kind))
			}
			continue
		}
		switch key {
		case entryNumber:
			e.number = d.uint(v, 0, math.MaxUint64)
		case entryPrev:
			e.prev = EntryHash(d.array(v, len(e.prev)))
		case entrySigner:
			e.signer = DeviceID(d.array(v, len(e.signer)))
		case entryTime:
			e.time = d.int(v)
		case entryPublic:
			public, err := ParsePublic(d.array(v, len(Public{})))
			d.fail(err)
			e.public = &public
		case entryName:
			e.name = d.text(v)
			if d.err == nil && (len(e.name) < 1 || len(e.name) > MaxName) {
				d.fail(fmt.Errorf("name of %d bytes, want 1 to %d", len(e.name), MaxName))
			}
		case entryTarget:
			e.target = DeviceID(d.array(v, len(e.target)))
		case entryEpoch:
			e.epoch = uint32(d.uint(v, FirstEpoch, math.MaxUint32))
		case entryWraps:
			for _, w := range d.list(v) {
				p := d.tuple(w, 2)
				e.wraps = append(e.wraps, wrapped{DeviceID(d.array(p[0], len(DeviceID{}))), d.array(p[1], wrappedSize)})
			}
		case entryPrevious:
			e.previous = d.array(v, e.kind.previousKeys()*sealedKeySize)
		case entryKeep:
			e.keep = EntryHash(d.array(v, len(e.keep)))
		case entryVault:
			e.vault = ID(d.array(v, len(e.vault)))
		}
	}
	return e, d.err
}

// hashEntry returns the hash by which the next entry refers to one.
func hashEntry(raw []byte) EntryHash { return sha256.Sum256(raw) }

// checkWraps compares whom a key is wrapped to with whom it must be.
func (e *entry) checkWraps(want []*Member) error {
	same := slices.EqualFunc(e.wraps, want, func(w wrapped, m *Member) bool { return w.to == m.ID })
	if same {
		return nil
	}
	for _, w := range e.wraps {
		if !slices.ContainsFunc(want, func(m *Member) bool { return w.to == m.ID }) {
			return fmt.Errorf("key wrapped to %v, who is not to have it", w.to)
		}
	}
	for _, m := range want {
		if !slices.ContainsFunc(e.wraps, func(w wrapped) bool { return w.to == m.ID }) {
			return fmt.Errorf("key not wrapped to %v", m.ID)
		}
	}
	return errors.New("wrapped keys not ascending by recipient")
}

func compareMembers(a, b *Member) int { return bytes.Compare(a.ID[:], b.ID[:]) }
