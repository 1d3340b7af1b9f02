package v3

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

var testKey = sessionKey([]byte("0123456789abcdef0123456789abcdef"))

func encrypt(tb testing.TB, plain []byte) []byte {
	e, err := NewEncrypter(bytes.NewReader(plain), testKey)
	if err != nil {
		tb.Fatal(err)
	}
	out := make([]byte, CiphertextSize(int64(len(plain))))
	if _, err := io.ReadFull(e, out); err != nil {
		tb.Fatal(err)
	}
	if n, err := e.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		tb.Fatalf("Read behind the padding = %d, %v", n, err)
	}
	return out
}

// TestCBCPieces reads and writes in pieces of every awkward size.
func TestCBCPieces(t *testing.T) {
	for _, size := range []int{0, 1, 15, 16, 17, 4096, pieceSize - 16, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize + 5} {
		plain := random(size)
		want := encrypt(t, plain)
		for _, step := range []int{1, 5, 15, 16, 17, 31, 32, 4096, pieceSize - 1, pieceSize, pieceSize + 16, 5 * pieceSize} {
			if step < 16 && size > 5000 {
				continue
			}
			e, err := NewEncrypter(iotest.HalfReader(bytes.NewReader(plain)), testKey)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			buf := make([]byte, step)
			for err == nil {
				var n int
				n, err = e.Read(buf)
				got = append(got, buf[:n]...)
			}
			if err != io.EOF || !bytes.Equal(got, want) {
				t.Errorf("%d bytes read in steps of %d: %d other bytes, %v", size, step, len(got), err)
			}

			var out bytes.Buffer
			d, err := NewDecrypter(&out, testKey)
			if err != nil {
				t.Fatal(err)
			}
			for rest := want; len(rest) > 0; {
				p := bytes.Clone(rest[:min(step, len(rest))])
				n, err := d.Write(p)
				if err != nil || n != len(p) || !bytes.Equal(p, rest[:n]) {
					t.Fatalf("Write = %d, %v", n, err)
				}
				rest = rest[n:]
				if out.Len() > size {
					t.Fatal("padding was written")
				}
			}
			if err := d.Close(); err != nil || !bytes.Equal(out.Bytes(), plain) || d.Plain() != int64(size) {
				t.Errorf("%d bytes written in steps of %d: %d other bytes, %v", size, step, out.Len(), err)
			}
			if err := d.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
			if _, err := d.Write([]byte{1}); err == nil {
				t.Error("Write after Close succeeds")
			}
		}
	}
}

// TestEveryPaddingByteIsChecked flips one bit in each byte of the block before
// the last, which flips the same bit of the padding.
func TestEveryPaddingByteIsChecked(t *testing.T) {
	for size := 16; size < 32; size++ {
		c := encrypt(t, random(size))
		for i := range 16 {
			bad := bytes.Clone(c)
			bad[len(bad)-32+i] ^= 1
			_, err := decrypt(testKey.bytes(), bad)
			inPadding := i >= size-16
			if inPadding && size < 31 && !errors.Is(err, ErrCiphertext) {
				t.Errorf("size %d: damage in padding byte %d: %v", size, i, err)
			}
			if !inPadding && err != nil {
				t.Errorf("size %d: damage in content byte %d: %v", size, i, err)
			}
		}
	}
}

// TestCutCiphertext decrypts enough cut blocks that a decrypter which only
// looked at the padding would take some.
func TestCutCiphertext(t *testing.T) {
	for i := range 3000 {
		in := random(17 + i)[i:]
		if _, err := decrypt(testKey.bytes(), in); !errors.Is(err, ErrCiphertext) {
			t.Fatalf("%x: error %v, want %v", in, err, ErrCiphertext)
		}
	}
}

func TestEncrypterSourceFails(t *testing.T) {
	broken := errors.New("disk gone")
	e, err := NewEncrypter(io.MultiReader(bytes.NewReader(random(100)), iotest.ErrReader(broken)), testKey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(e)
	if err != broken || len(got) > 96 {
		t.Errorf("ReadAll = %d bytes, %v", len(got), err)
	}
	if _, err := e.Read(make([]byte, 16)); err != broken {
		t.Errorf("the error does not stay: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write(p []byte) (int, error) { return len(p) / 2, w.err }

func TestDecrypterWriterFails(t *testing.T) {
	full := errors.New("disk full")
	for _, v := range []struct {
		name string
		err  error
		want error
	}{
		{"error", full, full},
		{"short write", nil, io.ErrShortWrite},
	} {
		t.Run(v.name, func(t *testing.T) {
			d, err := NewDecrypter(failingWriter{v.err}, testKey)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := d.Write(encrypt(t, random(1000))); !errors.Is(err, v.want) || n == 0 {
				t.Errorf("Write = %d, %v", n, err)
			}
			if n, err := d.Write([]byte{1}); n != 0 || !errors.Is(err, v.want) {
				t.Errorf("the error does not stay: %d, %v", n, err)
			}
			if err := d.Close(); !errors.Is(err, v.want) {
				t.Errorf("Close = %v", err)
			}
		})
	}
}

func TestCBCAllocation(t *testing.T) {
	buf := make([]byte, pieceSize)
	e, err := NewEncrypter(zeros{}, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() { e.Read(buf) }); n != 0 {
		t.Errorf("Encrypter: %v allocations", n)
	}
	d, err := NewDecrypter(io.Discard, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() { d.Write(buf) }); n != 0 {
		t.Errorf("Decrypter: %v allocations", n)
	}
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func BenchmarkEncrypt(b *testing.B) {
	e, err := NewEncrypter(zeros{}, testKey)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, pieceSize)
	b.SetBytes(pieceSize)
	for b.Loop() {
		e.Read(buf)
	}
}

func BenchmarkDecrypt(b *testing.B) {
	d, err := NewDecrypter(io.Discard, testKey)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, pieceSize)
	b.SetBytes(pieceSize)
	for b.Loop() {
		d.Write(buf)
	}
}

func BenchmarkReadRequest(b *testing.B) {
	wire, err := Field.AppendRequest(nil, ClientID{}, Message{Kind: Register, Name: "ada"})
	if err != nil {
		b.Fatal(err)
	}
	r := bytes.NewReader(nil)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(wire)
		if _, err := ReadRequest(r, Series{}); err != nil {
			b.Fatal(err)
		}
	}
}
