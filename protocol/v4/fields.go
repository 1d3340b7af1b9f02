package v4

import (
	"fmt"
	"math"
	"time"

	"backstay/protocol/cbor"
	"backstay/protocol/vault"
)

// maxKey is the highest key that any message has.
const maxKey = 13

// fields are the values of a map, or of an array, by number. The first fault stays
// in err, and what follows it yields zeros, so that callers look at err once.
type fields struct {
	what   string
	values [maxKey + 1]cbor.Value
	err    error
}

// parse reads a map. Keys above those known are for later revisions; a negative
// one says that it must be understood.
func parse(what string, body []byte) *fields {
	f := &fields{what: what}
	v, err := cbor.Parse(body)
	f.fail(0, err)
	f.fill(v)
	return f
}

// fill takes the map that v is.
func (f *fields) fill(v cbor.Value) {
	if f.err != nil {
		return
	}
	_, pairs, err := v.Map()
	f.fail(0, err)
	if err != nil {
		return
	}
	for key, v := range pairs {
		if key < 0 && f.err == nil {
			f.err = fmt.Errorf("%w: %s with key %d", ErrUnsupported, f.what, key)
		} else if key >= 0 && key <= maxKey {
			f.values[key] = v
		}
	}
}

// tuple takes the array of n that v is, numbered from 0.
func (f *fields) tuple(v cbor.Value, n int) {
	count, elements, err := v.Array()
	if err == nil && count != n {
		err = fmt.Errorf("array of %d, want %d", count, n)
	}
	if f.fail(0, err); err != nil {
		f.values = [maxKey + 1]cbor.Value{}
		return
	}
	i := 0
	for e := range elements {
		f.values[i] = e
		i++
	}
}

func (f *fields) fail(key int, err error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%w: %s, key %d: %w", ErrMalformed, f.what, key, err)
	}
}

// join takes over the fault of a part.
func (f *fields) join(part *fields) {
	if f.err == nil {
		f.err = part.err
	}
}

func (f *fields) has(key int) bool { return len(f.values[key].Raw()) > 0 }

func (f *fields) uintMax(key int, most uint64) uint64 {
	n, err := f.values[key].Uint()
	if err == nil && n > most {
		n, err = 0, fmt.Errorf("%d is more than %d", n, most)
	}
	f.fail(key, err)
	return n
}

func (f *fields) uint(key int) uint64 { return f.uintMax(key, math.MaxUint64) }

// seq returns a sequence number: they count from 1.
func (f *fields) seq(key int) uint64 {
	n := f.uint(key)
	if n == 0 {
		f.fail(key, fmt.Errorf("sequence number 0"))
	}
	return n
}

// ns returns nanoseconds since 1970 as a time.
func (f *fields) ns(key int) time.Time {
	n, err := f.values[key].Int()
	f.fail(key, err)
	return time.Unix(0, n).UTC()
}

func (f *fields) bool(key int) bool {
	b, err := f.values[key].Bool()
	f.fail(key, err)
	return b
}

// bytes returns a byte string of least to most bytes, aliasing the body.
func (f *fields) bytes(key, least, most int) []byte {
	b, err := f.values[key].Bytes()
	if err == nil && (len(b) < least || len(b) > most) {
		b, err = nil, fmt.Errorf("%d bytes, not %d to %d", len(b), least, most)
	}
	f.fail(key, err)
	return b
}

// array copies a byte string to dst, whose length it has.
func (f *fields) array(key int, dst []byte) { copy(dst, f.bytes(key, len(dst), len(dst))) }

func (f *fields) text(key, least, most int) string {
	s, err := f.values[key].Text()
	if err == nil && (len(s) < least || len(s) > most) {
		s, err = "", fmt.Errorf("%d bytes, not %d to %d", len(s), least, most)
	}
	f.fail(key, err)
	return s
}

// list returns the elements of an array of at most most.
func (f *fields) list(key, most int) []cbor.Value {
	n, elements, err := f.values[key].Array()
	if err == nil && n > most {
		err = fmt.Errorf("%d elements, the limit is %d", n, most)
	}
	if f.fail(key, err); err != nil {
		return nil
	}
	out := make([]cbor.Value, 0, n)
	for e := range elements {
		out = append(out, e)
	}
	return out
}

// ids returns an array of object ids, not empty.
func (f *fields) ids(key, most int) []vault.ObjectID {
	n, elements, err := f.values[key].Array()
	if err == nil && (n == 0 || n > most) {
		err = fmt.Errorf("%d ids, not 1 to %d", n, most)
	}
	if f.fail(key, err); err != nil {
		return nil
	}
	out := make([]vault.ObjectID, 0, n)
	for e := range elements {
		id, err := e.Bytes()
		if err == nil && len(id) != len(vault.ObjectID{}) {
			err = fmt.Errorf("id of %d bytes", len(id))
		}
		if f.fail(key, err); err != nil {
			return nil
		}
		out = append(out, vault.ObjectID(id))
	}
	return out
}

// mapping appends a map whose keys, ascending and not negative, are given one by
// one. Its head is a single byte, which counts them.
type mapping struct {
	dst  []byte
	head int
}

func beginMap(dst []byte) mapping { return mapping{cbor.AppendMap(dst, 0), len(dst)} }

func (m *mapping) key(key int64) {
	m.dst[m.head]++
	m.dst = cbor.AppendInt(m.dst, key)
}

func (m *mapping) uint(key int64, v uint64)  { m.key(key); m.dst = cbor.AppendUint(m.dst, v) }
func (m *mapping) ns(key int64, t time.Time) { m.key(key); m.dst = cbor.AppendInt(m.dst, t.UnixNano()) }
func (m *mapping) bytes(key int64, v []byte) { m.key(key); m.dst = cbor.AppendBytes(m.dst, v) }
func (m *mapping) text(key int64, v string)  { m.key(key); m.dst = cbor.AppendText(m.dst, v) }
func (m *mapping) bool(key int64, v bool)    { m.key(key); m.dst = cbor.AppendBool(m.dst, v) }

func (m *mapping) ids(key int64, ids []vault.ObjectID) {
	m.key(key)
	m.dst = cbor.AppendArray(m.dst, len(ids))
	for i := range ids {
		m.dst = cbor.AppendBytes(m.dst, ids[i][:])
	}
}
