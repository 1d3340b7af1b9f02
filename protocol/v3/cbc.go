package v3

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// pieceSize is how much a Decrypter hands on at once: large enough for the
// cipher's full speed, small enough to stay in the cache.
const pieceSize = 64 << 10

// CiphertextSize returns the number of ciphertext bytes of plain plaintext
// bytes: the next multiple of 16 above it.
func CiphertextSize(plain int64) int64 { return (plain/aes.BlockSize + 1) * aes.BlockSize }

// newCBC returns the mode that make builds over key with the protocol's zero
// initialisation vector.
func newCBC(key SessionKey, make func(cipher.Block, []byte) cipher.BlockMode) (cipher.BlockMode, error) {
	if key.bytes == nil {
		return nil, fmt.Errorf("%w: none", ErrKey)
	}
	block, err := aes.NewCipher(key.bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	var iv [aes.BlockSize]byte
	return make(block, iv[:]), nil
}

// An Encrypter reads the ciphertext of one file. It is not safe for concurrent
// use.
type Encrypter struct {
	src  io.Reader
	mode cipher.BlockMode
	buf  [aes.BlockSize]byte // for reads of less than a block
	rest []byte              // what of buf is still to be read
	err  error               // sticky; io.EOF once the padding is made
}

// NewEncrypter returns a reader of the ciphertext of what src delivers until
// io.EOF: [CiphertextSize] bytes, padding included. The error is [ErrKey].
func NewEncrypter(src io.Reader, key SessionKey) (*Encrypter, error) {
	mode, err := newCBC(key, cipher.NewCBCEncrypter)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return &Encrypter{src: src, mode: mode}, nil
}

// Read fills p with whole blocks, encrypting in place and without allocating;
// it is fastest with buffers of several KiB. An error of the source other than
// io.EOF is returned as it is, and nothing is read after it.
func (e *Encrypter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(e.rest) == 0 {
		if len(p) >= aes.BlockSize {
			return e.fill(p[:len(p)&^(aes.BlockSize-1)])
		}
		n, err := e.fill(e.buf[:])
		if err != nil {
			return 0, err
		}
		e.rest = e.buf[:n]
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// fill puts ciphertext into b, whose length is a multiple of the block size.
func (e *Encrypter) fill(b []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := io.ReadFull(e.src, b)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		e.err = io.EOF
		pad := aes.BlockSize - n%aes.BlockSize // there is room: n < len(b)
		for range pad {
			b[n] = byte(pad)
			n++
		}
	case err != nil:
		e.err = err
		return 0, err
	}
	e.mode.CryptBlocks(b[:n], b[:n])
	return n, nil
}

// A Decrypter writes the plaintext of one file to another writer as its
// ciphertext is written to it. It holds back the last block until
// [Decrypter.Close], because only that one carries padding. It is not safe for
// concurrent use.
type Decrypter struct {
	dst   io.Writer
	mode  cipher.BlockMode
	held  [aes.BlockSize]byte // what may be the last block
	n     int                 // how much of held is filled
	out   []byte              // a piece of plaintext, as large as needed so far
	plain int64
	err   error // sticky
}

// NewDecrypter returns a Decrypter that writes to dst in pieces of up to
// 64 KiB. The error is [ErrKey].
func NewDecrypter(dst io.Writer, key SessionKey) (*Decrypter, error) {
	mode, err := newCBC(key, func(block cipher.Block, iv []byte) cipher.BlockMode {
		return newCBCDecrypter(key.bytes(), block, iv)
	})
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return &Decrypter{dst: dst, mode: mode, out: make([]byte, aes.BlockSize)}, nil
}

// Write decrypts p, cut anywhere, without changing or keeping it. An error is
// the writer's, and final.
func (d *Decrypter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 && d.err == nil {
		if d.n < len(d.held) {
			n := copy(d.held[d.n:], p)
			d.n += n
			p = p[n:]
			continue
		}
		// More follows, so the held block is not the last; and of what
		// follows, at least a byte is held back in its place.
		n := min(len(p)-1, pieceSize-aes.BlockSize) &^ (aes.BlockSize - 1)
		if need := aes.BlockSize + n; len(d.out) < need {
			d.out = make([]byte, need)
		}
		d.mode.CryptBlocks(d.out[:aes.BlockSize], d.held[:])
		d.mode.CryptBlocks(d.out[aes.BlockSize:aes.BlockSize+n], p[:n])
		d.n = 0
		p = p[n:]
		d.emit(d.out[:aes.BlockSize+n])
	}
	return total - len(p), d.err
}

// Close checks the padding and writes what the last block holds; it does not
// close the underlying writer. [ErrCiphertext] says that the ciphertext was
// empty, no whole number of blocks or wrongly padded; everything written so
// far is worthless then. Calling it again changes nothing.
func (d *Decrypter) Close() error {
	if d.err != nil {
		if errors.Is(d.err, errClosed) {
			return nil
		}
		return d.err
	}
	if d.n < len(d.held) {
		d.err = fmt.Errorf("decrypt: %w: %d bytes in its last block", ErrCiphertext, d.n)
		return d.err
	}
	last := d.out[:aes.BlockSize]
	d.mode.CryptBlocks(last, d.held[:])
	pad := int(last[aes.BlockSize-1])
	if pad < 1 || pad > aes.BlockSize || bytes.Count(last[aes.BlockSize-pad:], last[aes.BlockSize-1:]) != pad {
		d.err = fmt.Errorf("decrypt: %w: wrong padding", ErrCiphertext)
		return d.err
	}
	d.emit(last[:aes.BlockSize-pad])
	if d.err != nil {
		return d.err
	}
	d.err = errClosed
	return nil
}

// Plain returns the number of plaintext bytes written so far; after a
// successful Close, the size of the file.
func (d *Decrypter) Plain() int64 { return d.plain }

var errClosed = errors.New("decrypt: already closed")

func (d *Decrypter) emit(b []byte) {
	if len(b) == 0 {
		return
	}
	n, err := d.dst.Write(b)
	d.plain += int64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	d.err = err
}
