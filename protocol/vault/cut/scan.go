package cut

import (
	"crypto/aes"
	"encoding/binary"
	"math/bits"
)

// windowSize is how many bytes before a position decide on it. With 16, logs and
// files of 16-byte records often have no end for megabytes.
const windowSize = 64

// keys is what kernels read; they know the offsets.
type keys struct {
	fold   [windowSize]byte
	rounds [11 * aes.BlockSize]byte // of AES-128, the key itself first
}

// newKeys expands the key of AES-128: FIPS 197, section 5.2.
func newKeys(fold, block []byte) *keys {
	k := &keys{fold: [windowSize]byte(fold)}
	w := k.rounds[:]
	copy(w, block)
	rcon := byte(1)
	for i := aes.BlockSize; i < len(w); i += 4 {
		t := [4]byte(w[i-4:])
		if i%aes.BlockSize == 0 {
			t = [4]byte{sbox(t[1]) ^ rcon, sbox(t[2]), sbox(t[3]), sbox(t[0])}
			rcon = double(rcon)
		}
		for j := range t {
			w[i+j] = w[i+j-aes.BlockSize] ^ t[j]
		}
	}
	return k
}

// sbox is the S-box of AES. It is computed, because the time of looking up a
// table would depend on the key.
func sbox(x byte) byte {
	inverse := byte(1) // x^254, by squaring and multiplying
	for range 7 {
		inverse = mul(mul(inverse, inverse), x)
	}
	inverse = mul(inverse, inverse)
	out := byte(0x63)
	for i := range 5 {
		out ^= bits.RotateLeft8(inverse, i)
	}
	return out
}

// mul multiplies in the field of AES.
func mul(x, y byte) (out byte) {
	for ; y != 0; y >>= 1 {
		out ^= x & -(y & 1)
		x = double(x)
	}
	return out
}

// double multiplies by x in the field of AES.
func double(x byte) byte { return x<<1 ^ (x>>7)*0x1b }

// A skipper returns how many positions at the start of buf it knows to have no
// value that is zero under mask: all of them but for a rest that is short of a
// step, or all before the step with the first. It checks nothing.
type skipper func(k *keys, buf []byte, mask uint32) int

// kernel is a skipper in assembly. Every step of its takes the same number of
// positions.
type kernel struct {
	name string
	step int
	skip skipper
}

// scan returns the first position, the start of a window in buf, whose value is
// zero under mask, or -1.
func (c *Cutter) scan(buf []byte, mask uint32) int {
	i := 0
	if c.skip != nil {
		i = c.skip(c.keys, buf, mask)
	}
	var block [aes.BlockSize]byte
	for ; i <= len(buf)-windowSize; i++ {
		c.keys.foldWindow(&block, (*[windowSize]byte)(buf[i:]))
		c.block.Encrypt(block[:], block[:])
		if binary.LittleEndian.Uint32(block[:])&mask == 0 {
			return i
		}
	}
	return -1
}

// fifths[i] has the bits i, i+5, i+10, … of a word.
var fifths = [5]uint64{0x1084210842108421, 0x2108421084210842, 0x4210842108421084, 0x8421084210842108, 0x0842108421084210}

// foldWindow sets dst to the sum of four carry-less products, each of the two
// halves of 16 bytes of the window plus those of the key.
func (k *keys) foldWindow(dst *[aes.BlockSize]byte, window *[windowSize]byte) {
	var hi, lo uint64
	for i := 0; i < windowSize; i += aes.BlockSize {
		x := binary.LittleEndian.Uint64(window[i:]) ^ binary.LittleEndian.Uint64(k.fold[i:])
		y := binary.LittleEndian.Uint64(window[i+8:]) ^ binary.LittleEndian.Uint64(k.fold[i+8:])
		h, l := carrylessMul(x, y)
		hi ^= h
		lo ^= l
	}
	binary.LittleEndian.PutUint64(dst[:], lo)
	binary.LittleEndian.PutUint64(dst[8:], hi)
}

// carrylessMul is multiplication of polynomials over the field of two elements.
// Tables would be faster, but take time by what they multiply.
//
// Of every fifth bit of x and every fifth of y, at most 13 ones meet in a bit of
// the usual product, too few for a carry to reach the next bit that counts.
func carrylessMul(x, y uint64) (hi, lo uint64) {
	x0, x1, x2, x3, x4 := x&fifths[0], x&fifths[1], x&fifths[2], x&fifths[3], x&fifths[4]
	y0, y1, y2, y3, y4 := y&fifths[0], y&fifths[1], y&fifths[2], y&fifths[3], y&fifths[4]
	for i := range fifths { // the bits i, i+5, … of the product
		h0, l0 := bits.Mul64(x0, y0)
		h1, l1 := bits.Mul64(x1, y4)
		h2, l2 := bits.Mul64(x2, y3)
		h3, l3 := bits.Mul64(x3, y2)
		h4, l4 := bits.Mul64(x4, y1)
		lo ^= (l0 ^ l1 ^ l2 ^ l3 ^ l4) & fifths[i]
		hi ^= (h0 ^ h1 ^ h2 ^ h3 ^ h4) & fifths[(i+1)%5] // bit i+1 of hi is 65 up, 13 fifths
		y0, y1, y2, y3, y4 = y1, y2, y3, y4, y0
	}
	return hi, lo
}
