package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Codecs of a sealed plaintext (SPEC.md, "Encoding").
const (
	codecRaw  = 0
	codecZstd = 1
)

// Seal appends the sealed object for the plaintext to dst and returns it with the
// object's id. The newest epoch is used; h.Epoch is ignored. dst's spare capacity
// is used when it is large enough; plaintext must not overlap it.
//
// Equal input gives equal bytes as long as epoch and compressor are the same.
// Only deduplication depends on that: a compressor that changes its output makes
// another object with another key and nonce, which opens just as well.
//
// Before it returns, Seal opens what it made, from the bytes it returns, and
// compares: [ErrSeal] means that this machine does not compute reliably.
// [ErrNoKey] means that the keyring lacks the newest epoch. Otherwise an error says that h or the plaintext's size is not allowed, and is
// the caller's mistake. On error dst is returned unchanged in length.
func (k *Keyring) Seal(dst []byte, h Header, plaintext []byte) ([]byte, ObjectID, error) {
	start := len(dst)
	dst, err := k.seal(dst, h, plaintext)
	if err != nil {
		return dst, ObjectID{}, err
	}
	return dst, Identify(dst[start:]), nil
}

// seal is Seal for callers that leave it to others to identify the object.
func (k *Keyring) seal(dst []byte, h Header, plaintext []byte) ([]byte, error) {
	h.Epoch = k.Epoch()
	e := k.epoch(h.Epoch)
	if e == nil {
		return dst, fmt.Errorf("seal: %w %d", ErrNoKey, h.Epoch)
	}
	if err := h.check(); err != nil {
		return dst, fmt.Errorf("seal: %w", err)
	}
	if len(plaintext) > MaxPlaintext {
		return dst, fmt.Errorf("seal: plaintext of %d bytes, the limit is %d", len(plaintext), MaxPlaintext)
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)

	start := len(dst)
	s.aad = appendHeader(append(s.aad[:0], k.vault[:]...), h)
	enc := start + len(s.aad) - len(k.vault) + sivSize
	dst = slices.Grow(dst, enc-start+max(padme(encHeader+len(plaintext)), encHeader+encoder.MaxEncodedSize(len(plaintext)))+tagSize)
	dst = append(dst, s.aad[len(k.vault):]...)
	dst = encode(dst[:enc], plaintext)

	siv := e.sivOf(s, dst[enc:])
	copy(dst[enc-sivSize:], siv)
	aead, nonce := e.aead(s, siv)
	dst = aead.Seal(dst[:enc], nonce, dst[enc:], s.aad)

	if err := k.verify(s, e, dst[start:], enc-start, plaintext); err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// verify opens the object that Seal made and compares. It takes everything from
// the object's own bytes: a wrong compressor or a bit that flipped in the encoding
// shows in the comparison with the caller's plaintext, a wrong key derivation or
// cipher output, or a siv that flipped after it was used, in the tag. The siv is
// not computed a second time, which would double the most expensive step: a siv
// that is wrong although the encoding it was made from is right takes a processor
// that miscalculates SHA-256, and then no id can be trusted either.
func (k *Keyring) verify(s *scratch, e *epoch, object []byte, enc int, plaintext []byte) error {
	codec, size, payload, err := k.decrypt(s, e, object, enc-sivSize, false)
	if err == nil && codec == codecZstd {
		s.plain = slices.Grow(s.plain[:0], size)
		payload, err = decompress(s.plain, payload, size)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w (%v)", ErrSeal, err)
	case !bytes.Equal(payload, plaintext):
		return fmt.Errorf("%w (the plaintext differs)", ErrSeal)
	}
	return nil
}

// Open appends the plaintext of a sealed object to dst and returns it with the
// object's header. Nothing is returned unless all of it is authentic. The object
// is not changed; it must not overlap dst.
//
// Errors: [ErrMalformed] if the bytes are not of the construction, [ErrNoKey] if
// the keyring lacks the object's epoch, [ErrOpen] if they were altered or sealed
// by other keys. Open does not compare the bytes with an id.
func (k *Keyring) Open(dst, object []byte) ([]byte, Header, error) {
	h, n, err := ParseHeader(object)
	if err != nil {
		return dst, Header{}, fmt.Errorf("open: %w", err)
	}
	e := k.epoch(h.Epoch)
	if e == nil {
		return dst, Header{}, fmt.Errorf("open %v: %w %d", h.Type, ErrNoKey, h.Epoch)
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	codec, size, payload, err := k.decrypt(s, e, object, n, true)
	if err == nil {
		dst = slices.Grow(dst, size)
		if codec == codecZstd {
			_, err = decompress(dst[len(dst):], payload, size)
		} else {
			copy(dst[len(dst):len(dst)+size], payload)
		}
	}
	if err != nil {
		return dst, Header{}, fmt.Errorf("open %v: %w", h.Type, err)
	}
	return dst[:len(dst)+size], h, nil
}

// decrypt authenticates an object whose siv stands at offset n, the siv itself only
// if checkSIV says so, and returns the parts of its encoding; payload lies in s.
func (k *Keyring) decrypt(s *scratch, e *epoch, object []byte, n int, checkSIV bool) (codec byte, size int, payload []byte, err error) {
	s.aad = append(append(s.aad[:0], k.vault[:]...), object[:n]...)
	siv, sealed := object[n:n+sivSize], object[n+sivSize:]
	s.enc = slices.Grow(s.enc[:0], len(sealed)-tagSize)
	aead, nonce := e.aead(s, siv)
	if s.enc, err = aead.Open(s.enc, nonce, sealed, s.aad); err != nil {
		return 0, 0, nil, ErrOpen
	}
	if checkSIV {
		if !hmac.Equal(siv, e.sivOf(s, s.enc)) {
			return 0, 0, nil, ErrOpen
		}
	}
	return decode(s.enc)
}

// sivOf returns the synthetic initialisation vector of an encoding under s.aad, in
// a place of s that it keeps.
func (e *epoch) sivOf(s *scratch, enc []byte) []byte {
	size := binary.LittleEndian.AppendUint64(s.info[:0], uint64(len(s.aad)))
	return e.siv.sum(s.siv[:0], size, s.aad, enc)
}

// aead returns the cipher and nonce of the one object with this siv: HKDF-Expand
// to 44 bytes, written out over the pooled HMAC of the epoch. The nonce is in a
// place of s that the next call takes.
func (e *epoch) aead(s *scratch, siv []byte) (cipher.AEAD, []byte) {
	info := append(append(s.info[:0], labelObject...), siv...)
	info = append(info, 1)
	t1 := e.enc.sum(s.okm[:0], info)
	info[len(info)-1] = 2
	t2 := e.enc.sum(s.okm[len(t1):len(t1)], t1, info)
	block, err := aes.NewCipher(t1)
	if err != nil {
		panic(err) // only for a key of another size
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for a block of another size
	}
	return aead, t2[:aead.NonceSize()]
}

// encode appends the encoding of plaintext to dst, which has room for it:
// compressed if that leaves the padded size smaller, raw otherwise.
func encode(dst, plaintext []byte) []byte {
	start := len(dst)
	raw := padme(encHeader + len(plaintext))
	dst = append(dst, make([]byte, encHeader)...)
	codec := byte(codecRaw)
	if compressible(plaintext, dst) {
		dst = encoder.EncodeAll(plaintext, dst)
		codec = codecZstd
	} else {
		dst = append(dst, plaintext...)
	}
	if codec == codecZstd && padme(len(dst)-start) >= raw {
		codec = codecRaw
		dst = append(dst[:start+encHeader], plaintext...)
	}
	dst[start] = codec
	binary.LittleEndian.PutUint32(dst[start+1:], uint32(len(plaintext)))
	binary.LittleEndian.PutUint32(dst[start+5:], uint32(len(dst)-start-encHeader))
	n := len(dst)
	dst = dst[:start+padme(n-start)]
	clear(dst[n:])
	return dst
}

// compressFrom is the size from which compressing pays: the records of files without
// content of their own are smaller, hold mostly ids and hashes, and would spend more
// time in the compressor than in everything else for a few bytes each.
const compressFrom = 320

// Of plaintexts above probeAbove bytes, probes pieces of probeSize bytes are
// compressed first. Photos, films and archives are most of what people keep, and
// finding out that they do not compress takes as long as encrypting them.
const (
	probeAbove = 128 << 10
	probes     = 16
	probeSize  = 1 << 10
)

// compressible says whether trying to compress plaintext is worth it. It uses the
// spare capacity of scratch.
func compressible(plaintext, scratch []byte) bool {
	switch {
	case len(plaintext) < compressFrom:
		return false
	case len(plaintext) <= probeAbove:
		return true
	}
	for i := range probes {
		piece := plaintext[i*(len(plaintext)-probeSize)/(probes-1):][:probeSize]
		if len(encoder.EncodeAll(piece, scratch[len(scratch):])) < probeSize {
			return true
		}
	}
	return false
}

// decode takes an encoding apart and refuses any but the one that its codec,
// lengths and payload allow.
func decode(enc []byte) (codec byte, size int, payload []byte, err error) {
	plain, packed := binary.LittleEndian.Uint32(enc[1:]), binary.LittleEndian.Uint32(enc[5:])
	if plain > MaxPlaintext || packed > plain {
		return 0, 0, nil, fmt.Errorf("%w: plaintext of %d bytes in a payload of %d", ErrMalformed, plain, packed)
	}
	size, end := int(plain), encHeader+int(packed)
	switch codec = enc[0]; {
	case codec > codecZstd:
		return 0, 0, nil, fmt.Errorf("%w: unknown codec %d", ErrMalformed, codec)
	case len(enc) != padme(end):
		return 0, 0, nil, fmt.Errorf("%w: payload of %d bytes in an encoding of %d", ErrMalformed, packed, len(enc))
	case codec == codecRaw && packed != plain,
		codec == codecZstd && len(enc) >= padme(encHeader+size):
		return 0, 0, nil, fmt.Errorf("%w: codec %d for %d bytes in %d", ErrMalformed, codec, plain, packed)
	}
	for _, b := range enc[end:] {
		if b != 0 {
			return 0, 0, nil, fmt.Errorf("%w: padding is not zero", ErrMalformed)
		}
	}
	return codec, size, enc[encHeader:end], nil
}

// decompress decodes a zstd payload of size bytes into dst's spare capacity,
// which has room for them.
func decompress(dst, payload []byte, size int) ([]byte, error) {
	out, err := decoder.DecodeAll(payload, dst[:0:size])
	if err != nil || len(out) != size {
		return nil, fmt.Errorf("%w: compressed payload does not decode to %d bytes", ErrMalformed, size)
	}
	return out, nil
}

// padme returns the size to which n > 1 bytes are padded (Padmé): at most 12 %
// more, 3 % for large n, and of all sizes below 2^k only O(k log k) are left.
func padme(n int) int {
	e := bits.Len(uint(n)) - 1
	mask := 1<<(e-bits.Len(uint(e))) - 1
	return (n + mask) &^ mask
}

// The compressor and decompressor are shared: EncodeAll and DecodeAll are safe
// for concurrent use, and keep tables for as many goroutines as run.
var (
	encoder = newEncoder()
	decoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxPlaintext),
		zstd.WithDecodeAllCapLimit(true)))
)

// newEncoder returns an encoder that is ready: made on first use, its channels
// would belong to whichever testing/synctest bubble used them first. It keeps a
// window's worth of memory for each goroutine for ever, which is why the window
// is not larger. A payload needs no checksum of its own.
func newEncoder() *zstd.Encoder {
	e := must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)))
	e.EncodeAll(nil, nil)
	return e
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// scratch is what sealing and opening one object needs beside its result. The
// arrays would be allocated one by one otherwise, since they pass through
// interfaces of the standard library.
type scratch struct {
	aad, enc, plain []byte
	siv             [sivSize]byte
	info            [len(labelObject) + sivSize + 1]byte
	okm             [2 * sha256.Size]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}
