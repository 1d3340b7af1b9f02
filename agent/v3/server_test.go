package v3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
)

// A server is a small version 3 server of one family. What it answers can be
// bent request by request; what a client does wrong fails the test.
type server struct {
	t       testing.TB
	family  wire.Dialect
	hash    wire.OAEPHash
	keySize int  // 0 means 32
	oneByte bool // reads and writes single bytes
	discard bool // keeps no content

	// foreign is the reaction to a request of the other family; nil answers
	// with a general error of its own and goes on.
	foreign *reaction
	// early is the reaction to the head of a file, before its content is read.
	early *reaction
	// react changes the reaction to the nth request of a kind, from 1.
	react func(k wire.Kind, nth int, r *reaction)

	mu      sync.Mutex // guards everything below
	clients map[wire.ClientID]*client
	files   map[string][]byte
	packets map[string]int
	kinds   []wire.Kind // of every request understood
	codes   []uint16    // of every connection's first request
}

type client struct {
	name string
	key  *rsa.PublicKey
}

// A reaction is what a server does about one request, in this order.
type reaction struct {
	answers []wire.Message
	raw     []byte
	hold    bool // says nothing more until the client leaves
	close   bool
}

// listen returns the address of a loopback port where s serves until the test
// ends.
func (s *server) listen() string {
	t := s.t
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			wg.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		wg.Wait()
	})
	return l.Addr().String()
}

// pipe is an Options.Dial to s without a network. The serving goroutine ends
// with the connection.
func (s *server) pipe(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go s.serve(theirs)
	return ours, nil
}

type oneByteWriter struct{ w io.Writer }

func (o oneByteWriter) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := o.w.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// serve is one connection of one client.
func (s *server) serve(conn net.Conn) {
	defer conn.Close()
	r, w := io.Reader(bufio.NewReaderSize(conn, 64<<10)), io.Writer(conn)
	if s.oneByte {
		r, w = iotest.OneByteReader(conn), oneByteWriter{conn}
	}
	var key wire.SessionKey
	var file received
	for first := true; ; first = false {
		q, err := wire.ReadRequest(r, wire.Series{})
		if err != nil {
			if !errors.Is(err, io.EOF) && wire.InStep(err) {
				s.t.Errorf("server: bad request: %v", err)
			}
			return
		}
		if first {
			s.mu.Lock()
			s.codes = append(s.codes, q.Header.Code)
			s.mu.Unlock()
		}
		if q.Dialect != s.family {
			rc := reaction{answers: []wire.Message{{Kind: wire.GeneralError}}}
			if s.foreign != nil {
				rc = *s.foreign
			}
			if _, err := io.CopyN(io.Discard, r, q.Remaining); err != nil || !s.perform(conn, w, rc) {
				return
			}
			continue
		}
		k := q.Message.Kind
		if k == wire.File {
			if s.early != nil && !s.perform(conn, w, *s.early) {
				return
			}
			last, err := file.packet(s, q, r, key)
			if err != nil {
				return
			}
			if !last {
				continue
			}
		}
		rc := s.answer(q, &key, &file)
		s.mu.Lock()
		s.kinds = append(s.kinds, k)
		nth := 0
		for _, seen := range s.kinds {
			if seen == k {
				nth++
			}
		}
		s.mu.Unlock()
		if s.react != nil {
			s.react(k, nth, &rc)
		}
		if !s.perform(conn, w, rc) {
			return
		}
	}
}

// perform reports whether the connection goes on.
func (s *server) perform(conn net.Conn, w io.Writer, rc reaction) bool {
	var b []byte
	for _, m := range rc.answers {
		var err error
		if b, err = s.family.AppendResponse(b, m); err != nil {
			s.t.Errorf("server: %v", err)
			return false
		}
	}
	b = append(b, rc.raw...)
	if _, err := w.Write(b); err != nil {
		return false
	}
	if rc.hold {
		var one [1]byte
		for {
			if _, err := conn.Read(one[:]); err != nil {
				return false
			}
		}
	}
	return !rc.close
}

// answer is what a good server says to q.
func (s *server) answer(q wire.Request, key *wire.SessionKey, file *received) reaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil {
		s.clients = make(map[wire.ClientID]*client)
	}
	say := func(m wire.Message) reaction { return reaction{answers: []wire.Message{m}} }
	c, id := s.clients[q.Header.ClientID], q.Header.ClientID
	switch m := q.Message; m.Kind {
	case wire.Register:
		for _, c := range s.clients {
			if c.name == m.Name {
				return say(wire.Message{Kind: wire.RegistrationRefused})
			}
		}
		id := wire.NewClientID()
		s.clients[id] = &client{name: m.Name}
		return say(wire.Message{Kind: wire.Registered, ClientID: id})
	case wire.Reconnect:
		if c == nil || c.name != m.Name || c.key == nil {
			return say(wire.Message{Kind: wire.ReconnectRefused, ClientID: id})
		}
		return say(s.newKey(wire.ReconnectAccepted, id, c, key))
	case wire.PublicKey:
		pub, err := wire.ParsePublicKey(m.PublicKey)
		if err != nil || c == nil || c.name != m.Name {
			s.t.Errorf("server: public key of %v: %v", c, err)
			return say(wire.Message{Kind: wire.GeneralError})
		}
		c.key = pub
		return say(s.newKey(wire.AESKey, id, c, key))
	case wire.File:
		return say(file.confirm(s, id))
	case wire.ChecksumResending:
		return reaction{}
	default:
		return say(wire.Message{Kind: wire.Acknowledged, ClientID: id})
	}
}

func (s *server) newKey(k wire.Kind, id wire.ClientID, c *client, key *wire.SessionKey) wire.Message {
	size := s.keySize
	if size == 0 {
		size = 32
	}
	var err error
	if *key, err = wire.NewSessionKey(size); err != nil {
		s.t.Errorf("server: %v", err)
	}
	wrapped, err := key.Wrap(c.key, s.hash)
	if err != nil {
		s.t.Errorf("server: %v", err)
	}
	return wire.Message{Kind: k, ClientID: id, WrappedKey: wrapped}
}

// A received file, on its way in.
type received struct {
	name    string
	packets int
	asm     wire.Assembly
	plain   bytes.Buffer
	sum     *cksum.Digest
	dec     *wire.Decrypter
}

func (f *received) packet(s *server, q wire.Request, r io.Reader, key wire.SessionKey) (last bool, err error) {
	if f.packets == 0 {
		*f = received{name: q.Message.Name, sum: cksum.New()}
		w := io.MultiWriter(f.sum, &f.plain)
		if s.discard {
			w = f.sum
		}
		if f.dec, err = wire.NewDecrypter(w, key); err != nil {
			s.t.Errorf("server: file before key: %v", err)
			return false, err
		}
	}
	f.packets++
	if last, err = f.asm.Add(s.family, q.Message); err != nil {
		s.t.Errorf("server: %v", err)
		return false, err
	}
	if _, err := io.CopyN(f.dec, r, q.Remaining); err != nil {
		return false, err
	}
	if last {
		if err := errors.Join(f.dec.Close(), f.asm.CheckPlain(f.dec.Plain())); err != nil {
			s.t.Errorf("server: %v", err)
		}
	}
	return last, nil
}

// confirm keeps the complete file. s.mu is held.
func (f *received) confirm(s *server, id wire.ClientID) wire.Message {
	if s.files == nil {
		s.files, s.packets = make(map[string][]byte), make(map[string]int)
	}
	s.files[f.name] = bytes.Clone(f.plain.Bytes())
	s.packets[f.name] = f.packets
	f.packets = 0
	return wire.Message{Kind: wire.FileReceived, ClientID: id, ContentSize: f.asm.ContentSize(), Name: f.name, Cksum: f.sum.Sum32()}
}

func (s *server) file(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[name]
}

// seen returns the kinds of request so far.
func (s *server) seen() []wire.Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kinds)
}

func (s *server) firstCodes() []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.codes)
}
