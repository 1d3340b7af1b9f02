package vault

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
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
	entries := []Entry{{refs[0], 256, Hash{7}}, {refs[1], 3, Hash{8}}}
	list := "00" + "0001000000000000" + "07000000000000000000000000000000" + "0300000000000000" + "08000000000000000000000000000000"
	var many []Field
	var manyHex string
	for key := range 24 {
		many = append(many, Field{int64(100 + key), parseCBOR(t, "f6")})
		manyHex += fmt.Sprintf("18%02xf6", 100+key)
	}
	for _, test := range []struct {
		name   string
		record Record
		refs   []ObjectID
		want   string
	}{
		{"nothing", Record{}, nil, "a0"},
		{"nothing with a ref", Record{}, refs, "a0"},
		{"name", Record{Name: []byte("/a\xff")}, nil, "a101432f61ff"},
		{"time", Record{Metadata: Metadata{ModTime: time.Unix(1_700_000_000, 999_999_999).UTC()}}, nil, "a106821a6553f1001a3b9ac9ff"},
		{"time before 1970", Record{Metadata: Metadata{ModTime: time.Unix(-1, 5).UTC()}}, nil, "a106822005"},
		{"time far away", Record{Metadata: Metadata{ModTime: time.Unix(1<<40, 0).UTC()}}, nil, "a106821b000001000000000000"},
		{"empty file", Record{Type: TypeFile, Content: Content{Inline: []byte{}}}, nil, "a3020103000440"},
		{"small file", Record{Name: []byte("/a"), Type: TypeFile, Content: Content{Size: 2, Inline: []byte("hi")}, CKSum: new(uint32(math.MaxUint32))}, nil,
			"a501422f610201030204426869" + "18201affffffff"},
		{"cksum of zero", Record{Type: TypeFile, Content: Content{Inline: []byte{}}, CKSum: new(uint32(0))}, nil, "a4020103000440" + "182000"},
		{"large file of version 3", Record{Type: TypeFile, Content: Content{Size: 259, Entries: entries}}, refs,
			"a3020103190103055831" + list},
		{"large file", Record{Type: TypeFile, Content: Content{Size: 259, Entries: entries, Sum: &[32]byte{5}}}, refs,
			"a4020103190103055831" + list + "11582005" + strings.Repeat("00", 31)},
		{"file of one chunk", Record{Type: TypeFile, Content: Content{Size: 256, Entries: entries[:1]}}, refs[:1],
			"a3020103190100055819" + list[:50]},
		{"file with all there is", Record{Name: []byte("/a"), Type: TypeFile, Content: Content{Size: 2, Inline: []byte("hi")},
			Metadata: Metadata{ModTime: time.Unix(1, 2).UTC(), Created: time.Unix(3, 4).UTC(), Mode: new(uint32(0o7777)), Owner: &Owner{1000, math.MaxUint32, "ada", ""},
				Xattrs: []Xattr{{[]byte("a"), []byte{}}, {[]byte("b"), []byte{0}}}, Attributes: new(uint32(32)), Security: []byte{1}},
			Link: &LinkGroup{9}, Holes: []Hole{{0, 10}, {11, 20}}, Fuzzy: true, CKSum: new(uint32(1))}, nil,
			"af01422f610201031820044268690682010207190fff0882030409841903e81affffffff43616461400a8282416140824162410" + "00b18200c41010e5009" + strings.Repeat("00", 15) + "0f84000a0b1410f5182001"},
		{"file that is all hole", Record{Type: TypeFile, Content: Content{Inline: []byte{}}, Holes: []Hole{{0, math.MaxInt64}}}, nil,
			"a40201031b7fffffffffffffff04400f82001b7fffffffffffffff"},
		{"folder", Record{Type: TypeFolder, Metadata: Metadata{Mode: new(uint32(0))}}, nil, "a202020700"},
		{"symbolic link", Record{Type: TypeSymlink, Target: []byte("../\xff")}, nil, "a202030d442e2e2fff"},
		{"FIFO", Record{Type: TypeFIFO}, nil, "a10204"},
		{"socket", Record{Type: TypeSocket}, nil, "a10205"},
		{"character device", Record{Type: TypeCharDevice, Device: &DeviceNumber{1, 3}}, nil, "a2020612820103"},
		{"block device", Record{Type: TypeBlockDevice, Device: &DeviceNumber{Minor: math.MaxUint32}}, nil, "a202071282001affffffff"},
		{"block device of no number", Record{Type: TypeBlockDevice}, nil, "a10207"},
		{"other", Record{Type: TypeOther, Metadata: Metadata{Security: []byte{}}}, nil, "a202080c40"},
		{"unknown fields", Record{Type: TypeFile, Content: Content{Inline: []byte{}}, CKSum: new(uint32(1)), Unknown: []Field{
			{0, parseCBOR(t, "f5")}, {19, parseCBOR(t, "a200f60102")}, {31, parseCBOR(t, "40")}, {33, parseCBOR(t, "8100")}, {1 << 40, parseCBOR(t, "00")},
		}}, nil, "a9" + "00f5" + "020103000440" + "13a200f60102" + "181f40" + "182001" + "18218100" + "1b000001000000000000"},
		{"more fields than a short head counts", Record{Unknown: many}, nil, "b818" + manyHex},
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
		{"type 9", "a10209", 0, ErrMalformed},
		{"file beyond 63 bits", "a40201031b800000000000000004400f82001b8000000000000000", 0, ErrMalformed},
		{"file without size", "a202010440", 0, ErrMalformed},
		{"file without content", "a202010300", 0, ErrMalformed},
		{"file with both contents", "a402010301044161055819000100000000000000" + "0000000000000000" + "0000000000000000", 1, ErrMalformed},
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
		{"cksum of 33 bits", "a402010300044018201b0000000100000000", 0, ErrMalformed},
		{"cksum without type", "a1182000", 0, ErrMalformed},
		{"folder with a ref", "a10202", 1, ErrMalformed},
		{"mode of 13 bits", "a107191000", 0, ErrMalformed},
		{"time of creation as a number", "a10800", 0, ErrMalformed},
		{"owner of three", "a10983000040", 0, ErrMalformed},
		{"owner beyond 32 bits", "a109841b0000000100000000004040", 0, ErrMalformed},
		{"owner's name as text", "a1098400006040", 0, ErrMalformed},
		{"no attributes", "a10a80", 0, ErrMalformed},
		{"attribute of one", "a10a818140", 0, ErrMalformed},
		{"attributes not ascending", "a10a828241624082416140", 0, ErrMalformed},
		{"attribute twice", "a10a828241614082416141" + "00", 0, ErrMalformed},
		{"Windows attributes of 33 bits", "a10b1b0000000100000000", 0, ErrMalformed},
		{"descriptor as text", "a10c60", 0, ErrMalformed},
		{"link without target", "a10203", 0, ErrMalformed},
		{"link to nothing", "a202030d40", 0, ErrMalformed},
		{"target of a file", "a40201030004400d4161", 0, ErrMalformed},
		{"target without type", "a10d4161", 0, ErrMalformed},
		{"link group of 15 bytes", "a40201030004400e4f" + strings.Repeat("00", 15), 0, ErrMalformed},
		{"link group of a folder", "a202020e50" + strings.Repeat("00", 16), 0, ErrMalformed},
		{"no holes", "a40201030004400f80", 0, ErrMalformed},
		{"half a hole", "a40201030104400f8101", 0, ErrMalformed},
		{"hole of nothing", "a40201030004400f820000", 0, ErrMalformed},
		{"hole beyond the end", "a40201030104400f820101", 0, ErrMalformed},
		{"hole around the end", "a40201030104400f820002", 0, ErrMalformed},
		{"hole beyond 64 bits", "a40201030104400f82011bffffffffffffffff", 0, ErrMalformed},
		{"touching holes", "a40201030204400f8400010101", 0, ErrMalformed},
		{"overlapping holes", "a40201030404400f8400020102", 0, ErrMalformed},
		{"descending holes", "a40201030404400f8403010001", 0, ErrMalformed},
		{"content beside a hole too long", "a4020103020442" + "61610f820001", 0, ErrMalformed},
		{"holes of a folder", "a202020f820001", 0, ErrMalformed},
		{"not fuzzy", "a402010300044010f4", 0, ErrMalformed},
		{"fuzzy by number", "a40201030004401001", 0, ErrMalformed},
		{"fuzzy folder", "a2020210f5", 0, ErrMalformed},
		{"hash of inline content", "a4020103000440115820" + strings.Repeat("00", 32), 0, ErrMalformed},
		{"hash of one chunk", "a40201030105581900" + "0100000000000000" + "00000000000000000000000000000000" + "115820" + strings.Repeat("00", 32), 1, ErrMalformed},
		{"hash of 31 bytes", "a4020103020558310001000000000000000000000000000000000000000000000001000000000000000000000000000000000000000000000011581f" + strings.Repeat("00", 31), 2, ErrMalformed},
		{"hash of a folder", "a2020211" + "5820" + strings.Repeat("00", 32), 0, ErrMalformed},
		{"device number of a file", "a402010300044012820000", 0, ErrMalformed},
		{"device number of one", "a20206128100", 0, ErrMalformed},
		{"device number of 33 bits", "a2020612821b000000010000000000", 0, ErrMalformed},
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
		"a20203" + "0d442e2e2fff", "a2020612820103", "a401422f610201031820044268690f84000a0b14", "a309841903e81affffffff43616461400a828241614082416241000b1820",
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
