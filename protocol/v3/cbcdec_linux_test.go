package v3

import (
	"bytes"
	"crypto/aes"
	"testing"

	"backstay/internal/guardpage"
)

// TestCBCDecrypterStaysWithin decrypts at both ends of fenced pages.
func TestCBCDecrypterStaysWithin(t *testing.T) {
	dst, src := guardpage.New(t), guardpage.New(t)
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
