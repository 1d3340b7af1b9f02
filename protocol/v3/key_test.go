package v3

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
)

func newKey(tb testing.TB) PrivateKey {
	k, err := GenerateKey()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestGeneratedKey(t *testing.T) {
	for range 3 {
		k := newKey(t)
		pub, err := k.PublicDER()
		if err != nil || len(pub) != PublicKeySize {
			t.Fatalf("public key of %d bytes, %v", len(pub), err)
		}
		if k.rsa.E != 17 || k.rsa.N.BitLen() != 1024 {
			t.Errorf("e = %d, %d bits", k.rsa.E, k.rsa.N.BitLen())
		}
		der, err := k.MarshalPKCS8()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePrivateKey(der)
		if err != nil || !back.rsa.Equal(k.rsa) {
			t.Errorf("PKCS#8 does not round-trip: %v", err)
		}
	}
}

func TestParsePublicKey(t *testing.T) {
	k := newKey(t)
	own, err := k.PublicDER()
	if err != nil {
		t.Fatal(err)
	}
	with := func(n *big.Int, e int) []byte {
		b, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: e})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	n := k.rsa.N
	for _, v := range []struct {
		name  string
		field []byte
		e     int
	}{
		{"own", own, 17},
		{"exponent 3", with(n, 3), 3},
		{"exponent 65537", with(n, 65537), 65537},
		{"own in a wide field", append(bytes.Clone(own), 0, 0), 17},
		{"own before anything", append(bytes.Clone(own), 0xff, 0x30), 17},
	} {
		t.Run(v.name, func(t *testing.T) {
			pub, err := ParsePublicKey(v.field)
			if err != nil || pub.E != v.e || pub.N.Cmp(n) != 0 {
				t.Errorf("ParsePublicKey = %v, %v", pub, err)
			}
		})
	}

	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(own)
	damaged[10] ^= 1
	for _, v := range []struct {
		name  string
		field []byte
	}{
		{"nothing", nil},
		{"zeros", make([]byte, 160)},
		{"cut", own[:159]},
		{"damaged", damaged},
		{"a field that is cut", with(n, 65537)[:160]},
		{"exponent 1", with(n, 1)},
		{"exponent 5", with(n, 5)},
		{"exponent 16", with(n, 16)},
		{"1023 bits", with(new(big.Int).Rsh(n, 1), 17)},
		{"1025 bits", with(new(big.Int).Lsh(n, 1), 17)},
		{"elliptic curve", ecDER},
		{"PKCS#1", x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)},
	} {
		t.Run(v.name, func(t *testing.T) {
			if pub, err := ParsePublicKey(v.field); !errors.Is(err, ErrKey) {
				t.Errorf("ParsePublicKey = %v, %v, want %v", pub, err, ErrKey)
			}
		})
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	der, err := newKey(t).MarshalPKCS8()
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	longDER, err := x509.MarshalPKCS8PrivateKey(long)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		name string
		der  []byte
	}{
		{"nothing", nil},
		{"seed of another protocol", make([]byte, 32)},
		{"cut", der[:len(der)-1]},
		{"trailing byte", append(bytes.Clone(der), 0)},
		{"2048 bits", longDER},
		{"elliptic curve", ecDER},
	} {
		t.Run(v.name, func(t *testing.T) {
			if _, err := ParsePrivateKey(v.der); !errors.Is(err, ErrKey) {
				t.Errorf("error %v, want %v", err, ErrKey)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	for _, size := range []int{16, 32} {
		for _, h := range []OAEPHash{SHA256, SHA1} {
			t.Run(fmt.Sprint(size, h), func(t *testing.T) {
				s, err := NewSessionKey(size)
				if err != nil {
					t.Fatal(err)
				}
				w, err := s.Wrap(&k.rsa.PublicKey, h)
				if err != nil || len(w) != WrappedKeySize {
					t.Fatalf("wrapped to %d bytes, %v", len(w), err)
				}
				back, hash, err := k.Unwrap(w)
				if err != nil || hash != h || !bytes.Equal(back.bytes(), s.bytes()) {
					t.Errorf("Unwrap = %v, %v", hash, err)
				}
				if _, _, err := stranger.Unwrap(w); !errors.Is(err, ErrKey) {
					t.Errorf("a stranger's Unwrap: %v", err)
				}
				w[77] ^= 1
				if _, _, err := k.Unwrap(w); !errors.Is(err, ErrKey) {
					t.Errorf("Unwrap of a damaged key: %v", err)
				}
				if _, _, err := k.Unwrap(w[:127]); !errors.Is(err, ErrKey) {
					t.Errorf("Unwrap of a cut key: %v", err)
				}
			})
		}
	}
	w, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.rsa.PublicKey, make([]byte, 24), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Unwrap(w); !errors.Is(err, ErrKey) {
		t.Errorf("Unwrap of 24 bytes: %v", err)
	}
	if _, err := NewSessionKey(24); !errors.Is(err, ErrKey) {
		t.Errorf("NewSessionKey(24): %v", err)
	}
	if _, err := (SessionKey{}).Wrap(&k.rsa.PublicKey, SHA1); !errors.Is(err, ErrKey) {
		t.Errorf("Wrap of no key: %v", err)
	}
	if _, err := NewEncrypter(nil, SessionKey{}); !errors.Is(err, ErrKey) {
		t.Errorf("NewEncrypter without key: %v", err)
	}
	if _, err := NewDecrypter(nil, SessionKey{}); !errors.Is(err, ErrKey) {
		t.Errorf("NewDecrypter without key: %v", err)
	}
}

func TestKeysNeverPrint(t *testing.T) {
	k := newKey(t)
	s := sessionKey([]byte("0123456789abcdef"))
	type session struct {
		Key     SessionKey
		Private PrivateKey
		key     SessionKey
		private PrivateKey
	}
	v := session{s, k, s, k}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&out, verb, s)
		fmt.Fprintf(&out, verb, &s)
		fmt.Fprintf(&out, verb, k)
		fmt.Fprintf(&out, verb, v)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "a", s, "b", k, "c", v)
	d := k.rsa.D.String()
	for _, leak := range []string{
		"0123456789abcdef", fmt.Sprintf("%x", "0123456789"), "48 49 50", "0x30, 0x31", d, d[:30], k.rsa.D.Text(16)[:30],
	} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q shows in %q", leak, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing printed")
	}
}
