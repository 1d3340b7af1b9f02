package v3

import "fmt"

// An Assembly checks the packets of one file as a receiver gets them. The zero
// value is ready for the first packet. It holds no content; the caller feeds
// the ciphertext of all packets to one [Decrypter].
type Assembly struct {
	first Message
	next  uint32 // number of the packet expected next; 0 before the first
	sum   uint64 // ciphertext bytes of the packets so far
	sized bool   // the packets state the size of the plaintext
}

// Add checks the next File message, before its ciphertext is read, and reports
// whether it is the file's last. With [ErrPacket] the file is lost, and the
// Assembly with it: packets start at 1 and count up to the same total, agree
// in name and original size, none is empty, and together they are as long as
// the ciphertext of the original size is. Where d has no original size, the one
// packet has whole blocks.
func (a *Assembly) Add(d Dialect, m Message) (last bool, err error) {
	if a.next == 0 {
		a.first, a.next, a.sized = m, 1, !d.older()
	}
	a.sum += uint64(m.ContentSize)
	want := uint64(CiphertextSize(int64(a.first.OrigSize)))
	last = m.Packet == a.first.Total
	switch {
	case m.Kind != File:
		return false, fmt.Errorf("%w: %v instead of packet %d", ErrPacket, m.Kind, a.next)
	case uint32(m.Packet) != a.next || m.Packet > m.Total:
		return false, fmt.Errorf("%w: packet %d of %d where %d was due", ErrPacket, m.Packet, m.Total, a.next)
	case m.Total != a.first.Total || m.OrigSize != a.first.OrigSize || m.Name != a.first.Name:
		return false, fmt.Errorf("%w: packet %d differs from the first in total, original size or name", ErrPacket, m.Packet)
	case m.ContentSize == 0:
		return false, fmt.Errorf("%w: packet %d is empty", ErrPacket, m.Packet)
	case !a.sized && a.sum%16 != 0:
		return false, fmt.Errorf("%w: content size %d is no whole number of blocks", ErrPacket, a.sum)
	case a.sized && (a.sum > want || last && a.sum != want):
		return false, fmt.Errorf("%w: %d bytes up to packet %d of %d, where an original size of %d gives %d",
			ErrPacket, a.sum, m.Packet, m.Total, a.first.OrigSize, want)
	}
	a.next++
	return last, nil
}

// CheckPlain compares the size of the decrypted file, from [Decrypter.Plain],
// with what its packets stated. The error is [ErrPacket].
func (a *Assembly) CheckPlain(n int64) error {
	if a.sized && n != int64(a.first.OrigSize) {
		return fmt.Errorf("%w: %d bytes of plaintext, not %d", ErrPacket, n, a.first.OrigSize)
	}
	return nil
}

// ContentSize returns the number of ciphertext bytes of the packets so far, as
// FileReceived states it: modulo 2^32, which only an original size in the last
// 16 bytes below 4 GiB reaches.
func (a *Assembly) ContentSize() uint32 { return uint32(a.sum) }
