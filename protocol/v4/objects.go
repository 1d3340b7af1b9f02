package v4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"backstay/protocol/vault"
)

// Lengths in the answer to GET that are none.
const (
	lengthMissing = 0xFFFFFFFF
	lengthDamaged = 0xFFFFFFFE
)

// AppendObjectHead adds to dst what precedes an object of size bytes in the data of
// PUT and COMMIT.
func AppendObjectHead(dst []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(dst, uint32(size))
}

// AppendGotHead adds to dst what precedes an object of size bytes in the data of
// GET's answer.
func AppendGotHead(dst []byte, id vault.ObjectID, size int) []byte {
	return AppendObjectHead(append(dst, id[:]...), size)
}

// AppendMissing adds to dst that an object is not stored.
func AppendMissing(dst []byte, id vault.ObjectID) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, id[:]...), lengthMissing)
}

// AppendDamaged adds to dst that an object is stored and damaged.
func AppendDamaged(dst []byte, id vault.ObjectID) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, id[:]...), lengthDamaged)
}

// ObjectReader takes apart the data of a PUT or COMMIT. It reads no further than
// the object asked for, so memory is that of one object.
type ObjectReader struct {
	r                    io.Reader
	objects, bytes       int
	maxObjects, maxBytes int
	head                 [4]byte
}

// NewObjectReader returns a reader of at most so many objects and so many bytes of
// objects in all. Reads of r may be as small as four bytes.
func NewObjectReader(r io.Reader, maxObjects, maxBytes int) *ObjectReader {
	return &ObjectReader{r: r, maxObjects: maxObjects, maxBytes: maxBytes}
}

// Next appends the next object to dst and returns it alone; it is io.EOF after the
// last. dst grows with what arrives, not with what is claimed.
//
// Errors: [ErrMalformed], [ErrTooLarge], and those of the reader below.
func (o *ObjectReader) Next(dst []byte) ([]byte, error) {
	if _, err := io.ReadFull(o.r, o.head[:]); err != nil {
		return nil, torn(err)
	}
	n := binary.LittleEndian.Uint32(o.head[:])
	if err := checkSize(n); err != nil {
		return nil, err
	}
	o.objects++
	o.bytes += int(n)
	if o.objects > o.maxObjects || o.bytes > o.maxBytes {
		return nil, fmt.Errorf("%w: more than %d objects or %d bytes in one request", ErrTooLarge, o.maxObjects, o.maxBytes)
	}
	return readObject(o.r, dst, int(n))
}

// State says whether an object asked for came.
type State uint8

// The states.
const (
	Stored  State = 0
	Missing State = 1
	Damaged State = 2
)

// GotReader takes apart the data of GET's answer.
type GotReader struct {
	r    io.Reader
	head [len(vault.ObjectID{}) + 4]byte
}

// NewGotReader returns a reader.
func NewGotReader(r io.Reader) *GotReader { return &GotReader{r: r} }

// Next appends the next object to dst and returns it alone if it is Stored, and its
// id in any case; it is io.EOF after the last. That the bytes are those of the id
// is not checked.
//
// Errors: [ErrMalformed], [ErrTooLarge], and those of the reader below.
func (g *GotReader) Next(dst []byte) (vault.Object, State, error) {
	if _, err := io.ReadFull(g.r, g.head[:]); err != nil {
		return vault.Object{}, 0, torn(err)
	}
	object := vault.Object{ID: vault.ObjectID(g.head[:len(vault.ObjectID{})])}
	n := binary.LittleEndian.Uint32(g.head[len(object.ID):])
	switch n {
	case lengthMissing:
		return object, Missing, nil
	case lengthDamaged:
		return object, Damaged, nil
	}
	err := checkSize(n)
	if err == nil {
		object.Data, err = readObject(g.r, dst, int(n))
	}
	return object, Stored, err
}

func checkSize(n uint32) error {
	if n == 0 {
		return fmt.Errorf("%w: object of no bytes", ErrMalformed)
	}
	if int64(n) > int64(vault.MaxObject) {
		return fmt.Errorf("%w: object of %d bytes, the limit is %d", ErrTooLarge, n, vault.MaxObject)
	}
	return nil
}

// step is by how much a buffer is grown ahead of what has arrived: the body of a
// frame.
const step = MaxBody

func readObject(r io.Reader, dst []byte, n int) ([]byte, error) {
	object := dst[len(dst):]
	for len(object) < n {
		have := len(object)
		// What has arrived may be doubled: so memory is bounded by it, and the
		// copying by the object.
		next := min(n, max(cap(object), have+max(step, have)))
		if next > cap(object) {
			grown := make([]byte, have, next)
			copy(grown, object)
			object = grown
		}
		object = object[:next]
		if _, err := io.ReadFull(r, object[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, torn(err)
		}
	}
	return object, nil
}

// torn makes an end in the middle a fault of the sender.
func torn(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: data ends within an object", ErrMalformed)
	}
	return err
}
