package vault

import (
	"fmt"
	"math"

	"backstay/protocol/cbor"
)

// unpacker takes values of a fixed form out of CBOR. The first fault stays in err,
// and what follows it yields zeros of the right length, so that callers look at
// err once, at the end.
type unpacker struct {
	// fields are the values of the map by key; a key that is not there has the
	// zero Value, which is of no kind.
	fields []cbor.Value
	// key is that of the field last taken.
	key int64
	err error
}

// unpackMap reads a map with keys from 1 to most only.
func unpackMap(data []byte, most int64) *unpacker {
	d := &unpacker{fields: make([]cbor.Value, most+1)}
	v, err := cbor.Parse(data)
	d.fail(err)
	if d.err != nil {
		return d
	}
	_, pairs, err := v.Map()
	d.fail(err)
	for key, v := range pairs {
		if key < 1 || key > most {
			d.fail(fmt.Errorf("unknown field %d", key))
			break
		}
		d.fields[key] = v
	}
	return d
}

func (d *unpacker) fail(err error) {
	if err == nil || d.err != nil {
		return
	}
	if d.key != 0 {
		err = fmt.Errorf("field %d: %w", d.key, err)
	}
	d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
}

func (d *unpacker) has(key int64) bool { return len(d.fields[key].Raw()) > 0 }

// field returns the value of a key, to be given to one of the other methods.
func (d *unpacker) field(key int64) cbor.Value {
	d.key = key
	return d.fields[key]
}

// uint returns an unsigned integer of a range.
func (d *unpacker) uint(v cbor.Value, least, most uint64) uint64 {
	n, err := v.Uint()
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("%d is not in %d to %d", n, least, most)
	}
	if d.fail(err); d.err != nil {
		return 0
	}
	return n
}

func (d *unpacker) uint32(v cbor.Value) uint32 { return uint32(d.uint(v, 0, math.MaxUint32)) }

func (d *unpacker) int(v cbor.Value) int64 {
	n, err := v.Int()
	d.fail(err)
	return n
}

// bytes returns a byte string of any length, aliasing what was decoded.
func (d *unpacker) bytes(v cbor.Value) []byte {
	b, err := v.Bytes()
	d.fail(err)
	return b
}

// array returns a byte string of n bytes, for conversion to an array type.
func (d *unpacker) array(v cbor.Value, n int) []byte {
	b := d.bytes(v)
	if d.err == nil && len(b) != n {
		d.fail(fmt.Errorf("%d bytes, want %d", len(b), n))
	}
	if d.err != nil {
		return make([]byte, n)
	}
	return b
}

// list returns the elements of an array.
func (d *unpacker) list(v cbor.Value) []cbor.Value {
	n, elements, err := v.Array()
	if d.fail(err); d.err != nil {
		return nil
	}
	out := make([]cbor.Value, 0, n)
	for e := range elements {
		out = append(out, e)
	}
	return out
}

// tuple returns the elements of an array of n.
func (d *unpacker) tuple(v cbor.Value, n int) []cbor.Value {
	out := d.list(v)
	if d.err == nil && len(out) != n {
		d.fail(fmt.Errorf("array of %d, want %d", len(out), n))
	}
	if d.err != nil {
		return make([]cbor.Value, n)
	}
	return out
}

func (d *unpacker) text(v cbor.Value) string {
	s, err := v.Text()
	d.fail(err)
	return s
}
