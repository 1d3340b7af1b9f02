package vault

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"backstay/protocol/cbor"
)

// FileType says what a record's path is.
type FileType uint8

// TypeFile is a regular file. Values are written out because they are stored.
const TypeFile FileType = 1

// Record is the sealed part of a record: what a path was at one moment. The zero
// value states nothing. A record of a file states its content, too.
type Record struct {
	// Name is the path as the bytes the system uses; nil states none.
	Name []byte
	// Type is 0 in a record that does not describe what stands at the path.
	Type FileType
	// Content is set for TypeFile; its chunk references stand in the header of
	// the record's object, see [Content.Refs].
	Content Content
	// ModTime is when the content was last changed; the zero time states none.
	ModTime time.Time
	// CKSum is the POSIX cksum of the content that protocol version 3 uses; nil
	// states none.
	CKSum *uint32
	// Unknown holds, in ascending order, the fields that this version does not
	// know, so that what a newer one wrote survives a decode and an Append.
	Unknown []Field
}

// Field is a field of a record that this version does not know.
type Field struct {
	Key   int64
	Value cbor.Value
}

// Keys of a record's map (SPEC.md, "Records").
const (
	keyName    = 1
	keyType    = 2
	keySize    = 3
	keyInline  = 4
	keyChunks  = 5
	keyModTime = 6
	keyCKSum   = 32
)

// Append appends the record's encoding, the plaintext of a TypeRecord object, to
// dst. Equal records have equal encodings. What [DecodeRecord] would refuse is
// the caller's mistake and not looked for.
func (r *Record) Append(dst []byte) []byte {
	body := make([]byte, 0, 64+len(r.Name)+len(r.Content.Inline)+len(r.Content.Entries)*entrySize)
	n, unknown := 0, r.Unknown
	key := func(key int64) {
		for ; len(unknown) > 0 && unknown[0].Key < key; n++ {
			body = append(cbor.AppendInt(body, unknown[0].Key), unknown[0].Value.Raw()...)
			unknown = unknown[1:]
		}
		body = cbor.AppendInt(body, key)
		n++
	}
	if r.Name != nil {
		key(keyName)
		body = cbor.AppendBytes(body, r.Name)
	}
	if r.Type != 0 {
		key(keyType)
		body = cbor.AppendUint(body, uint64(r.Type))
	}
	if r.Type == TypeFile {
		key(keySize)
		body = cbor.AppendUint(body, r.Content.Size)
		if len(r.Content.Entries) == 0 {
			key(keyInline)
			body = cbor.AppendBytes(body, r.Content.Inline)
		} else {
			key(keyChunks)
			body = cbor.AppendBytes(body, appendList(nil, r.Content.Level, r.Content.Entries))
		}
	}
	if !r.ModTime.IsZero() {
		key(keyModTime)
		body = cbor.AppendInt(cbor.AppendArray(body, 2), r.ModTime.Unix())
		body = cbor.AppendUint(body, uint64(r.ModTime.Nanosecond()))
	}
	if r.CKSum != nil {
		key(keyCKSum)
		body = cbor.AppendUint(body, uint64(*r.CKSum))
	}
	for _, f := range unknown {
		body = append(cbor.AppendInt(body, f.Key), f.Value.Raw()...)
		n++
	}
	return append(cbor.AppendMap(dst, n), body...)
}

// DecodeRecord decodes the plaintext of a TypeRecord object whose header carries
// refs. Byte slices of the record alias plaintext.
//
// Errors: [ErrMalformed]; [ErrCritical] if it has a field that must be understood
// and is not.
func DecodeRecord(plaintext []byte, refs []ObjectID) (Record, error) {
	v, err := cbor.Parse(plaintext)
	if err != nil {
		return Record{}, fmt.Errorf("record: %w: %w", ErrMalformed, err)
	}
	_, fields, err := v.Map()
	if err != nil {
		return Record{}, fmt.Errorf("record: %w: %w", ErrMalformed, err)
	}
	var r Record
	var sized, listed bool
	var list []byte
	for key, v := range fields {
		switch key {
		case keyName:
			if r.Name, err = v.Bytes(); err == nil && len(r.Name) == 0 {
				err = errors.New("empty name")
			}
		case keyType:
			r.Type, err = number[FileType](v, 1, math.MaxUint8)
		case keySize:
			sized = true
			r.Content.Size, err = v.Uint()
		case keyInline:
			r.Content.Inline, err = v.Bytes()
		case keyChunks:
			listed = true
			list, err = v.Bytes()
		case keyModTime:
			r.ModTime, err = modTime(v)
		case keyCKSum:
			var sum uint32
			sum, err = number[uint32](v, 0, math.MaxUint32)
			r.CKSum = &sum
		default:
			if key < 0 {
				return Record{}, fmt.Errorf("record: field %d: %w", key, ErrCritical)
			}
			r.Unknown = append(r.Unknown, Field{key, v})
		}
		if err != nil {
			return Record{}, fmt.Errorf("record: field %d: %w: %w", key, ErrMalformed, err)
		}
	}
	inline := r.Content.Inline != nil
	switch {
	case r.Type != TypeFile && (sized || inline || listed),
		r.Type == TypeFile && (!sized || inline == listed),
		inline && len(refs) > 0:
		err = fmt.Errorf("%w: content fields do not fit type %d and %d refs", ErrMalformed, r.Type, len(refs))
	case listed:
		r.Content, err = parseList(list, refs, r.Content.Size)
	case inline:
		err = r.Content.check()
	}
	if err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

// number returns an unsigned integer of a range.
func number[T ~uint8 | ~uint32](v cbor.Value, least, most uint64) (T, error) {
	n, err := v.Uint()
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("%d is not in %d to %d", n, least, most)
	}
	return T(n), err
}

// modTime returns a time that is stored as seconds and nanoseconds: a single
// number of nanoseconds in 64 bits would end in 2262.
func modTime(v cbor.Value) (time.Time, error) {
	n, parts, err := v.Array()
	if err != nil {
		return time.Time{}, err
	}
	if n != 2 {
		return time.Time{}, fmt.Errorf("time of %d parts", n)
	}
	next, stop := iter.Pull(parts)
	defer stop()
	first, _ := next()
	second, _ := next()
	sec, err := first.Int()
	if err != nil {
		return time.Time{}, err
	}
	nsec, err := number[uint32](second, 0, 999_999_999)
	t := time.Unix(sec, int64(nsec)).UTC()
	if err == nil && t.IsZero() {
		err = errors.New("the zero time")
	}
	return t, err
}
