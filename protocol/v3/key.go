package v3

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/big"
)

const (
	modulusBits = 1024
	// ownExponent is the public exponent of the keys made here. The key field
	// is 160 bytes, which only a one-byte exponent leaves room for; 17 is what
	// the other programs use.
	ownExponent = 17

	redacted = "REDACTED"
)

// An OAEPHash is the hash of the OAEP padding around an AES key. The wire does
// not name it. The zero value is [SHA256].
type OAEPHash uint8

// The hashes in use.
const (
	SHA256 OAEPHash = 0
	SHA1   OAEPHash = 1
)

// String returns the hash's name as settings spell it.
func (h OAEPHash) String() string {
	if h == SHA1 {
		return "sha1"
	}
	return "sha256"
}

// MarshalText returns the hash's name.
func (h OAEPHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText accepts "sha256" and "sha1".
func (h *OAEPHash) UnmarshalText(b []byte) error {
	switch string(b) {
	case "sha256":
		*h = SHA256
	case "sha1":
		*h = SHA1
	default:
		return fmt.Errorf("unknown OAEP hash %q: use sha256 or sha1", b)
	}
	return nil
}

func (h OAEPHash) new() hash.Hash {
	if h == SHA1 {
		return sha1.New()
	}
	return sha256.New()
}

// A SessionKey is the AES key of one session. It prints as REDACTED. The zero
// value is no key.
type SessionKey struct {
	// A function, because fmt shows no more than its address where it walks
	// through the unexported fields of an enclosing struct.
	bytes func() []byte
}

func sessionKey(b []byte) SessionKey { return SessionKey{func() []byte { return b }} }

// NewSessionKey returns a random key of 16 or 32 bytes; other sizes are
// [ErrKey]. A server takes the size from [Dialect.KeySize].
func NewSessionKey(size int) (SessionKey, error) {
	if size != 16 && size != 32 {
		return SessionKey{}, fmt.Errorf("AES key of %d bytes: %w", size, ErrKey)
	}
	b := make([]byte, size)
	rand.Read(b)
	return sessionKey(b), nil
}

// Format prints REDACTED for every verb.
func (SessionKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue returns REDACTED.
func (SessionKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// Wrap returns the key sealed to pub in 128 bytes. An error is [ErrKey].
func (k SessionKey) Wrap(pub *rsa.PublicKey, h OAEPHash) ([]byte, error) {
	if k.bytes == nil {
		return nil, fmt.Errorf("wrap AES key: %w: none", ErrKey)
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, fmt.Errorf("wrap AES key: %w", err)
	}
	b, err := rsa.EncryptOAEP(h.new(), rand.Reader, pub, k.bytes(), nil)
	if err != nil {
		return nil, fmt.Errorf("wrap AES key: %w: %w", ErrKey, err)
	}
	return b, nil
}

// A PrivateKey is a client's RSA key. It prints as REDACTED. It is safe for
// concurrent use. The zero value is no key; its methods panic.
type PrivateKey struct{ rsa *rsa.PrivateKey }

// Format prints REDACTED for every verb.
func (PrivateKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue returns REDACTED.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// GenerateKey makes a 1024-bit key with the public exponent 17, whose public
// half takes exactly [PublicKeySize] bytes.
func GenerateKey() (PrivateKey, error) {
	e := big.NewInt(ownExponent)
	one := big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, modulusBits/2)
		if err != nil {
			return PrivateKey{}, fmt.Errorf("make RSA key: %w", err)
		}
		q, err := rand.Prime(rand.Reader, modulusBits/2)
		if err != nil {
			return PrivateKey{}, fmt.Errorf("make RSA key: %w", err)
		}
		n := new(big.Int).Mul(p, q)
		if p.Cmp(q) == 0 || n.BitLen() != modulusBits {
			continue
		}
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil {
			continue // 17 divides phi
		}
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: ownExponent}, D: d, Primes: []*big.Int{p, q}}
		k.Precompute()
		if err := k.Validate(); err != nil {
			return PrivateKey{}, fmt.Errorf("make RSA key: %w", err)
		}
		return PrivateKey{k}, nil
	}
}

// ParsePrivateKey reads a PKCS#8 key as it stands in me.info. Errors are
// [ErrKey].
func ParsePrivateKey(der []byte) (PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("private key: %w: %w", ErrKey, err)
	}
	var outer asn1.RawValue // crypto/x509 overlooks what follows the key
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return PrivateKey{}, fmt.Errorf("private key: %w: %d bytes behind it", ErrKey, len(rest))
	}
	rk, ok := k.(*rsa.PrivateKey)
	if !ok {
		return PrivateKey{}, fmt.Errorf("private key: %w: %T, not RSA", ErrKey, k)
	}
	if err := checkPublicKey(&rk.PublicKey); err != nil {
		return PrivateKey{}, fmt.Errorf("private key: %w", err)
	}
	return PrivateKey{rk}, nil
}

// MarshalPKCS8 returns the key as PKCS#8 DER, for me.info. The result is a
// secret.
func (k PrivateKey) MarshalPKCS8() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(k.rsa) }

// PublicDER returns the public half as SubjectPublicKeyInfo, for
// Message.PublicKey: 160 bytes, or 162 for a key with the exponent 65537.
func (k PrivateKey) PublicDER() ([]byte, error) { return x509.MarshalPKIXPublicKey(&k.rsa.PublicKey) }

// Unwrap opens an AES key of 16 or 32 bytes, trying either hash, and says
// which one the server uses. An error is [ErrKey].
func (k PrivateKey) Unwrap(wrapped []byte) (SessionKey, OAEPHash, error) {
	for _, h := range []OAEPHash{SHA256, SHA1} {
		b, err := rsa.DecryptOAEP(h.new(), nil, k.rsa, wrapped, nil)
		if err != nil {
			continue
		}
		if len(b) != 16 && len(b) != 32 {
			return SessionKey{}, h, fmt.Errorf("unwrap AES key: %w: %d bytes long", ErrKey, len(b))
		}
		return sessionKey(b), h, nil
	}
	return SessionKey{}, SHA256, fmt.Errorf("unwrap AES key: %w: it was not sealed to this private key", ErrKey)
}

// ParsePublicKey reads the key field of a PublicKey message: as much of it as
// the DER's own length says, whatever follows. It accepts 1024-bit RSA keys
// with the exponents 3, 17 and 65537; errors are [ErrKey].
func ParsePublicKey(field []byte) (*rsa.PublicKey, error) {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(field, &outer); err != nil {
		return nil, fmt.Errorf("public key: %w: %w", ErrKey, err)
	}
	k, err := x509.ParsePKIXPublicKey(outer.FullBytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w: %w", ErrKey, err)
	}
	pub, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("public key: %w: %T, not RSA", ErrKey, k)
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return pub, nil
}

func checkPublicKey(pub *rsa.PublicKey) error {
	if n := pub.N.BitLen(); n != modulusBits {
		return fmt.Errorf("%w: RSA modulus of %d bits, not %d", ErrKey, n, modulusBits)
	}
	switch pub.E {
	case 3, ownExponent, 65537:
		return nil
	}
	return fmt.Errorf("%w: RSA exponent %d", ErrKey, pub.E)
}
