package v4

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/accounts"
	"backstay/server/storage"
	"backstay/server/storage/memory"
	"backstay/server/storage/storagetest"
)

// home is a server that listens on loopback.
type home struct {
	tb       testing.TB
	server   *Server
	store    storage.Store
	accounts *accounts.Accounts
	pin      wire.Pin
	addr     string
	stop     func() // as a signal does
	// ahead is how far the clock of invitations is ahead, leapt what Clock says.
	ahead atomic.Int64
	leapt atomic.Bool
}

// reserved is the vault that the server keeps for itself.
var reserved = vault.ID{1, 2, 3}

func (h *home) Trusted() error {
	if h.leapt.Load() {
		return errors.New("it leapt")
	}
	return nil
}

func newHome(tb testing.TB, store storage.Store) *home {
	tb.Helper()
	if store == nil {
		store = memory.New(nil)
	}
	h := &home{tb: tb, store: store}
	var err error
	h.accounts, err = accounts.Open(tb.Context(), store, accounts.Options{
		Now:      func() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) },
		Reserved: []vault.ID{reserved},
	})
	if err != nil {
		tb.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	h.pin = wire.PinOf(key.Public().(ed25519.PublicKey))
	h.server = New(Options{Store: store, Accounts: h.accounts, Key: key, Clock: h, Program: "test"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	h.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { h.server.Serve(ctx, conn) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		l.Close()
		sessions.Wait()
	})
	return h
}

// connect makes a TLS connection with a key.
func (h *home) connect(key ed25519.PrivateKey) *tls.Conn {
	h.tb.Helper()
	conn, err := tls.Dial("tcp", h.addr, wire.ClientConfig(key, h.pin))
	if err != nil {
		h.tb.Fatal(err)
	}
	h.tb.Cleanup(func() { conn.Close() })
	return conn
}

// dial begins a session, or returns why there is none.
func (h *home) dial(key ed25519.PrivateKey) (*client, error) {
	conn := h.connect(key)
	c, err := mux.Connect(h.tb.Context(), conn)
	if err != nil {
		return nil, err
	}
	h.tb.Cleanup(func() { c.Close() })
	return &client{c, conn}, nil
}

func (h *home) mustDial(key ed25519.PrivateKey) *client {
	h.tb.Helper()
	c, err := h.dial(key)
	if err != nil {
		h.tb.Fatal(err)
	}
	return c
}

// client is a client that does what it is told, right or wrong.
type client struct {
	*mux.Client
	conn *tls.Conn
}

// exchange makes a request with data and returns the answer.
func (c *client) exchange(ctx context.Context, verb wire.Type, body, data []byte) (messages [][]byte, answer []byte, err error) {
	s, err := c.Open(ctx, verb, body, data != nil)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	if data != nil {
		// An error of writing says that there is an answer already.
		if _, err := s.Write(data); err == nil {
			s.CloseWrite()
		}
	}
	if verb == wire.TypeGet {
		if _, err := s.Message(); err != nil {
			return nil, nil, err
		}
		answer, err = io.ReadAll(s)
		return nil, answer, err
	}
	for {
		m, err := s.Message()
		if err == io.EOF {
			return messages, nil, nil
		}
		if err != nil {
			return messages, nil, err
		}
		messages = append(messages, slices.Clone(m))
	}
}

// ask makes a request and returns its messages.
func (c *client) ask(verb wire.Type, body []byte, objects ...[]byte) ([][]byte, error) {
	var data []byte
	if verb == wire.TypePut || verb == wire.TypeCommit {
		data = []byte{}
		for _, o := range objects {
			data = append(wire.AppendObjectHead(data, len(o)), o...)
		}
	}
	messages, _, err := c.exchange(context.Background(), verb, body, data)
	return messages, err
}

func (c *client) put(objects ...[]byte) error {
	_, err := c.ask(wire.TypePut, wire.AppendEmpty(nil), objects...)
	return err
}

func (c *client) have(tb testing.TB, objects ...[]byte) []bool {
	tb.Helper()
	m, err := c.ask(wire.TypeHave, wire.IDsRequest{IDs: identify(objects...)}.Append(nil))
	if err != nil {
		tb.Fatal(err)
	}
	a, err := wire.ParseHaveAnswer(m[0])
	if err != nil {
		tb.Fatal(err)
	}
	return a.Have
}

// get returns what the server has of the objects, by id; what is missing is not in
// it.
func (c *client) get(tb testing.TB, ids ...vault.ObjectID) map[vault.ObjectID][]byte {
	tb.Helper()
	s, err := c.Open(tb.Context(), wire.TypeGet, wire.IDsRequest{IDs: ids}.Append(nil), false)
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Message(); err != nil {
		tb.Fatal(err)
	}
	got := make(map[vault.ObjectID][]byte)
	for r := wire.NewGotReader(s); ; {
		o, state, err := r.Next(nil)
		if err == io.EOF {
			return got
		}
		if err != nil {
			tb.Fatal(err)
		}
		if _, twice := got[o.ID]; twice {
			tb.Fatalf("object %v twice", o.ID)
		}
		if state == wire.Stored {
			got[o.ID] = o.Data
		}
	}
}

func identify(objects ...[]byte) []vault.ObjectID {
	ids := make([]vault.ObjectID, len(objects))
	for i, o := range objects {
		ids[i] = vault.Identify(o)
	}
	return ids
}

// device is a device as its owner has it.
type device struct {
	h       *home
	id      *vault.Identity
	account string
	*client // of its session

	// What it knows as a member.
	root   *vault.Identity
	log    *vault.Members
	keys   *vault.Keyring
	seq    uint64
	prev   *vault.CommitHash
	stamp  []byte
	digest vault.Digest
	newest map[vault.PathID]version
}

// version is what the digest of a state knows of a path.
type version struct {
	parent vault.PathID
	record vault.ObjectID
}

func newIdentity(tb testing.TB, role vault.Role) *vault.Identity {
	tb.Helper()
	id, err := vault.NewIdentity(role, vault.NewKey())
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// invite makes an invitation.
func (h *home) invite(account string) wire.Invitation {
	h.tb.Helper()
	i, err := h.accounts.Invite(h.tb.Context(), account, time.Hour)
	if err != nil {
		h.tb.Fatal(err)
	}
	return i
}

// redeem enrols an identity on a session of its own.
func (h *home) redeem(id *vault.Identity, i wire.Invitation, change func(*wire.EnrollRequest)) error {
	h.tb.Helper()
	c := h.mustDial(id.TLS())
	defer c.Close()
	r := c.signEnroll(h.tb, i, id.Public())
	if change != nil {
		change(&r)
	}
	_, err := c.ask(wire.TypeEnroll, r.Append(nil))
	return err
}

func (c *client) signEnroll(tb testing.TB, i wire.Invitation, public vault.Public) wire.EnrollRequest {
	tb.Helper()
	e, err := wire.ExportEnroll(c.conn.ConnectionState())
	if err != nil {
		tb.Fatal(err)
	}
	return wire.SignEnroll(e, i, public, "laptop")
}

// enrol makes a device of an account, with a session.
func (h *home) enrol(account string) *device {
	h.tb.Helper()
	d := &device{h: h, id: newIdentity(h.tb, vault.RoleDevice), account: account, newest: make(map[vault.PathID]version)}
	if err := h.redeem(d.id, h.invite(account), nil); err != nil {
		h.tb.Fatal(err)
	}
	d.client = h.mustDial(d.id.TLS())
	return d
}

// found makes the account's vault with the device as its first member.
func (d *device) found() *device {
	d.h.tb.Helper()
	d.root = newIdentity(d.h.tb, vault.RoleRoot)
	d.log = vault.NewMembers(vault.NewID())
	d.extend(must(d.log.SignGenesis(d.root, time.Now())))
	d.keys = must(d.log.Unlock(d.root, vault.EntryHash{}))
	d.extend(must(d.log.SignAdd(d.root, d.keys, d.id.Public(), "laptop", time.Now())))
	return d
}

// extend appends an entry here and at the server.
func (d *device) extend(entry []byte) {
	d.h.tb.Helper()
	if err := d.log.Append(entry); err != nil {
		d.h.tb.Fatal(err)
	}
	if _, err := d.ask(wire.TypeMembers, wire.MembersRequest{Entry: entry}.Append(nil)); err != nil {
		d.h.tb.Fatal(err)
	}
}

// admit makes another device a member.
func (d *device) admit(other *device) *device {
	d.h.tb.Helper()
	d.extend(must(d.log.SignAdd(d.id, d.keys, other.id.Public(), "second", time.Now())))
	other.log, other.keys, other.root = d.log.Clone(), d.keys, d.root
	return other
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (d *device) path(name string) vault.PathID { return d.keys.Path(d.id.ID(), []byte(name)) }

// record is a record of the device's next commit that puts a path.
func (d *device) record(name string, refs ...[]byte) []byte {
	return storagetest.Record(vault.RecordHeader{
		Device: d.id.ID(), Seq: d.seq + 1, Path: d.path(name), Parent: d.path("/"), Op: vault.OpPut,
	}, refs...)
}

// state returns the digest after records of the device.
func (d *device) state(records ...[]byte) vault.Digest {
	sum := d.digest
	newest := make(map[vault.PathID]version)
	for _, r := range records {
		h, _, err := vault.ParseHeader(r)
		if err != nil || h.Record == nil {
			continue
		}
		path := h.Record.Path
		old, known := newest[path]
		if !known {
			old, known = d.newest[path]
		}
		if known {
			sum.Remove(path, old.parent, old.record)
		}
		now := version{h.Record.Parent, vault.Identify(r)}
		newest[path] = now
		sum.Add(path, now.parent, now.record)
	}
	return sum
}

// draft is the device's next commit, of records, before it is signed.
func (d *device) draft(records ...[]byte) vault.Commit {
	sum := d.state(records...)
	return vault.Commit{
		Device: d.id.ID(), Seq: d.seq + 1, Prev: d.prev, PrevStamp: d.stamp,
		Root: vault.RecordsRoot(identify(records...)), Count: len(records), Digest: sum.Sum(),
		Members: d.log.Head(), Time: time.Now(),
	}
}

func (d *device) sign(c vault.Commit) []byte {
	d.h.tb.Helper()
	raw, err := c.Sign(d.log.Vault(), d.id)
	if err != nil {
		d.h.tb.Fatal(err)
	}
	return raw
}

// send sends a commit and returns its stamp.
func (d *device) send(raw []byte, objects ...[]byte) ([]byte, error) {
	m, err := d.ask(wire.TypeCommit, wire.CommitRequest{Commit: raw}.Append(nil), objects...)
	if err != nil {
		return nil, err
	}
	a, err := wire.ParseCommitAnswer(m[0])
	return a.Stamp, err
}

// commit makes the device's next commit of records, with other objects before them.
func (d *device) commit(records [][]byte, others ...[]byte) error {
	raw := d.sign(d.draft(records...))
	stamp, err := d.send(raw, append(others, records...)...)
	if err != nil {
		return err
	}
	d.digest = d.state(records...)
	for _, r := range records {
		h, _, err := vault.ParseHeader(r)
		if err != nil {
			return err
		}
		d.newest[h.Record.Path] = version{h.Record.Parent, vault.Identify(r)}
	}
	d.seq++
	d.prev, d.stamp = new(vault.HashCommit(raw)), stamp
	return nil
}

// save commits one path with a chunk of its own.
func (d *device) save(name string) (record, chunk []byte) {
	d.h.tb.Helper()
	chunk = randomChunk(1000)
	record = d.record(name, chunk)
	if err := d.commit([][]byte{record}, chunk); err != nil {
		d.h.tb.Fatal(err)
	}
	return record, chunk
}

func randomChunk(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return storagetest.Chunk(b)
}
