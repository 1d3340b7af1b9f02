// Package v4 is the client of protocol version 4: a [Session] with one server, and
// a method for every verb (SPEC.md, Part 4).
//
// The one invariant: nothing a server says is believed further than it can be
// checked here. A session exists only with the server whose key is pinned, and an
// object is given out only if its bytes are those of its id, but for chunks, which who
// opens them checks; what is signed is handed on as it came, to be verified by who
// knows the vault.
//
// It does not connect again or repeat: a session that is over says so by [ErrLost],
// and its owner makes another one. One whose server falls silent is over, too; see
// [Options]. Enter by [Dial].
package v4

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"sync"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// ErrLost is wrapped by every error that says that there is no session, or no more:
// everything may be asked again on a new one. A [wire.Error] in it is the server's
// reason. Errors of requests that do not wrap it are the server's answers, as a
// [wire.Error], or faults of the caller or of what came.
var ErrLost = mux.ErrLost

// Options says whom to connect to.
type Options struct {
	// Address is host:port.
	Address string
	// Pin names the key of the server.
	Pin wire.Pin
	// Key is the tls key of a device or of a vault's root.
	Key ed25519.PrivateKey
	// Timeout bounds the time until the server's HELLO. Default: 30 seconds.
	Timeout time.Duration
	// Silence is how long nothing may come from the server, nor go to it, while it
	// owes an answer, before the session is over: the server is asked for a sign of
	// life by PING meanwhile, so that one may take as long for an answer as it
	// needs. Default: 30 seconds.
	Silence time.Duration
	// Clock is told the server's clock whenever it has answered a PING. Default:
	// nobody is.
	Clock func(time.Time)
	// Dial opens the connection. Default: that of net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log is told at level Debug when a session begins. Default: nothing is logged.
	Log *slog.Logger
}

// Session is a connection with a server that has said HELLO. It is safe for
// concurrent use: requests run side by side, as many as the server allows, and the
// others wait their turn. All methods block until the answer is there; when their
// context is done they return its cause, and the server may have acted or not.
type Session struct {
	mux      *mux.Client
	conn     *tls.Conn
	watching sync.WaitGroup // watch, and its PING
}

// ErrSilent: the server has given no sign of life for too long. It comes with ErrLost.
var ErrSilent = errors.New("the server does not answer any more")

// unreachable is an error of connecting that a later attempt may not meet.
type unreachable struct{ error }

func (u unreachable) Unwrap() []error { return []error{u.error, ErrLost} }

// Dial connects to a server and returns when its HELLO has come. Until then nothing
// says that the server takes the client's key.
//
// Errors: a [wire.PinError], [wire.ErrCertificate] or [wire.ErrALPN] if it is not the
// server that was meant, and all others wrap ErrLost: with [wire.ErrRevoked], a
// [wire.Error], if the server does not take the device any more.
func Dial(ctx context.Context, opts Options) (*Session, error) {
	timeout := opts.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial := opts.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(ctx, "tcp", opts.Address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", unreachable{err})
	}
	s, err := begin(ctx, raw, opts)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", opts.Address, err)
	}
	return s, nil
}

// begin begins a session on a connection, which it closes if there is an error.
func begin(ctx context.Context, raw net.Conn, opts Options) (*Session, error) {
	line := newPulse(raw)
	conn := tls.Client(line, wire.ClientConfig(opts.Key, opts.Pin))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if !errors.Is(err, wire.ErrPin) && !errors.Is(err, wire.ErrCertificate) && !errors.Is(err, wire.ErrALPN) {
			err = unreachable{err}
		}
		return nil, err
	}
	m, err := mux.Connect(ctx, conn)
	if err != nil {
		return nil, err
	}
	if opts.Log != nil {
		hello := m.Hello()
		opts.Log.Debug("connected", "server", opts.Address, "as", hello.Client, "version", hello.Program)
	}
	s := &Session{mux: m, conn: conn}
	s.watching.Go(func() { s.watch(line, cmp.Or(opts.Silence, 30*time.Second), opts.Clock) })
	return s, nil
}

// Hello returns what the server said first.
func (s *Session) Hello() wire.Hello { return s.mux.Hello() }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.mux.Done() }

// Err returns why the session is over, wrapping ErrLost; nil while it is not.
func (s *Session) Err() error { return s.mux.Err() }

// Close ends the session. What is under way fails with ErrLost.
func (s *Session) Close() error {
	defer s.watching.Wait()
	return s.mux.Close()
}

// CompareClocks returns nil if two clocks are less than a day apart, else an error that
// says so to a person: this machine's, and the server's as HELLO or Ping told it. Times
// of versions are the server's, see [vault.Stamp], so nothing is lost by it.
func CompareClocks(here, server time.Time) error {
	if here.Sub(server).Abs() < 24*time.Hour {
		return nil
	}
	return fmt.Errorf("this machine's clock says %s, the server's %s", here.UTC().Format(clockLayout), server.UTC().Format(clockLayout))
}

const clockLayout = "2006-01-02 15:04 UTC"

// Ping returns the server's clock.
func (s *Session) Ping(ctx context.Context) (clock time.Time, err error) {
	err = s.ask(ctx, wire.TypePing, wire.AppendEmpty(nil), func(body []byte) error {
		a, err := wire.ParsePingAnswer(body)
		clock = a.Clock
		return err
	})
	return clock, err
}

// Enroll makes the identity a device of the invitation's account. The session's key
// is the identity's, and the server does not know it yet; afterwards a new session
// is needed. The vault is nil while the account has none.
func (s *Session) Enroll(ctx context.Context, i wire.Invitation, id *vault.Identity, name string) (account string, v *vault.ID, err error) {
	e, err := wire.ExportEnroll(s.conn.ConnectionState())
	if err != nil {
		return "", nil, err
	}
	err = s.ask(ctx, wire.TypeEnroll, wire.SignEnroll(e, i, id.Public(), name).Append(nil), func(body []byte) error {
		a, err := wire.ParseEnrollAnswer(body)
		account, v = a.Account, a.Vault
		return err
	})
	return account, v, err
}

// Head returns the newest commit of a device at a time, or the newest of all if at is
// the zero time; an empty one if there is none. It has not been verified.
func (s *Session) Head(ctx context.Context, device vault.DeviceID, at time.Time) (wire.Head, error) {
	return s.head(ctx, wire.HeadRequest{Device: &device, At: at})
}

// HeadNumber returns the commit of a device with a number, from 1; an empty one if
// there is none. It has not been verified.
func (s *Session) HeadNumber(ctx context.Context, device vault.DeviceID, seq uint64) (wire.Head, error) {
	return s.head(ctx, wire.HeadRequest{Device: &device, Seq: seq})
}

func (s *Session) head(ctx context.Context, r wire.HeadRequest) (h wire.Head, err error) {
	err = s.ask(ctx, wire.TypeHead, r.Append(nil), func(body []byte) (err error) {
		h, err = wire.ParseHead(bytes.Clone(body))
		return err
	})
	return h, err
}

// Log yields the commits of a device from the first number to the last, or to the
// newest if last is 0. They have not been verified. After an error nothing follows.
func (s *Session) Log(ctx context.Context, device vault.DeviceID, first, last uint64) iter.Seq2[wire.Head, error] {
	r := wire.LogRequest{Device: device, First: first, Last: last}
	return stream(ctx, s, wire.TypeLog, r.Append(nil), func(dst []wire.Head, body []byte) ([]wire.Head, error) {
		h, err := wire.ParseHead(bytes.Clone(body))
		if err == nil && len(h.Commit) == 0 {
			return dst, nil // there are none
		}
		return append(dst, h), err
	})
}

// Children yields the newest row at a time of every path in a folder, deleted ones
// included, ascending by path id; the zero time is now. After an error nothing
// follows.
func (s *Session) Children(ctx context.Context, device vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[wire.Row, error] {
	return s.rows(ctx, wire.TypeList, wire.ListRequest{Device: device, Parent: &parent, At: at}.Append(nil))
}

// State yields the state of a device at a time, ascending by path id; the zero time is
// now. After an error nothing follows.
func (s *Session) State(ctx context.Context, device vault.DeviceID, at time.Time) iter.Seq2[wire.Row, error] {
	return s.rows(ctx, wire.TypeList, wire.ListRequest{Device: device, At: at}.Append(nil))
}

// Records yields the rows of one commit in its order. After an error nothing follows.
func (s *Session) Records(ctx context.Context, device vault.DeviceID, seq uint64) iter.Seq2[wire.Row, error] {
	return s.rows(ctx, wire.TypeList, wire.ListRequest{Device: device, Seq: seq}.Append(nil))
}

// History yields all rows of a path, newest first. After an error nothing follows.
func (s *Session) History(ctx context.Context, device vault.DeviceID, path vault.PathID) iter.Seq2[wire.Row, error] {
	return s.rows(ctx, wire.TypeHistory, wire.HistoryRequest{Device: device, Path: path}.Append(nil))
}

func (s *Session) rows(ctx context.Context, verb wire.Type, request []byte) iter.Seq2[wire.Row, error] {
	return stream(ctx, s, verb, request, wire.ParseRows)
}

// Prove returns proof that a record is in a commit. It has not been verified.
func (s *Session) Prove(ctx context.Context, device vault.DeviceID, seq uint64, record vault.ObjectID) (p wire.Proof, err error) {
	r := wire.ProveRequest{Device: device, Seq: seq, Record: record}
	err = s.ask(ctx, wire.TypeProve, r.Append(nil), func(body []byte) (err error) {
		p, err = wire.ParseProof(bytes.Clone(body))
		return err
	})
	return p, err
}

// Members returns the entries of the membership log from a number on. They have not
// been verified.
func (s *Session) Members(ctx context.Context, from uint64) ([][]byte, error) {
	var entries [][]byte
	for e, err := range stream(ctx, s, wire.TypeMembers, wire.MembersRequest{From: from}.Append(nil), func(dst [][]byte, body []byte) ([][]byte, error) {
		e, err := wire.ParseEntry(bytes.Clone(body))
		return append(dst, e), err
	}) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// AppendMember appends an entry to the membership log. Errors: [wire.ErrConflict] if
// the log has gone on meanwhile.
func (s *Session) AppendMember(ctx context.Context, entry []byte) error {
	return s.ask(ctx, wire.TypeMembers, wire.MembersRequest{Entry: entry}.Append(nil), wire.ParseEmpty)
}

// MailboxPut puts a message of pairing into a slot.
func (s *Session) MailboxPut(ctx context.Context, slot wire.Slot, message []byte) error {
	return s.ask(ctx, wire.TypeMailbox, wire.MailboxRequest{Slot: slot, Message: message}.Append(nil), wire.ParseEmpty)
}

// MailboxGet waits for the message in a slot: up to 30 seconds, then it is
// [wire.ErrNotFound] and can be asked again.
func (s *Session) MailboxGet(ctx context.Context, slot wire.Slot) (message []byte, err error) {
	err = s.ask(ctx, wire.TypeMailbox, wire.MailboxRequest{Slot: slot}.Append(nil), func(body []byte) error {
		a, err := wire.ParseMailboxAnswer(body)
		message = bytes.Clone(a.Message)
		return err
	})
	return message, err
}

// Devices returns the devices of the account.
func (s *Session) Devices(ctx context.Context) ([]wire.Device, error) {
	var devices []wire.Device
	for d, err := range stream(ctx, s, wire.TypeDevices, wire.AppendEmpty(nil), wire.ParseDevices) {
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// ask sends a request and parses the one message of the answer.
func (s *Session) ask(ctx context.Context, verb wire.Type, request []byte, parse func(body []byte) error) error {
	st, err := s.mux.Open(ctx, verb, request, false)
	if err != nil {
		return fmt.Errorf("%v: %w", verb, err)
	}
	defer st.Close()
	return only(verb, st, parse)
}

// only parses the one message that an answer consists of.
func only(verb wire.Type, st *mux.Stream, parse func(body []byte) error) error {
	body, err := st.Message()
	if err == nil {
		err = parse(body)
	} else if err == io.EOF {
		err = fmt.Errorf("%w: empty answer", wire.ErrMalformed)
	}
	if err == nil {
		if _, err = st.Message(); err == nil {
			err = fmt.Errorf("%w: answer goes on", wire.ErrMalformed)
		} else if err == io.EOF {
			return nil
		}
	}
	return fmt.Errorf("%v: %w", verb, err)
}

// stream sends a request and yields what parse makes of the messages of the answer.
func stream[T any](ctx context.Context, s *Session, verb wire.Type, request []byte, parse func(dst []T, body []byte) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		st, err := s.mux.Open(ctx, verb, request, false)
		if err != nil {
			yield(zero, fmt.Errorf("%v: %w", verb, err))
			return
		}
		defer st.Close()
		var buf []T
		for {
			body, err := st.Message()
			if err == io.EOF {
				return
			}
			if err == nil {
				buf, err = parse(buf[:0], body)
			}
			if err != nil {
				yield(zero, fmt.Errorf("%v: %w", verb, err))
				return
			}
			for _, v := range buf {
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}
