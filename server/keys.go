package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"backstay/internal/durable"
	"backstay/protocol/vault"
)

// legacyKeyFile holds the key that seals what version 3 clients send. It is kept
// in the data folder beside the store, so a copy of the store alone tells nothing.
const legacyKeyFile = "legacy.key"

// legacyKey is the vault of the legacy area: its id and its only key.
type legacyKey struct {
	vault vault.ID
	key   vault.Key
}

// loadLegacyKey reads the key file of a data folder; mayCreate makes a new one
// where there is none, and must be false for a store that already holds objects.
func loadLegacyKey(data string, mayCreate bool) (legacyKey, error) {
	var k legacyKey
	path := filepath.Join(data, legacyKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !mayCreate {
			return k, fmt.Errorf("%s is missing, but the store holds what it seals; put the file back from your copy", path)
		}
		rand.Read(k.vault[:])
		k.key = vault.NewKey()
		return k, durable.WriteFile(path, k.format(), 0o600)
	}
	if err != nil {
		return k, fmt.Errorf("read the key of the legacy area: %w", err)
	}
	if err := checkPrivate(path); err != nil {
		return k, err
	}
	for n, line := range strings.Split(string(text), "\n") {
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var into []byte
		switch word {
		case "", "#":
			continue
		case "vault":
			into = k.vault[:]
		case "key":
			into = k.key[:]
		default:
			return k, fmt.Errorf("%s:%d: unknown word %q; put the file back from your copy", path, n+1, word)
		}
		raw, err := hex.DecodeString(value)
		if err != nil || len(raw) != len(into) {
			return k, fmt.Errorf("%s:%d: %s needs %d bytes in hex; put the file back from your copy", path, n+1, word, len(into))
		}
		copy(into, raw)
	}
	if k.vault == (vault.ID{}) || k.key == (vault.Key{}) {
		return k, fmt.Errorf("%s: vault or key is missing; put the file back from your copy", path)
	}
	return k, nil
}

func (k legacyKey) format() []byte {
	return fmt.Appendf(nil, "# Seals what protocol version 3 clients send. Without it none of that can be read: keep a copy.\nvault %x\nkey %x\n", k.vault[:], k.key[:])
}
