package cbor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
)

// TestAppend checks the encodings that RFC 8949, appendix A gives, and that Parse
// accepts them.
func TestAppend(t *testing.T) {
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"0", AppendUint(nil, 0), "00"},
		{"23", AppendUint(nil, 23), "17"},
		{"24", AppendUint(nil, 24), "1818"},
		{"255", AppendUint(nil, 255), "18ff"},
		{"256", AppendUint(nil, 256), "190100"},
		{"65535", AppendUint(nil, 65535), "19ffff"},
		{"65536", AppendUint(nil, 65536), "1a00010000"},
		{"largest of 4 bytes", AppendUint(nil, math.MaxUint32), "1affffffff"},
		{"1000000000000", AppendUint(nil, 1000000000000), "1b000000e8d4a51000"},
		{"largest", AppendUint(nil, math.MaxUint64), "1bffffffffffffffff"},
		{"-1", AppendInt(nil, -1), "20"},
		{"-1000", AppendInt(nil, -1000), "3903e7"},
		{"smallest int64", AppendInt(nil, math.MinInt64), "3b7fffffffffffffff"},
		{"largest int64", AppendInt(nil, math.MaxInt64), "1b7fffffffffffffff"},
		{"no bytes", AppendBytes(nil, []byte(nil)), "40"},
		{"bytes", AppendBytes(nil, []byte{1, 2, 3, 4}), "4401020304"},
		{"no text", AppendText(nil, ""), "60"},
		{"text", AppendText(nil, "水"), "63e6b0b4"},
		{"false", AppendBool(nil, false), "f4"},
		{"true", AppendBool(nil, true), "f5"},
		{"null", AppendNull(nil), "f6"},
		{"empty array", AppendArray(nil, 0), "80"},
		{"array", AppendUint(AppendUint(AppendArray(nil, 2), 1), 2), "820102"},
		{"empty map", AppendMap(nil, 0), "a0"},
		{"map", AppendUint(AppendInt(AppendUint(AppendInt(AppendMap(nil, 2), 1), 2), -1), 4), "a201022004"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := hex.EncodeToString(test.got); got != test.want {
				t.Fatalf("encoded as %s, want %s", got, test.want)
			}
			v, err := Parse(test.got)
			if err != nil || !bytes.Equal(v.Raw(), test.got) {
				t.Fatalf("Parse: %x, %v", v.Raw(), err)
			}
			if again := render(t, nil, v); !bytes.Equal(again, test.got) {
				t.Fatalf("decoded and encoded again as %x", again)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, data string }{
		{"nothing", ""},
		{"trailing byte", "0000"},
		{"23 in two bytes", "1817"},
		{"255 in three bytes", "1900ff"},
		{"65535 in five bytes", "1a0000ffff"},
		{"2^32-1 in nine bytes", "1b00000000ffffffff"},
		{"long form of a length", "580100"},
		{"long form of a count", "980100"},
		{"number cut off", "1a0001"},
		{"reserved information 28", "1c"},
		{"reserved information 30", "5e"},
		{"indefinite bytes", "5f4100ff"},
		{"indefinite text", "7f6161ff"},
		{"indefinite array", "9f00ff"},
		{"indefinite map", "bf0000ff"},
		{"break", "ff"},
		{"tag", "c074323031332d30332d32315432303a30343a30305a"},
		{"half float", "f93c00"},
		{"float", "fa47c35000"},
		{"double", "fb3ff199999999999a"},
		{"undefined", "f7"},
		{"simple 16", "f0"},
		{"simple 255", "f8ff"},
		{"false in two bytes", "f814"},
		{"bytes beyond the end", "4201"},
		{"bytes of 2^64-1", "5bffffffffffffffff"},
		{"array of 2^64-1", "9bffffffffffffffff"},
		{"map of 2^64-1", "bbffffffffffffffff"},
		{"array one short", "8200"},
		{"map one short", "a2000001"},
		{"map without its last value", "a100"},
		{"invalid UTF-8", "62c328"},
		{"surrogate", "63eda080"},
		{"duplicate key", "a201000100"},
		{"keys descending", "a202000100"},
		{"negative key before positive", "a220000100"},
		{"negative keys the wrong way", "a221002000"},
		{"text key", "a1616100"},
		{"bytes key", "a1416100"},
		{"null key", "a1f600"},
		{"key beyond int64", "a11b800000000000000000"},
		{"negative key beyond int64", "a13b800000000000000000"},
		{"fault deep inside", "8181a1018200ff"},
		{"too deep", strings.Repeat("81", MaxDepth+1) + "00"},
		{"too deep a map", strings.Repeat("a100", MaxDepth+1) + "00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, err := hex.DecodeString(test.data)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := Parse(data); !errors.Is(err, ErrInvalid) {
				t.Fatalf("Parse: %x, %v; want ErrInvalid", v.Raw(), err)
			}
		})
	}
	if _, err := Parse(append(bytes.Repeat([]byte{0x81}, MaxDepth), 0)); err != nil {
		t.Fatalf("array nested to the limit: %v", err)
	}
}

func TestValueRefusesOtherKinds(t *testing.T) {
	values := map[Kind]Value{
		Uint:   {AppendUint(nil, math.MaxUint64)},
		Nint:   {[]byte{0x3b, 255, 255, 255, 255, 255, 255, 255, 255}},
		Bytes:  {AppendBytes(nil, []byte("a"))},
		Text:   {AppendText(nil, "a")},
		Array:  {AppendArray(nil, 0)},
		Map:    {AppendMap(nil, 0)},
		Simple: {AppendNull(nil)},
		255:    {},
	}
	for _, test := range []struct {
		name  string
		fits  Kind
		value func(Value) error
	}{
		{"Uint", Uint, func(v Value) error { _, err := v.Uint(); return err }},
		{"Int", 254, func(v Value) error { _, err := v.Int(); return err }},
		{"Bytes", Bytes, func(v Value) error { _, err := v.Bytes(); return err }},
		{"Text", Text, func(v Value) error { _, err := v.Text(); return err }},
		{"Bool", 254, func(v Value) error { _, err := v.Bool(); return err }},
		{"Array", Array, func(v Value) error { _, _, err := v.Array(); return err }},
		{"Map", Map, func(v Value) error { _, _, err := v.Map(); return err }},
	} {
		for kind, v := range values {
			t.Run(fmt.Sprintf("%s of %v", test.name, kind), func(t *testing.T) {
				if v.Kind() != kind {
					t.Fatalf("Kind is %v", v.Kind())
				}
				err := test.value(v)
				if kind == test.fits && err != nil || kind != test.fits && !errors.Is(err, ErrInvalid) {
					t.Fatalf("error %v", err)
				}
			})
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	data := AppendArray(nil, 3)
	data = AppendBytes(data, make([]byte, 1000))
	data = AppendText(AppendInt(AppendMap(data, 1), 7), "text")
	data = AppendArray(data, 0)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Parse(data); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, kind := range []Kind{Bytes, Text, Array, Map} {
		bad := appendHead(nil, kind, 1<<30)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Parse(bad); err == nil {
			t.Errorf("%v of 2^30 in 5 bytes was accepted", kind)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%d bytes allocated for a false length of a %v", n, kind)
		}
	}
}

// FuzzParse checks that what is accepted has no other encoding.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"00", "a201022004", "8263e6b0b4f6", "a20040038120", "9bffffffffffffffff", "1817"} {
		data, _ := hex.DecodeString(seed)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again := render(t, nil, v); !bytes.Equal(again, data) {
			t.Fatalf("%x was encoded again as %x", data, again)
		}
	})
}

// render encodes a value again through the accessors and the Append functions.
func render(t *testing.T, dst []byte, v Value) []byte {
	var err error
	switch v.Kind() {
	case Uint:
		var n uint64
		n, err = v.Uint()
		dst = AppendUint(dst, n)
	case Nint:
		var n int64
		if n, err = v.Int(); err != nil { // below int64: nothing to write it with
			return append(dst, v.Raw()...)
		}
		dst = AppendInt(dst, n)
	case Bytes:
		var b []byte
		b, err = v.Bytes()
		dst = AppendBytes(dst, b)
	case Text:
		var s string
		s, err = v.Text()
		dst = AppendText(dst, s)
	case Simple:
		if v.IsNull() {
			return AppendNull(dst)
		}
		var b bool
		b, err = v.Bool()
		dst = AppendBool(dst, b)
	case Array:
		n, values, aerr := v.Array()
		dst, err = AppendArray(dst, n), aerr
		for e := range values {
			dst = render(t, dst, e)
		}
	case Map:
		n, pairs, merr := v.Map()
		dst, err = AppendMap(dst, n), merr
		for key, e := range pairs {
			dst = render(t, AppendInt(dst, key), e)
		}
	}
	if err != nil {
		t.Fatalf("%v %x: %v", v.Kind(), v.Raw(), err)
	}
	return dst
}
