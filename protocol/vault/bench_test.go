package vault

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// randomBytes returns n incompressible bytes, the same for the same seed.
func randomBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// textBytes returns n bytes of lines that compress like a log or source text.
func textBytes(n int, seed byte) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{seed}))
	words := make([]string, 500)
	for i := range words {
		words[i] = fmt.Sprintf("%x", r.Uint64N(1<<(4+4*r.UintN(10))))
	}
	var b bytes.Buffer
	for line := 0; b.Len() < n; line++ {
		fmt.Fprintf(&b, "%06d", line)
		for range 4 + r.IntN(10) {
			b.WriteByte(' ')
			b.WriteString(words[int(r.ExpFloat64()*60)%len(words)])
		}
		b.WriteByte('\n')
	}
	return b.Bytes()[:n]
}

func benchmarkInputs(b *testing.B, f func(b *testing.B, plaintext []byte)) {
	for _, data := range []struct {
		name string
		make func(int, byte) []byte
	}{{"random", randomBytes}, {"text", textBytes}} {
		for _, size := range []int{1 << 20, 4 << 10, 200} {
			b.Run(fmt.Sprintf("%s/%d", data.name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				f(b, data.make(size, 1))
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	k := NewKeyring(ID{1}, Key{2})
	benchmarkInputs(b, func(b *testing.B, plaintext []byte) {
		var object []byte
		var err error
		for b.Loop() {
			if object, _, err = k.Seal(object[:0], Header{Type: TypeChunk}, plaintext); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	k := NewKeyring(ID{1}, Key{2})
	benchmarkInputs(b, func(b *testing.B, plaintext []byte) {
		object, _, err := k.Seal(nil, Header{Type: TypeChunk}, plaintext)
		if err != nil {
			b.Fatal(err)
		}
		var out []byte
		for b.Loop() {
			if out, _, err = k.Open(out[:0], object); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSealRecord seals what a backup of many files mostly consists of.
func BenchmarkSealRecord(b *testing.B) {
	k := NewKeyring(ID{1}, Key{2})
	h := Header{Type: TypeRecord, Record: &RecordHeader{Device: DeviceID{1}, Seq: 1, Path: PathID{2}, Parent: PathID{3}, Op: OpPut}}
	r := fullRecord()
	var plaintext, object []byte
	b.ReportAllocs()
	for b.Loop() {
		plaintext = r.Append(plaintext[:0])
		var err error
		if object, _, err = k.Seal(object[:0], h, plaintext); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(plaintext)), "plaintext-bytes")
}

func BenchmarkDecodeRecord(b *testing.B) {
	r := fullRecord()
	plaintext := r.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRecord(plaintext, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// fullRecord is a record of an ordinary small file.
func fullRecord() Record {
	return Record{
		Name: []byte("/home/ada/Documents/letters/2026/to the tax office, second try.odt"), Type: TypeFile,
		Content: Content{Size: 100, Inline: randomBytes(100, 1)},
		Metadata: Metadata{ModTime: time.Unix(1_700_000_000, 123_456_789), Created: time.Unix(1_600_000_000, 987_654_321),
			Mode: new(uint32(0o644)), Owner: &Owner{1000, 1000, "ada", "users"}},
	}
}

func BenchmarkDigest(b *testing.B) {
	var d Digest
	var record ObjectID
	for b.Loop() {
		record[0]++
		d.Add(PathID{1}, PathID{2}, record)
	}
}
