package v3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"

	"backstay/protocol/cksum"
	"backstay/protocol/info"
)

// TestCaptures follows the recorded sessions of existing programs step by
// step: both directions parse completely and encode to the same bytes, the AES
// key opens, the file decrypts, and all checksums agree.
func TestCaptures(t *testing.T) {
	for _, v := range []struct {
		dir      string
		dialect  Dialect
		hash     OAEPHash
		requests []Kind
	}{
		{"field-sha256", Field, SHA256, []Kind{Register, PublicKey, File}},
		{"field-sha1", Field, SHA1, []Kind{Register, PublicKey, File, ChecksumValid}},
		{"2022", Y2022, SHA1, []Kind{Register, PublicKey, File, ChecksumValid}},
		{"2023", Y2023, SHA1, []Kind{Register, PublicKey, File, ChecksumValid}},
		{"late2023", Late2023, SHA1, []Kind{Register, PublicKey, File, ChecksumValid}},
	} {
		t.Run(v.dir, func(t *testing.T) {
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join("../testdata/v3", v.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			up, down, plain := read("client-to-server.bin"), read("server-to-client.bin"), read("plain.bin")
			me, err := info.ParseMe(read("me.info"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := ParsePrivateKey(me.Key)
			if err != nil {
				t.Fatal(err)
			}

			requests := map[Kind]Message{}
			var kinds []Kind
			var ciphertext bytes.Buffer
			var again []byte
			r := iotest.HalfReader(bytes.NewReader(up))
			for {
				q, err := ReadRequest(r, seriesFor(v.dialect))
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if q.Dialect != v.dialect {
					t.Errorf("%v read as %v", q.Message.Kind, q.Dialect)
				}
				kinds = append(kinds, q.Message.Kind)
				requests[q.Message.Kind] = q.Message
				again = q.Header.Append(again)
				if again, err = q.Dialect.AppendPayload(again, q.Message); err != nil {
					t.Fatal(err)
				}
				if q.Message.Kind == File {
					if _, err := io.CopyN(&ciphertext, r, q.Remaining); err != nil {
						t.Fatal(err)
					}
					again = append(again, ciphertext.Bytes()...)
				}
			}
			if !slices.Equal(kinds, v.requests) {
				t.Errorf("requests %v, want %v", kinds, v.requests)
			}
			if !bytes.Equal(again, up) {
				t.Error("the requests encode to other bytes")
			}

			responses := map[Kind]Message{}
			again = nil
			r = iotest.OneByteReader(bytes.NewReader(down))
			for {
				p, err := ReadResponse(r, v.dialect)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				responses[p.Message.Kind] = p.Message
				if again, err = v.dialect.AppendResponse(again, p.Message); err != nil {
					t.Fatal(err)
				}
			}
			if len(responses) != len(v.requests) {
				t.Errorf("%d responses to %d requests", len(responses), len(v.requests))
			}
			if !bytes.Equal(again, down) {
				t.Error("the responses encode to other bytes")
			}
			if id := responses[Registered].ClientID; id != ClientID(me.ID) {
				t.Errorf("registered as %v, me.info says %x", id, me.ID)
			}

			pub, err := ParsePublicKey(requests[PublicKey].PublicKey)
			if err != nil || !pub.Equal(&key.rsa.PublicKey) {
				t.Errorf("ParsePublicKey = %v, not the key of me.info", err)
			}
			if der, err := key.PublicDER(); err != nil || !bytes.Equal(der, requests[PublicKey].PublicKey) {
				t.Errorf("PublicDER = %x, %v", der, err)
			}
			if der, err := key.MarshalPKCS8(); err != nil || !bytes.Equal(der, me.Key) {
				t.Errorf("MarshalPKCS8 gives %d other bytes, %v", len(der), err)
			}

			aes, hash, err := key.Unwrap(responses[AESKey].WrappedKey)
			if err != nil {
				t.Fatal(err)
			}
			if hash != v.hash || hash != v.dialect.OAEP(v.hash) || len(aes.bytes()) != v.dialect.KeySize() {
				t.Errorf("unwrapped %d bytes with %v", len(aes.bytes()), hash)
			}

			var a Assembly
			if last, err := a.Add(v.dialect, requests[File]); err != nil || !last {
				t.Errorf("Add = %v, %v", last, err)
			}
			got, err := decrypt(aes.bytes(), ciphertext.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, plain) {
				t.Error("the file decrypts to something else")
			}
			if err := a.CheckPlain(int64(len(got))); err != nil {
				t.Error(err)
			}
			e, err := NewEncrypter(bytes.NewReader(plain), aes)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := io.ReadAll(e); err != nil || !bytes.Equal(back, ciphertext.Bytes()) {
				t.Errorf("the file encrypts to something else, %v", err)
			}

			received := responses[FileReceived]
			if received.ContentSize != a.ContentSize() || received.Name != requests[File].Name {
				t.Errorf("file received: %+v", received)
			}
			if sum := cksum.Sum32(got); received.Cksum != sum {
				t.Errorf("cksum %d, the server said %d", sum, received.Cksum)
			}
			if sum, ok := systemCksum(t, plain); ok && sum != received.Cksum {
				t.Errorf("cksum(1) says %d, the server said %d", sum, received.Cksum)
			}
		})
	}
}

// systemCksum asks the program cksum, which must be there under
// BACKSTAY_REQUIRE=all.
func systemCksum(t *testing.T, b []byte) (sum uint32, ok bool) {
	path, err := exec.LookPath("cksum")
	if err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Error(err)
		}
		return 0, false
	}
	cmd := exec.Command(path)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(out), &sum); err != nil {
		t.Fatalf("cksum printed %q", out)
	}
	return sum, true
}
