package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"backstay/internal/durable"
	"backstay/internal/private"
	"backstay/protocol/vault"
)

const (
	// legacyKeyFile holds the key that seals what version 3 clients send. It is kept
	// in the data folder beside the store, so a copy of the store alone tells nothing.
	legacyKeyFile = "legacy.key"
	// serverKeyFile holds the key by which agents know this server, and that signs
	// when it took what.
	serverKeyFile = "server.key"
)

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
	err := readKeys(path, map[string][]byte{"vault": k.vault[:], "key": k.key[:]})
	if errors.Is(err, fs.ErrNotExist) {
		if !mayCreate {
			return k, fmt.Errorf("%s is missing, but the store holds what it seals; put the file back from your copy", path)
		}
		rand.Read(k.vault[:])
		k.key = vault.NewKey()
		return k, durable.WriteFile(path, k.format(), 0o600)
	}
	return k, err
}

func (k legacyKey) format() []byte {
	return fmt.Appendf(nil, "# Seals what protocol version 3 clients send. Without it none of that can be read: keep a copy.\nvault %x\nkey %x\n", k.vault[:], k.key[:])
}

// loadServerKey reads the server's key of a data folder; mayCreate makes a new one
// where there is none, and must be false once agents may know one.
func loadServerKey(data string, mayCreate bool) (ed25519.PrivateKey, error) {
	var seed [ed25519.SeedSize]byte
	path := filepath.Join(data, serverKeyFile)
	err := readKeys(path, map[string][]byte{"key": seed[:]})
	if errors.Is(err, fs.ErrNotExist) {
		if !mayCreate {
			return nil, fmt.Errorf("%s is missing, but agents know this server by it; put the file back from your copy", path)
		}
		rand.Read(seed[:])
		err = durable.WriteFile(path, fmt.Appendf(nil, "# Agents know this server by it. Without it all of them must be invited again: keep a copy.\nkey %x\n", seed[:]), 0o600)
	}
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed[:]), nil
}

// readKeys reads a key file: lines of a word and bytes in hex. Each of the words
// stands once; its bytes fill the slice and are not all zero.
func readKeys(path string, words map[string][]byte) error {
	text, err := private.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	found := make(map[string]bool)
	for n, line := range strings.Split(string(text), "\n") {
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || word == "#" {
			continue
		}
		into, ok := words[word]
		if !ok || found[word] {
			return fmt.Errorf("%s:%d: unknown word %q, or twice; put the file back from your copy", path, n+1, word)
		}
		raw, err := hex.DecodeString(value)
		if err != nil || len(raw) != len(into) || strings.Trim(value, "0") == "" {
			return fmt.Errorf("%s:%d: %s needs %d bytes in hex; put the file back from your copy", path, n+1, word, len(into))
		}
		found[word] = true
		copy(into, raw)
	}
	if len(found) < len(words) {
		return fmt.Errorf("%s: a key is missing; put the file back from your copy", path)
	}
	return nil
}
