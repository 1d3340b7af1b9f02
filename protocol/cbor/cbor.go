// Package cbor reads and writes the part of CBOR that Backstay's formats use,
// deterministically encoded (RFC 8949, section 4.2.1): integers, byte and text
// strings, arrays, maps with integer keys, booleans and null.
//
// The one invariant: a value has exactly one encoding, and [Parse] accepts no
// other. So bytes that were signed or hashed can be decoded and encoded again
// without a difference, and two readers cannot take one message for two things.
//
// It does not know floats, tags, indefinite lengths or keys that are not
// integers, and it does not map structs. The code is our own because no well-kept
// CBOR library that refuses non-canonical input is available to the build.
//
// Writing starts at the Append functions, reading at [Parse]. The subset is that
// of SPEC.md, "Deterministic CBOR".
package cbor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"unicode/utf8"
)

// ErrInvalid is wrapped by every error of this package: bytes are not
// deterministic CBOR of the subset, or not of the type asked for.
var ErrInvalid = errors.New("invalid CBOR")

// MaxDepth is how deep arrays and maps may nest: [Parse] recurses.
const MaxDepth = 16

// Kind is the type of a value. Booleans and null are of kind Simple.
type Kind uint8

// The kinds are CBOR's major types.
const (
	Uint   Kind = 0
	Nint   Kind = 1
	Bytes  Kind = 2
	Text   Kind = 3
	Array  Kind = 4
	Map    Kind = 5
	Simple Kind = 7
)

func (k Kind) String() string {
	switch k {
	case Uint:
		return "unsigned integer"
	case Nint:
		return "negative integer"
	case Bytes:
		return "byte string"
	case Text:
		return "text string"
	case Array:
		return "array"
	case Map:
		return "map"
	case Simple:
		return "simple value"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

const (
	simpleFalse = byte(Simple)<<5 | 20
	simpleTrue  = byte(Simple)<<5 | 21
	simpleNull  = byte(Simple)<<5 | 22
)

// AppendUint appends an unsigned integer.
func AppendUint(dst []byte, v uint64) []byte { return appendHead(dst, Uint, v) }

// AppendInt appends an integer.
func AppendInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendHead(dst, Nint, uint64(-1-v))
	}
	return appendHead(dst, Uint, uint64(v))
}

// AppendBytes appends a byte string.
func AppendBytes[S ~[]byte](dst []byte, v S) []byte {
	return append(appendHead(dst, Bytes, uint64(len(v))), v...)
}

// AppendText appends a text string. Invalid UTF-8 is the caller's mistake: Parse
// refuses it.
func AppendText(dst []byte, v string) []byte {
	return append(appendHead(dst, Text, uint64(len(v))), v...)
}

// AppendBool appends a boolean.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, simpleTrue)
	}
	return append(dst, simpleFalse)
}

// AppendNull appends null.
func AppendNull(dst []byte) []byte { return append(dst, simpleNull) }

// AppendArray begins an array: the caller appends n values.
func AppendArray(dst []byte, n int) []byte { return appendHead(dst, Array, uint64(n)) }

// AppendMap begins a map: the caller appends n keys with AppendInt, each followed
// by its value, in the order 0, 1, 2, … and then -1, -2, …
func AppendMap(dst []byte, n int) []byte { return appendHead(dst, Map, uint64(n)) }

func appendHead(dst []byte, k Kind, v uint64) []byte {
	major := byte(k) << 5
	switch {
	case v < 24:
		return append(dst, major|byte(v))
	case v <= math.MaxUint8:
		return append(dst, major|24, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), v)
}

// Value is one value that Parse has accepted: the bytes of its encoding, which
// alias what Parse was given. The zero Value has no kind and every method of it
// returns an error or nothing.
type Value struct{ raw []byte }

// Parse checks that data is exactly one value, deterministically encoded, and
// returns it. It allocates nothing, whatever lengths data claims.
func Parse(data []byte) (Value, error) {
	rest, err := skip(data, 0)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes after the value", ErrInvalid, len(rest))
	}
	if err != nil {
		return Value{}, err
	}
	return Value{data}, nil
}

// Raw returns the value's encoding, to be kept or appended as it is.
func (v Value) Raw() []byte { return v.raw }

// Kind returns the value's type.
func (v Value) Kind() Kind {
	if len(v.raw) == 0 {
		return math.MaxUint8
	}
	return Kind(v.raw[0] >> 5)
}

// Uint returns an unsigned integer.
func (v Value) Uint() (uint64, error) {
	n, _, err := v.head(Uint)
	return n, err
}

// Int returns an integer that fits 64 bits with sign.
func (v Value) Int() (int64, error) {
	if v.Kind() == Nint {
		n, _, _ := v.head(Nint)
		if n > math.MaxInt64 {
			return 0, fmt.Errorf("%w: -1-%d is too small", ErrInvalid, n)
		}
		return -1 - int64(n), nil
	}
	n, _, err := v.head(Uint)
	if err == nil && n > math.MaxInt64 {
		return 0, fmt.Errorf("%w: %d is too large", ErrInvalid, n)
	}
	return int64(n), err
}

// Bytes returns a byte string, aliasing what was parsed.
func (v Value) Bytes() ([]byte, error) {
	_, rest, err := v.head(Bytes)
	return rest, err
}

// Text returns a text string.
func (v Value) Text() (string, error) {
	_, rest, err := v.head(Text)
	return string(rest), err
}

// Bool returns a boolean.
func (v Value) Bool() (bool, error) {
	if _, _, err := v.head(Simple); err != nil {
		return false, err
	}
	if v.IsNull() {
		return false, fmt.Errorf("%w: null, want a boolean", ErrInvalid)
	}
	return v.raw[0] == simpleTrue, nil
}

// IsNull says whether the value is null.
func (v Value) IsNull() bool { return len(v.raw) == 1 && v.raw[0] == simpleNull }

// Array returns the number of an array's elements and the elements.
func (v Value) Array() (int, iter.Seq[Value], error) {
	n, rest, err := v.head(Array)
	return int(n), func(yield func(Value) bool) {
		rest := rest
		for range n {
			var e Value
			if e, rest = first(rest); !yield(e) {
				return
			}
		}
	}, err
}

// Map returns the number of a map's pairs and the pairs in their order.
func (v Value) Map() (int, iter.Seq2[int64, Value], error) {
	n, rest, err := v.head(Map)
	return int(n), func(yield func(int64, Value) bool) {
		rest := rest
		for range n {
			var key, e Value
			key, rest = first(rest)
			e, rest = first(rest)
			if k, _ := key.Int(); !yield(k, e) {
				return
			}
		}
	}, err
}

func (v Value) head(want Kind) (uint64, []byte, error) {
	if len(v.raw) == 0 {
		return 0, nil, fmt.Errorf("%w: no value, want %v", ErrInvalid, want)
	}
	k, n, rest, err := head(v.raw)
	if err == nil && k != want {
		err = fmt.Errorf("%w: %v, want %v", ErrInvalid, k, want)
	}
	if err != nil {
		return 0, nil, err
	}
	return n, rest, nil
}

// first splits the first value off checked data.
func first(data []byte) (Value, []byte) {
	rest, _ := skip(data, 0)
	return Value{data[:len(data)-len(rest)]}, rest
}

// skip checks the value that data starts with and returns what follows it.
func skip(data []byte, depth int) ([]byte, error) {
	k, n, rest, err := head(data)
	if err != nil {
		return nil, err
	}
	if depth == MaxDepth && (k == Array || k == Map) {
		return nil, fmt.Errorf("%w: nested deeper than %d", ErrInvalid, MaxDepth)
	}
	switch k {
	case Bytes, Text:
		if n > uint64(len(rest)) {
			return nil, fmt.Errorf("%w: %v of %d bytes, %d are left", ErrInvalid, k, n, len(rest))
		}
		if k == Text && !utf8.Valid(rest[:n]) {
			return nil, fmt.Errorf("%w: text string is not UTF-8", ErrInvalid)
		}
		rest = rest[n:]
	case Array:
		// A value takes at least a byte, so a false count ends with the data.
		for range n {
			if rest, err = skip(rest, depth+1); err != nil {
				return nil, err
			}
		}
	case Map:
		for i, last := uint64(0), (key{}); i < n; i++ {
			var next key
			if next.kind, next.n, rest, err = head(rest); err != nil {
				return nil, err
			}
			if next.kind > Nint || next.n > math.MaxInt64 {
				return nil, fmt.Errorf("%w: map key is not a 64-bit integer", ErrInvalid)
			}
			if i > 0 && !last.before(next) {
				return nil, fmt.Errorf("%w: map keys out of order", ErrInvalid)
			}
			last = next
			if rest, err = skip(rest, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return rest, nil
}

// key is the head of a map's key.
type key struct {
	kind Kind
	n    uint64
}

// before is the order of the encoded bytes: by kind, then by number, since
// shortest heads sort as their numbers do.
func (a key) before(b key) bool {
	return a.kind < b.kind || a.kind == b.kind && a.n < b.n
}

// head reads the head of a value: its kind, its number or length, and what
// follows. It refuses heads that are not shortest or not of the subset.
func head(data []byte) (Kind, uint64, []byte, error) {
	if len(data) == 0 {
		return 0, 0, nil, fmt.Errorf("%w: ends within a value", ErrInvalid)
	}
	k, info, rest := Kind(data[0]>>5), data[0]&31, data[1:]
	if k == Simple {
		if data[0] < simpleFalse || data[0] > simpleNull {
			return 0, 0, nil, fmt.Errorf("%w: initial byte %#02x", ErrInvalid, data[0])
		}
		return k, 0, rest, nil
	}
	if k == 6 || info > 27 {
		return 0, 0, nil, fmt.Errorf("%w: initial byte %#02x", ErrInvalid, data[0])
	}
	if info < 24 {
		return k, uint64(info), rest, nil
	}
	size := 1 << (info - 24)
	if len(rest) < size {
		return 0, 0, nil, fmt.Errorf("%w: ends within a value", ErrInvalid)
	}
	var n, least uint64
	switch size {
	case 1:
		n, least = uint64(rest[0]), 24
	case 2:
		n, least = uint64(binary.BigEndian.Uint16(rest)), math.MaxUint8+1
	case 4:
		n, least = uint64(binary.BigEndian.Uint32(rest)), math.MaxUint16+1
	case 8:
		n, least = binary.BigEndian.Uint64(rest), math.MaxUint32+1
	}
	if n < least {
		return 0, 0, nil, fmt.Errorf("%w: %d is not in its shortest form", ErrInvalid, n)
	}
	return k, n, rest[size:], nil
}
