// Package cksum computes the checksum of the POSIX cksum(1) program, which
// protocol version 3 uses over a file's plaintext (SPEC.md, "Checksum").
//
// The checksum finds transmission errors. It proves nothing about who made the
// data.
package cksum

import (
	"encoding/binary"
	"hash"
	"hash/crc32"
	"math/bits"
)

// Size of a checksum in bytes.
const Size = 4

// A Digest is a running checksum; [hash.Hash32] describes its methods. Write
// never fails. It is not safe for concurrent use; the zero value is not ready,
// call [New].
type Digest struct {
	// The POSIX sum is the CRC of Ethernet without its bit reflection. The
	// processor computes the reflected one, so that every input byte is
	// reversed here and the result once at the end.
	crc uint32
	len uint64

	// buf holds the reversed bytes: small enough to stay in the first-level
	// cache, and here because hash/crc32 would move it to the heap.
	buf [4096]byte
}

var _ hash.Hash32 = (*Digest)(nil)

// New returns a Digest of no data.
func New() *Digest {
	d := new(Digest)
	d.Reset()
	return d
}

// Sum32 returns the checksum of b.
func Sum32(b []byte) uint32 {
	d := New()
	d.Write(b)
	return d.Sum32()
}

// Reset makes d the checksum of no data.
func (d *Digest) Reset() {
	// crc32.Update complements before and after; POSIX starts from 0.
	d.crc, d.len = ^uint32(0), 0
}

// Write adds b to the data. It returns len(b) and nil.
func (d *Digest) Write(b []byte) (int, error) {
	d.crc = d.update(b)
	d.len += uint64(len(b))
	return len(b), nil
}

// Sum32 returns the checksum of the data so far; more may be written.
func (d *Digest) Sum32() uint32 {
	var tail [8]byte
	n := 0
	for l := d.len; l > 0; l >>= 8 {
		tail[n] = byte(l)
		n++
	}
	return bits.Reverse32(d.update(tail[:n]))
}

// Sum appends the checksum to b, most significant byte first.
func (d *Digest) Sum(b []byte) []byte { return binary.BigEndian.AppendUint32(b, d.Sum32()) }

// Size returns [Size].
func (d *Digest) Size() int { return Size }

// BlockSize returns 1: writes of any length are equally good.
func (d *Digest) BlockSize() int { return 1 }

// update returns the reflected sum after b, whose bytes it reverses.
func (d *Digest) update(b []byte) uint32 {
	crc, buf := d.crc, &d.buf
	for len(b) > 0 {
		n := min(len(b), len(buf))
		i := 0
		for ; i+8 <= n; i += 8 {
			binary.LittleEndian.PutUint64(buf[i:], reverseEach(binary.LittleEndian.Uint64(b[i:])))
		}
		for ; i < n; i++ {
			buf[i] = bits.Reverse8(b[i])
		}
		crc = crc32.Update(crc, crc32.IEEETable, buf[:n])
		b = b[n:]
	}
	return crc
}

// reverseEach reverses the bits within each of the eight bytes of x.
func reverseEach(x uint64) uint64 {
	const m1, m2, m4 = 0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f
	x = x>>1&m1 | x&m1<<1
	x = x>>2&m2 | x&m2<<2
	return x>>4&m4 | x&m4<<4
}
