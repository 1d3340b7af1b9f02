package v3

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// newCBCDecrypter returns CBC decryption from iv on, where block is AES under
// key: the kernel of this file if the CPU has AES instructions, which decrypts
// eight blocks at a time, else that of crypto/cipher, which decrypts one.
func newCBCDecrypter(key []byte, block cipher.Block, iv []byte) cipher.BlockMode {
	if !cpu.X86.HasAES {
		return cipher.NewCBCDecrypter(block, iv)
	}
	return newCBCKernel(key, iv)
}

// A cbcKernel is CBC decryption with the CPU's AES instructions. It prints as
// REDACTED. It is not safe for concurrent use.
type cbcKernel struct {
	keys   [60]uint32 // as many as AES-256 needs; used from keys[4*rounds:] down
	rounds int
	iv     [aes.BlockSize]byte // the ciphertext block before the next one
}

// newCBCKernel expands a key of 16, 24 or 32 bytes for the equivalent inverse
// cipher: FIPS 197, sections 5.2 and 5.3.5, with words in little endian.
func newCBCKernel(key, iv []byte) *cbcKernel {
	nk := len(key) / 4
	k := &cbcKernel{rounds: nk + 6, iv: [aes.BlockSize]byte(iv)}
	w := k.keys[:4*(k.rounds+1)]
	for i := range nk {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	rcon := uint32(1)
	for i := nk; i < len(w); i++ {
		t := w[i-1]
		switch {
		case i%nk == 0:
			t = subWord(bits.RotateLeft32(t, -8)) ^ rcon
			rcon = rcon<<1 ^ (rcon>>7)*0x11b
		case nk > 6 && i%nk == 4:
			t = subWord(t)
		}
		w[i] = w[i-nk] ^ t
	}
	for i := 4; i < 4*k.rounds; i += 4 {
		invMixColumns((*[4]uint32)(w[i:]))
	}
	return k
}

func (*cbcKernel) BlockSize() int { return aes.BlockSize }

// CryptBlocks decrypts src into dst, which is src, or does not overlap it and
// is at least as long. It panics if src is not whole blocks or dst is too
// short.
func (k *cbcKernel) CryptBlocks(dst, src []byte) {
	if len(src)%aes.BlockSize != 0 || len(dst) < len(src) {
		panic("v3: CBC decryption of a partial block, or into too short a slice")
	}
	decryptCBC(&k.keys, k.rounds, &k.iv, dst, src)
}

// Format prints REDACTED for every verb.
func (*cbcKernel) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// decryptCBC decrypts src, whole blocks, into the start of dst and leaves its
// last block in iv. It checks nothing.
//
//go:noescape
func decryptCBC(keys *[60]uint32, rounds int, iv *[aes.BlockSize]byte, dst, src []byte)

// subWord puts each byte of w through the S-box.
func subWord(w uint32) uint32

// invMixColumns does the step of that name on one round key.
//
//go:noescape
func invMixColumns(key *[4]uint32)
