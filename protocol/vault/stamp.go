package vault

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// StampSize is the size of a stamp in bytes.
const StampSize = 8 + ed25519.PublicKeySize + ed25519.SignatureSize

// Stamp is a server's word on when it took a commit (SPEC.md, "Stamps").
type Stamp struct {
	// Time has nanoseconds, and is in UTC.
	Time   time.Time
	Server ed25519.PublicKey
}

// SignStamp returns the stamp of a commit by a server's key: StampSize bytes. t is
// after 1970.
func SignStamp(vault ID, c CommitHash, t time.Time, key ed25519.PrivateKey) []byte {
	stamp := binary.LittleEndian.AppendUint64(make([]byte, 0, StampSize), uint64(t.UnixNano()))
	stamp = append(stamp, key.Public().(ed25519.PublicKey)...)
	return append(stamp, sign(key, labelStamp, vault, stamped(c, stamp))[:ed25519.SignatureSize]...)
}

// OpenStamp verifies the stamp of a commit. It says that the owner of the key in
// the stamp signed it; who that is, the caller compares.
//
// Errors: [ErrMalformed], [ErrSignature].
func OpenStamp(vault ID, c CommitHash, stamp []byte) (Stamp, error) {
	s, err := ParseStamp(stamp)
	if err != nil {
		return Stamp{}, err
	}
	signature := stamp[StampSize-ed25519.SignatureSize:]
	if _, err := verify(s.Server, labelStamp, vault, append(signature[:len(signature):len(signature)], stamped(c, stamp)...)); err != nil {
		return Stamp{}, fmt.Errorf("stamp: %w", err)
	}
	return s, nil
}

// ParseStamp reads a stamp without looking at the signature. Errors:
// [ErrMalformed].
func ParseStamp(stamp []byte) (Stamp, error) {
	if len(stamp) != StampSize {
		return Stamp{}, fmt.Errorf("stamp: %w: %d bytes, want %d", ErrMalformed, len(stamp), StampSize)
	}
	ns := binary.LittleEndian.Uint64(stamp)
	if ns > math.MaxInt64 {
		return Stamp{}, fmt.Errorf("stamp: %w: time of %d ns", ErrMalformed, ns)
	}
	server := append(ed25519.PublicKey(nil), stamp[8:8+ed25519.PublicKeySize]...)
	return Stamp{Time: time.Unix(0, int64(ns)).UTC(), Server: server}, nil
}

// stamped returns what a stamp of a commit is the signature of.
func stamped(c CommitHash, stamp []byte) []byte { return append(c[:len(c):len(c)], stamp[:8]...) }
