package v3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

// testKey is one RSA key for all clients that do not care: making one is slow.
var testKey = sync.OnceValue(func() wire.PrivateKey {
	k, err := wire.GenerateKey()
	if err != nil {
		panic(err)
	}
	return k
})

// wideKeyOnce makes one key with the exponent 65537.
var wideKeyOnce = sync.OnceValues(func() (wire.PrivateKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		return wire.PrivateKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return wire.PrivateKey{}, err
	}
	return wire.ParsePrivateKey(der)
})

func testKeys() *vault.Keyring {
	return vault.NewKeyring(vault.ID{1}, vault.Key{2})
}

// open returns an area, on a new store in memory if store is nil.
func open(t testing.TB, store storage.Store, o Options) *Area {
	t.Helper()
	if store == nil {
		store = memory.New(nil)
	}
	a, err := Open(t.Context(), store, testKeys(), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// client speaks the client's side over one connection. Its methods end the test
// when the session does not go as they say.
type client struct {
	t    testing.TB
	d    wire.Dialect
	conn net.Conn
	r    *bufio.Reader
	priv wire.PrivateKey
	id   wire.ClientID
	key  wire.SessionKey
	hash wire.OAEPHash // of the last key exchange
	// served has the outcome of Serve.
	served chan error
}

// dial starts a session of a.
func dial(t testing.TB, a *Area, d wire.Dialect) *client {
	t.Helper()
	here, there := net.Pipe()
	c := &client{t: t, d: d, conn: here, r: bufio.NewReader(here), priv: testKey(), served: make(chan error, 1)}
	go func() { c.served <- a.Serve(context.Background(), there) }()
	t.Cleanup(func() { here.Close() })
	return c
}

// ready starts a session of a new client with its keys exchanged.
func ready(t testing.TB, a *Area, d wire.Dialect, name string) *client {
	t.Helper()
	c := dial(t, a, d)
	c.register(name)
	c.exchange(name)
	return c
}

// close ends the session and returns what Serve did.
func (c *client) close() error {
	c.t.Helper()
	c.conn.Close()
	return c.end()
}

// end waits for the server to end the session.
func (c *client) end() error {
	c.t.Helper()
	select {
	case err := <-c.served:
		return err
	case <-time.After(time.Minute):
		c.t.Fatal("the session does not end")
		return nil
	}
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// request is a request and the content behind it, as bytes.
func (c *client) request(m wire.Message, content ...byte) []byte {
	c.t.Helper()
	b, err := c.d.AppendRequest(nil, c.id, m)
	if err != nil {
		c.t.Fatal(err)
	}
	return append(b, content...)
}

// answer reads the next response, which must be of kind k.
func (c *client) answer(k wire.Kind) wire.Message {
	c.t.Helper()
	p, err := wire.ReadResponse(c.r, c.d)
	if err != nil {
		c.t.Fatalf("want %v: %v", k, err)
	}
	if p.Message.Kind != k {
		c.t.Fatalf("answer is %v, want %v", p.Message.Kind, k)
	}
	return p.Message
}

func (c *client) ask(m wire.Message, k wire.Kind) wire.Message {
	c.t.Helper()
	c.write(c.request(m))
	return c.answer(k)
}

func (c *client) register(name string) {
	c.t.Helper()
	c.id = c.ask(wire.Message{Kind: wire.Register, Name: name}, wire.Registered).ClientID
}

func (c *client) publicKey(name string) wire.Message {
	c.t.Helper()
	der, err := c.priv.PublicDER()
	if err != nil {
		c.t.Fatal(err)
	}
	return wire.Message{Kind: wire.PublicKey, Name: name, PublicKey: der}
}

func (c *client) exchange(name string) {
	c.t.Helper()
	c.unwrap(c.ask(c.publicKey(name), wire.AESKey))
}

func (c *client) unwrap(m wire.Message) {
	c.t.Helper()
	var err error
	if c.key, c.hash, err = c.priv.Unwrap(m.WrappedKey); err != nil {
		c.t.Fatal(err)
	}
	c.id = m.ClientID
}

func (c *client) encrypt(data []byte) []byte {
	c.t.Helper()
	e, err := wire.NewEncrypter(bytes.NewReader(data), c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(e)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// packets cuts a file into total packets, each with header and content.
func (c *client) packets(name string, data []byte, total int) [][]byte {
	c.t.Helper()
	sealed := c.encrypt(data)
	size := (len(sealed) + total - 1) / total
	var out [][]byte
	for part := range slices.Chunk(sealed, size) {
		m := wire.Message{
			Kind: wire.File, ClientID: c.id, Name: name, ContentSize: uint32(len(part)),
			OrigSize: uint32(len(data)), Packet: uint16(len(out) + 1), Total: uint16(total),
		}
		out = append(out, c.request(m, part...))
	}
	return out
}

// send sends a file in one packet and checks the answer.
func (c *client) send(name string, data []byte) {
	c.t.Helper()
	c.write(c.packets(name, data, 1)[0])
	c.received(name, data)
}

func (c *client) received(name string, data []byte) {
	c.t.Helper()
	m := c.answer(wire.FileReceived)
	want := wire.Message{
		Kind: wire.FileReceived, ClientID: c.id, Name: name,
		ContentSize: uint32(wire.CiphertextSize(int64(len(data)))), Cksum: cksum.Sum32(data),
	}
	if m.ClientID != want.ClientID || m.Name != want.Name || m.ContentSize != want.ContentSize || m.Cksum != want.Cksum {
		c.t.Fatalf("answer is %+v, want %+v", m, want)
	}
}

func (c *client) verdict(k wire.Kind, name string) wire.Message {
	m := wire.Message{Kind: k, Name: name}
	if c.d == wire.Y2022 && name != "" {
		m.ClientID = c.id
	}
	return m
}

func (c *client) valid(name string) {
	c.t.Helper()
	c.ask(c.verdict(wire.ChecksumValid, name), wire.Acknowledged)
}

// files lists an area by client and file name; no entry may be an error.
func files(t testing.TB, a *Area) map[string]File {
	t.Helper()
	m := map[string]File{}
	for f, err := range a.Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		m[f.Client+"/"+f.Name] = f
	}
	return m
}

// wantFile checks what Get gives; nil data says that there must be no such file.
func wantFile(t testing.TB, a *Area, client, name string, data []byte) {
	t.Helper()
	var b bytes.Buffer
	err := a.Get(t.Context(), client, name, &b)
	switch {
	case data == nil:
		if !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("get %s: %v, want not found", name, err)
		}
	case err != nil:
		t.Fatalf("get %s: %v", name, err)
	case !bytes.Equal(b.Bytes(), data):
		t.Fatalf("get %s: %d bytes, not those %d that were sent", name, b.Len(), len(data))
	}
}

// fill returns n bytes that tell their place.
func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*57
	}
	return b
}
