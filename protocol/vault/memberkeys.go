package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
)

// labelPrevious is the label of the key that seals keys of earlier epochs.
const labelPrevious = "backstay/1 previous key"

// sealedKeySize is the size of a key sealed for an entry's key 11.
const sealedKeySize = len(Key{}) + tagSize

// SignGenesis returns the first entry of a new vault, with a fresh key that only
// the root can unwrap. The log must be empty. now is for information, as it is in
// all entries.
//
// This and the other Sign methods do not append what they return: it counts when
// the server has taken it.
func (m *Members) SignGenesis(root *Identity, now time.Time) ([]byte, error) {
	return m.sign(root, nil, &entry{kind: kindGenesis, public: &root.public, vault: m.vault}, now)
}

// SignAdd returns an entry by which the root or a live device adds a device. keys
// is the signer's keyring of the current epoch, as for all entries that hand a key
// on. The caller knows that public is the device's, and not a server's: from a
// pairing, or because it is the device.
func (m *Members) SignAdd(signer *Identity, keys *Keyring, public Public, name string, now time.Time) ([]byte, error) {
	return m.sign(signer, keys, &entry{kind: kindAdd, public: &public, name: name}, now)
}

// SignRevoke returns an entry by which the root or a live device revokes a device,
// which may be the signer. It begins an epoch whose key the device does not get.
func (m *Members) SignRevoke(signer *Identity, keys *Keyring, device DeviceID, now time.Time) ([]byte, error) {
	return m.sign(signer, keys, &entry{kind: kindRevoke, target: device}, now)
}

// SignRotate returns an entry by which the root or a live device begins an epoch.
func (m *Members) SignRotate(signer *Identity, keys *Keyring, now time.Time) ([]byte, error) {
	return m.sign(signer, keys, &entry{kind: kindRotate}, now)
}

// SignVoid returns an entry by which the root takes back all entries after the one
// with the hash keep. keys need not hold the epochs that these began: one that
// meant harm may have given the root a false key.
func (m *Members) SignVoid(root *Identity, keys *Keyring, keep EntryHash, now time.Time) ([]byte, error) {
	return m.sign(root, keys, &entry{kind: kindVoid, keep: keep}, now)
}

// sign completes an entry with what follows from the log and signs it.
func (m *Members) sign(signer *Identity, keys *Keyring, e *entry, now time.Time) ([]byte, error) {
	e.number, e.prev, e.signer, e.time = m.Len(), m.Head(), signer.id, now.UnixNano()
	e.epoch = m.Epoch()
	key := NewKey()
	var err error
	if e.kind.newEpoch() {
		e.epoch++
	} else if key, err = m.held(keys, e.epoch); err != nil {
		return nil, err
	}
	_, live, err := m.step(e)
	if err != nil {
		return nil, fmt.Errorf("sign member entry: %w", err)
	}
	for i, number := range m.previous(e) {
		old, err := m.held(keys, number)
		if err == nil {
			e.previous = append(e.previous, sealPrevious(key, m.vault, e.epoch, byte(i), old)...)
			continue
		}
		if e.kind != kindVoid || number == m.log[m.index[e.keep]].newest {
			return nil, err
		}
		// Nobody may have the key of an epoch that is taken back.
		e.previous = append(e.previous, make([]byte, sealedKeySize)...)
		rand.Read(e.previous[len(e.previous)-sealedKeySize:])
	}
	for _, to := range m.recipients(e, live) {
		w, err := wrap(to.Public, m.vault, e.epoch, key)
		if err != nil {
			return nil, fmt.Errorf("wrap key to %v: %w", to.ID, err)
		}
		e.wraps = append(e.wraps, wrapped{to.ID, w})
	}
	raw := sign(signer.sign, labelEntry, m.vault, e.append(nil))
	if _, _, err := m.check(raw); err != nil {
		return nil, fmt.Errorf("sign member entry: %w", err)
	}
	return raw, nil
}

// held returns the key of an epoch, for a member that hands it on.
func (m *Members) held(keys *Keyring, number uint32) (Key, error) {
	if keys == nil || keys.vault != m.vault {
		return Key{}, fmt.Errorf("hand on key of epoch %d: the keyring is of another vault", number)
	}
	e := keys.epoch(number)
	if e == nil {
		return Key{}, fmt.Errorf("hand on key: %w %d", ErrNoKey, number)
	}
	return e.key, nil
}

// previous returns the epochs whose keys an entry hands down: the one before, so
// that who gets the new key gets all; and in a void the one that it returns to,
// too, since a key that a thief began an epoch with may be known to nobody.
func (m *Members) previous(e *entry) []uint32 {
	switch {
	case e.kind == kindVoid:
		return []uint32{e.epoch - 1, m.log[m.index[e.keep]].newest}
	case e.kind.newEpoch() && e.kind != kindGenesis:
		return []uint32{e.epoch - 1}
	}
	return nil
}

// previousAEAD returns the cipher for the keys that an epoch's entry hands down,
// and the nonce of the i-th. Its key seals nothing else.
func previousAEAD(key Key, vault ID, number uint32, i byte) (aead cipher.AEAD, nonce, aad []byte) {
	k := derive(key, vault, number, labelPrevious)
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // only for a key of another size
	}
	if aead, err = cipher.NewGCM(block); err != nil {
		panic(err) // only for a block of another size
	}
	nonce = make([]byte, aead.NonceSize())
	nonce[0] = i
	return aead, nonce, binary.LittleEndian.AppendUint32(vault[:len(vault):len(vault)], number)
}

func sealPrevious(key Key, vault ID, number uint32, i byte, old Key) []byte {
	aead, nonce, aad := previousAEAD(key, vault, number, i)
	return aead.Seal(nil, nonce, old[:], aad)
}

func openPrevious(key Key, vault ID, number uint32, i byte, sealed []byte) (Key, error) {
	aead, nonce, aad := previousAEAD(key, vault, number, i)
	old, err := aead.Open(nil, nonce, sealed, aad)
	if err != nil {
		return Key{}, fmt.Errorf("open key before epoch %d: %w", number, ErrOpen)
	}
	return Key(old), nil
}

// Unlock returns the keyring that the log gives a member: of each epoch, the key
// wrapped to me, or else the one that a later epoch hands down.
//
// genesis is the hash of the first entry as a member or an earlier run told it;
// without it a server could invent a vault and have it filled. For the root, whose
// own key the first entry is signed with, it is not looked at.
//
// A member that means harm can leave others without the key of an epoch it began.
// Then the keyring opens all other epochs; and if the newest is missing, because
// of that or because me was revoked, [Keyring.Seal] refuses.
//
// Errors: [ErrMember] if the log is not of that genesis; [ErrNoKey] if nothing is
// wrapped to me; [ErrOpen] if the first epoch, without which there is no keyring,
// does not open.
func (m *Members) Unlock(me *Identity, genesis EntryHash) (*Keyring, error) {
	if me.public != m.Root() && (len(m.log) == 0 || m.Genesis() != genesis) {
		return nil, fmt.Errorf("unlock vault %v: %w: the log begins with %v, want %v", m.vault, ErrMember, m.Genesis(), genesis)
	}
	keys := make(map[uint32]Key)
	named := false
	for _, l := range m.log {
		for _, w := range l.wraps {
			if w.to != me.id {
				continue
			}
			named = true
			if key, err := me.unwrap(m.vault, l.epoch, w.key); err == nil {
				keys[l.epoch] = key
			}
		}
	}
	for n := len(m.log) - 1; n > 0; n-- {
		e := m.log[n].entry
		key, ok := keys[e.epoch]
		if !ok {
			continue
		}
		for i, number := range m.previous(e) {
			if _, ok := keys[number]; ok {
				continue
			}
			if old, err := openPrevious(key, m.vault, e.epoch, byte(i), e.previous[i*sealedKeySize:][:sealedKeySize]); err == nil {
				keys[number] = old
			}
		}
	}
	first, ok := keys[FirstEpoch]
	switch {
	case !named:
		return nil, fmt.Errorf("unlock vault %v: nothing is wrapped to %v: %w 1", m.vault, me.id, ErrNoKey)
	case !ok:
		return nil, fmt.Errorf("unlock vault %v: key of epoch 1: %w", m.vault, ErrOpen)
	}
	k := NewKeyring(m.vault, first)
	for number, key := range keys {
		if err := k.add(number, key); err != nil {
			return nil, err
		}
	}
	k.current = m.Epoch()
	return k, nil
}
