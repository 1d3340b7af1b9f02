package v3

import (
	"bytes"
	"crypto/aes"
	"testing"

	"golang.org/x/sys/unix"
)

// fence returns a page of memory between two that crash the test when touched.
func fence(t *testing.T) []byte {
	size := unix.Getpagesize()
	b, err := unix.Mmap(-1, 0, 3*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	for _, page := range [][]byte{b[:size], b[2*size:]} {
		if err := unix.Mprotect(page, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return b[size : 2*size]
}

// TestCBCDecrypterStaysWithin decrypts at both ends of fenced pages.
func TestCBCDecrypterStaysWithin(t *testing.T) {
	dst, src := fence(t), fence(t)
	iv := make([]byte, aes.BlockSize)
	for n := 0; n <= 40*aes.BlockSize; n += aes.BlockSize {
		for _, at := range []int{0, len(src) - n} {
			out, in := dst[at:at+n], src[at:at+n]
			copy(in, random(n))
			want := make([]byte, n)
			ours, std := modes(t, testKey.bytes(), iv)
			std.CryptBlocks(want, in)
			ours.CryptBlocks(out, in)
			ours, _ = modes(t, testKey.bytes(), iv)
			ours.CryptBlocks(in, in)
			if !bytes.Equal(out, want) || !bytes.Equal(in, want) {
				t.Errorf("%d bytes at %d: other plaintext than crypto/cipher's", n, at)
			}
		}
	}
}
