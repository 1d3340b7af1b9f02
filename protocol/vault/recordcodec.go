package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"backstay/protocol/cbor"
)

// Keys of a record's map (SPEC.md, "Records").
const (
	keyName       = 1
	keyType       = 2
	keySize       = 3
	keyInline     = 4
	keyChunks     = 5
	keyModTime    = 6
	keyMode       = 7
	keyCreated    = 8
	keyOwner      = 9
	keyXattrs     = 10
	keyAttributes = 11
	keySecurity   = 12
	keyTarget     = 13
	keyLink       = 14
	keyHoles      = 15
	keyFuzzy      = 16
	keySum        = 17
	keyDevice     = 18
	keyCKSum      = 32
)

// modeBits are the POSIX bits that a record keeps of a mode.
const modeBits = 0o7777

// Append appends the record's encoding, the plaintext of a TypeRecord object, to
// dst. Equal records have equal encodings. What [DecodeRecord] would refuse is
// the caller's mistake and not looked for.
func (r *Record) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0) // the map's head, when the number of fields is known
	n, unknown := 0, r.Unknown
	key := func(key int64) {
		for ; len(unknown) > 0 && unknown[0].Key < key; n++ {
			dst = append(cbor.AppendInt(dst, unknown[0].Key), unknown[0].Value.Raw()...)
			unknown = unknown[1:]
		}
		dst = cbor.AppendInt(dst, key)
		n++
	}
	number := func(k int64, v *uint32) {
		if v != nil {
			key(k)
			dst = cbor.AppendUint(dst, uint64(*v))
		}
	}
	octets := func(k int64, v []byte) {
		if v != nil {
			key(k)
			dst = cbor.AppendBytes(dst, v)
		}
	}
	instant := func(k int64, t time.Time) {
		if !t.IsZero() {
			key(k)
			dst = cbor.AppendInt(cbor.AppendArray(dst, 2), t.Unix())
			dst = cbor.AppendUint(dst, uint64(t.Nanosecond()))
		}
	}

	octets(keyName, r.Name)
	if r.Type != 0 {
		key(keyType)
		dst = cbor.AppendUint(dst, uint64(r.Type))
	}
	if r.Type == TypeFile {
		key(keySize)
		dst = cbor.AppendUint(dst, r.Size())
		if len(r.Content.Entries) == 0 {
			key(keyInline)
			dst = cbor.AppendBytes(dst, r.Content.Inline)
		} else {
			key(keyChunks)
			dst = cbor.AppendBytes(dst, appendList(nil, r.Content.Level, r.Content.Entries))
		}
	}
	instant(keyModTime, r.ModTime)
	number(keyMode, r.Mode)
	instant(keyCreated, r.Created)
	if o := r.Owner; o != nil {
		key(keyOwner)
		dst = cbor.AppendUint(cbor.AppendUint(cbor.AppendArray(dst, 4), uint64(o.UID)), uint64(o.GID))
		dst = cbor.AppendBytes(cbor.AppendBytes(dst, []byte(o.User)), []byte(o.Group))
	}
	if len(r.Xattrs) > 0 {
		key(keyXattrs)
		dst = cbor.AppendArray(dst, len(r.Xattrs))
		for _, x := range r.Xattrs {
			dst = cbor.AppendBytes(cbor.AppendBytes(cbor.AppendArray(dst, 2), x.Name), x.Value)
		}
	}
	number(keyAttributes, r.Attributes)
	octets(keySecurity, r.Security)
	octets(keyTarget, r.Target)
	if r.Link != nil {
		octets(keyLink, r.Link[:])
	}
	if len(r.Holes) > 0 {
		key(keyHoles)
		dst = cbor.AppendArray(dst, 2*len(r.Holes))
		for _, h := range r.Holes {
			dst = cbor.AppendUint(cbor.AppendUint(dst, h.Offset), h.Length)
		}
	}
	if r.Fuzzy {
		key(keyFuzzy)
		dst = cbor.AppendBool(dst, true)
	}
	if r.Content.Sum != nil {
		octets(keySum, r.Content.Sum[:])
	}
	if d := r.Device; d != nil {
		key(keyDevice)
		dst = cbor.AppendUint(cbor.AppendUint(cbor.AppendArray(dst, 2), uint64(d.Major)), uint64(d.Minor))
	}
	number(keyCKSum, r.CKSum)
	for _, f := range unknown {
		dst = append(cbor.AppendInt(dst, f.Key), f.Value.Raw()...)
		n++
	}
	var head [9]byte
	return slices.Replace(dst, start, start+1, cbor.AppendMap(head[:0], n)...)
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
	var d recordDecoder
	for key, v := range fields {
		if key < 0 {
			return Record{}, fmt.Errorf("record: field %d: %w", key, ErrCritical)
		}
		d.decode(key, v)
	}
	if d.err == nil {
		d.key = 0
		d.finish(refs)
	}
	if d.err != nil {
		return Record{}, fmt.Errorf("record: %w", d.err)
	}
	return d.record, nil
}

// recordDecoder gathers the fields of a record and then checks them together.
type recordDecoder struct {
	unpacker
	record         Record
	sized          bool
	size           uint64
	inline, chunks []byte
	sum            *[sha256.Size]byte
}

// decode takes one field.
func (d *recordDecoder) decode(key int64, v cbor.Value) {
	r := &d.record
	d.key = key
	switch key {
	case keyName:
		r.Name = d.filled(v)
	case keyType:
		r.Type = FileType(d.uint(v, uint64(TypeFile), uint64(TypeOther)))
	case keySize:
		d.sized, d.size = true, d.uint(v, 0, math.MaxInt64)
	case keyInline:
		d.inline = d.bytes(v)
	case keyChunks:
		d.chunks = d.filled(v)
	case keyModTime:
		r.ModTime = d.time(v)
	case keyMode:
		r.Mode = new(uint32(d.uint(v, 0, modeBits)))
	case keyCreated:
		r.Created = d.time(v)
	case keyOwner:
		p := d.tuple(v, 4)
		r.Owner = &Owner{UID: d.uint32(p[0]), GID: d.uint32(p[1]), User: string(d.bytes(p[2])), Group: string(d.bytes(p[3]))}
	case keyXattrs:
		r.Xattrs = d.xattrs(v)
	case keyAttributes:
		r.Attributes = new(d.uint32(v))
	case keySecurity:
		r.Security = d.bytes(v)
	case keyTarget:
		r.Target = d.filled(v)
	case keyLink:
		r.Link = new(LinkGroup(d.array(v, len(LinkGroup{}))))
	case keyHoles:
		r.Holes = d.holes(v)
	case keyFuzzy:
		var err error
		if r.Fuzzy, err = v.Bool(); err == nil && !r.Fuzzy {
			err = errors.New("false is not stated")
		}
		d.fail(err)
	case keySum:
		d.sum = new([sha256.Size]byte(d.array(v, sha256.Size)))
	case keyDevice:
		p := d.tuple(v, 2)
		r.Device = &DeviceNumber{Major: d.uint32(p[0]), Minor: d.uint32(p[1])}
	case keyCKSum:
		r.CKSum = new(d.uint32(v))
	default:
		r.Unknown = append(r.Unknown, Field{key, v})
	}
}

// finish checks which fields stand together and describes the content.
func (d *recordDecoder) finish(refs []ObjectID) {
	r := &d.record
	file := r.Type == TypeFile
	device := r.Type == TypeCharDevice || r.Type == TypeBlockDevice
	switch {
	case file && (!d.sized || (d.inline != nil) == (d.chunks != nil)),
		!file && (d.sized || d.inline != nil || d.chunks != nil || r.Link != nil || r.Holes != nil || r.Fuzzy || d.sum != nil || r.CKSum != nil):
		d.fail(fmt.Errorf("content fields do not fit type %d", r.Type))
	case (r.Target != nil) != (r.Type == TypeSymlink), r.Device != nil && !device:
		d.fail(fmt.Errorf("target or device number does not fit type %d", r.Type))
	case r.Type != 0 && d.chunks == nil && len(refs) > 0:
		d.fail(fmt.Errorf("%d refs without a chunk list", len(refs)))
	}
	if d.err != nil || !file {
		return
	}
	size, end := d.size, uint64(0)
	for i, h := range r.Holes {
		if h.Length == 0 || i > 0 && h.Offset <= end || h.Offset > d.size || h.Length > d.size-h.Offset {
			d.fail(fmt.Errorf("hole of %d bytes at %d in a file of %d", h.Length, h.Offset, d.size))
			return
		}
		end = h.Offset + h.Length
		size -= h.Length
	}
	if d.chunks != nil {
		r.Content, d.err = parseList(d.chunks, refs, size)
	} else {
		r.Content = Content{Size: size, Inline: d.inline}
	}
	if r.Content.Sum = d.sum; d.err == nil {
		d.err = r.Content.check()
	}
}

// filled returns a byte string that is not empty.
func (d *recordDecoder) filled(v cbor.Value) []byte {
	b := d.bytes(v)
	if d.err == nil && len(b) == 0 {
		d.fail(errors.New("empty"))
	}
	return b
}

// time returns a time that is stored as seconds and nanoseconds: a single number
// of nanoseconds in 64 bits would end in 2262.
func (d *recordDecoder) time(v cbor.Value) time.Time {
	p := d.tuple(v, 2)
	t := time.Unix(d.int(p[0]), int64(d.uint(p[1], 0, 999_999_999))).UTC()
	if d.err == nil && t.IsZero() {
		d.fail(errors.New("the zero time"))
	}
	return t
}

func (d *recordDecoder) xattrs(v cbor.Value) []Xattr {
	list := d.list(v)
	if d.err == nil && len(list) == 0 {
		d.fail(errors.New("empty"))
	}
	out := make([]Xattr, 0, len(list))
	for i, e := range list {
		p := d.tuple(e, 2)
		out = append(out, Xattr{Name: d.bytes(p[0]), Value: d.bytes(p[1])})
		if d.err == nil && i > 0 && bytes.Compare(out[i-1].Name, out[i].Name) >= 0 {
			d.fail(errors.New("names do not ascend"))
		}
	}
	return out
}

func (d *recordDecoder) holes(v cbor.Value) []Hole {
	list := d.list(v)
	if d.err == nil && (len(list) == 0 || len(list)%2 != 0) {
		d.fail(fmt.Errorf("%d numbers", len(list)))
	}
	if d.err != nil {
		return nil
	}
	out := make([]Hole, 0, len(list)/2)
	for p := range slices.Chunk(list, 2) {
		out = append(out, Hole{Offset: d.uint(p[0], 0, math.MaxInt64), Length: d.uint(p[1], 0, math.MaxInt64)})
	}
	return out
}
