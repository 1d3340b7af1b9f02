package v4

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ALPN is the protocol's name within TLS.
const ALPN = "backstay/4"

// Errors of the handshake.
var (
	// ErrPin is what a [PinError] is.
	ErrPin = errors.New("the server's key is not the one pinned")
	// ErrCertificate: the other side's certificate is not of the one kind allowed.
	ErrCertificate = errors.New("certificate is not a single self-signed one with an Ed25519 key")
	// ErrALPN: the other side speaks TLS, and something else within.
	ErrALPN = errors.New("the other side does not speak " + ALPN)
)

// Pin names a server's key: SHA-256 of its SubjectPublicKeyInfo.
type Pin [sha256.Size]byte

func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// MarshalText implements [encoding.TextMarshaler]: 64 hexadecimal digits.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Pin) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(p)) {
		return fmt.Errorf("pin of %d characters, not %d hexadecimal digits", len(text), hex.EncodedLen(len(p)))
	}
	if _, err := hex.Decode(p[:], text); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	return nil
}

// PinOf returns the pin of a key.
func PinOf(key ed25519.PublicKey) Pin {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // not for an Ed25519 key
	}
	return sha256.Sum256(spki)
}

// PinError says that a server has another key than the one pinned: it is another
// server, one that lost its key, or somebody in between.
type PinError struct{ Want, Got Pin }

func (e *PinError) Error() string {
	return fmt.Sprintf("%v: it is %v, expected %v", ErrPin, e.Got, e.Want)
}

// Unwrap returns [ErrPin].
func (e *PinError) Unwrap() error { return ErrPin }

// ClientConfig returns how a client speaks TLS: showing its key, to no server but
// that with the pinned one. The handshake ends with a [PinError], [ErrCertificate]
// or [ErrALPN] otherwise.
//
// That it ends well does not say that the server took the client's key: only
// HELLO does.
func ClientConfig(key ed25519.PrivateKey, pin Pin) *tls.Config {
	c := config(key, func(state tls.ConnectionState) error {
		server, err := PeerKey(state)
		if err != nil {
			return err
		}
		if got := PinOf(server); got != pin {
			return &PinError{Want: pin, Got: got}
		}
		return nil
	})
	c.InsecureSkipVerify = true // no name, date or issuer counts: the pin does
	return c
}

// ServerConfig returns how a server speaks TLS: with clients that show a
// certificate of the one kind. Which keys it serves is judged afterwards, by
// [PeerKey].
func ServerConfig(key ed25519.PrivateKey) *tls.Config {
	c := config(key, func(state tls.ConnectionState) error {
		_, err := PeerKey(state)
		return err
	})
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

func config(key ed25519.PrivateKey, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		Certificates:           []tls.Certificate{certificate(key)},
		VerifyConnection:       verify,
		SessionTicketsDisabled: true,
		// Frames are long or gathered already: short records would only cost.
		DynamicRecordSizingDisabled: true,
	}
}

// certificate returns the one certificate of a key: equal for equal keys.
func certificate(key ed25519.PrivateKey) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // never: RFC 5280, 4.1.2.5
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(fmt.Errorf("certificate of an Ed25519 key: %w", err)) // the template is constant
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// PeerKey returns the key of the other side's certificate. Errors:
// [ErrCertificate], [ErrALPN].
func PeerKey(state tls.ConnectionState) (ed25519.PublicKey, error) {
	if state.NegotiatedProtocol != ALPN {
		return nil, ErrALPN
	}
	if len(state.PeerCertificates) != 1 {
		return nil, fmt.Errorf("%w: there are %d", ErrCertificate, len(state.PeerCertificates))
	}
	c := state.PeerCertificates[0]
	key, ok := c.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: its key is %v", ErrCertificate, c.PublicKeyAlgorithm)
	}
	if c.SignatureAlgorithm != x509.PureEd25519 || !ed25519.Verify(key, c.RawTBSCertificate, c.Signature) {
		return nil, fmt.Errorf("%w: another signed it", ErrCertificate)
	}
	return key, nil
}
