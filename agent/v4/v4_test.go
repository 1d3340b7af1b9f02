package v4

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// fake is a small server: it keeps objects in memory and answers the rest from its
// fields. What a request said is in asked.
type fake struct {
	t    testing.TB
	addr string
	key  ed25519.PrivateKey

	hello   wire.Hello
	refuse  error // in place of HELLO
	rows    []wire.Row
	heads   []wire.Head
	entries [][]byte
	devices []wire.Device

	mu      sync.Mutex // guards what follows
	objects map[vault.ObjectID][]byte
	damaged map[vault.ObjectID]bool
	mail    map[wire.Slot][]byte
	asked   []any
	// answer, if set, replaces the answer to every request.
	answer func(ctx context.Context, r *mux.Request) error
}

// set changes what the server does between requests.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func seed(n byte) vault.Key { return vault.Key(bytes.Repeat([]byte{n}, 32)) }

func keyOf(n byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)) }

var when = time.Date(2026, 11, 20, 14, 3, 7, 123, time.UTC)

func newFake(t testing.TB) *fake {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		t: t, addr: l.Addr().String(), key: keyOf(1),
		hello:   wire.Hello{Revision: 1, Client: wire.ClientDevice, Account: "default", Program: "test"},
		objects: map[vault.ObjectID][]byte{}, damaged: map[vault.ObjectID]bool{}, mail: map[wire.Slot][]byte{},
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(raw) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return f
}

func (f *fake) serve(raw net.Conn) {
	conn := tls.Server(raw, wire.ServerConfig(f.key))
	if conn.Handshake() != nil {
		raw.Close()
		return
	}
	if f.refuse != nil {
		mux.Refuse(conn, f.refuse)
		return
	}
	mux.NewServer(conn, f.hello, mux.Options{}).Serve(context.Background(), func(ctx context.Context, r *mux.Request) error {
		f.mu.Lock()
		answer := f.answer
		f.mu.Unlock()
		if answer != nil {
			return answer(ctx, r)
		}
		return f.handle(r, conn.ConnectionState())
	})
}

func (f *fake) options() Options {
	return Options{Address: f.addr, Pin: wire.PinOf(f.key.Public().(ed25519.PublicKey)), Key: keyOf(2)}
}

func (f *fake) dial() *Session {
	f.t.Helper()
	s, err := Dial(f.t.Context(), f.options())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { s.Close() })
	return s
}

// handle answers one request.
func (f *fake) handle(r *mux.Request, state tls.ConnectionState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.Verb {
	case wire.TypePing:
		return r.Answer(wire.PingAnswer{Clock: when}.Append(nil))
	case wire.TypeEnroll:
		q, err := note(f, r, wire.ParseEnrollRequest)
		if err != nil {
			return err
		}
		e, err := wire.ExportEnroll(state)
		if err != nil {
			return err
		}
		peer, err := wire.PeerKey(state)
		if err != nil {
			return err
		}
		if err := q.Verify(e, peer); err != nil {
			return err
		}
		return r.Answer(wire.EnrollAnswer{Account: "default", Vault: &vault.ID{9}}.Append(nil))
	case wire.TypeHave:
		q, err := note(f, r, wire.ParseIDsRequest)
		if err != nil {
			return err
		}
		a := wire.HaveAnswer{Have: make([]bool, len(q.IDs))}
		for i, id := range q.IDs {
			_, a.Have[i] = f.objects[id]
		}
		return r.Answer(a.Append(nil))
	case wire.TypePut, wire.TypeCommit:
		most := wire.MaxPutObjects
		if r.Verb == wire.TypeCommit {
			if _, err := note(f, r, wire.ParseCommitRequest); err != nil {
				return err
			}
			most = wire.MaxCommitObjects
		}
		in := wire.NewObjectReader(r, most, wire.MaxPutBytes)
		for {
			o, err := in.Next(nil)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			f.objects[vault.Identify(o)] = o
		}
		if r.Verb == wire.TypeCommit {
			return r.Answer(wire.CommitAnswer{Stamp: make([]byte, vault.StampSize)}.Append(nil))
		}
		return r.Answer(wire.AppendEmpty(nil))
	case wire.TypeGet:
		q, err := note(f, r, wire.ParseIDsRequest)
		if err != nil {
			return err
		}
		if err := r.Answer(wire.AppendEmpty(nil)); err != nil {
			return err
		}
		slices.Reverse(q.IDs) // the order is the server's
		for _, id := range q.IDs {
			o, ok := f.objects[id]
			head := wire.AppendGotHead(nil, id, len(o))
			if f.damaged[id] {
				head = wire.AppendDamaged(nil, id)
			} else if !ok {
				head = wire.AppendMissing(nil, id)
			}
			if _, err := r.Write(head); err != nil {
				return err
			}
			if _, err := r.Write(o); err != nil {
				return err
			}
		}
		return nil
	case wire.TypeHead:
		q, err := note(f, r, wire.ParseHeadRequest)
		if err != nil {
			return err
		}
		if q.Seq == 0 || q.Seq > uint64(len(f.heads)) {
			return r.Answer(wire.Head{}.Append(nil))
		}
		return r.Answer(f.heads[q.Seq-1].Append(nil))
	case wire.TypeLog:
		if _, err := note(f, r, wire.ParseLogRequest); err != nil {
			return err
		}
		return each(r, f.heads, wire.Head.Append)
	case wire.TypeList, wire.TypeHistory:
		var err error
		if r.Verb == wire.TypeList {
			_, err = note(f, r, wire.ParseListRequest)
		} else {
			_, err = note(f, r, wire.ParseHistoryRequest)
		}
		if err != nil {
			return err
		}
		return each(r, slices.Collect(slices.Chunk(f.rows, 100)), func(rows []wire.Row, dst []byte) []byte { return wire.AppendRows(dst, rows) })
	case wire.TypeProve:
		q, err := note(f, r, wire.ParseProveRequest)
		if err != nil {
			return err
		}
		return r.Answer(wire.Proof{Head: f.heads[0], Index: int(q.Seq), Path: [][32]byte{q.Record}}.Append(nil))
	case wire.TypeMembers:
		q, err := note(f, r, wire.ParseMembersRequest)
		if err != nil {
			return err
		}
		if q.Entry != nil {
			f.entries = append(f.entries, bytes.Clone(q.Entry))
			return r.Answer(wire.AppendEmpty(nil))
		}
		return each(r, f.entries[q.From:], func(e, dst []byte) []byte { return wire.AppendEntry(dst, e) })
	case wire.TypeMailbox:
		q, err := note(f, r, wire.ParseMailboxRequest)
		if err != nil {
			return err
		}
		if q.Message != nil {
			f.mail[q.Slot] = bytes.Clone(q.Message)
			return r.Answer(wire.AppendEmpty(nil))
		}
		m, ok := f.mail[q.Slot]
		if !ok {
			return fmt.Errorf("slot: %w", wire.ErrNotFound)
		}
		return r.Answer(wire.MailboxAnswer{Message: m}.Append(nil))
	case wire.TypeDevices:
		return r.Answer(wire.AppendDevices(nil, f.devices))
	}
	return wire.ErrUnsupported
}

// note parses a request and keeps it for the test.
func note[T any](f *fake, r *mux.Request, parse func([]byte) (T, error)) (T, error) {
	q, err := parse(bytes.Clone(r.Body))
	if err == nil {
		f.asked = append(f.asked, q)
	}
	return q, err
}

func each[T any](r *mux.Request, all []T, encode func(T, []byte) []byte) error {
	for _, v := range all {
		if err := r.Answer(encode(v, nil)); err != nil {
			return err
		}
	}
	return nil
}

// last returns the request that came last.
func (f *fake) last() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

func collect[T any](t *testing.T, seq iter.Seq2[T, error]) []T {
	t.Helper()
	var all []T
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestVerbs(t *testing.T) {
	f := newFake(t)
	ctx := t.Context()
	dev, path, parent, record := vault.DeviceID{1}, vault.PathID{2}, vault.PathID{3}, vault.ObjectID{4}
	for i := range 250 {
		f.rows = append(f.rows, wire.Row{Path: vault.PathID{byte(i)}, Parent: parent, Op: vault.OpPut, Seq: uint64(i + 1), Time: when, Record: record})
	}
	for i := range 3 {
		f.heads = append(f.heads, wire.Head{Commit: []byte{byte(i)}, Stamp: bytes.Repeat([]byte{byte(i)}, vault.StampSize)})
	}
	f.devices = []wire.Device{{ID: dev, Name: "a", Enrolled: when, Member: true}}
	s := f.dial()
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	asked := func(want any) {
		t.Helper()
		check("request", f.last(), want)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}

	if h := s.Hello(); h.Account != "default" || h.Program != "test" {
		t.Errorf("HELLO %+v", h)
	}
	clock, err := s.Ping(ctx)
	must(err)
	check("PING", clock, when)

	h, err := s.Head(ctx, dev, when)
	must(err)
	check("HEAD", h, wire.Head{})
	asked(wire.HeadRequest{Device: &dev, At: when})
	h, err = s.HeadNumber(ctx, dev, 2)
	must(err)
	check("HEAD", h, f.heads[1])
	check("LOG", collect(t, s.Log(ctx, dev, 1, 3)), f.heads)
	asked(wire.LogRequest{Device: dev, First: 1, Last: 3})

	check("children", collect(t, s.Children(ctx, dev, parent, when)), f.rows)
	asked(wire.ListRequest{Device: dev, Parent: &parent, At: when})
	check("state", collect(t, s.State(ctx, dev, time.Time{})), f.rows)
	asked(wire.ListRequest{Device: dev})
	check("records", collect(t, s.Records(ctx, dev, 7)), f.rows)
	asked(wire.ListRequest{Device: dev, Seq: 7})
	check("history", collect(t, s.History(ctx, dev, path)), f.rows)
	asked(wire.HistoryRequest{Device: dev, Path: path})
	for range s.State(ctx, dev, time.Time{}) {
		break // and the rest is cancelled
	}

	p, err := s.Prove(ctx, dev, 1, record)
	must(err)
	check("PROVE", p, wire.Proof{Head: f.heads[0], Index: 1, Path: [][32]byte{record}})

	entries, err := s.Members(ctx, 0)
	must(err)
	check("no entries", len(entries), 0)
	must(s.AppendMember(ctx, []byte("genesis")))
	must(s.AppendMember(ctx, bytes.Repeat([]byte("x"), vault.MaxEntry)))
	entries, err = s.Members(ctx, 0)
	must(err)
	check("entries", entries, f.entries)
	entries, err = s.Members(ctx, 1)
	must(err)
	check("entries", entries, f.entries[1:])

	_, err = s.MailboxGet(ctx, wire.Slot{1})
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeNotFound || errors.Is(err, ErrLost) {
		t.Errorf("empty slot: %v", err)
	}
	must(s.MailboxPut(ctx, wire.Slot{1}, []byte("hi")))
	m, err := s.MailboxGet(ctx, wire.Slot{1})
	must(err)
	check("MAILBOX", string(m), "hi")

	devices, err := s.Devices(ctx)
	must(err)
	check("DEVICES", devices, f.devices)

	objects := [][]byte{[]byte("a"), bytes.Repeat([]byte("b"), 1<<20)}
	must(s.Put(ctx, objects...))
	must(s.Put(ctx))
	stamp, err := s.Commit(ctx, []byte("commit"), [][]byte{[]byte("record")})
	must(err)
	check("stamp", stamp, make([]byte, vault.StampSize))
	asked(wire.CommitRequest{Commit: []byte("commit")})
	ids := make([]vault.ObjectID, 2*wire.MaxIDs+1) // three requests
	for i := range ids {
		ids[i] = vault.ObjectID{byte(i), byte(i >> 8), 1}
	}
	ids[0], ids[wire.MaxIDs], ids[2*wire.MaxIDs] = vault.Identify(objects[0]), vault.Identify(objects[1]), vault.Identify([]byte("record"))
	have, err := s.Have(ctx, ids)
	must(err)
	for i, yes := range have {
		if want := i%wire.MaxIDs == 0; yes != want {
			t.Errorf("object %d: %v", i, yes)
		}
	}
	check("HAVE", len(have), len(ids))
	must(s.Err())
}

func TestEnroll(t *testing.T) {
	f := newFake(t)
	f.hello = wire.Hello{Revision: 1}
	id, err := vault.NewIdentity(vault.RoleDevice, seed(3))
	if err != nil {
		t.Fatal(err)
	}
	opts := f.options()
	opts.Key = id.TLS()
	s, err := Dial(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	invitation := wire.Invitation{Secret: wire.Secret{5}}
	account, v, err := s.Enroll(t.Context(), invitation, id, "laptop")
	if err != nil || account != "default" || v == nil || *v != (vault.ID{9}) {
		t.Errorf("%q, %v, %v", account, v, err)
	}
	if q := f.last().(wire.EnrollRequest); q.Name != "laptop" || q.Identity != id.Public() {
		t.Errorf("the request names %q", q.Name)
	}
	other, err := vault.NewIdentity(vault.RoleDevice, seed(4))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Enroll(t.Context(), invitation, other, "laptop"); !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("another identity than the session's: %v", err)
	}
}

func TestDialRefuses(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f, revoked := newFake(t), newFake(t)
	revoked.refuse = wire.ErrRevoked
	with := func(o Options, change func(*Options)) Options {
		change(&o)
		return o
	}
	for _, tt := range []struct {
		name string
		opts Options
		want error
		lost bool
	}{
		{"nobody listens", with(f.options(), func(o *Options) { o.Address = closed.Addr().String() }), ErrLost, true},
		{"no address", with(f.options(), func(o *Options) { o.Address = "x" }), ErrLost, true},
		{"nobody answers", with(f.options(), func(o *Options) { o.Address, o.Timeout = silent.Addr().String(), time.Millisecond }), context.DeadlineExceeded, true},
		{"another key", with(f.options(), func(o *Options) { o.Pin[0] ^= 1 }), wire.ErrPin, false},
		{"revoked", revoked.options(), wire.ErrRevoked, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Dial(t.Context(), tt.opts)
			if !errors.Is(err, tt.want) || errors.Is(err, ErrLost) != tt.lost {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A session that is over says so, and what the server gave as the reason.
func TestLost(t *testing.T) {
	f := newFake(t)
	s := f.dial()
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
		t.Fatal("it is over")
	default:
	}
	s.Close()
	<-s.Done()
	for what, err := range map[string]error{
		"Err":  s.Err(),
		"Ping": second(s.Ping(t.Context())),
		"Put":  s.Put(t.Context(), []byte("x")),
		"Have": second(s.Have(t.Context(), make([]vault.ObjectID, 1))),
	} {
		if !errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, err := range s.Get(t.Context(), make([]vault.ObjectID, 1)) {
		if !errors.Is(err, ErrLost) {
			t.Errorf("Get: %v", err)
		}
	}
	for _, err := range s.State(t.Context(), vault.DeviceID{}, time.Time{}) {
		if !errors.Is(err, ErrLost) {
			t.Errorf("State: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestContext(t *testing.T) {
	f := newFake(t)
	asked := make(chan struct{}, 10)
	f.answer = func(ctx context.Context, _ *mux.Request) error {
		asked <- struct{}{}
		<-ctx.Done()
		return nil
	}
	s := f.dial()
	cause := errors.New("enough")
	for what, ask := range map[string]func(ctx context.Context) error{
		"Ping": func(ctx context.Context) error { return second(s.Ping(ctx)) },
		"Put":  func(ctx context.Context) error { return s.Put(ctx, make([]byte, wire.MaxPutBytes)) },
		"Get": func(ctx context.Context) (err error) {
			for _, err = range s.Get(ctx, make([]vault.ObjectID, 1)) {
			}
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-asked
			cancel(cause)
		}()
		if err := ask(ctx); !errors.Is(err, cause) || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Err(); err != nil {
		t.Errorf("the session is over: %v", err)
	}
}

func TestPutLimits(t *testing.T) {
	f := newFake(t)
	f.answer = func(context.Context, *mux.Request) error {
		return &wire.Error{Code: wire.CodeMissingRefs, IDs: []vault.ObjectID{{7}}}
	}
	s := f.dial()
	for what, err := range map[string]error{
		"objects":        s.Put(t.Context(), make([][]byte, wire.MaxPutObjects+1)...),
		"bytes":          s.Put(t.Context(), make([]byte, wire.MaxPutBytes), []byte{1}),
		"commit objects": second(s.Commit(t.Context(), []byte{1}, make([][]byte, wire.MaxCommitObjects+1))),
	} {
		if !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The server refuses while most of it is still to be sent.
	err := s.Put(t.Context(), make([]byte, wire.MaxPutBytes))
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeMissingRefs || len(e.IDs) != 1 || e.IDs[0] != (vault.ObjectID{7}) {
		t.Errorf("refused early: %v", err)
	}
}

// Answers that are not of the form the protocol gives them.
func TestStrangeAnswers(t *testing.T) {
	f := newFake(t)
	s := f.dial()
	for _, tt := range []struct {
		name   string
		answer func(ctx context.Context, r *mux.Request) error
		ask    func() error
		want   error
	}{
		{"nothing", func(context.Context, *mux.Request) error { return nil },
			func() error { return second(s.Ping(t.Context())) }, wire.ErrMalformed},
		{"nonsense", func(_ context.Context, r *mux.Request) error { return r.Answer([]byte{0xff}) },
			func() error { return second(s.Ping(t.Context())) }, wire.ErrMalformed},
		{"two", func(_ context.Context, r *mux.Request) error {
			return errors.Join(r.Answer(wire.PingAnswer{}.Append(nil)), r.Answer(wire.PingAnswer{}.Append(nil)))
		}, func() error { return second(s.Ping(t.Context())) }, wire.ErrMalformed},
		{"data", func(_ context.Context, r *mux.Request) error { return second(r.Write([]byte{1})) },
			func() error { return second(s.Ping(t.Context())) }, wire.ErrMalformed},
		{"fewer than asked about", func(_ context.Context, r *mux.Request) error {
			return r.Answer(wire.HaveAnswer{Have: make([]bool, 2)}.Append(nil))
		},
			func() error { return second(s.Have(t.Context(), make([]vault.ObjectID, 3))) }, wire.ErrMalformed},
		{"an unknown error", func(context.Context, *mux.Request) error { return &wire.Error{Code: 999} },
			func() error { return second(s.Ping(t.Context())) }, wire.ErrInternal},
		{"rows and then an error", func(_ context.Context, r *mux.Request) error {
			return errors.Join(r.Answer(wire.AppendRows(nil, nil)), wire.ErrCorrupt)
		}, func() (err error) {
			for _, err = range s.State(t.Context(), vault.DeviceID{}, time.Time{}) {
			}
			return err
		}, wire.ErrCorrupt},
	} {
		f.set(func() { f.answer = tt.answer })
		if err := tt.ask(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestGet(t *testing.T) {
	f := newFake(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var ids []vault.ObjectID
	for i := range 300 {
		o := make([]byte, 1+rng.IntN(1<<(4+i%17)))
		for j := range o {
			o[j] = byte(rng.Uint32())
		}
		id := vault.Identify(o)
		f.objects[id] = o
		ids = append(ids, id)
	}
	want := func(id vault.ObjectID) error { return nil }
	get := func(name string, ask []vault.ObjectID) {
		t.Run(name, func(t *testing.T) {
			left := map[vault.ObjectID]bool{}
			for _, id := range ask {
				left[id] = true
			}
			for o, err := range f.dial().Get(t.Context(), ask) {
				if !left[o.ID] {
					t.Errorf("%v was not asked for, or came before", o.ID)
				}
				delete(left, o.ID)
				switch wanted := want(o.ID); {
				case !errors.Is(err, wanted) || errors.Is(err, ErrLost):
					t.Errorf("%v: %v, want %v", o.ID, err, wanted)
				case wanted == nil && !bytes.Equal(o.Data, f.objects[o.ID]):
					t.Errorf("%v: other bytes", o.ID)
				case wanted != nil && o.Data != nil:
					t.Errorf("%v: bytes with an error", o.ID)
				}
			}
			if len(left) > 0 {
				t.Errorf("%d did not come", len(left))
			}
		})
	}
	get("none", nil)
	get("one", ids[:1])
	get("all", ids)
	get("some twice", append(ids[:10:10], ids[:20]...))

	missing, damaged, forged := vault.ObjectID{1}, ids[3], ids[5]
	f.set(func() {
		f.damaged[damaged], f.objects[damaged] = true, nil
		f.objects[forged] = []byte("other bytes")
	})
	want = func(id vault.ObjectID) error {
		switch id {
		case missing:
			return vault.ErrMissing
		case damaged, forged:
			return vault.ErrCorrupt
		}
		return nil
	}
	get("some bad", append(ids[:20:20], missing))

	many := make([]vault.ObjectID, 5*wire.MaxIDs) // more requests than are under way at once
	for i := range many {
		many[i] = vault.ObjectID{byte(i), byte(i >> 8), 99}
	}
	want = func(vault.ObjectID) error { return vault.ErrMissing }
	get("many that are missing", many)

	for range f.dial().Get(t.Context(), ids) {
		break // and everything under way ends, or the test does not
	}
	for _, tt := range []struct {
		name   string
		want   error
		answer func(context.Context, *mux.Request) error
	}{
		{"refused", wire.ErrForbidden, func(context.Context, *mux.Request) error { return wire.ErrForbidden }},
		{"an answer without objects", wire.ErrMalformed, func(_ context.Context, r *mux.Request) error {
			return r.Answer(wire.AppendEmpty(nil))
		}},
		{"an object that was not asked for", wire.ErrMalformed, func(_ context.Context, r *mux.Request) error {
			return errors.Join(r.Answer(wire.AppendEmpty(nil)), second(r.Write(wire.AppendMissing(nil, vault.ObjectID{77}))))
		}},
	} {
		f.set(func() { f.answer = tt.answer })
		want = func(vault.ObjectID) error { return tt.want }
		get(tt.name, ids[:5])
	}
}

// Get is what package vault reads content with.
var _ vault.Fetch = (*Session)(nil).Get

// Requests of many goroutines share a session.
func TestConcurrent(t *testing.T) {
	f := newFake(t)
	f.hello.Requests = 3
	s := f.dial()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			o := bytes.Repeat([]byte{byte(i)}, 100_000+i)
			if err := s.Put(t.Context(), o); err != nil {
				t.Error(err)
				return
			}
			for got, err := range s.Get(t.Context(), []vault.ObjectID{vault.Identify(o)}) {
				if err != nil || !bytes.Equal(got.Data, o) {
					t.Errorf("%d bytes, %v", len(got.Data), err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkGet fetches 64 objects of a mebibyte, as a restore does.
func BenchmarkGet(b *testing.B) {
	f := newFake(b)
	var ids []vault.ObjectID
	for i := range 64 {
		o := bytes.Repeat([]byte{byte(i)}, 1<<20)
		ids = append(ids, vault.Identify(o))
		f.objects[ids[i]] = o
	}
	f.answer = func(_ context.Context, r *mux.Request) error {
		q, err := wire.ParseIDsRequest(r.Body)
		if err == nil {
			err = r.Answer(wire.AppendEmpty(nil))
		}
		for _, id := range q.IDs {
			if err == nil {
				err = errors.Join(second(r.Write(wire.AppendGotHead(nil, id, len(f.objects[id])))), second(r.Write(f.objects[id])))
			}
		}
		return err
	}
	s := f.dial()
	b.SetBytes(64 << 20)
	for b.Loop() {
		for _, err := range s.Get(b.Context(), ids) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkPut sends eight objects of a mebibyte in a request.
func BenchmarkPut(b *testing.B) {
	f := newFake(b)
	f.answer = func(_ context.Context, r *mux.Request) error {
		in := wire.NewObjectReader(r, wire.MaxPutObjects, wire.MaxPutBytes)
		buf := make([]byte, 0, 1<<20)
		for {
			if _, err := in.Next(buf); err == io.EOF {
				return r.Answer(wire.AppendEmpty(nil))
			} else if err != nil {
				return err
			}
		}
	}
	s := f.dial()
	objects := slices.Repeat([][]byte{make([]byte, 1<<20)}, 8)
	b.SetBytes(8 << 20)
	for b.Loop() {
		if err := s.Put(b.Context(), objects...); err != nil {
			b.Fatal(err)
		}
	}
}
