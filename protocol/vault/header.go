package vault

import (
	"encoding/binary"
	"fmt"
)

// Sizes of the object construction, in bytes (SPEC.md, "Objects").
const (
	// MaxPlaintext is the largest plaintext one object carries: a chunk of the
	// largest size the chunker cuts.
	MaxPlaintext = 4 << 20
	// MaxRefs is how many objects one object may refer to.
	MaxRefs = 1024
	// MaxObject bounds a sealed object of any type: header, refs, record
	// fields, siv, the padded encoding of MaxPlaintext bytes, and the tag.
	MaxObject = headerSize + MaxRefs*len(ObjectID{}) + recordSize + sivSize + maxEnc + tagSize

	headerSize = 12
	recordSize = 16 + 8 + 16 + 16 + 1
	sivSize    = 32
	tagSize    = 16
	encHeader  = 9
	// maxEnc is the padded size of the encoding of MaxPlaintext bytes.
	maxEnc = MaxPlaintext + 128<<10
	// minObject is an object with no refs and an empty plaintext.
	minObject = headerSize + sivSize + encHeader + tagSize
)

const (
	magic        = "bkst"
	objectFormat = 1
)

// Type says what an object's plaintext is. Values are written out because they
// stand in stored objects.
type Type uint8

const (
	// TypeChunk is a piece of a file's content; it has no refs.
	TypeChunk Type = 1
	// TypeList is a part of a chunk list too long for one record; its refs are
	// chunks or lower lists.
	TypeList Type = 2
	// TypeRecord is one path at one moment; its refs are its chunks or lists.
	TypeRecord Type = 3
	// TypeNote is a small sealed statement that is kept in a registry rather
	// than in history: what a server knows of a version 3 client, for example.
	TypeNote Type = 4
)

func (t Type) String() string {
	switch t {
	case TypeChunk:
		return "chunk"
	case TypeList:
		return "list"
	case TypeRecord:
		return "record"
	case TypeNote:
		return "note"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Op says what a record states about its path.
type Op uint8

const (
	// OpPut states that the path exists with the content the record carries.
	OpPut Op = 1
	// OpDelete states that the path no longer exists.
	OpDelete Op = 2
	// OpOutOfScope states that the path is no longer protected. It is not a
	// deletion: the last version stays listed.
	OpOutOfScope Op = 3
	// OpValid and OpVoid exist in the legacy area only: the version 3 client
	// found the checksum of the put named by the record's only ref right or
	// wrong. A void put is not listed.
	OpValid Op = 16
	OpVoid  Op = 17
)

// Header is the part of an object that stands in the clear, authenticated by the
// sealing: what a server may know to check references and to index history.
type Header struct {
	Type  Type
	Epoch uint32
	// Refs are the objects this one needs, in the order its plaintext means.
	Refs []ObjectID
	// Record is set for TypeRecord and for no other type.
	Record *RecordHeader
}

// RecordHeader places a record in history.
type RecordHeader struct {
	Device DeviceID
	// Seq is the sequence number of the commit that carries the record.
	Seq    uint64
	Path   PathID
	Parent PathID
	Op     Op
}

// check says whether the header may be sealed; ParseHeader refuses the same.
func (h Header) check() error {
	switch {
	case h.Type < TypeChunk || h.Type > TypeNote:
		return fmt.Errorf("%w: unknown %v", ErrMalformed, h.Type)
	case len(h.Refs) > MaxRefs:
		return fmt.Errorf("%w: %d refs, the limit is %d", ErrMalformed, len(h.Refs), MaxRefs)
	case (h.Type == TypeChunk || h.Type == TypeNote) && len(h.Refs) > 0:
		return fmt.Errorf("%w: a %v has no refs, this one %d", ErrMalformed, h.Type, len(h.Refs))
	case (h.Type == TypeRecord) != (h.Record != nil):
		return fmt.Errorf("%w: record fields in a %v", ErrMalformed, h.Type)
	case h.Record != nil && !h.Record.Op.known():
		return fmt.Errorf("%w: unknown operation %d", ErrMalformed, h.Record.Op)
	}
	return nil
}

func (o Op) known() bool {
	switch o {
	case OpPut, OpDelete, OpOutOfScope, OpValid, OpVoid:
		return true
	}
	return false
}

// appendHeader appends the clear part of an object: what ParseHeader reads.
func appendHeader(dst []byte, h Header) []byte {
	dst = append(dst, magic...)
	dst = append(dst, objectFormat, byte(h.Type))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.Refs)))
	dst = binary.LittleEndian.AppendUint32(dst, h.Epoch)
	for i := range h.Refs {
		dst = append(dst, h.Refs[i][:]...)
	}
	if r := h.Record; r != nil {
		dst = append(dst, r.Device[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, r.Seq)
		dst = append(dst, r.Path[:]...)
		dst = append(dst, r.Parent[:]...)
		dst = append(dst, byte(r.Op))
	}
	return dst
}

// ParseHeader reads the clear part of a sealed object and returns its size, the
// offset of the siv. It needs no key and proves nothing about the sealed part.
func ParseHeader(object []byte) (Header, int, error) {
	var h Header
	if len(object) < minObject || len(object) > MaxObject {
		return h, 0, fmt.Errorf("%w: %d bytes, want %d to %d", ErrMalformed, len(object), minObject, MaxObject)
	}
	if string(object[:4]) != magic || object[4] != objectFormat {
		return h, 0, fmt.Errorf("%w: does not start with %q format %d", ErrMalformed, magic, objectFormat)
	}
	h.Type = Type(object[5])
	h.Epoch = binary.LittleEndian.Uint32(object[8:])
	n := int(binary.LittleEndian.Uint16(object[6:]))
	size := headerSize + n*len(ObjectID{})
	if h.Type == TypeRecord {
		size += recordSize
	}
	if len(object) < size+sivSize+encHeader+tagSize {
		return Header{}, 0, fmt.Errorf("%w: %d refs in %d bytes", ErrMalformed, n, len(object))
	}
	if n > 0 {
		h.Refs = make([]ObjectID, n)
		for i := range h.Refs {
			copy(h.Refs[i][:], object[headerSize+i*len(ObjectID{}):])
		}
	}
	if h.Type == TypeRecord {
		p := object[size-recordSize:]
		h.Record = &RecordHeader{
			Device: DeviceID(p[:16]),
			Seq:    binary.LittleEndian.Uint64(p[16:]),
			Path:   PathID(p[24:40]),
			Parent: PathID(p[40:56]),
			Op:     Op(p[56]),
		}
	}
	if err := h.check(); err != nil {
		return Header{}, 0, err
	}
	return h, size, nil
}
