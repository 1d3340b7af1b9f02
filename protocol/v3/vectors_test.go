package v3

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/iotest"

	"backstay/protocol/cksum"
)

// hexBytes is hexadecimal in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vectors is the content of vectors.json, which other implementations may use
// as well; testdata/v3/README.md describes it.
type vectors struct {
	Messages []struct {
		Name       string   `json:"name"`
		Dialect    Dialect  `json:"dialect"`
		Kind       string   `json:"kind"`
		HeaderID   hexBytes `json:"header_id"`
		DecodeOnly bool     `json:"decode_only"`
		Hex        hexBytes `json:"hex"`
		Message    struct {
			ClientID    hexBytes `json:"client_id"`
			Name        string   `json:"name"`
			PublicKey   hexBytes `json:"public_key"`
			WrappedKey  hexBytes `json:"wrapped_key"`
			ContentSize uint32   `json:"content_size"`
			OrigSize    uint32   `json:"orig_size"`
			Packet      uint16   `json:"packet"`
			Total       uint16   `json:"total"`
			Cksum       uint32   `json:"cksum"`
		} `json:"message"`
	} `json:"messages"`
	BadMessages []struct {
		Name      string   `json:"name"`
		Dialect   Dialect  `json:"dialect"`
		Direction string   `json:"direction"`
		Hex       hexBytes `json:"hex"`
		Error     string   `json:"error"`
		Remaining int64    `json:"remaining"`
	} `json:"bad_messages"`
	Content []struct {
		Name       string   `json:"name"`
		Key        hexBytes `json:"key"`
		Plain      hexBytes `json:"plain"`
		Ciphertext hexBytes `json:"ciphertext"`
		Cksum      uint32   `json:"cksum"`
	} `json:"content"`
	BadContent []struct {
		Name       string   `json:"name"`
		Key        hexBytes `json:"key"`
		Ciphertext hexBytes `json:"ciphertext"`
	} `json:"bad_content"`
}

func loadVectors(tb testing.TB) (v vectors) {
	b, err := os.ReadFile("../testdata/v3/vectors.json")
	if err != nil {
		tb.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		tb.Fatal(err)
	}
	return v
}

// seriesFor returns the setting under which a server takes both series for d
// where it can.
func seriesFor(d Dialect) Series {
	switch d {
	case Y2022, Y2023:
		return Series{S1100: d}
	case Late2023:
		return Series{S1025: d}
	}
	return Series{}
}

func kindNamed(tb testing.TB, name string) Kind {
	for k := Register; k <= GeneralError; k++ {
		if k.String() == name {
			return k
		}
	}
	tb.Fatalf("no kind %q", name)
	return 0
}

func TestMessageVectors(t *testing.T) {
	type cell struct {
		Dialect
		Kind
	}
	seen := map[cell]bool{}
	for _, v := range loadVectors(t).Messages {
		t.Run(v.Name, func(t *testing.T) {
			k := kindNamed(t, v.Kind)
			seen[cell{v.Dialect, k}] = true
			want := Message{
				Kind: k, Name: v.Message.Name,
				PublicKey: v.Message.PublicKey, WrappedKey: v.Message.WrappedKey,
				ContentSize: v.Message.ContentSize, OrigSize: v.Message.OrigSize,
				Packet: v.Message.Packet, Total: v.Message.Total, Cksum: v.Message.Cksum,
			}
			copy(want.ClientID[:], v.Message.ClientID)

			for _, r := range []io.Reader{bytes.NewReader(v.Hex), iotest.OneByteReader(bytes.NewReader(v.Hex))} {
				var got Message
				var err error
				if k.IsRequest() {
					var q Request
					q, err = ReadRequest(r, seriesFor(v.Dialect))
					got = q.Message
					if !bytes.Equal(q.Header.ClientID[:], v.HeaderID) || q.Dialect != v.Dialect {
						t.Errorf("header id %v, dialect %v", q.Header.ClientID, q.Dialect)
					}
					rest, _ := io.ReadAll(r)
					if int64(len(rest)) != q.Remaining || k == File && len(rest) != int(want.ContentSize) {
						t.Errorf("%d bytes left, Remaining %d", len(rest), q.Remaining)
					}
				} else {
					var p Response
					p, err = ReadResponse(r, v.Dialect)
					got = p.Message
					if rest, _ := io.ReadAll(r); len(rest) != 0 {
						t.Errorf("%d bytes left", len(rest))
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("decoded %+v\nwant    %+v", got, want)
				}
			}
			if v.DecodeOnly {
				return
			}
			var wire []byte
			var err error
			if k.IsRequest() {
				wire, err = v.Dialect.AppendRequest(nil, ClientID(v.HeaderID), want)
			} else {
				wire, err = v.Dialect.AppendResponse(nil, want)
			}
			if err != nil {
				t.Fatal(err)
			}
			if k == File {
				wire = append(wire, v.Hex[len(v.Hex)-int(want.ContentSize):]...)
			}
			if !bytes.Equal(wire, v.Hex) {
				t.Errorf("encoded %x\nwant    %x", wire, v.Hex)
			}
		})
	}
	for d := Documented; d <= Late2023; d++ {
		for k := Register; k <= GeneralError; k++ {
			if _, ok := d.Code(k); ok != seen[cell{d, k}] {
				t.Errorf("%v %v: in the table %v, in the vectors %v", d, k, ok, seen[cell{d, k}])
			}
		}
	}
}

func TestBadMessageVectors(t *testing.T) {
	classes := map[string]error{
		"version": ErrVersion, "code": ErrCode, "size": ErrSize, "name": ErrName,
		"eof": io.EOF, "truncated": io.ErrUnexpectedEOF,
	}
	inStep := map[string]bool{"code": true, "size": true, "name": true}
	for _, v := range loadVectors(t).BadMessages {
		t.Run(v.Name, func(t *testing.T) {
			want, ok := classes[v.Error]
			if !ok {
				t.Fatalf("unknown class %q", v.Error)
			}
			r := iotest.HalfReader(bytes.NewReader(v.Hex))
			if v.Direction == "response" {
				if _, err := ReadResponse(r, v.Dialect); !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
				return
			}
			q, err := ReadRequest(r, seriesFor(v.Dialect))
			if !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
			if InStep(err) != inStep[v.Error] {
				t.Errorf("InStep(%v) = %v", err, !inStep[v.Error])
			}
			if (inStep[v.Error] || v.Error == "version") && q.Remaining != v.Remaining {
				t.Errorf("Remaining = %d, want %d", q.Remaining, v.Remaining)
			}
		})
	}
}

func TestContentVectors(t *testing.T) {
	v := loadVectors(t)
	for _, v := range v.Content {
		t.Run(v.Name, func(t *testing.T) {
			if got := CiphertextSize(int64(len(v.Plain))); got != int64(len(v.Ciphertext)) {
				t.Errorf("CiphertextSize = %d, want %d", got, len(v.Ciphertext))
			}
			if got := cksum.Sum32(v.Plain); got != v.Cksum {
				t.Errorf("cksum = %d, want %d", got, v.Cksum)
			}
			e, err := NewEncrypter(bytes.NewReader(v.Plain), sessionKey(v.Key))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(e); err != nil || !bytes.Equal(got, v.Ciphertext) {
				t.Errorf("encrypted %x, %v, want %x", got, err, v.Ciphertext)
			}
			if got, err := decrypt(v.Key, v.Ciphertext); err != nil || !bytes.Equal(got, v.Plain) {
				t.Errorf("decrypted %x, %v, want %x", got, err, v.Plain)
			}
		})
	}
	for _, v := range v.BadContent {
		t.Run(v.Name, func(t *testing.T) {
			if got, err := decrypt(v.Key, v.Ciphertext); !errors.Is(err, ErrCiphertext) {
				t.Errorf("decrypted %x, error %v, want %v", got, err, ErrCiphertext)
			}
		})
	}
}

func decrypt(key, ciphertext []byte) ([]byte, error) {
	var out bytes.Buffer
	d, err := NewDecrypter(&out, sessionKey(key))
	if err != nil {
		return nil, err
	}
	if _, err := d.Write(ciphertext); err != nil {
		return nil, err
	}
	err = d.Close()
	return out.Bytes(), err
}
