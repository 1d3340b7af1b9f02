package vault

import (
	"crypto/ed25519"
	"fmt"
	"slices"
)

// Labels of what is signed: each names one use of a sign key.
const (
	labelEntry  = "backstay/1 member entry"
	labelCommit = "backstay/1 commit"
	labelStamp  = "backstay/1 stamp"
)

// sign returns signature ‖ body.
func sign(key ed25519.PrivateKey, label string, vault ID, body []byte) []byte {
	message := slices.Concat([]byte(label), vault[:], body)
	return append(ed25519.Sign(key, message), body...)
}

// verify returns the body of what sign made.
func verify(key ed25519.PublicKey, label string, vault ID, signed []byte) ([]byte, error) {
	body, err := bodyOf(signed)
	if err != nil {
		return nil, err
	}
	message := slices.Concat([]byte(label), vault[:], body)
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message, signed[:ed25519.SignatureSize]) {
		return nil, ErrSignature
	}
	return body, nil
}

// bodyOf returns what the signature at the start is over, unverified.
func bodyOf(signed []byte) ([]byte, error) {
	if len(signed) <= ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: %d bytes, no more than a signature", ErrMalformed, len(signed))
	}
	return signed[ed25519.SignatureSize:], nil
}
