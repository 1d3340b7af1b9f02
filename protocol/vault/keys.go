package vault

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"

	"lukechampine.com/blake3"
)

// FirstEpoch is the number of a vault's first epoch. There is no epoch 0.
const FirstEpoch = 1

// Labels of derived keys and hashes (SPEC.md, "Keys"). Each names one use.
const (
	labelSIV    = "backstay/1 object siv"
	labelEnc    = "backstay/1 object encryption"
	labelPath   = "backstay/1 path"
	labelHash   = "backstay/1 plaintext hash"
	labelChunk  = "backstay/1 chunker"
	labelObject = "backstay/1 object"
)

// Key is the vault key of one epoch: 32 uniformly random bytes. It prints as
// REDACTED under fmt, log/slog and the text-based encoders.
type Key [32]byte

const redacted = "REDACTED"

// NewKey returns a fresh random key.
func NewKey() Key {
	var k Key
	rand.Read(k[:]) // never fails: it ends the process instead
	return k
}

// Format implements [fmt.Formatter] for every verb.
func (Key) Format(f fmt.State, _ rune) { f.Write([]byte(redacted)) }

// LogValue implements [slog.LogValuer].
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], so that a key inside an
// encoded struct does not show either.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Keyring seals with the newest epoch of one vault and opens objects of every
// epoch it holds. It is safe for concurrent use, and prints as REDACTED. That of a
// member comes from [Members.Unlock].
type Keyring struct {
	vault  ID
	path   macs
	chunk  Key
	hashes sync.Pool // of *blake3.Hasher keyed for Hash; its state is 16 KB

	mu     sync.RWMutex // guards the fields below
	epochs map[uint32]*epoch
	// current is the epoch to seal with, which epochs may lack.
	current uint32
}

// epoch holds the sealing keys of one epoch. It does not change.
type epoch struct {
	key      Key // the vault key, to hand it on and to recognise it
	siv, enc macs
}

// NewKeyring returns the keyring of a vault that knows its first epoch. The path,
// hash and chunker keys come from that epoch for ever.
func NewKeyring(vault ID, first Key) *Keyring {
	k := &Keyring{
		vault:  vault,
		path:   newMACs(derive(first, vault, FirstEpoch, labelPath)),
		chunk:  derive(first, vault, FirstEpoch, labelChunk),
		epochs: make(map[uint32]*epoch),
	}
	hashKey := derive(first, vault, FirstEpoch, labelHash)
	k.hashes.New = func() any { return blake3.New(len(hashKey), hashKey[:]) }
	k.add(FirstEpoch, first)
	return k
}

// Add gives the keyring the key of a later epoch. Adding the same again changes
// nothing; another key for a known epoch is an error.
func (k *Keyring) Add(number uint32, key Key) error {
	if number <= FirstEpoch {
		return fmt.Errorf("add key of epoch %d: later epochs start at %d", number, FirstEpoch+1)
	}
	return k.add(number, key)
}

func (k *Keyring) add(number uint32, key Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.epochs[number]; e != nil {
		if !hmac.Equal(e.key[:], key[:]) {
			return fmt.Errorf("add key of epoch %d: %w", number, errOtherKey)
		}
		return nil
	}
	e := &epoch{
		key: key,
		siv: newMACs(derive(key, k.vault, number, labelSIV)),
		enc: newMACs(derive(key, k.vault, number, labelEnc)),
	}
	k.epochs[number] = e
	k.current = max(k.current, number)
	return nil
}

var errOtherKey = errors.New("the keyring holds another key for it")

// Format implements [fmt.Formatter] for every verb.
func (k *Keyring) Format(f fmt.State, _ rune) { f.Write([]byte(redacted)) }

// LogValue implements [slog.LogValuer].
func (k *Keyring) LogValue() slog.Value { return slog.StringValue(redacted) }

// Vault returns the id of the keyring's vault.
func (k *Keyring) Vault() ID { return k.vault }

// Epoch returns the newest epoch, the one that Seal uses.
func (k *Keyring) Epoch() uint32 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.current
}

// Path returns the id of a device's path: absolute, as the bytes the system uses.
// It is the same in every epoch.
func (k *Keyring) Path(device DeviceID, path []byte) PathID {
	var sum [sha256.Size]byte
	return PathID(k.path.sum(sum[:0], device[:], path)[:len(PathID{})])
}

// ChunkerKey returns K_chunk, for package cut: the same in every epoch.
func (k *Keyring) ChunkerKey() Key { return k.chunk }

// Hash is a keyed hash of a plaintext: it tells equal contents to who holds the
// vault key and nothing to others.
type Hash [16]byte

// Hash returns the keyed hash of a plaintext, the same in every epoch.
func (k *Keyring) Hash(plaintext []byte) Hash {
	h := k.hashes.Get().(*blake3.Hasher)
	defer k.hashes.Put(h)
	h.Reset()
	h.Write(plaintext)
	var sum [32]byte
	return Hash(h.Sum(sum[:0])[:len(Hash{})])
}

func (k *Keyring) epoch(number uint32) *epoch {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.epochs[number]
}

// derive returns the key for one use: the fixed-size fields stand before the
// label, so no two uses have the same input.
func derive(key Key, vault ID, number uint32, label string) Key {
	info := binary.LittleEndian.AppendUint32(vault[:len(vault):len(vault)], number)
	out, err := hkdf.Expand(sha256.New, key[:], string(info)+label, len(Key{}))
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return Key(out)
}

// macs hands out HMAC-SHA256 states of one key: making one costs more than
// sealing a small object with it.
type macs struct{ pool *sync.Pool }

func newMACs(key Key) macs {
	return macs{&sync.Pool{New: func() any { return hmac.New(sha256.New, key[:]) }}}
}

// sum appends the MAC of the parts, one after the other, to dst.
func (m macs) sum(dst []byte, parts ...[]byte) []byte {
	h := m.pool.Get().(hash.Hash)
	defer m.pool.Put(h)
	h.Reset()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(dst)
}
