package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"backstay/protocol/cbor"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorsFile = "testdata/objects.json"

// vectors is testdata/objects.json. Binary values are hexadecimal.
type vectors struct {
	Vault   hexBytes       `json:"vault"`
	Epochs  []epochVector  `json:"epochs"`
	PathKey hexBytes       `json:"path_key"`
	HashKey hexBytes       `json:"hash_key"`
	Paths   []pathVector   `json:"paths"`
	Hashes  []hashVector   `json:"hashes"`
	Objects []objectVector `json:"objects"`
	// Older are objects that an earlier version of the compressor made from the
	// plaintext: they must open for ever.
	Older []objectVector `json:"older"`
	Bad   []badVector    `json:"bad"`
}

type epochVector struct {
	Epoch  uint32   `json:"epoch"`
	Key    hexBytes `json:"vault_key"`
	SIVKey hexBytes `json:"siv_key"`
	EncKey hexBytes `json:"enc_key"`
}

type pathVector struct {
	Device hexBytes `json:"device"`
	Path   hexBytes `json:"path"`
	ID     hexBytes `json:"id"`
}

type hashVector struct {
	Plaintext hexBytes `json:"plaintext"`
	Hash      hexBytes `json:"hash"`
}

// objectVector is an object and how it comes about. A plaintext too long to be
// written out is the first Stream bytes of SHA-256(0), SHA-256(1), …, where each
// number is a u64 LE; then Object is left out, too.
type objectVector struct {
	Name      string        `json:"name"`
	Epoch     uint32        `json:"epoch"`
	Type      Type          `json:"type"`
	Refs      []hexBytes    `json:"refs,omitempty"`
	Record    *recordVector `json:"record,omitempty"`
	Plaintext hexBytes      `json:"plaintext,omitempty"`
	Stream    int           `json:"stream,omitempty"`
	Codec     byte          `json:"codec"`
	SIV       hexBytes      `json:"siv"`
	ID        hexBytes      `json:"id"`
	Size      int           `json:"size"`
	Object    hexBytes      `json:"object,omitempty"`
}

type recordVector struct {
	Device hexBytes `json:"device"`
	Seq    uint64   `json:"seq"`
	Path   hexBytes `json:"path"`
	Parent hexBytes `json:"parent"`
	Op     Op       `json:"op"`
}

// badVector is an object that must not open, with the class of the error:
// "malformed", "open" or "no key".
type badVector struct {
	Name   string   `json:"name"`
	Error  string   `json:"error"`
	Object hexBytes `json:"object"`
}

type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func (v objectVector) header() Header {
	h := Header{Type: v.Type, Epoch: v.Epoch}
	for _, ref := range v.Refs {
		h.Refs = append(h.Refs, ObjectID(ref))
	}
	if r := v.Record; r != nil {
		h.Record = &RecordHeader{Device: DeviceID(r.Device), Seq: r.Seq, Path: PathID(r.Path), Parent: PathID(r.Parent), Op: r.Op}
	}
	return h
}

func (v objectVector) plaintext() []byte {
	out := slices.Clone([]byte(v.Plaintext))
	for i := uint64(0); len(out) < v.Stream; i++ {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, i))
		out = append(out, sum[:min(32, v.Stream-len(out))]...)
	}
	return out
}

// ring returns the keyring of the vectors with the epochs up to one.
func (v vectors) ring(t testing.TB, epoch uint32) *Keyring {
	k := NewKeyring(ID(v.Vault), Key(v.Epochs[0].Key))
	for _, e := range v.Epochs[1:] {
		if e.Epoch > epoch {
			break
		}
		if err := k.Add(e.Epoch, Key(e.Key)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func readVectors(t testing.TB) (v vectors) {
	data, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	v := readVectors(t)
	if len(v.Objects) < 10 || len(v.Bad) < 20 {
		t.Fatalf("%d objects and %d bad ones in %s", len(v.Objects), len(v.Bad), vectorsFile)
	}
	k := v.ring(t, v.Epochs[len(v.Epochs)-1].Epoch)
	for _, p := range v.Paths {
		if got := k.Path(DeviceID(p.Device), p.Path); got != PathID(p.ID) {
			t.Errorf("path %q has id %v, want %x", p.Path, got, p.ID)
		}
	}
	for _, h := range v.Hashes {
		if got := k.Hash(h.Plaintext); got != Hash(h.Hash) {
			t.Errorf("%q has hash %x, want %x", h.Plaintext, got, h.Hash)
		}
	}
	for _, e := range v.Epochs {
		for _, sub := range []struct {
			label string
			epoch uint32
			want  hexBytes
		}{{labelSIV, e.Epoch, e.SIVKey}, {labelEnc, e.Epoch, e.EncKey}, {labelPath, FirstEpoch, v.PathKey}, {labelHash, FirstEpoch, v.HashKey}} {
			key := e.Key
			if sub.epoch == FirstEpoch {
				key = v.Epochs[0].Key
			}
			if got := derive(Key(key), ID(v.Vault), sub.epoch, sub.label); !bytes.Equal(got[:], sub.want) {
				t.Errorf("%q of epoch %d is %x, want %x", sub.label, sub.epoch, got[:], sub.want)
			}
		}
	}
	for _, o := range v.Objects {
		t.Run("seal "+o.Name, func(t *testing.T) {
			object, id, err := v.ring(t, o.Epoch).Seal(nil, o.header(), o.plaintext())
			if err != nil {
				t.Fatal(err)
			}
			if o.Codec == codecZstd && id != ObjectID(o.ID) {
				t.Fatal("the compressor makes other bytes than before: known data will be stored once more; if that is accepted, run with -update")
			}
			_, n, err := ParseHeader(object)
			if err != nil {
				t.Fatal(err)
			}
			if o.Object != nil && !bytes.Equal(object, o.Object) || !bytes.Equal(object[n:n+sivSize], o.SIV) || id != ObjectID(o.ID) || len(object) != o.Size {
				t.Errorf("sealed to %d bytes with siv %x, id %v; want %d, %x, %x", len(object), object[n:n+sivSize], id, o.Size, o.SIV, o.ID)
			}
		})
	}
	for _, o := range slices.Concat(v.Objects, v.Older) {
		if o.Object == nil {
			continue
		}
		t.Run("open "+o.Name, func(t *testing.T) {
			plaintext, h, err := k.Open(nil, o.Object)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(plaintext, o.Plaintext) || !reflect.DeepEqual(h, o.header()) || Identify(o.Object) != ObjectID(o.ID) {
				t.Errorf("opened to %+v %q", h, plaintext)
			}
		})
	}
	classes := map[string]error{"malformed": ErrMalformed, "open": ErrOpen, "no key": ErrNoKey}
	for _, b := range v.Bad {
		t.Run("refuse "+b.Name, func(t *testing.T) {
			out, _, err := k.Open(nil, b.Object)
			if want := classes[b.Error]; want == nil || !errors.Is(err, want) || len(out) > 0 {
				t.Errorf("%d bytes came out, error %v; want %s", len(out), err, b.Error)
			}
		})
	}
}

// writeVectors makes the vectors with the reference construction of this test,
// which shares no code with Seal but the compressor and the header.
func writeVectors(t *testing.T) {
	sequence := func(n int, from byte) hexBytes {
		b := make(hexBytes, n)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	v := vectors{Vault: sequence(16, 0xa0)}
	vault := ID(v.Vault)
	for _, epoch := range []uint32{1, 2} {
		key := Key(sequence(32, byte(epoch)*0x10))
		siv, enc := derive(key, vault, epoch, labelSIV), derive(key, vault, epoch, labelEnc)
		v.Epochs = append(v.Epochs, epochVector{epoch, hexBytes(key[:]), hexBytes(siv[:]), hexBytes(enc[:])})
	}
	first := Key(v.Epochs[0].Key)
	pathKey, hashKey := derive(first, vault, FirstEpoch, labelPath), derive(first, vault, FirstEpoch, labelHash)
	v.PathKey, v.HashKey = pathKey[:], hashKey[:]
	k := v.ring(t, 2)
	for _, path := range []string{"/", "/home/ada/notes.txt", `C:\Users\ada`, "/odd/\xff\xfe"} {
		id := k.Path(DeviceID(sequence(16, 0xd0)), []byte(path))
		v.Paths = append(v.Paths, pathVector{sequence(16, 0xd0), hexBytes(path), id[:]})
	}
	for _, plaintext := range []hexBytes{{}, hexBytes("hello"), objectVector{Stream: 1100}.plaintext()} {
		h := k.Hash(plaintext)
		v.Hashes = append(v.Hashes, hashVector{plaintext, h[:]})
	}
	text := hexBytes(bytes.Repeat([]byte("one line of many, all of them alike\n"), 12))
	record := func(op Op) *recordVector {
		return &recordVector{Device: sequence(16, 0xd0), Seq: 0x0102030405060708, Path: sequence(16, 0x50), Parent: sequence(16, 0x60), Op: op}
	}
	refs := []hexBytes{sequence(32, 0x20), sequence(32, 0x80)}
	entries := []Entry{{Size: 5000, Hash: Hash(sequence(16, 0x30))}, {Size: 70, Hash: Hash(sequence(16, 0x90))}}
	for _, o := range []objectVector{
		{Name: "empty chunk", Epoch: 1, Type: TypeChunk},
		{Name: "chunk, raw", Epoch: 1, Type: TypeChunk, Plaintext: hexBytes("hello")},
		{Name: "chunk, raw, in a later epoch", Epoch: 2, Type: TypeChunk, Plaintext: hexBytes("hello")},
		{Name: "chunk, zstd", Epoch: 1, Type: TypeChunk, Plaintext: text, Codec: codecZstd},
		{Name: "chunk, incompressible", Epoch: 1, Type: TypeChunk, Plaintext: objectVector{Stream: 300}.plaintext()},
		{Name: "largest chunk", Epoch: 1, Type: TypeChunk, Stream: MaxPlaintext},
		{Name: "list", Epoch: 1, Type: TypeList, Refs: refs, Plaintext: appendList(nil, 0, entries)},
		{Name: "record, put inline", Epoch: 1, Type: TypeRecord, Record: record(OpPut),
			Plaintext: (&Record{Name: []byte("/home/ada/notes.txt"), Type: TypeFile, Content: Content{Size: 5, Inline: []byte("hello")}}).Append(nil)},
		{Name: "record, put with refs", Epoch: 2, Type: TypeRecord, Refs: refs, Record: record(OpPut),
			Plaintext: (&Record{Name: []byte("/home/ada/film"), Type: TypeFile, Content: Content{Size: 5070, Entries: entries}}).Append(nil)},
		{Name: "record, file with all there is", Epoch: 2, Type: TypeRecord, Refs: refs, Record: record(OpPut), Plaintext: (&Record{
			Name: []byte("/home/ada/film\xff"), Type: TypeFile, Content: Content{Size: 5070, Entries: entries, Sum: (*[32]byte)(sequence(32, 0x11))},
			Metadata: Metadata{
				ModTime: time.Unix(1_700_000_000, 123_456_789), Created: time.Unix(-1, 999_999_999), Mode: new(uint32(0o4755)), Owner: &Owner{1000, 100, "ada", "users"},
				Xattrs: []Xattr{{[]byte("user.a"), []byte{}}, {[]byte("user.b"), []byte("1")}}, Attributes: new(uint32(0x20)), Security: sequence(20, 0xc0),
			},
			Link: (*LinkGroup)(sequence(16, 0xe0)), Holes: []Hole{{0, 4096}, {8192, 1 << 40}}, Fuzzy: true, CKSum: new(uint32(0x377a6011)),
			Unknown: []Field{{33, must(cbor.Parse([]byte{0xf6}))}},
		}).Append(nil)},
		{Name: "record, folder", Epoch: 1, Type: TypeRecord, Record: record(OpPut),
			Plaintext: (&Record{Name: []byte("/home/ada"), Type: TypeFolder, Metadata: Metadata{ModTime: time.Unix(1_700_000_000, 0), Mode: new(uint32(0o755))}}).Append(nil)},
		{Name: "record, symbolic link", Epoch: 1, Type: TypeRecord, Record: record(OpPut),
			Plaintext: (&Record{Name: []byte("/home/ada/link"), Type: TypeSymlink, Target: []byte("../bob")}).Append(nil)},
		{Name: "record, FIFO", Epoch: 1, Type: TypeRecord, Record: record(OpPut), Plaintext: (&Record{Name: []byte("/p"), Type: TypeFIFO}).Append(nil)},
		{Name: "record, socket", Epoch: 1, Type: TypeRecord, Record: record(OpPut), Plaintext: (&Record{Name: []byte("/s"), Type: TypeSocket}).Append(nil)},
		{Name: "record, character device", Epoch: 1, Type: TypeRecord, Record: record(OpPut),
			Plaintext: (&Record{Name: []byte("/dev/null"), Type: TypeCharDevice, Device: &DeviceNumber{1, 3}}).Append(nil)},
		{Name: "record, block device", Epoch: 1, Type: TypeRecord, Record: record(OpPut),
			Plaintext: (&Record{Name: []byte("/dev/sda"), Type: TypeBlockDevice, Device: &DeviceNumber{8, 0}}).Append(nil)},
		{Name: "record, other", Epoch: 1, Type: TypeRecord, Record: record(OpPut), Plaintext: (&Record{Name: []byte(`C:\x`), Type: TypeOther}).Append(nil)},
		{Name: "record, delete", Epoch: 1, Type: TypeRecord, Record: record(OpDelete), Plaintext: (&Record{Name: []byte("/x")}).Append(nil)},
		{Name: "record, out of scope", Epoch: 1, Type: TypeRecord, Record: record(OpOutOfScope), Plaintext: (&Record{Name: []byte("/x")}).Append(nil)},
		{Name: "record, valid", Epoch: 1, Type: TypeRecord, Refs: refs[:1], Record: record(OpValid), Plaintext: (&Record{}).Append(nil)},
		{Name: "record, void", Epoch: 1, Type: TypeRecord, Refs: refs[:1], Record: record(OpVoid), Plaintext: (&Record{}).Append(nil)},
		{Name: "note", Epoch: 1, Type: TypeNote, Plaintext: hexBytes("note")},
	} {
		payload := o.plaintext()
		if o.Codec == codecZstd {
			payload = encoder.EncodeAll(payload, nil)
		}
		enc := encoding(o.Codec, len(o.plaintext()), len(payload), payload, padme(encHeader+len(payload)))
		header := appendHeader(nil, o.header())
		object := reference(Key(v.Epochs[o.Epoch-1].Key), vault, o.Epoch, header, enc, nil)
		id := Identify(object)
		o.SIV, o.ID, o.Size = object[len(header):len(header)+sivSize], id[:], len(object)
		if o.Stream == 0 {
			o.Object = object
		}
		v.Objects = append(v.Objects, o)
	}
	v.Bad = badVectors(first, vault)
	if _, err := os.Stat(vectorsFile); err == nil {
		old := readVectors(t)
		v.Older = old.Older
		for _, o := range old.Objects {
			same := func(n objectVector) bool { return bytes.Equal(n.ID, o.ID) }
			if o.Codec == codecZstd && !slices.ContainsFunc(v.Objects, same) {
				v.Older = append(v.Older, o)
			}
		}
	}
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorsFile, append(data, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}

// badVectors are objects of which one thing is wrong. Those that name an encoding
// are authentic: only what stands behind the authentication is wrong.
func badVectors(key Key, vault ID) []badVector {
	chunk := appendHeader(nil, Header{Type: TypeChunk, Epoch: 1})
	seal := func(header []byte, enc []byte) hexBytes { return reference(key, vault, 1, header, enc, nil) }
	hello := encoding(codecRaw, 5, 5, []byte("hello"), 14)
	good := seal(chunk, hello)
	edit := func(at int, to byte) hexBytes {
		b := slices.Clone(good)
		b[(at+len(b))%len(b)] = to
		return b
	}
	list := appendHeader(nil, Header{Type: TypeList, Epoch: 1, Refs: make([]ObjectID, 2)})
	otherRef := seal(list, hello)
	otherRef[headerSize] ^= 1
	lines := bytes.Repeat([]byte("one line of many, all of them alike\n"), 12)
	packed := encoder.EncodeAll(lines, nil)
	zstd := func(size int, payload []byte) hexBytes {
		return seal(chunk, encoding(codecZstd, size, len(payload), payload, padme(encHeader+len(payload))))
	}
	// A frame of 203 bytes for 205: 190 as they are and 15 times a zero. It is
	// shorter, but not by a step of padding.
	frame := slices.Concat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 205}, []byte{190 << 3 & 0xff, 190 >> 5, 0},
		objectVector{Stream: 190}.plaintext(), []byte{15<<3 | 1<<1 | 1, 0, 0, 0})
	badOp := appendHeader(nil, Header{Type: TypeRecord, Epoch: 1, Record: &RecordHeader{Op: 4}})
	epoch3 := appendHeader(nil, Header{Type: TypeChunk, Epoch: 3})
	return []badVector{
		{"nothing", "malformed", hexBytes{}},
		{"one byte short of the smallest", "malformed", good[:minObject-1]},
		{"other magic", "malformed", edit(0, 'B')},
		{"format 2", "malformed", edit(4, 2)},
		{"type 0", "malformed", edit(5, 0)},
		{"type 5", "malformed", edit(5, 5)},
		{"chunk with a ref", "malformed", append(edit(6, 1), make([]byte, 64)...)},
		{"refs beyond the end", "malformed", seal(appendHeader(nil, Header{Type: TypeList, Refs: make([]ObjectID, 3)})[:headerSize], hello)},
		{"record of operation 4", "malformed", seal(badOp, hello)},
		{"epoch 3", "no key", reference(key, vault, 3, epoch3, hello, nil)},
		{"epoch 0", "no key", edit(8, 0)},
		{"epoch of another key", "open", edit(8, 2)},
		{"another type", "open", edit(5, byte(TypeNote))},
		{"another ref", "open", otherRef},
		{"another vault", "open", reference(key, ID{}, 1, chunk, hello, nil)},
		{"another key", "open", reference(Key{}, vault, 1, chunk, hello, nil)},
		{"siv altered", "open", edit(headerSize, good[headerSize]^1)},
		{"siv of something else, all else fitting it", "open", reference(key, vault, 1, chunk, hello, func(siv []byte) { siv[31] ^= 0x80 })},
		{"ciphertext altered", "open", edit(headerSize+sivSize, good[headerSize+sivSize]^1)},
		{"tag altered", "open", edit(-1, good[len(good)-1]^1)},
		{"cut short", "open", good[:len(good)-1]},
		{"byte added", "open", append(slices.Clone(good), 0)},
		{"encoding with codec 2", "malformed", seal(chunk, encoding(2, 5, 5, []byte("hello"), 14))},
		{"encoding padded too far", "malformed", seal(chunk, encoding(codecRaw, 5, 5, []byte("hello"), 15))},
		{"encoding padded to the next size", "malformed", seal(chunk, encoding(codecRaw, 5, 5, []byte("hello"), 16))},
		{"encoding not padded", "malformed", seal(chunk, encoding(codecRaw, 4, 4, []byte("hell"), 13))},
		{"encoding padded with a one", "malformed", seal(chunk, encoding(codecRaw, 4, 4, []byte("hell\x01"), 14))},
		{"encoding of a plaintext over the limit", "malformed", seal(chunk, encoding(codecZstd, MaxPlaintext+1, 5, []byte("hello"), 14))},
		{"encoding whose payload is beyond the end", "malformed", seal(chunk, encoding(codecRaw, 500, 500, []byte("hello"), 14))},
		{"encoding, raw, payload shorter than the plaintext", "malformed", seal(chunk, encoding(codecRaw, 6, 5, []byte("hello"), 14))},
		{"encoding, raw, payload longer than the plaintext", "malformed", seal(chunk, encoding(codecRaw, 4, 5, []byte("hello"), 14))},
		{"encoding, zstd, that saves nothing", "malformed", zstd(len(packed), packed)},
		{"encoding, zstd, that saves less than a step of padding", "malformed", zstd(205, frame)},
		{"encoding, zstd, no frame", "malformed", zstd(len(lines), []byte("hello"))},
		{"encoding, zstd, one byte more than stated", "malformed", zstd(len(lines)-1, packed)},
		{"encoding, zstd, one byte less than stated", "malformed", zstd(len(lines)+1, packed)},
		{"encoding, zstd, bytes after the frame", "malformed", zstd(len(lines), append(slices.Clone(packed), 0, 0, 0))},
		{"encoding, zstd, of 4 MiB in 16", "malformed", zstd(16, encoder.EncodeAll(make([]byte, MaxPlaintext), nil)[:7])},
		{"encoding, zstd, 4 MiB stated as 1,000", "malformed", zstd(1000, encoder.EncodeAll(make([]byte, MaxPlaintext), nil))},
	}
}
