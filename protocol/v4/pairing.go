package v4

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"backstay/protocol/vault"
)

// PairingCode is what a person reads from one machine and types into another
// (SPEC.md, "Invitation and pairing"). Its 15 bytes are secret; it prints as
// REDACTED under fmt, log/slog and the text-based encoders.
type PairingCode [15]byte

// codeChars is the length of a code without separators.
const codeChars = 24

var codeAlphabet = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// Errors of pairing.
var (
	// ErrPairingCode: what was typed is no code.
	ErrPairingCode = errors.New("this is not a pairing code: one has 24 letters and digits, in groups of four")
	// ErrPairing: a message was not made with the code. The attempt is over.
	ErrPairing = errors.New("the other device does not know the pairing code, or somebody in between does not: end both sides and start again with a new code")
)

// NewPairingCode returns a random code.
func NewPairingCode() PairingCode {
	var c PairingCode
	rand.Read(c[:]) // never fails: it ends the process instead
	return c
}

// ParsePairingCode reads a code as people type it. Errors: [ErrPairingCode].
func ParsePairingCode(text string) (PairingCode, error) {
	if len(text) > 16*codeChars { // before it is copied
		return PairingCode{}, ErrPairingCode
	}
	text = strings.Map(func(r rune) rune {
		switch r {
		case ' ', '-', '\t', '\r', '\n':
			return -1
		case 'O', 'o':
			return '0'
		case 'I', 'i', 'L', 'l':
			return '1'
		}
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, text)
	if len(text) != codeChars {
		return PairingCode{}, fmt.Errorf("%w; these are %d", ErrPairingCode, len(text))
	}
	var c PairingCode
	if _, err := codeAlphabet.Decode(c[:], []byte(text)); err != nil {
		return PairingCode{}, ErrPairingCode
	}
	return c, nil
}

// Text returns the code as it is shown.
func (c PairingCode) Text() string {
	text := codeAlphabet.EncodeToString(c[:])
	groups := make([]string, 0, codeChars/4)
	for ; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, "-")
}

// Format implements [fmt.Formatter] for every verb.
func (PairingCode) Format(f fmt.State, _ rune) { f.Write([]byte(redacted)) }

// LogValue implements [slog.LogValuer].
func (PairingCode) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (PairingCode) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Slot names a place in the server's mailbox.
type Slot [16]byte

// Side is one of the two devices that pair.
type Side string

// The sides.
const (
	SideJoiner Side = "joiner"
	SideMember Side = "member"
)

// Slot returns the place of a side's message.
func (c PairingCode) Slot(who Side) Slot { return Slot(c.derive(who, "slot", len(Slot{}))) }

func (c PairingCode) derive(who Side, use string, n int) []byte {
	out, err := hkdf.Key(sha256.New, c[:], nil, "backstay/1 pairing "+string(who)+" "+use, n)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return out
}

// Seal returns the message of a side with the body.
func (c PairingCode) Seal(who Side, body []byte) []byte {
	mac := hmac.New(sha256.New, c.derive(who, "key", 32))
	mac.Write(body)
	return append(mac.Sum(nil), body...)
}

// Open returns the body of a side's message, aliasing it. Errors: [ErrPairing].
func (c PairingCode) Open(who Side, message []byte) ([]byte, error) {
	if len(message) < sha256.Size {
		return nil, ErrPairing
	}
	body := message[sha256.Size:]
	if !hmac.Equal(c.Seal(who, body)[:sha256.Size], message[:sha256.Size]) {
		return nil, ErrPairing
	}
	return body, nil
}

// JoinerBody is what the device that joins says.
type JoinerBody struct {
	// Identity has not been through [vault.ParsePublic].
	Identity vault.Public
	Name     string
}

// Append adds the encoding to dst.
func (b JoinerBody) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, b.Identity[:])
	m.text(2, b.Name)
	return m.dst
}

// ParseJoinerBody reads what the device that joins says.
func ParseJoinerBody(body []byte) (b JoinerBody, err error) {
	f := parse("joiner's message", body)
	f.array(1, b.Identity[:])
	b.Name = f.text(2, 1, MaxName)
	return b, f.err
}

// MemberBody is what the member answers once the device is in the log.
type MemberBody struct {
	Vault   vault.ID
	Genesis vault.EntryHash
	// Entry is the number of the entry that added the device.
	Entry uint64
}

// Append adds the encoding to dst.
func (b MemberBody) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, b.Vault[:])
	m.bytes(2, b.Genesis[:])
	m.uint(3, b.Entry)
	return m.dst
}

// ParseMemberBody reads what the member answers.
func ParseMemberBody(body []byte) (b MemberBody, err error) {
	f := parse("member's message", body)
	f.array(1, b.Vault[:])
	f.array(2, b.Genesis[:])
	b.Entry = f.uint(3)
	return b, f.err
}
