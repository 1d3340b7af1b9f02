package vault

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxKit bounds a kit file, in bytes.
const MaxKit = 64 << 10

// Kit is what a person needs to get everything back on an empty machine: the
// root's seed and where the vault lies (SPEC.md, "Recovery phrase and kit"). Only
// Seed is always known.
type Kit struct {
	Seed Key
	// Servers are addresses of one server, host:port.
	Servers []string
	// Pin is the SHA-256 of the server's public key.
	Pin   *[32]byte
	Vault *ID
}

const kitText = `# Backstay recovery kit
#
# With this you get your files back if this computer is lost, stolen or broken.
# Whoever has it can read them, too: print it or keep it on a stick, away from
# the computer, and do not leave a copy on it. Nobody can make you another one.
#
# On a new computer: install Backstay, then run
#     agent recover --phrase-file THIS-FILE --to FOLDER

`

// Bytes returns the kit as a file, with an explanation for who finds it.
func (k Kit) Bytes() []byte {
	b := []byte(kitText)
	b = fmt.Appendf(b, "phrase: %s\n", Phrase(k.Seed))
	for _, s := range k.Servers {
		b = fmt.Appendf(b, "server: %s\n", s)
	}
	if k.Pin != nil {
		b = fmt.Appendf(b, "pin: %x\n", *k.Pin)
	}
	if k.Vault != nil {
		b = fmt.Appendf(b, "vault: %v\n", *k.Vault)
	}
	return b
}

// ParseKit reads a kit, or a file of nothing but the 24 words. Lines may end as on
// Windows. An error names the line and never shows its content, which may be the
// phrase; [*PhraseError] and [ErrPhraseChecksum] say what is wrong with the words.
func ParseKit(data []byte) (Kit, error) {
	if len(data) > MaxKit {
		return Kit{}, fmt.Errorf("recovery kit: more than %d bytes: this is another file", MaxKit)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		return Kit{}, fmt.Errorf("recovery kit: not UTF-8 text: this is another file")
	}
	var kit Kit
	seen := make(map[string]bool)
	var bare []string
	number, bareAt := 0, 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			bare, bareAt = append(bare, line), number
			continue
		}
		if seen[key] && (key == "phrase" || key == "pin" || key == "vault") {
			return Kit{}, fmt.Errorf("recovery kit: line %d: a second %s", number, key)
		}
		seen[key] = true
		if err := kit.set(key, strings.TrimSpace(value)); err != nil {
			return Kit{}, fmt.Errorf("recovery kit: line %d: %w", number, err)
		}
	}
	switch {
	case len(seen) == 0:
		seed, err := ParsePhrase(strings.Join(bare, " "))
		if err != nil {
			return Kit{}, fmt.Errorf("recovery kit: %w", err)
		}
		return Kit{Seed: seed}, nil
	case len(bare) > 0:
		return Kit{}, fmt.Errorf("recovery kit: line %d is neither a comment nor of the form \"key: value\"", bareAt)
	case !seen["phrase"]:
		return Kit{}, fmt.Errorf("recovery kit: no line begins with \"phrase: \"")
	}
	return kit, nil
}

// set sets what a key stands for; unknown keys stand for nothing.
func (k *Kit) set(key, value string) (err error) {
	switch key {
	case "phrase":
		k.Seed, err = ParsePhrase(value)
	case "server":
		host, port, serr := net.SplitHostPort(value)
		n, perr := strconv.ParseUint(port, 10, 16)
		if serr != nil || perr != nil || host == "" || n == 0 {
			return fmt.Errorf("server is not of the form host:port")
		}
		k.Servers = append(k.Servers, value)
	case "pin":
		k.Pin = new([32]byte)
		err = unhex(k.Pin[:], key, value)
	case "vault":
		k.Vault = new(ID)
		err = unhex(k.Vault[:], key, value)
	}
	return err
}

// unhex fills dst from hexadecimal digits.
func unhex(dst []byte, key, value string) error {
	if len(value) == 2*len(dst) {
		if _, err := hex.Decode(dst, []byte(value)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not of %d hexadecimal digits", key, 2*len(dst))
}
