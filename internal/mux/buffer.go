package mux

import (
	"math/bits"
	"sync"

	wire "backstay/protocol/v4"
)

// buffer is memory for frames, from a pool. There are four sizes between each power of
// two and the next, so that a buffer is at most a quarter larger than what is in it,
// but for the smallest.
type buffer struct {
	data  []byte
	class int
}

const (
	minBits = 12 // a page
	maxBits = 18 // wire.MaxBody
)

var _ [wire.MaxBody]byte = [1 << maxBits]byte{}

var pools [4*(maxBits-minBits) + 1]sync.Pool

// newBuffer returns a buffer of n bytes, at most wire.MaxBody, with anything in it.
func newBuffer(n int) *buffer {
	class := classOf(n)
	if b, ok := pools[class].Get().(*buffer); ok {
		b.data = b.data[:n]
		return b
	}
	return &buffer{make([]byte, n, classSize(class)), class}
}

// classOf is the class of buffers for n bytes.
func classOf(n int) int {
	if n <= 1<<minBits {
		return 0
	}
	power := bits.Len(uint(n-1)) - 1 // 1<<power < n
	return 4*(power-minBits) + (n-1-1<<power)>>(power-2) + 1
}

// classSize is the size of the buffers of a class.
func classSize(class int) int {
	if class == 0 {
		return 1 << minBits
	}
	power := minBits + (class-1)/4
	return 1<<power + ((class-1)%4+1)<<(power-2)
}

// free gives a buffer back; nil is allowed.
func (b *buffer) free() {
	if b != nil && cap(b.data) == classSize(b.class) { // not one that an append has grown
		pools[b.class].Put(b)
	}
}

// room is how many bytes may be appended to data.
func (b *buffer) room() int { return cap(b.data) - len(b.data) }
