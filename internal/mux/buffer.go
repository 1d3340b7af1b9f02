package mux

import (
	"math/bits"
	"sync"

	wire "backstay/protocol/v4"
)

// buffer is memory for frames, from a pool. Sizes are powers of two, so that no
// stream holds more than twice what its credit covers.
type buffer struct {
	data  []byte
	class int
}

const (
	minBits = 12 // a page
	maxBits = 18 // wire.MaxBody
)

var _ [wire.MaxBody]byte = [1 << maxBits]byte{}

var pools [maxBits - minBits + 1]sync.Pool

// newBuffer returns a buffer of n bytes, at most wire.MaxBody, with anything in it.
func newBuffer(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), minBits) - minBits
	if b, ok := pools[class].Get().(*buffer); ok {
		b.data = b.data[:n]
		return b
	}
	return &buffer{make([]byte, n, 1<<(class+minBits)), class}
}

// free gives a buffer back; nil is allowed.
func (b *buffer) free() {
	if b != nil && cap(b.data) == 1<<(b.class+minBits) { // not one that an append has grown
		pools[b.class].Put(b)
	}
}

// room is how many bytes may be appended to data.
func (b *buffer) room() int { return cap(b.data) - len(b.data) }
