package v4

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

func keyOf(first byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(fill(32, first)) }

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// handshake returns what both sides make of a connection, with an exchange of a byte
// so that each has seen the other's verdict.
func handshake(t *testing.T, client, server *tls.Config) (c, s tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	cc, sc := tls.Client(a, client), tls.Server(b, server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		if serverErr = sc.Handshake(); serverErr == nil {
			_, serverErr = sc.Write([]byte{1})
			s = sc.ConnectionState()
		}
	}()
	if clientErr = cc.Handshake(); clientErr == nil {
		_, clientErr = cc.Read(make([]byte, 1))
		c = cc.ConnectionState()
	}
	a.Close()
	<-done
	return
}

func TestHandshake(t *testing.T) {
	client, server := keyOf(1), keyOf(2)
	c, s, cerr, serr := handshake(t, ClientConfig(client, PinOf(public(server))), ServerConfig(server))
	if cerr != nil || serr != nil {
		t.Fatal(cerr, serr)
	}
	if c.Version != tls.VersionTLS13 || c.CurveID != tls.X25519MLKEM768 || c.DidResume {
		t.Errorf("TLS %x, curve %v", c.Version, c.CurveID)
	}
	if key, err := PeerKey(c); err != nil || !key.Equal(public(server)) {
		t.Errorf("client sees %x, %v", key, err)
	}
	if key, err := PeerKey(s); err != nil || !key.Equal(public(client)) {
		t.Errorf("server sees %x, %v", key, err)
	}
	a, aerr := ExportEnroll(c)
	b, berr := ExportEnroll(s)
	if aerr != nil || berr != nil || len(a) != 32 || !bytes.Equal(a, b) {
		t.Errorf("exporters %x and %x, %v, %v", a, b, aerr, berr)
	}
	c2, _, _, _ := handshake(t, ClientConfig(client, PinOf(public(server))), ServerConfig(server))
	if other, _ := ExportEnroll(c2); bytes.Equal(a, other) {
		t.Error("two connections have one exporter")
	}
}

func TestHandshakeRefuses(t *testing.T) {
	client, server := keyOf(1), keyOf(2)
	pin := PinOf(public(server))
	with := func(c *tls.Config, change func(*tls.Config)) *tls.Config {
		change(c)
		return c
	}
	show := func(certs ...[]byte) func(*tls.Config) {
		return func(c *tls.Config) { c.Certificates[0].Certificate = certs }
	}
	own := certificate(client).Certificate[0]
	for _, tt := range []struct {
		name           string
		client, server *tls.Config
		clientErr      error // wrapped; nil for any
		serverErr      error
	}{
		{"another server", ClientConfig(client, PinOf(public(client))), ServerConfig(server), ErrPin, nil},
		{"TLS 1.2", with(ClientConfig(client, pin), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), ServerConfig(server), nil, nil},
		{"client without certificate", with(ClientConfig(client, pin), func(c *tls.Config) { c.Certificates = nil }), ServerConfig(server), nil, nil},
		{"client without ALPN", with(ClientConfig(client, pin), func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil }), ServerConfig(server), nil, ErrALPN},
		{"client with another ALPN", with(ClientConfig(client, pin), func(c *tls.Config) { c.NextProtos = []string{"h2"} }), ServerConfig(server), nil, nil},
		{"server without ALPN", ClientConfig(client, pin), with(ServerConfig(server), func(c *tls.Config) { c.NextProtos = nil }), ErrALPN, nil},
		{"two certificates", with(ClientConfig(client, pin), show(own, own)), ServerConfig(server), nil, ErrCertificate},
		{"signed by another", with(ClientConfig(client, pin), show(signedBy(t, public(client), keyOf(9)))), ServerConfig(server), nil, ErrCertificate},
		{"ECDSA client", with(ClientConfig(client, pin), present(t, ecdsaKey(t))), ServerConfig(server), nil, ErrCertificate},
		{"RSA client", with(ClientConfig(client, pin), present(t, rsaKey(t))), ServerConfig(server), nil, ErrCertificate},
		{"ECDSA server", ClientConfig(client, pin), with(ServerConfig(server), present(t, ecdsaKey(t))), ErrCertificate, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, cerr, serr := handshake(t, tt.client, tt.server)
			if cerr == nil && serr == nil {
				t.Fatal("it was accepted")
			}
			if tt.clientErr != nil && !errors.Is(cerr, tt.clientErr) {
				t.Errorf("client: %v, want %v", cerr, tt.clientErr)
			}
			if tt.serverErr != nil && !errors.Is(serr, tt.serverErr) {
				t.Errorf("server: %v, want %v", serr, tt.serverErr)
			}
		})
	}
}

func TestPinError(t *testing.T) {
	want, server := PinOf(public(keyOf(1))), keyOf(2)
	_, _, err, _ := handshake(t, ClientConfig(keyOf(1), want), ServerConfig(server))
	if e, ok := errors.AsType[*PinError](err); !ok || e.Want != want || e.Got != PinOf(public(server)) {
		t.Errorf("got %v", err)
	}
}

func TestPin(t *testing.T) {
	// SHA-256 of the fixed beginning of an Ed25519 SubjectPublicKeyInfo (RFC 8410)
	// and 32 zero bytes.
	const want = "722abd12e99a5367f375aeb9672a8e07712e03c2add16fa8d6914d1cfa2efe0c"
	if got := PinOf(make([]byte, 32)); got.String() != want {
		t.Errorf("pin is %v", got)
	}
	var p Pin
	if err := p.UnmarshalText([]byte(want)); err != nil || p.String() != want {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{"", want[1:], want + "0", "x" + want[1:]} {
		if err := p.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCertificateIsConstant(t *testing.T) {
	a, b := certificate(keyOf(1)), certificate(keyOf(1))
	if !bytes.Equal(a.Certificate[0], b.Certificate[0]) {
		t.Errorf("%s\n%s", hex.EncodeToString(a.Certificate[0]), hex.EncodeToString(b.Certificate[0]))
	}
}

func signedBy(t *testing.T, key any, by crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func present(t *testing.T, key crypto.Signer) func(*tls.Config) {
	der := signedBy(t, key.Public(), key)
	return func(c *tls.Config) { c.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}} }
}

func ecdsaKey(t *testing.T) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
