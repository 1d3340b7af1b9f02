//go:build !amd64

package v3

import "crypto/cipher"

// newCBCDecrypter returns CBC decryption from iv on with block.
func newCBCDecrypter(_ []byte, block cipher.Block, iv []byte) cipher.BlockMode {
	return cipher.NewCBCDecrypter(block, iv)
}
