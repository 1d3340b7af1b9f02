package v4

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"

	"backstay/protocol/cbor"
	"backstay/protocol/vault"
)

const (
	invitationPrefix = "backstay:"
	invitationSum    = 4
	// MaxInvitation bounds an invitation in characters.
	MaxInvitation = 2048
	redacted      = "REDACTED"
)

// Labels of derived keys and of what is signed. Each names one use.
const (
	labelInvitation = "backstay/1 invitation"
	labelEnroll     = "backstay/1 enrol"
	labelExporter   = "EXPORTER-backstay-enrol"
)

// Errors of [ParseInvitation].
var (
	// ErrNoInvitation: the text is something else.
	ErrNoInvitation = errors.New("this is not an invitation: one begins with “" + invitationPrefix + "” and is a single long line, made by “server invite”")
	// ErrInvitationDamaged: it is one, with characters changed or missing.
	ErrInvitationDamaged = errors.New("the invitation is damaged: copy all of it again, from “" + invitationPrefix + "” to its last character")
	// ErrInvitationNewer: it says something that this version must not ignore.
	ErrInvitationNewer = errors.New("the invitation was made by a newer version of Backstay: update this one")
)

// Secret is the secret of an invitation. It prints as REDACTED under fmt, log/slog
// and the text-based encoders.
type Secret [20]byte

// Format implements [fmt.Formatter] for every verb.
func (Secret) Format(f fmt.State, _ rune) { f.Write([]byte(redacted)) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Invitation lets one device enrol (SPEC.md, "Invitation and pairing").
type Invitation struct {
	// Addresses are of one server, host:port, at least one.
	Addresses []string
	Pin       Pin
	Secret    Secret
	Account   string
	// Expires has seconds.
	Expires time.Time
}

// Text returns the invitation as it is pasted. It holds the secret. It is an error
// if ParseInvitation would refuse it.
func (i Invitation) Text() (string, error) {
	m := beginMap(nil)
	m.key(1)
	m.dst = cbor.AppendArray(m.dst, len(i.Addresses))
	for _, a := range i.Addresses {
		m.dst = cbor.AppendText(m.dst, a)
	}
	m.bytes(2, i.Pin[:])
	m.bytes(3, i.Secret[:])
	m.text(4, i.Account)
	m.key(5)
	m.dst = cbor.AppendInt(m.dst, i.Expires.Unix())
	sum := sha256.Sum256(m.dst)
	text := invitationPrefix + base64.RawURLEncoding.EncodeToString(append(m.dst, sum[:invitationSum]...))
	if _, err := ParseInvitation(text); err != nil {
		return "", fmt.Errorf("make invitation: %w", err)
	}
	return text, nil
}

// ParseInvitation reads an invitation with whatever white space a mail program
// put into it. Errors, all for a person: [ErrNoInvitation], [ErrInvitationDamaged],
// [ErrInvitationNewer].
func ParseInvitation(text string) (Invitation, error) {
	if len(text) > 2*MaxInvitation { // before it is copied
		return Invitation{}, ErrNoInvitation
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	text, ok := strings.CutPrefix(text, invitationPrefix)
	if !ok || len(invitationPrefix)+len(text) > MaxInvitation {
		return Invitation{}, ErrNoInvitation
	}
	p, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(p) < invitationSum {
		return Invitation{}, ErrInvitationDamaged
	}
	p, got := p[:len(p)-invitationSum], p[len(p)-invitationSum:]
	if sum := sha256.Sum256(p); !bytes.Equal(sum[:invitationSum], got) {
		return Invitation{}, ErrInvitationDamaged
	}
	f := parse("invitation", p)
	if errors.Is(f.err, ErrUnsupported) {
		return Invitation{}, ErrInvitationNewer
	}
	i := Invitation{Account: f.text(4, 1, MaxAccount)}
	f.array(2, i.Pin[:])
	f.array(3, i.Secret[:])
	seconds, err := f.values[5].Int()
	f.fail(5, err)
	i.Expires = time.Unix(seconds, 0).UTC()
	for _, v := range f.list(1, MaxInvitation) {
		address, err := v.Text()
		if err == nil {
			err = checkAddress(address)
		}
		f.fail(1, err)
		i.Addresses = append(i.Addresses, address)
	}
	if f.err == nil && len(i.Addresses) == 0 {
		f.fail(1, errors.New("no address"))
	}
	if f.err != nil {
		// Nobody gets here by a slip: the checksum was right.
		return Invitation{}, fmt.Errorf("%w (%w)", ErrInvitationDamaged, f.err)
	}
	return i, nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("address %q is not host:port", address)
	}
	return nil
}

// Key returns the key pair that follows from the secret. The server keeps only its
// public half.
func (i Invitation) Key() ed25519.PrivateKey {
	seed, err := hkdf.Key(sha256.New, i.Secret[:], nil, labelInvitation, ed25519.SeedSize)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return ed25519.NewKeyFromSeed(seed)
}

// ExportEnroll returns what binds the signature of ENROLL to one TLS connection.
func ExportEnroll(state tls.ConnectionState) ([]byte, error) {
	e, err := state.ExportKeyingMaterial(labelExporter, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	return e, nil
}

// SignEnroll returns the request of ENROLL on the connection with the exporter's
// value e.
func SignEnroll(e []byte, i Invitation, identity vault.Public, name string) EnrollRequest {
	key := i.Key()
	return EnrollRequest{
		Invitation: [ed25519.PublicKeySize]byte(key.Public().(ed25519.PublicKey)),
		Signature:  [ed25519.SignatureSize]byte(ed25519.Sign(key, enrollMessage(e, identity, name))),
		Identity:   identity,
		Name:       name,
	}
}

// Verify checks that the request was made for the connection with the exporter's
// value e, by a client that shows the certificate key tls, with the invitation it
// names. Errors: [ErrForbidden].
func (r EnrollRequest) Verify(e []byte, tls ed25519.PublicKey) error {
	switch {
	case !ed25519.Verify(r.Invitation[:], enrollMessage(e, r.Identity, r.Name), r.Signature[:]):
		return fmt.Errorf("%w: the invitation's signature does not verify", ErrForbidden)
	case !bytes.Equal(tls, r.Identity.TLS()):
		return fmt.Errorf("%w: the certificate's key is not the identity's", ErrForbidden)
	}
	return nil
}

func enrollMessage(e []byte, identity vault.Public, name string) []byte {
	m := append([]byte(labelEnroll), e...)
	return append(append(m, identity[:]...), name...)
}
