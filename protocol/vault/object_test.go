package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestPadme checks sizes against the definition: with e = floor(log2 n) and
// s = floor(log2 e) + 1, the last e-s bits of a padded size are zero.
func TestPadme(t *testing.T) {
	for _, test := range []struct{ n, want int }{
		{9, 10}, {10, 10}, {11, 12}, {16, 16}, {17, 18}, {100, 104}, {104, 104}, {105, 112}, {255, 256}, {256, 256},
		{257, 272}, {1000, 1024}, {1025, 1088}, {4096 + 9, 4352}, {65536, 65536}, {65537, 67584},
		{1<<20 + 9, 1<<20 + 1<<15}, {1<<22 - 1, 1 << 22}, {MaxPlaintext + encHeader, 1<<22 + 1<<17},
	} {
		if got := padme(test.n); got != test.want {
			t.Errorf("padme(%d) = %d, want %d", test.n, got, test.want)
		}
	}
	last := 0
	for n := encHeader; n <= 1<<16; n++ {
		p := padme(n)
		if p < n || p-n > n/8 || p < last || padme(p) != p {
			t.Fatalf("padme(%d) = %d after %d", n, p, last)
		}
		last = p
	}
	if got := padme(encHeader + MaxPlaintext); got != maxEnc {
		t.Errorf("the longest encoding has %d bytes, want %d", got, maxEnc)
	}
}

// reference seals an encoding as SPEC.md says it, with the standard library alone.
// It is what vectors and forged objects are made with.
func reference(key Key, vault ID, epoch uint32, header, enc []byte, editSIV func(siv []byte)) []byte {
	sub := func(label string) []byte {
		info := slices.Concat(vault[:], binary.LittleEndian.AppendUint32(nil, epoch), []byte(label))
		out, err := hkdf.Expand(sha256.New, key[:], string(info), 32)
		if err != nil {
			panic(err)
		}
		return out
	}
	aad := slices.Concat(vault[:], header)
	mac := hmac.New(sha256.New, sub("backstay/1 object siv"))
	mac.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(aad))))
	mac.Write(aad)
	mac.Write(enc)
	siv := mac.Sum(nil)
	if editSIV != nil {
		editSIV(siv)
	}
	okm, err := hkdf.Expand(sha256.New, sub("backstay/1 object encryption"), "backstay/1 object"+string(siv), 44)
	if err != nil {
		panic(err)
	}
	block, err := aes.NewCipher(okm[:32])
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm.Seal(slices.Concat(header, siv), okm[32:], enc, aad)
}

// encoding builds an encoding of any fields, padded to total bytes.
func encoding(codec byte, plain, packed int, payload []byte, total int) []byte {
	enc := binary.LittleEndian.AppendUint32([]byte{codec}, uint32(plain))
	enc = binary.LittleEndian.AppendUint32(enc, uint32(packed))
	enc = append(enc, payload...)
	return append(enc, make([]byte, max(0, total-len(enc)))...)
}

func testKeyring(t testing.TB) *Keyring {
	k := NewKeyring(ID{1, 2, 3}, Key{4, 5, 6})
	if err := k.Add(2, Key{7, 8, 9}); err != nil {
		t.Fatal(err)
	}
	return k
}

func testRecord() Header {
	return Header{Type: TypeRecord, Refs: []ObjectID{{1}, {2}}, Record: &RecordHeader{
		Device: DeviceID{1}, Seq: 1 << 40, Path: PathID{2}, Parent: PathID{3}, Op: OpPut}}
}

func TestSealOpen(t *testing.T) {
	k := testKeyring(t)
	for _, h := range []Header{
		{Type: TypeChunk}, {Type: TypeNote}, {Type: TypeList, Refs: []ObjectID{{9}}}, testRecord(),
		{Type: TypeList, Refs: make([]ObjectID, MaxRefs)},
	} {
		for _, plaintext := range [][]byte{
			nil, {0}, []byte("hello"), make([]byte, 100), randomBytes(200, 1), textBytes(200, 1), randomBytes(4096, 2),
			textBytes(4096, 2), textBytes(300_000, 3), randomBytes(1<<20, 4), make([]byte, MaxPlaintext), randomBytes(MaxPlaintext, 5),
		} {
			t.Run(fmt.Sprintf("%v of %d", h.Type, len(plaintext)), func(t *testing.T) {
				prefix := []byte("before")
				object, id, err := k.Seal(slices.Clone(prefix), h, plaintext)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.HasPrefix(object, prefix) {
					t.Fatal("what stood in dst was changed")
				}
				object = object[len(prefix):]
				if len(object) > MaxObject || id != Identify(object) {
					t.Fatalf("object of %d bytes, id %v", len(object), id)
				}
				kept := slices.Clone(object)
				out, got, err := k.Open(slices.Clone(prefix), object)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out, slices.Concat(prefix, plaintext)) || !bytes.Equal(object, kept) {
					t.Fatal("not what was sealed")
				}
				want := h
				want.Epoch = 2
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("header %+v, want %+v", got, want)
				}
				again, _, err := k.Seal(nil, h, plaintext)
				if err != nil || !bytes.Equal(again, object) {
					t.Fatalf("sealed again to other bytes (%v)", err)
				}
			})
		}
	}
}

// TestSealCompresses checks that compression is used where it saves and only there.
func TestSealCompresses(t *testing.T) {
	k := testKeyring(t)
	for _, test := range []struct {
		name      string
		plaintext []byte
		most      int // object size
	}{
		{"text", textBytes(1<<20, 1), 1 << 19},
		{"zeros", make([]byte, 1<<20), 1000},
		{"random", randomBytes(1<<20, 1), 1<<20 + 1<<15 + 100},
		{"short", []byte("short"), headerSize + sivSize + 14 + tagSize},
	} {
		object, _, err := k.Seal(nil, Header{Type: TypeChunk}, test.plaintext)
		if err != nil || len(object) > test.most {
			t.Errorf("%s: %d bytes, want at most %d (%v)", test.name, len(object), test.most, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	k := testKeyring(t)
	badOp := testRecord()
	badOp.Record.Op = 99
	for _, test := range []struct {
		name      string
		h         Header
		plaintext []byte
	}{
		{"no type", Header{}, nil},
		{"unknown type", Header{Type: 5}, nil},
		{"chunk with refs", Header{Type: TypeChunk, Refs: []ObjectID{{}}}, nil},
		{"note with refs", Header{Type: TypeNote, Refs: []ObjectID{{}}}, nil},
		{"too many refs", Header{Type: TypeList, Refs: make([]ObjectID, MaxRefs+1)}, nil},
		{"record without its fields", Header{Type: TypeRecord}, nil},
		{"record fields in a chunk", Header{Type: TypeChunk, Record: &RecordHeader{Op: OpPut}}, nil},
		{"unknown operation", badOp, nil},
		{"plaintext too long", Header{Type: TypeChunk}, make([]byte, MaxPlaintext+1)},
	} {
		if dst, _, err := k.Seal([]byte("x"), test.h, test.plaintext); err == nil || string(dst) != "x" {
			t.Errorf("%s: %q, %v", test.name, dst, err)
		}
	}
}

func TestParseHeaderBounds(t *testing.T) {
	body := make([]byte, sivSize+encHeader+tagSize)
	for _, test := range []struct {
		name   string
		object []byte
		ok     bool
	}{
		{"most refs", append(appendHeader(nil, Header{Type: TypeList, Refs: make([]ObjectID, MaxRefs)}), body...), true},
		{"one ref more", append(appendHeader(nil, Header{Type: TypeList, Refs: make([]ObjectID, MaxRefs+1)}), body...), false},
		{"shortest", append(appendHeader(nil, testRecord()), body...), true},
		{"one byte shorter", append(appendHeader(nil, testRecord()), body[1:]...), false},
		{"longest", append(appendHeader(nil, testRecord()), make([]byte, MaxObject-headerSize-2*32-recordSize)...), true},
		{"one byte longer", append(appendHeader(nil, testRecord()), make([]byte, MaxObject+1-headerSize-2*32-recordSize)...), false},
	} {
		if _, _, err := ParseHeader(test.object); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestVerify checks that Seal's own check finds what it is there to find, by
// giving it objects that a faulty machine could have made.
func TestVerify(t *testing.T) {
	k := testKeyring(t)
	key := Key{7, 8, 9}
	h := Header{Type: TypeChunk, Epoch: 2}
	header := appendHeader(nil, h)
	text := textBytes(5000, 1)
	object, _, err := k.Seal(nil, h, text)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := slices.Clone(object)
		b[(at+len(b))%len(b)] ^= 4
		return b
	}
	raw := func(plaintext []byte) []byte {
		return encoding(codecRaw, len(plaintext), len(plaintext), plaintext, padme(encHeader+len(plaintext)))
	}
	wrong := slices.Clone(text)
	wrong[100] ^= 1
	compressed := encoder.EncodeAll(wrong, nil)
	for _, test := range []struct {
		name   string
		object []byte
		ok     bool
	}{
		{"right", object, true},
		{"right, encoded otherwise", reference(key, k.vault, 2, header, raw(text), nil), true},
		{"bit flipped in the header", flip(8), false},
		{"bit flipped in the siv", flip(headerSize), false},
		{"bit flipped in the ciphertext", flip(headerSize + sivSize + 1), false},
		{"bit flipped in the tag", flip(-1), false},
		{"bit flipped before sealing", reference(key, k.vault, 2, header, raw(wrong), nil), false},
		{"wrong compressor", reference(key, k.vault, 2, header,
			encoding(codecZstd, len(text), len(compressed), compressed, padme(encHeader+len(compressed))), nil), false},
		{"nothing compressed", reference(key, k.vault, 2, header, encoding(codecZstd, len(text), 0, nil, padme(encHeader)), nil), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := k.verify(new(scratch), k.epoch(2), test.object, headerSize+sivSize, text)
			if test.ok && err != nil || !test.ok && !errors.Is(err, ErrSeal) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

// TestOpenLimit checks that a plaintext over the limit does not open, however it
// is encoded, and that the largest does.
func TestOpenLimit(t *testing.T) {
	k := testKeyring(t)
	for _, size := range []int{MaxPlaintext, MaxPlaintext + 1} {
		plaintext := make([]byte, size)
		packed := encoder.EncodeAll(plaintext, nil)
		for name, enc := range map[string][]byte{
			"raw":  encoding(codecRaw, size, size, plaintext, padme(encHeader+size)),
			"zstd": encoding(codecZstd, size, len(packed), packed, padme(encHeader+len(packed))),
		} {
			object := reference(Key{7, 8, 9}, k.vault, 2, appendHeader(nil, Header{Type: TypeChunk, Epoch: 2}), enc, nil)
			out, _, err := k.Open(nil, object)
			if size <= MaxPlaintext && (err != nil || len(out) != size) || size > MaxPlaintext && !errors.Is(err, ErrMalformed) {
				t.Errorf("%s of %d: %d bytes, %v", name, size, len(out), err)
			}
		}
	}
}

// TestBitFlips flips one bit of an object at a time: every flip is an error of
// the class ErrCorrupt, or an epoch that the keyring does not know.
func TestBitFlips(t *testing.T) {
	k := testKeyring(t)
	var objects [][]byte
	for _, h := range []Header{{Type: TypeChunk}, {Type: TypeNote}, {Type: TypeList, Refs: []ObjectID{{1}, {2}}}, testRecord()} {
		for _, plaintext := range [][]byte{nil, []byte("a name"), textBytes(700, 1), randomBytes(300, 1)} {
			object, _, err := k.Seal(nil, h, plaintext)
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, object)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		object := objects[r.IntN(len(objects))]
		bit := r.IntN(len(object) * 8)
		object[bit/8] ^= 1 << (bit % 8)
		out, _, err := k.Open(nil, object)
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNoKey) || len(out) > 0 {
			t.Fatalf("bit %d of %d bytes: %d bytes came out, error %v", bit, len(object), len(out), err)
		}
		object[bit/8] ^= 1 << (bit % 8)
	}
	for _, object := range objects {
		if _, _, err := k.Open(nil, object); err != nil {
			t.Fatal(err) // the flips were all undone
		}
	}
}

func TestKeyring(t *testing.T) {
	first, second := Key{1}, Key{2}
	k := NewKeyring(ID{1}, first)
	old, _, err := k.Seal(nil, Header{Type: TypeChunk}, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	path, sum := k.Path(DeviceID{1}, []byte("/home")), k.Hash([]byte("old"))
	for _, test := range []struct {
		name  string
		epoch uint32
		key   Key
		ok    bool
	}{
		{"epoch 0", 0, second, false},
		{"the first epoch", 1, first, false},
		{"a later epoch", 7, second, true},
		{"the same again", 7, second, true},
		{"another key for it", 7, first, false},
		{"one between", 3, first, true},
	} {
		if err := k.Add(test.epoch, test.key); (err == nil) != test.ok {
			t.Errorf("add %s: %v", test.name, err)
		}
	}
	if k.Epoch() != 7 || k.Vault() != (ID{1}) {
		t.Errorf("epoch %d of vault %v", k.Epoch(), k.Vault())
	}
	if k.Path(DeviceID{1}, []byte("/home")) != path || k.Hash([]byte("old")) != sum {
		t.Error("path ids or hashes changed with the epoch")
	}
	if k.Path(DeviceID{2}, []byte("/home")) == path || NewKeyring(ID{2}, first).Path(DeviceID{1}, []byte("/home")) == path {
		t.Error("path ids do not depend on device and vault")
	}
	if NewKeyring(ID{1}, second).Hash([]byte("old")) == sum {
		t.Error("hashes do not depend on the key")
	}
	object, _, err := k.Seal(nil, Header{Type: TypeChunk}, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		k      *Keyring
		object []byte
		err    error
	}{
		{"old epoch", k, old, nil},
		{"new epoch", k, object, nil},
		{"unknown epoch", NewKeyring(ID{1}, first), object, ErrNoKey},
		{"another vault", NewKeyring(ID{2}, first), old, ErrOpen},
		{"another key", NewKeyring(ID{1}, second), old, ErrOpen},
	} {
		if _, _, err := test.k.Open(nil, test.object); !errors.Is(err, test.err) {
			t.Errorf("open with %s: %v, want %v", test.name, err, test.err)
		}
	}
}

func TestKeysAreNotShown(t *testing.T) {
	key := NewKey()
	if key == NewKey() || key == (Key{}) {
		t.Fatal("keys are not random")
	}
	k := NewKeyring(ID{}, key)
	var out strings.Builder
	for _, logger := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		logger.Info("m", "key", key, "pointer", &key, "ring", k, "in a struct", struct{ K Key }{key}, "map", map[string]Key{"k": key})
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		fmt.Fprintf(&out, verb+verb+verb+verb+"\n", key, &key, k, []Key{key})
		fmt.Fprintf(&out, verb+"\n", struct{ K Key }{key})
	}
	for _, shown := range []string{
		strings.Trim(strings.ReplaceAll(fmt.Sprint(key[:4]), " ", ","), "[]"),
		fmt.Sprintf("%x", key[:4]), fmt.Sprintf("%X", key[:4]), strings.Trim(fmt.Sprint(key[:4]), "[]"),
	} {
		if strings.Contains(out.String(), shown) {
			t.Errorf("%q is shown", shown)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was written")
	}
	for _, v := range []slog.LogValuer{key, k} {
		if v.LogValue().String() != redacted {
			t.Errorf("%T logs as something else", v)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	k := testKeyring(t)
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			for n := range 20 {
				plaintext := textBytes(1000*i+n, byte(i))
				object, _, err := k.Seal(nil, Header{Type: TypeChunk}, plaintext)
				if err != nil {
					t.Error(err)
					return
				}
				out, _, err := k.Open(nil, object)
				if err != nil || !bytes.Equal(out, plaintext) || k.Hash(out) != k.Hash(plaintext) {
					t.Errorf("goroutine %d, object %d: %v", i, n, err)
				}
				if err := k.Add(uint32(10+n), Key{byte(n)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
}

func FuzzParseHeader(f *testing.F) {
	k := testKeyring(f)
	for _, h := range []Header{{Type: TypeChunk}, {Type: TypeList, Refs: []ObjectID{{1}}}, testRecord()} {
		object, _, err := k.Seal(nil, h, []byte("seed"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object)
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		h, n, err := ParseHeader(object)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again := appendHeader(nil, h); !bytes.Equal(again, object[:n]) {
			t.Fatalf("%x was encoded again as %x", object[:n], again)
		}
	})
}

// FuzzOpen gives Open objects that anybody could make, and seals what is given as
// an encoding, so that the part behind the authentication is reached.
func FuzzOpen(f *testing.F) {
	k := testKeyring(f)
	h := Header{Type: TypeNote, Epoch: 2}
	for _, plaintext := range [][]byte{nil, []byte("seed"), textBytes(300, 1)} {
		object, _, err := k.Seal(nil, h, plaintext)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object)
		f.Add(encode(make([]byte, 0, 1000), plaintext))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, _, err := k.Open(nil, data); err != nil && (len(out) > 0 || !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNoKey)) {
			t.Fatalf("%d bytes came out, error %v", len(out), err)
		}
		if len(data) < encHeader || len(data) > 1<<16 {
			return
		}
		out, _, err := k.Open(nil, reference(Key{7, 8, 9}, k.vault, 2, appendHeader(nil, h), data, nil))
		if err != nil {
			if len(out) > 0 || !errors.Is(err, ErrMalformed) {
				t.Fatalf("%d bytes came out, error %v", len(out), err)
			}
			return
		}
		object, _, err := k.Seal(nil, h, out)
		if again, _, oerr := k.Open(nil, object); err != nil || oerr != nil || !bytes.Equal(again, out) {
			t.Fatalf("sealing what came out: %v, %v", err, oerr)
		}
	})
}

// TestCompressible: what is mostly text is compressed wherever the text stands, and
// what is not is left alone.
func TestCompressible(t *testing.T) {
	const size = 1 << 20
	noise := randomBytes(size, 5)
	text := bytes.Repeat([]byte("the quick brown fox "), size/20)
	for _, test := range []struct {
		name      string
		plaintext []byte
		codec     byte
	}{
		{"text", text, codecZstd},
		{"noise", noise, codecRaw},
		{"text then noise", slices.Concat(text[:size/8], noise[size/8:]), codecZstd},
		{"noise then text", slices.Concat(noise[:size-size/8], text[:size/8]), codecZstd},
		{"short text", text[:1000], codecZstd},
	} {
		t.Run(test.name, func(t *testing.T) {
			enc := encode(make([]byte, 0, 2*size), test.plaintext)
			if enc[0] != test.codec {
				t.Fatalf("codec %d, want %d", enc[0], test.codec)
			}
		})
	}
}

// TestChunkerKey: K_chunk is that of the first epoch, as SPEC.md, "Keys", derives it.
func TestChunkerKey(t *testing.T) {
	first, id := Key{1, 2, 3}, ID{4, 5, 6}
	k := NewKeyring(id, first)
	if err := k.Add(2, Key{7}); err != nil {
		t.Fatal(err)
	}
	info := string(id[:]) + "\x01\x00\x00\x00" + "backstay/1 chunker"
	want, err := hkdf.Expand(sha256.New, first[:], info, 32)
	if got := k.ChunkerKey(); err != nil || !bytes.Equal(got[:], want) {
		t.Fatalf("%x, want %x (%v)", got[:], want, err)
	}
}
