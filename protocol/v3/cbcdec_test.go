package v3

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/rand/v2"
	"testing"
)

// modes returns our CBC decryption and that of crypto/cipher.
func modes(tb testing.TB, key, iv []byte) (ours, std cipher.BlockMode) {
	block, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	return newCBCDecrypter(key, block, iv), cipher.NewCBCDecrypter(block, iv)
}

// checkCBC decrypts src in consecutive calls that end at the blocks cuts and at
// its end, apart and in place, and compares with crypto/cipher. The buffers lie
// srcShift and dstShift bytes off their alignment.
func checkCBC(tb testing.TB, key, iv, src []byte, cuts []int, srcShift, dstShift int) {
	tb.Helper()
	_, std := modes(tb, key, iv)
	want := make([]byte, len(src))
	std.CryptBlocks(want, src)
	for _, inPlace := range []bool{false, true} {
		ours, _ := modes(tb, key, iv)
		in := append(make([]byte, srcShift, srcShift+len(src)), src...)[srcShift:]
		out := append(make([]byte, dstShift+len(src)), "behind"...)[dstShift:]
		if inPlace {
			out = append(in, "behind"...)
			in = out[:len(src)]
		}
		from := 0
		for _, cut := range append(cuts, len(src)/aes.BlockSize) {
			to := cut * aes.BlockSize
			ours.CryptBlocks(out[from:], in[from:to])
			from = to
		}
		if !bytes.Equal(out[:len(src)], want) {
			tb.Fatalf("key of %d bytes, %d blocks, cuts %v, in place %v: other plaintext than crypto/cipher's",
				len(key), len(src)/aes.BlockSize, cuts, inPlace)
		}
		if string(out[len(src):]) != "behind" || !inPlace && !bytes.Equal(in, src) {
			tb.Fatalf("key of %d bytes, %d blocks, in place %v: wrote beside the plaintext", len(key), len(src)/aes.BlockSize, inPlace)
		}
	}
}

func TestCBCDecrypterEqualsStandardLibrary(t *testing.T) {
	for _, tt := range []struct {
		name    string
		keySize int
	}{{"AES-128", 16}, {"AES-192", 24}, {"AES-256", 32}} {
		t.Run(tt.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, uint64(tt.keySize)))
			bytesOf := func(n int) []byte {
				b := make([]byte, n)
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				return b
			}
			for n := range 41 {
				key, iv, src := bytesOf(tt.keySize), bytesOf(aes.BlockSize), bytesOf(n*aes.BlockSize)
				for cut := range n + 1 {
					checkCBC(t, key, iv, src, []int{cut}, cut%aes.BlockSize, n%aes.BlockSize)
				}
			}
			for range 50 {
				n := 41 + rnd.IntN(4096)
				a := rnd.IntN(n)
				b := a + rnd.IntN(n-a)
				checkCBC(t, bytesOf(tt.keySize), bytesOf(aes.BlockSize), bytesOf(n*aes.BlockSize), []int{a, b, b}, rnd.IntN(64), rnd.IntN(64))
			}
		})
	}
}

func TestCBCDecrypterPanics(t *testing.T) {
	for _, tt := range []struct {
		name     string
		dst, src int
	}{
		{"part of a block", 32, 17},
		{"no room", 31, 32},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, _ := modes(t, testKey.bytes(), make([]byte, aes.BlockSize))
			buf := make([]byte, tt.dst, 64)
			defer func() {
				if recover() == nil || !bytes.Equal(buf[:cap(buf)], make([]byte, 64)) {
					t.Error("no panic, or not before writing")
				}
			}()
			ours.CryptBlocks(buf, make([]byte, tt.src))
		})
	}
}

// FuzzCBCDecrypter takes a key, an initialisation vector and ciphertext from
// one input.
func FuzzCBCDecrypter(f *testing.F) {
	f.Add(random(16+16+9*16), false, uint(3), uint(1))
	f.Add(random(32+16+17*16), true, uint(8), uint(15))
	f.Fuzz(func(t *testing.T, in []byte, wide bool, cut, shift uint) {
		keySize := 16
		if wide {
			keySize = 32
		}
		if len(in) < keySize+aes.BlockSize {
			return
		}
		key, iv, src := in[:keySize], in[keySize:keySize+aes.BlockSize], in[keySize+aes.BlockSize:]
		n := len(src) / aes.BlockSize
		checkCBC(t, key, iv, src[:n*aes.BlockSize], []int{int(cut % uint(n+1))}, int(shift%16), int(shift/16%16))
	})
}
