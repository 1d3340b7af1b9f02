package vault

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"backstay/protocol/cbor"
)

func parseCBOR(t testing.TB, data string) cbor.Value {
	b, err := hex.DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	v, err := cbor.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRecord(t *testing.T) {
	refs := []ObjectID{{1}, {2}}
	for _, test := range []struct {
		name   string
		record Record
		refs   []ObjectID
		want   string
	}{
		{"nothing", Record{}, nil, "a0"},
		{"nothing with a ref", Record{}, refs, "a0"},
		{"name", Record{Name: []byte("/a\xff")}, nil, "a101432f61ff"},
		{"cksum of zero", Record{CKSum: new(uint32(0))}, nil, "a1182000"},
		{"time", Record{ModTime: time.Unix(1_700_000_000, 999_999_999).UTC()}, nil, "a106821a6553f1001a3b9ac9ff"},
		{"time before 1970", Record{ModTime: time.Unix(-1, 5).UTC()}, nil, "a106822005"},
		{"time far away", Record{ModTime: time.Unix(1<<40, 0).UTC()}, nil, "a106821b000001000000000000"},
		{"empty file", Record{Type: TypeFile, Content: Content{Inline: []byte{}}}, nil, "a3020103000440"},
		{"small file", Record{Name: []byte("/a"), Type: TypeFile, Content: Content{Size: 2, Inline: []byte("hi")}, CKSum: new(uint32(math.MaxUint32))}, nil,
			"a501422f610201030204426869" + "18201affffffff"},
		{"large file", Record{Type: TypeFile, Content: Content{Size: 259, Entries: []Entry{{refs[0], 256, Hash{7}}, {refs[1], 3, Hash{8}}}}}, refs,
			"a3020103190103055831" + "00" + "0001000000000000" + "07000000000000000000000000000000" + "0300000000000000" + "08000000000000000000000000000000"},
		{"unknown type", Record{Type: 200}, nil, "a10218c8"},
		{"unknown fields", Record{Type: 2, CKSum: new(uint32(1)), Unknown: []Field{
			{0, parseCBOR(t, "f5")}, {7, parseCBOR(t, "a200f60102")}, {31, parseCBOR(t, "40")}, {33, parseCBOR(t, "8100")}, {1 << 40, parseCBOR(t, "00")},
		}}, nil, "a7" + "00f5" + "0202" + "07a200f60102" + "181f40" + "182001" + "18218100" + "1b000001000000000000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.record.Append(nil)
			if hex.EncodeToString(got) != test.want {
				t.Fatalf("encoded as %x, want %s", got, test.want)
			}
			again, err := DecodeRecord(got, test.refs)
			if err != nil || !reflect.DeepEqual(again, test.record) {
				t.Fatalf("decoded as %+v, %v; want %+v", again, err, test.record)
			}
		})
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	for _, test := range []struct {
		name, data string
		refs       int
		want       error
	}{
		{"nothing", "", 0, ErrMalformed},
		{"no map", "80", 0, ErrMalformed},
		{"trailing byte", "a000", 0, ErrMalformed},
		{"keys out of order", "a20200014161", 0, ErrMalformed},
		{"name as text", "a1016161", 0, ErrMalformed},
		{"empty name", "a10140", 0, ErrMalformed},
		{"type 0", "a10200", 0, ErrMalformed},
		{"type 256", "a102190100", 0, ErrMalformed},
		{"file without size", "a202010440", 0, ErrMalformed},
		{"file without content", "a202010300", 0, ErrMalformed},
		{"file with both contents", "a4020103010441610558190001000000000000000000000000000000000000000000000000", 1, ErrMalformed},
		{"size without type", "a10300", 0, ErrMalformed},
		{"inline without type", "a10440", 0, ErrMalformed},
		{"list without type", "a10540", 0, ErrMalformed},
		{"content in another type", "a3020203000440", 0, ErrMalformed},
		{"inline with a ref", "a3020103000440", 1, ErrMalformed},
		{"inline shorter than stated", "a3020103010440", 0, ErrMalformed},
		{"list without refs", "a302010300054100", 0, ErrMalformed},
		{"list of nothing", "a302010300054100", 1, ErrMalformed},
		{"empty list bytes", "a3020103000540", 0, ErrMalformed},
		{"list too deep", "a30201030105581905" + "0100000000000000" + "00000000000000000000000000000000", 1, ErrMalformed},
		{"list of more than stated", "a30201030105581900" + "0200000000000000" + "00000000000000000000000000000000", 1, ErrMalformed},
		{"list with more refs", "a30201030105581900" + "0100000000000000" + "00000000000000000000000000000000", 2, ErrMalformed},
		{"time as a number", "a10600", 0, ErrMalformed},
		{"time of three parts", "a10683000000", 0, ErrMalformed},
		{"time of 10^9 ns", "a10682001a3b9aca00", 0, ErrMalformed},
		{"time of negative ns", "a106820020", 0, ErrMalformed},
		{"time beyond 64 bits", "a106821bffffffffffffffff00", 0, ErrMalformed},
		{"zero time", "a106823b0000000e7791f6ff00", 0, ErrMalformed},
		{"cksum of 33 bits", "a118201b0000000100000000", 0, ErrMalformed},
		{"critical field", "a12000", 0, ErrCritical},
		{"critical field after others", "a301416118200138ff40", 0, ErrCritical},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, err := hex.DecodeString(test.data)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := DecodeRecord(data, make([]ObjectID, test.refs)); !errors.Is(err, test.want) {
				t.Fatalf("%+v, %v; want %v", r, err, test.want)
			}
		})
	}
}

// FuzzDecodeRecord checks that what is accepted has no other encoding.
func FuzzDecodeRecord(f *testing.F) {
	for _, seed := range []string{
		"a0", "a501422f61020103020442686918201affffffff", "a106822005", "a700f5020207a200f60102181f40182001182181001b00000100000000000", "a12000",
		"a30201030105581900" + "0100000000000000" + "00000000000000000000000000000000",
	} {
		data, _ := hex.DecodeString(seed)
		f.Add(data, uint16(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, refs uint16) {
		r, err := DecodeRecord(data, make([]ObjectID, refs))
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrCritical) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, data) {
			t.Fatalf("%x was encoded again as %x", data, again)
		}
	})
}
