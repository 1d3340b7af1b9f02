package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"lukechampine.com/blake3/guts"
)

// DigestSize is the size of a digest in bytes: 1,024 lanes of 16 bits.
const DigestSize = 2048

// Digest is the digest of a device's state: a sum over the newest record of every
// path, in any order (SPEC.md, "State digest"). The zero value is that of the
// empty state. It is no set: what is removed must have been added.
type Digest struct {
	// words hold four lanes each, the first in the low bits.
	words [DigestSize / 8]uint64
}

// highs are the highest bits of the four lanes of a word. Sums and differences of
// all other bits do not reach the next lane.
const highs = 0x8000_8000_8000_8000

// Add adds a record, a put or out of scope, as the newest of its path.
func (d *Digest) Add(path, parent PathID, record ObjectID) {
	e := newElement(path, parent, record)
	defer elements.Put(e)
	for i, a := range &d.words {
		b := binary.LittleEndian.Uint64(e[8*i:])
		d.words[i] = ((a &^ highs) + (b &^ highs)) ^ ((a ^ b) & highs)
	}
}

// Remove takes out what Add added.
func (d *Digest) Remove(path, parent PathID, record ObjectID) {
	e := newElement(path, parent, record)
	defer elements.Put(e)
	for i, a := range &d.words {
		b := binary.LittleEndian.Uint64(e[8*i:])
		d.words[i] = ((a | highs) - (b &^ highs)) ^ ((a ^ ^b) & highs)
	}
}

// element is what a record counts for: the first bytes of the BLAKE3 output of the
// ids, which are one block together. The blocks of the output are computed side by
// side, for which the library's hasher would need three times as long.
type element [DigestSize]byte

func newElement(path, parent PathID, record ObjectID) *element {
	var in [guts.BlockSize]byte
	copy(in[:], path[:])
	copy(in[len(path):], parent[:])
	copy(in[len(path)+len(parent):], record[:])
	root := guts.CompressChunk(in[:], &guts.IV, 0, 0)
	root.Flags |= guts.FlagRoot
	e := elements.Get().(*element)
	const side = guts.MaxSIMD * guts.BlockSize
	for at := 0; at < DigestSize; at += side {
		root.Counter = uint64(at / guts.BlockSize)
		guts.CompressBlocks((*[side]byte)(e[at:]), root)
	}
	return e
}

var elements = sync.Pool{New: func() any { return new(element) }}

// Sum returns the SHA-256 of the digest, which a commit carries.
func (d *Digest) Sum() [sha256.Size]byte { return sha256.Sum256(d.Bytes()) }

// Bytes returns the digest as DigestSize bytes, to be kept.
func (d *Digest) Bytes() []byte {
	b := make([]byte, 0, DigestSize)
	for _, w := range d.words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// ParseDigest reads what Bytes returned. Errors: [ErrMalformed].
func ParseDigest(data []byte) (Digest, error) {
	var d Digest
	if len(data) != DigestSize {
		return d, fmt.Errorf("digest: %w: %d bytes, want %d", ErrMalformed, len(data), DigestSize)
	}
	for i := range d.words {
		d.words[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	return d, nil
}
