package vault

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
)

// Role says what an identity is for; it is part of the derivation of its keys.
type Role string

// The roles. A root exists only while its recovery phrase is at hand.
const (
	RoleRoot   Role = "root"
	RoleDevice Role = "device"
)

// Sizes of a public identity's keys, and of a wrapped key, in bytes.
const (
	hpkePublicSize = 1216
	wrappedSize    = 1120 + len(Key{}) + tagSize
)

const labelIdentity = "backstay/1 identity"

// Identity is the secret keys of a vault's root or of a device, all derived from
// one seed (SPEC.md, "Identities"). It is safe for concurrent use, and prints as
// REDACTED.
type Identity struct {
	public    Public
	id        DeviceID
	tls, sign ed25519.PrivateKey
	hpke      hpke.PrivateKey
}

// NewIdentity derives the identity of a seed: 32 uniformly random bytes.
func NewIdentity(role Role, seed Key) (*Identity, error) {
	if role != RoleRoot && role != RoleDevice {
		return nil, fmt.Errorf("identity: unknown role %q", string(role))
	}
	sub := func(use string) []byte {
		out, err := hkdf.Expand(sha256.New, seed[:], "backstay/1 "+string(role)+" "+use, len(Key{}))
		if err != nil {
			panic(err) // only for lengths that SHA-256 cannot give
		}
		return out
	}
	secret, err := hpke.MLKEM768X25519().NewPrivateKey(sub("hpke"))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id := &Identity{
		tls:  ed25519.NewKeyFromSeed(sub("tls")),
		sign: ed25519.NewKeyFromSeed(sub("sign")),
		hpke: secret,
	}
	keys := append(id.public[:0], id.tls.Public().(ed25519.PublicKey)...)
	keys = append(keys, id.sign.Public().(ed25519.PublicKey)...)
	copy(id.public[len(keys):], secret.PublicKey().Bytes())
	id.id = id.public.ID()
	return id, nil
}

// TLS returns the key of the identity's certificate.
func (i *Identity) TLS() ed25519.PrivateKey { return i.tls }

// Public returns what others know the identity by.
func (i *Identity) Public() Public { return i.public }

// ID returns the id of the public identity.
func (i *Identity) ID() DeviceID { return i.id }

// Format implements [fmt.Formatter] for every verb.
func (i *Identity) Format(f fmt.State, _ rune) { f.Write([]byte(redacted)) }

// LogValue implements [slog.LogValuer].
func (i *Identity) LogValue() slog.Value { return slog.StringValue(redacted) }

// Public is a public identity: the keys by which a root or a device is known, in
// the form of SPEC.md, "Identities". Get one from [ParsePublic].
type Public [2*ed25519.PublicKeySize + hpkePublicSize]byte

// ParsePublic checks a public identity: of the right length, and with an hpke key
// that a vault key can be wrapped to. Otherwise one member could keep all others
// from beginning a new epoch. Errors: [ErrMalformed].
func ParsePublic(data []byte) (Public, error) {
	if len(data) != len(Public{}) {
		return Public{}, fmt.Errorf("public identity: %w: %d bytes, want %d", ErrMalformed, len(data), len(Public{}))
	}
	p := Public(data)
	if _, err := wrap(p, ID{}, FirstEpoch, Key{}); err != nil {
		return Public{}, fmt.Errorf("public identity: %w: %w", ErrMalformed, err)
	}
	return p, nil
}

// TLS returns the key of the certificate that the identity shows.
func (p Public) TLS() ed25519.PublicKey {
	return append(ed25519.PublicKey(nil), p[:ed25519.PublicKeySize]...)
}

// SignKey returns the key that verifies member entries and commits.
func (p Public) SignKey() ed25519.PublicKey {
	return append(ed25519.PublicKey(nil), p[ed25519.PublicKeySize:2*ed25519.PublicKeySize]...)
}

// ID returns the id that the keys determine: nobody can show others under it.
func (p Public) ID() DeviceID {
	sum := sha256.Sum256(append([]byte(labelIdentity), p[:]...))
	return DeviceID(sum[:len(DeviceID{})])
}

// String returns the id: the keys themselves tell a person nothing.
func (p Public) String() string { return p.ID().String() }

// wrap seals a vault key so that only the recipient can open it.
func wrap(to Public, vault ID, number uint32, key Key) ([]byte, error) {
	public, err := hpke.MLKEM768X25519().NewPublicKey(to[2*ed25519.PublicKeySize:])
	if err != nil {
		return nil, err
	}
	return hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(vault, number, to.ID()), key[:])
}

// unwrap opens what wrap made for this identity.
func (i *Identity) unwrap(vault ID, number uint32, wrapped []byte) (Key, error) {
	key, err := hpke.Open(i.hpke, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(vault, number, i.id), wrapped)
	if err != nil || len(key) != len(Key{}) {
		return Key{}, fmt.Errorf("unwrap key of epoch %d: %w", number, ErrOpen)
	}
	return Key(key), nil
}

func wrapInfo(vault ID, number uint32, to DeviceID) []byte {
	info := append([]byte("backstay/1 wrap"), vault[:]...)
	info = binary.LittleEndian.AppendUint32(info, number)
	return append(info, to[:]...)
}
