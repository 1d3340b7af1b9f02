package v3

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

// series returns one of all settings.
func series(i uint8) Series {
	return Series{S1100: []Dialect{Documented, Y2022, Y2023}[i%3], S1025: []Dialect{Field, Late2023}[i/3%2]}
}

func FuzzReadRequest(f *testing.F) {
	for i, v := range loadVectors(f).Messages {
		if i%9 == 0 {
			f.Add([]byte(v.Hex), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, setting uint8) {
		s := series(setting)
		r := bytes.NewReader(in)
		q, err := ReadRequest(r, s)
		read := len(in) - r.Len()
		if read > RequestHeaderSize+maxPayload {
			t.Fatalf("%d bytes read", read)
		}
		if err != nil {
			known := errors.Is(err, ErrVersion) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if InStep(err) == known {
				t.Fatalf("error %v is of no class", err)
			}
			if InStep(err) && q.Dialect != Y2022 && int64(read)+q.Remaining != RequestHeaderSize+int64(q.Header.PayloadSize) {
				t.Fatalf("%d read, %d remaining of %d: %v", read, q.Remaining, q.Header.PayloadSize, err)
			}
			return
		}
		if q.Message.Kind == File && q.Remaining != int64(q.Message.ContentSize) || q.Message.Kind != File && q.Remaining != 0 {
			t.Fatalf("%v: %d remaining", q.Message.Kind, q.Remaining)
		}
		wire, err := q.Dialect.AppendRequest(nil, q.Header.ClientID, q.Message)
		if errors.Is(err, ErrSize) {
			return // a file of nearly 4 GiB whose ciphertext stood outside its payload size
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := ReadRequest(bytes.NewReader(wire), s)
		q.Header.PayloadSize, again.Header.PayloadSize = 0, 0
		if err != nil || !reflect.DeepEqual(again, q) {
			t.Fatalf("%+v reads back as %+v, %v", q, again, err)
		}
	})
}

func FuzzReadResponse(f *testing.F) {
	for i, v := range loadVectors(f).Messages {
		if i%9 == 1 {
			f.Add([]byte(v.Hex), uint8(v.Dialect))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, dialect uint8) {
		d := Dialect(dialect)
		r := bytes.NewReader(in)
		p, err := ReadResponse(r, d)
		if err != nil {
			return
		}
		wire, err := d.AppendResponse(nil, p.Message)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ReadResponse(bytes.NewReader(wire), d)
		if d == Y2022 && p.Message.Kind == Acknowledged {
			p.Message.ClientID = ClientID{} // read, but not sent in this dialect
		}
		if err != nil || !reflect.DeepEqual(again.Message, p.Message) {
			t.Fatalf("%+v reads back as %+v, %v", p, again, err)
		}
	})
}

func FuzzParsePayload(f *testing.F) {
	for i, v := range loadVectors(f).Messages {
		if k := kindNamed(f, v.Kind); k.IsRequest() && i%7 == 0 {
			f.Add(uint8(v.Dialect), uint8(k), []byte(v.Hex[RequestHeaderSize:]))
		}
	}
	f.Fuzz(func(t *testing.T, dialect, kind uint8, in []byte) {
		d, k := Dialect(dialect), Kind(kind)
		m, err := d.ParsePayload(k, in)
		if err != nil {
			if !InStep(err) {
				t.Fatalf("error %v is of no class", err)
			}
			return
		}
		b, err := d.AppendPayload(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := d.ParsePayload(k, b)
		if k == Acknowledged {
			return // present or absent in any dialect
		}
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v reads back as %+v, %v", m, again, err)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add(append([]byte("notes.bin"), make([]byte, NameSize-9)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		name, err := ParseName(in)
		if err != nil {
			return
		}
		b, err := AppendName(nil, name)
		if err != nil || len(b) != NameSize {
			t.Fatalf("%q: %d bytes, %v", name, len(b), err)
		}
		if again, err := ParseName(b); err != nil || again != name {
			t.Fatalf("%q reads back as %q, %v", name, again, err)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	der, err := newKey(f).PublicDER()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, in []byte) {
		pub, err := ParsePublicKey(in)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatalf("error %v is of no class", err)
			}
			return
		}
		if pub.N.BitLen() != 1024 {
			t.Fatalf("%d bits", pub.N.BitLen())
		}
		// The modulus may be any number; wrapping to it must not crash.
		sessionKey(make([]byte, 32)).Wrap(pub, SHA1)
	})
}

// FuzzDecrypter cuts a ciphertext in two places and compares with one write.
func FuzzDecrypter(f *testing.F) {
	f.Add(encrypt(f, []byte("seventeen bytes..")), uint(5), uint(17))
	f.Add([]byte{}, uint(0), uint(0))
	f.Fuzz(func(t *testing.T, in []byte, a, b uint) {
		whole, wholeErr := decrypt(testKey.bytes(), in)
		if wholeErr == nil {
			if again := encrypt(t, whole); !bytes.Equal(again, in) {
				t.Fatalf("%x decrypts to %x, which encrypts to %x", in, whole, again)
			}
		} else if !errors.Is(wholeErr, ErrCiphertext) {
			t.Fatal(wholeErr)
		}
		i := a % uint(len(in)+1)
		j := i + b%uint(len(in)+1-int(i))
		var out bytes.Buffer
		d, err := NewDecrypter(&out, testKey)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range [][]byte{in[:i], in[i:j], in[j:]} {
			if _, err := d.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); (err == nil) != (wholeErr == nil) || !bytes.Equal(out.Bytes(), whole) {
			t.Fatalf("in pieces %x, %v; whole %x, %v", out.Bytes(), err, whole, wholeErr)
		}
	})
}
