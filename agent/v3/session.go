// Package v3 is the agent's client of protocol version 3 (SPEC.md, Part 1): it
// sends files to an existing server of that protocol, one after the other over
// one connection.
//
// One invariant: a file counts as sent only when the source vouched for every
// byte that was read, the server's checksum over its copy is ours, and the
// server acknowledged that we said so.
//
// The package finds out by itself which of the two numberings a server speaks
// and how it wraps keys. It keeps no state between sessions: the caller stores
// the [Identity], remembers [Session.Family], waits between attempts and
// decides what to send again. Neither end of this protocol is authenticated
// and its encryption does not protect content from anyone in between.
//
// Enter at [Dial].
package v3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	wire "backstay/protocol/v3"
)

// The classes of failure that callers tell apart. After the first four of
// [Session.Send] the session goes on. Anything else is the connection's
// failure: a net.Error where the network reported one, io.EOF or
// io.ErrUnexpectedEOF where the server closed it, or the context's.
var (
	// ErrRefused: the server answered with its general error.
	ErrRefused = errors.New("refused by the server")
	// ErrChecksum: after every attempt the server had other bytes than we sent.
	ErrChecksum = errors.New("the server's copy differs from what was sent")
	// ErrTorn: on every attempt the source changed, failed, or had another
	// size than announced. The source's own error is wrapped too.
	ErrTorn = errors.New("the file changed while it was read")
	// ErrTooLarge: the protocol's 32-bit sizes cannot say how large the file is.
	ErrTooLarge = errors.New("too large for protocol version 3")

	// ErrProtocol: the server's answer makes no sense. The session is over.
	ErrProtocol = errors.New("not an answer of a version 3 server")
	// ErrRegistrationRefused: the server does not take this client's name.
	ErrRegistrationRefused = errors.New("registration refused")
)

// Defaults of [Options].
const (
	DefaultDialTimeout   = 10 * time.Second
	DefaultAnswerTimeout = 60 * time.Second
	DefaultStallTimeout  = 60 * time.Second
	DefaultPacketSize    = 16 << 20
)

// slowestServer is the speed, in bytes a second, at which even a slow server
// is expected to check and store what it received: a file's answer may take
// that much longer than others.
const slowestServer = 8 << 20

// earlyAnswerWait is how long to look for the answer of a server that stopped
// reading in the middle of a file. It is there already or never comes.
const earlyAnswerWait = time.Second

// maxPacketSize leaves room for the fixed part of a file message in the 32-bit
// size of its payload.
const maxPacketSize = 1 << 31

// An Identity is what a registered client must keep, besides its name, to be
// the same client again: the content of me.info.
type Identity struct {
	ID  wire.ClientID
	Key wire.PrivateKey
}

// Options say where to connect and as whom.
type Options struct {
	Address string // host:port; required
	Name    string // this client's name; required, printable ASCII

	// Identity of an earlier session; nil registers this client.
	Identity *Identity
	// Save stores the identity that a registration gave, durably, before
	// anything else is sent: a server gives a name away only once. It may be
	// called with Identity set, when the server no longer knows that. Its
	// error ends Dial. Required.
	Save func(Identity) error

	// Family is the numbering that worked with this server last time, from
	// Session.Family: wire.Field or wire.Documented. It is tried first, the
	// other next. 0 means unknown and tries wire.Field first, which is what
	// nearly all existing servers speak.
	Family wire.Dialect

	// DialTimeout bounds the TCP connection; 0 means DefaultDialTimeout.
	DialTimeout time.Duration
	// AnswerTimeout bounds the wait for an answer from its request's last byte
	// to its own last byte; 0 means DefaultAnswerTimeout. The answer to a file
	// may take a second longer for each 8 MiB of the file.
	AnswerTimeout time.Duration
	// StallTimeout bounds the time in which the server must take the next
	// piece of up to 256 KiB; 0 means DefaultStallTimeout.
	StallTimeout time.Duration

	// PacketSize is the ciphertext in bytes up to which a file travels in one
	// packet, and the size of the packets above; 0 means DefaultPacketSize. A
	// file that would take more than 65,535 packets gets larger ones.
	PacketSize int64

	// Dial opens the connection; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log gets what helps to understand a server, at debug level, without file
	// names; nil discards it.
	Log *slog.Logger
}

func (o *Options) complete() error {
	if _, err := wire.AppendName(nil, o.Name); err != nil {
		return fmt.Errorf("client name: %w; choose another in line 2 of transfer.info", err)
	}
	switch {
	case o.Save == nil:
		return errors.New("no way to save an identity")
	case o.Identity != nil && o.Identity.Key == wire.PrivateKey{}:
		return errors.New("the identity has no key")
	case o.Family != 0 && o.Family != wire.Field && o.Family != wire.Documented:
		return fmt.Errorf("dialect %v is for servers only; use field or documented", o.Family)
	case o.PacketSize < 0 || o.PacketSize > maxPacketSize:
		return fmt.Errorf("packet size %d is not within 1 and %d", o.PacketSize, maxPacketSize)
	}
	if o.PacketSize == 0 {
		o.PacketSize = DefaultPacketSize
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	if o.AnswerTimeout == 0 {
		o.AnswerTimeout = DefaultAnswerTimeout
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = DefaultStallTimeout
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// A Session is one connection to a server that knows this client. Only Close
// may be called while another call is in progress.
type Session struct {
	o      Options
	family wire.Dialect
	conn   net.Conn
	close  func() error // closes conn, once
	r      *bufio.Reader

	id  Identity
	key wire.SessionKey

	understood bool  // an answer came in this family
	skipAck    bool  // an acknowledgement may come before the next answer
	broken     error // why the session is over

	small []byte   // for requests other than files
	bufs  [][]byte // for files, made when first needed
}

// Dial connects to a server, registers this client or reconnects it, and
// agrees on a key. It tries the other numbering, over a new connection, where
// the server's first answer is missing or is none of the family tried first.
// Where a server refuses to reconnect the client, Dial registers it anew.
//
// Errors are [ErrRegistrationRefused], [ErrRefused], [ErrProtocol], those of
// Options.Save and of the context, and connection errors.
func Dial(ctx context.Context, o Options) (*Session, error) {
	s, err := dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("version 3 server %s: %w", o.Address, err)
	}
	return s, nil
}

func dial(ctx context.Context, o Options) (*Session, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	families := []wire.Dialect{wire.Field, wire.Documented}
	if o.Family == wire.Documented {
		slices.Reverse(families)
	}
	s, err := open(ctx, o, families[0])
	if err == nil || s == nil || s.understood || ctx.Err() != nil {
		return s, err
	}
	o.Log.Debug("v3 server did not answer in this numbering", "server", o.Address, "family", families[0], "err", err)
	s, second := open(ctx, o, families[1])
	if second == nil || s != nil && s.understood || ctx.Err() != nil {
		return s, second
	}
	return nil, fmt.Errorf("no sense in either numbering; is it a server of this protocol? %v: %w; %v: %w",
		families[0], err, families[1], second)
}

// open begins a session in one family. With an error the session is nil where
// there was no connection, and otherwise closed and good for its fields alone.
func open(ctx context.Context, o Options, family wire.Dialect) (*Session, error) {
	dctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	conn, err := o.Dial(dctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := newSession(o, family, conn)
	if err := s.during(ctx, s.begin); err != nil {
		s.close()
		return s, err
	}
	o.Log.Debug("v3 session begun", "server", o.Address, "family", family, "client", s.id.ID)
	return s, nil
}

func newSession(o Options, family wire.Dialect, conn net.Conn) *Session {
	return &Session{
		o: o, family: family, conn: conn,
		close: sync.OnceValue(conn.Close),
		r:     bufio.NewReaderSize(conn, 512), // the longest answer has 286 bytes
	}
}

// Family returns the numbering that the server speaks, for the next session's
// Options.
func (s *Session) Family() wire.Dialect { return s.family }

// Close ends the session. What Send confirmed stays confirmed; a Send in
// progress fails. Closing again does nothing.
func (s *Session) Close() error { return s.close() }

// during runs f, an exchange with the server, and cuts the connection when ctx
// ends first: half an exchange leaves nothing to go on with.
func (s *Session) during(ctx context.Context, f func() error) error {
	if s.broken != nil {
		// The cause belonged to another exchange, so that its class must not
		// show.
		return fmt.Errorf("%w: the session ended before: %v", net.ErrClosed, s.broken)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { s.close() })
	err := f()
	if !stop() {
		if s.broken != nil {
			err = context.Cause(ctx)
		}
		s.broken = context.Cause(ctx)
	}
	return err
}

// fail ends the session because of err.
func (s *Session) fail(err error) error {
	s.broken = err
	s.close()
	return err
}

func (s *Session) begin() error {
	if s.o.Identity != nil {
		known, err := s.reconnect(*s.o.Identity)
		if known || err != nil {
			return err
		}
		s.o.Log.Debug("v3 server refused to reconnect this client, registering anew", "server", s.o.Address)
	}
	if err := s.register(); err != nil {
		return err
	}
	return s.exchangeKeys()
}

func (s *Session) reconnect(id Identity) (known bool, err error) {
	s.id = id
	m, err := s.ask(wire.Message{Kind: wire.Reconnect, Name: s.o.Name}, wire.ReconnectAccepted, wire.ReconnectRefused)
	if err != nil || m.Kind == wire.ReconnectRefused {
		return false, err
	}
	if err := s.unwrap(m); err != nil {
		// The server knows this client by another key than ours. It took our id
		// and name, so the record is ours to correct.
		s.o.Log.Debug("v3 server sealed to another key, sending ours", "server", s.o.Address, "err", err)
		return true, s.exchangeKeys()
	}
	return true, nil
}

// register makes a new client. The key is made first: between the server's
// answer and Save nothing else can go wrong.
func (s *Session) register() error {
	key, err := wire.GenerateKey()
	if err != nil {
		return s.fail(err)
	}
	s.id = Identity{}
	m, err := s.ask(wire.Message{Kind: wire.Register, Name: s.o.Name}, wire.Registered, wire.RegistrationRefused)
	switch {
	case err != nil:
		return err
	case m.Kind == wire.RegistrationRefused:
		return s.fail(fmt.Errorf("%w: the name %q is taken or not allowed there; choose another in line 2 of transfer.info, "+
			"put back the me.info that belongs to it, or have the server's administrator free or allow it", ErrRegistrationRefused, s.o.Name))
	case m.ClientID == wire.ClientID{}:
		return s.fail(fmt.Errorf("%w: registered with an id of zeros", ErrProtocol))
	}
	s.id = Identity{ID: m.ClientID, Key: key}
	if err := s.o.Save(s.id); err != nil {
		return s.fail(fmt.Errorf("save the identity the server gave: %w", err))
	}
	return nil
}

func (s *Session) exchangeKeys() error {
	der, err := s.id.Key.PublicDER()
	if err != nil {
		return s.fail(fmt.Errorf("public key: %w", err))
	}
	m, err := s.ask(wire.Message{Kind: wire.PublicKey, Name: s.o.Name, PublicKey: der}, wire.AESKey)
	if err != nil {
		return err
	}
	if err := s.unwrap(m); err != nil {
		return s.fail(fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	return nil
}

func (s *Session) unwrap(m wire.Message) error {
	key, hash, err := s.id.Key.Unwrap(m.WrappedKey)
	if err != nil {
		return err
	}
	s.key = key
	s.o.Log.Debug("v3 session key", "server", s.o.Address, "oaep", hash)
	return nil
}

// ask sends a request and returns its answer, which is one of the wanted
// kinds. ErrRefused leaves the session usable, any other error ends it.
func (s *Session) ask(m wire.Message, want ...wire.Kind) (wire.Message, error) {
	if err := s.request(m); err != nil {
		return wire.Message{}, err
	}
	return s.answer(m.Kind, s.o.AnswerTimeout, want...)
}

// request sends a request other than a file, in one write.
func (s *Session) request(m wire.Message) error {
	b, err := s.family.AppendRequest(s.small[:0], s.id.ID, m)
	if err == nil {
		s.small = b
		err = s.write(b)
	}
	if err != nil {
		return s.fail(fmt.Errorf("send %v: %w", m.Kind, err))
	}
	return nil
}

// write hands b to the connection in one piece.
func (s *Session) write(b []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.o.StallTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the server took nothing for %v: %w", s.o.StallTimeout, err)
	}
	return err
}

// answer waits for the answer to a request of kind to.
func (s *Session) answer(to wire.Kind, wait time.Duration, want ...wire.Kind) (wire.Message, error) {
	m, err := s.receive(wait)
	switch {
	case err == nil && slices.Contains(want, m.Kind):
		return m, nil
	case err == nil && m.Kind == wire.GeneralError:
		return m, fmt.Errorf("%w: general error in answer to %v", ErrRefused, to)
	case err == nil:
		err = fmt.Errorf("%w: %v in answer to %v", ErrProtocol, m.Kind, to)
	case errors.Is(err, wire.ErrCode), errors.Is(err, wire.ErrSize):
		err = fmt.Errorf("%w: in answer to %v: %w", ErrProtocol, to, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no complete answer to %v within %v: %w", to, wait, err)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("connection closed instead of an answer to %v: %w", to, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("connection closed inside the answer to %v: %w", to, err)
	default:
		err = fmt.Errorf("receive the answer to %v: %w", to, err)
	}
	return m, s.fail(err)
}

// receive reads one answer and, where one is due, an acknowledgement before it
// that not every server sends.
func (s *Session) receive(wait time.Duration) (wire.Message, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return wire.Message{}, err
	}
	for {
		p, err := wire.ReadResponse(s.r, s.family)
		if err != nil && !errors.Is(err, wire.ErrName) { // a bad name is no echo of ours, but in step
			return wire.Message{}, err
		}
		s.understood = true
		optional := s.skipAck && p.Message.Kind == wire.Acknowledged
		s.skipAck = false
		if !optional {
			return p.Message, nil
		}
	}
}
