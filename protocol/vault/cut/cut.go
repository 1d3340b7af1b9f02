// Package cut finds the ends of the chunks of a file in its content, so that a
// change in a long file leaves the chunks around it as they are (SPEC.md,
// "Cutting").
//
// The one invariant: where a chunk ends depends on the vault's key and on the
// chunk's bytes alone, not on how they were fed, on the machine or on what runs
// on it. Who does not hold the key learns from the lengths of chunks what they
// would learn from random ones, and that equal contents have equal lengths.
//
// The package holds no data: [New] is the only way in, and vault.Cutter the
// interface that it is made for.
package cut

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
)

// Lengths of chunks in bytes, and what marks an end: the bits that must be zero.
// Few ends below the average and many above it hold the lengths together; the
// mean on random data is 1,196,500 bytes.
const (
	minSize = 256 << 10
	average = 1 << 20
	maxSize = 4 << 20

	maskBelow = 1<<22 - 1
	maskAbove = 1<<18 - 1
)

// Labels of the derived keys (SPEC.md, "Cutting").
const (
	labelFold  = "backstay/1 cut fold"
	labelBlock = "backstay/1 cut block"
)

// A Cutter decides where chunks end. It implements vault.Cutter, is safe for
// concurrent use, and prints as REDACTED.
type Cutter struct {
	keys  *keys // behind a pointer, where fmt does not look when it is a field
	block cipher.Block
	skip  skipper // nil: the CPU has nothing better than Go
}

// New returns the cutter of a vault's K_chunk. It is the same in every epoch.
func New(key [32]byte) *Cutter {
	c := newCutter(key)
	if all := kernels(); len(all) > 0 {
		c.skip = all[0].skip
	}
	return c
}

// newCutter returns a cutter in pure Go.
func newCutter(key [32]byte) *Cutter {
	k := newKeys(expand(key, labelFold, windowSize), expand(key, labelBlock, aes.BlockSize))
	block, err := aes.NewCipher(k.rounds[:aes.BlockSize])
	if err != nil {
		panic(err) // only for a length that AES does not have
	}
	return &Cutter{keys: k, block: block}
}

func expand(key [32]byte, label string, n int) []byte {
	out, err := hkdf.Expand(sha256.New, key[:], label, n)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return out
}

// Max returns the length of the longest chunk in bytes: 4 MiB.
func (*Cutter) Max() int { return maxSize }

// Cut returns the length of the chunk that buf starts with, or 0 if it does not
// end in buf; never 0 if buf is Max long. An earlier call for the same chunk
// returned 0 for the first seen bytes of buf: they are not searched again.
func (c *Cutter) Cut(buf []byte, seen int) int {
	buf = buf[:min(len(buf), maxSize)]
	first := max(seen+1, minSize)
	if n := c.find(buf[:min(len(buf), average-1)], first, maskBelow); n > 0 {
		return n
	}
	if n := c.find(buf, max(first, average), maskAbove); n > 0 {
		return n
	}
	if len(buf) == maxSize {
		return maxSize
	}
	return 0
}

// find returns the first length from first on, at least windowSize, at which buf
// may be cut, or 0.
func (c *Cutter) find(buf []byte, first int, mask uint32) int {
	if first > len(buf) {
		return 0
	}
	if i := c.scan(buf[first-windowSize:], mask); i >= 0 {
		return first + i
	}
	return 0
}

const redacted = "REDACTED"

// Format implements [fmt.Formatter] for every verb.
func (Cutter) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (Cutter) LogValue() slog.Value { return slog.StringValue(redacted) }
