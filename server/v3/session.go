package v3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"

	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// maxUnjudged is how many files of a session wait for their client's verdict. A
// client that never sends one does not make the session grow; the oldest are then
// past judging and stay listed.
const maxUnjudged = 1024

// defaultSeries is a code of the series in which a peer is answered whose own is
// not known yet.
const defaultSeries = 1100

// Reasons to refuse a request that is well formed.
var (
	errFamily   = errors.New("request of another family than the session's")
	errNotYours = errors.New("client id of another client")
	errUnknown  = errors.New("no unjudged file of this session has this name")
	errTooLarge = errors.New("file is larger than allowed")
)

// session is one connection. Only its own goroutine uses it.
type session struct {
	a    *Area
	line *line
	r    *bufio.Reader
	stop <-chan struct{}
	log  *slog.Logger
	out  []byte // the answer being built

	dialect wire.Dialect    // set by the first request that tells
	client  note            // the zero note until registered or recognised
	key     wire.SessionKey // none until the key exchange

	transfer *transfer // of a file whose packets are not all here
	// refused is the last packet of a file that was refused, and answered so:
	// its client may have the rest on its way, which gets no answer of its own.
	refused wire.Message

	unjudged []attempt      // oldest first, one for each path
	last     vault.ObjectID // record of the last file sent, zero if it was refused
}

// attempt is a file received in this session that its client has not judged.
type attempt struct {
	path   vault.PathID
	record vault.ObjectID
}

// Serve conducts one whole session and closes conn. It returns nil when the peer
// has closed the connection between two requests, and when ctx ended: then a
// request that is being read or answered is finished first, which the caller cuts
// short by closing conn. Serve returns only when nothing of the session uses the
// store any more.
//
// Errors: storage.ErrFailed and storage.ErrClosed when the store serves no more,
// else what the peer or the connection did.
func (a *Area) Serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	a.counters.sessions.Add(1)
	l := &line{Conn: conn, idle: a.o.IdleTimeout, header: a.o.HeaderTimeout}
	s := &session{a: a, line: l, r: bufio.NewReader(l), stop: ctx.Done(), log: a.o.Log}
	defer context.AfterFunc(ctx, l.stop)()
	defer s.dropTransfer()
	err := s.run(context.WithoutCancel(ctx))
	if err == io.EOF || errors.Is(err, errStopped) {
		return nil
	}
	return err
}

func (s *session) run(ctx context.Context) error {
	for {
		if err := s.line.await(s.r); err != nil {
			return err
		}
		q, err := wire.ReadRequest(s.r, s.a.o.Series)
		s.line.headerDone()
		if s.dialect == 0 {
			s.dialect, _ = s.a.o.Series.Dialect(q.Header.Code)
		}
		if err == nil && q.Dialect != s.dialect {
			err = errFamily
		}
		if q.Message.Kind == wire.File {
			s.forget(q.Message.Name)
		}
		switch {
		case err == nil:
			err = s.handle(ctx, q)
		case wire.InStep(err), errors.Is(err, errFamily), errors.Is(err, wire.ErrVersion):
			err = s.malformed(q, err)
		default:
			err = fmt.Errorf("read request: %w", err)
		}
		if err != nil {
			return err
		}
	}
}

// malformed answers what is no request of this session's dialect.
func (s *session) malformed(q wire.Request, why error) error {
	if q.Message.Kind == wire.File && q.Dialect == s.dialect {
		return s.refuseFile(q.Message, q.Remaining, why)
	}
	s.dropTransfer()
	inStep := q.Remaining <= s.a.o.MaxSkip
	if inStep {
		if err := s.skip(q.Remaining); err != nil {
			return err
		}
	}
	if err := s.refuse(wire.Message{Kind: wire.GeneralError}, why); err != nil {
		return err
	}
	if !inStep || errors.Is(why, wire.ErrVersion) {
		return fmt.Errorf("request of %d bytes: %w", q.Header.PayloadSize, why)
	}
	return nil
}

// handle does what a request asks. An error ends the session.
func (s *session) handle(ctx context.Context, q wire.Request) error {
	if q.Message.Kind == wire.File {
		return s.file(ctx, q)
	}
	// Only a file's next packet continues it.
	s.dropTransfer()
	s.refused = wire.Message{}
	switch q.Message.Kind {
	case wire.Register:
		return s.register(ctx, q.Message)
	case wire.PublicKey:
		return s.publicKey(ctx, q)
	case wire.Reconnect:
		return s.reconnect(ctx, q)
	}
	return s.judge(ctx, q)
}

func (s *session) register(ctx context.Context, m wire.Message) error {
	refused := wire.Message{Kind: wire.RegistrationRefused}
	if s.client.name != "" {
		return s.refuse(refused, errors.New("second registration in a session"))
	}
	client, err := s.a.register(ctx, m.Name)
	switch {
	case errors.Is(err, errTaken), errors.Is(err, errNotAllowed), errors.Is(err, errClients):
		return s.refuse(refused, err)
	case err != nil:
		return s.fail(err)
	}
	s.recognise(client)
	s.log.Info("version 3 client registered", "dialect", s.dialect.String())
	return s.answer(wire.Message{Kind: wire.Registered, ClientID: client.id})
}

// recognise makes a client the session's own.
func (s *session) recognise(client note) {
	if client.id != s.client.id {
		s.unjudged, s.last = nil, vault.ObjectID{}
	}
	s.client = client
	s.log = s.a.o.Log.With("client", client.id.String())
}

func (s *session) publicKey(ctx context.Context, q wire.Request) error {
	m := q.Message
	if _, err := wire.ParsePublicKey(m.PublicKey); err != nil {
		return s.refuse(wire.Message{Kind: wire.GeneralError}, err)
	}
	client, rev, err := s.a.clientByID(ctx, q.Header.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		client, rev, err = s.a.clientByName(ctx, m.Name)
	}
	if err != nil {
		return s.fail(err)
	}
	known := len(client.publicKey) > 0
	updated, err := s.a.setPublicKey(ctx, client, rev, m.PublicKey)
	if err != nil {
		return s.fail(err)
	}
	s.recognise(updated)
	if known && string(client.publicKey) != string(updated.publicKey) {
		s.log.Info("version 3 client has a new public key")
	}
	return s.sendKey(wire.AESKey)
}

func (s *session) reconnect(ctx context.Context, q wire.Request) error {
	client, _, err := s.a.clientByID(ctx, q.Header.ClientID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return s.fail(err)
	}
	if err != nil || client.name != q.Message.Name || len(client.publicKey) == 0 {
		return s.refuse(wire.Message{Kind: wire.ReconnectRefused, ClientID: q.Header.ClientID}, errors.New("no client with this id, name and a key"))
	}
	s.recognise(client)
	return s.sendKey(wire.ReconnectAccepted)
}

// sendKey starts the use of a new AES key and sends it to the client.
func (s *session) sendKey(k wire.Kind) error {
	s.key = wire.SessionKey{}
	pub, err := wire.ParsePublicKey(s.client.publicKey)
	if err != nil {
		return s.fail(err)
	}
	key, err := wire.NewSessionKey(s.dialect.KeySize())
	if err != nil {
		return s.fail(err)
	}
	hash, ok := s.a.o.OAEPByName[s.client.name]
	if !ok {
		hash = s.a.o.OAEP
	}
	wrapped, err := key.Wrap(pub, s.dialect.OAEP(hash))
	if err != nil {
		return s.fail(err)
	}
	s.key = key
	return s.answer(wire.Message{Kind: k, ClientID: s.client.id, WrappedKey: wrapped})
}

// ours says whether a request comes from the session's client. Some clients put
// their id into the header only from the second session on.
func (s *session) ours(q wire.Request) bool {
	none := wire.ClientID{}
	return (q.Header.ClientID == none || q.Header.ClientID == s.client.id) &&
		(q.Message.ClientID == none || q.Message.ClientID == s.client.id)
}

// file receives one packet of a file and, after the last, the file.
func (s *session) file(ctx context.Context, q wire.Request) error {
	m := q.Message
	last, err := s.admit(ctx, q)
	if err != nil {
		return s.refuseFile(m, q.Remaining, err)
	}
	left, err := s.transfer.receive(s.r, q.Remaining)
	if err != nil {
		return s.refuseFile(m, left, err)
	}
	if !last {
		return nil
	}
	t := s.transfer
	s.transfer = nil
	if err := t.finish(); err != nil {
		return s.refuseFile(m, 0, err)
	}
	sum := t.sum.Sum32()
	path := s.path(m.Name)
	record, err := s.a.commit(ctx, s.client.id, change{
		path: path, op: vault.OpPut, refs: t.content.Refs(), objects: t.objects,
		rec: vault.Record{Name: []byte(m.Name), Type: vault.TypeFile, Content: t.content, CKSum: &sum},
	})
	if err != nil {
		return s.refuseFile(m, 0, err)
	}
	s.remember(attempt{path, record})
	s.a.counters.files.Add(1)
	s.a.counters.bytes.Add(int64(t.content.Size))
	s.log.Debug("version 3 file received", "bytes", t.content.Size, "packets", m.Total)
	return s.answer(wire.Message{
		Kind: wire.FileReceived, ClientID: s.client.id, ContentSize: t.asm.ContentSize(), Name: m.Name, Cksum: sum,
	})
}

// admit checks a packet before its content is read, and starts the transfer with
// the first one.
func (s *session) admit(ctx context.Context, q wire.Request) (last bool, err error) {
	m := q.Message
	if !s.ours(q) {
		return false, errNotYours
	}
	if err := wire.CheckFileName(m.Name); err != nil {
		return false, err
	}
	if s.transfer != nil && m.Packet > 1 {
		return s.transfer.asm.Add(s.dialect, m)
	}
	s.dropTransfer()
	var asm wire.Assembly
	if last, err = asm.Add(s.dialect, m); err != nil {
		return false, err
	}
	t, err := s.a.startTransfer(ctx, s.stop, s.key, m)
	if err != nil {
		return false, err
	}
	t.asm = asm
	s.transfer, s.refused = t, wire.Message{}
	return last, nil
}

// refuseFile ends the attempt to receive a file: it reads past the rest of the
// packet and answers, unless the packet belongs to a file that was refused before.
func (s *session) refuseFile(m wire.Message, left int64, why error) error {
	s.dropTransfer()
	if _, ok := errors.AsType[*readError](why); ok || errors.Is(why, errStopped) || ends(why) {
		return why
	}
	if err := s.skip(left); err != nil {
		return err
	}
	r := &s.refused
	rest := m.Packet > 1 && m.Packet > r.Packet && m.Name == r.Name && m.Total == r.Total && m.OrigSize == r.OrigSize
	*r = wire.Message{Name: m.Name, OrigSize: m.OrigSize, Packet: m.Packet, Total: m.Total}
	if rest {
		return nil
	}
	return s.fail(why)
}

func (s *session) dropTransfer() {
	if s.transfer != nil {
		s.transfer.drop()
		s.transfer = nil
	}
}

// path returns the id of a file of the session's client.
func (s *session) path(name string) vault.PathID {
	return s.a.keys.Path(vault.DeviceID(s.client.id), []byte(name))
}

// remember lets a file be judged.
func (s *session) remember(a attempt) {
	if len(s.unjudged) == maxUnjudged {
		s.unjudged = slices.Delete(s.unjudged, 0, 1)
	}
	s.unjudged = append(s.unjudged, a)
	s.last = a.record
}

// forget ends the time to judge an earlier attempt at a file, now that another has
// begun: whatever becomes of that one, a verdict from here on is about it.
func (s *session) forget(name string) {
	path := s.path(name)
	s.unjudged = slices.DeleteFunc(s.unjudged, func(a attempt) bool { return a.path == path })
	s.last = vault.ObjectID{}
}

// judge records what the client says of a checksum. Only a file of this session
// can be judged, and only once: what is listed when the session ends stays. A
// client must not take an answer for a file that is not here, so one that means
// no such file gets an error; except "resending", which has an answer only by
// setting and where an unexpected one would put the client out of step.
func (s *session) judge(ctx context.Context, q wire.Request) error {
	m := q.Message
	resending := m.Kind == wire.ChecksumResending
	path := s.path(m.Name)
	i := slices.IndexFunc(s.unjudged, func(a attempt) bool {
		return a.path == path || m.Name == "" && a.record == s.last
	})
	var err error
	switch {
	case !s.ours(q):
		err = errNotYours
	case i < 0:
		err = errUnknown
	default:
		err = s.record(ctx, m.Kind, s.unjudged[i])
	}
	switch {
	case err == nil:
		s.unjudged = slices.Delete(s.unjudged, i, i+1)
	case ends(err):
		return err
	}
	switch {
	case resending && !s.a.o.AckResend:
		if err != nil {
			s.logRefusal(err)
		}
		return nil
	case err != nil:
		return s.fail(err)
	}
	return s.answer(wire.Message{Kind: wire.Acknowledged, ClientID: s.client.id})
}

// record makes a verdict durable.
func (s *session) record(ctx context.Context, k wire.Kind, a attempt) error {
	op := vault.OpVoid
	if k == wire.ChecksumValid {
		op = vault.OpValid
	}
	c := change{path: a.path, op: op, refs: []vault.ObjectID{a.record}}
	if _, err := s.a.commit(ctx, s.client.id, c); err != nil {
		return err
	}
	if op == vault.OpVoid {
		s.a.counters.checksumWrong.Add(1)
		s.log.Warn("version 3 file found wrong by its client")
	}
	return nil
}

// skip reads past n bytes.
func (s *session) skip(n int64) error {
	if _, err := io.CopyN(io.Discard, s.r, n); err != nil {
		return fmt.Errorf("read past a refused request: %w", err)
	}
	return nil
}

// ends says whether the store serves no more.
func ends(err error) bool {
	return errors.Is(err, storage.ErrFailed) || errors.Is(err, storage.ErrClosed)
}

// fail answers the general error, or ends the session where the store has failed.
func (s *session) fail(why error) error {
	if ends(why) {
		return why
	}
	return s.refuse(wire.Message{Kind: wire.GeneralError}, why)
}

// refuse answers that a request was not done.
func (s *session) refuse(m wire.Message, why error) error {
	s.logRefusal(why)
	return s.answer(m)
}

// logRefusal counts and logs a refusal: loudly where it is the server's doing.
func (s *session) logRefusal(why error) {
	s.a.counters.refused.Add(1)
	level := slog.LevelDebug
	for _, ours := range []error{storage.ErrFull, storage.ErrCorrupt, storage.ErrMissingRef, vault.ErrSeal} {
		if errors.Is(why, ours) {
			level = slog.LevelError
		}
	}
	s.log.Log(context.Background(), level, "version 3 request refused", "err", why)
}

func (s *session) answer(m wire.Message) error {
	d, _ := s.a.o.Series.Dialect(defaultSeries)
	if s.dialect != 0 {
		d = s.dialect
	}
	var err error
	if s.out, err = d.AppendResponse(s.out[:0], m); err != nil {
		return err
	}
	if _, err := s.line.Write(s.out); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
