// Package v4 serves protocol version 4: it says who a client is, what it may do, and
// carries verbs out on the store (SPEC.md, Part 4).
//
// The one invariant: a client reaches what is in the vault of its own account and
// nothing else, and adds to it only as itself; there is no verb that takes away. What
// is answered to PUT and COMMIT is durable.
//
// What clients can make the server hold in memory is bounded for all of them together:
// what they send and nobody has read by a room, objects that come and answers that go
// by a budget each, all shared fairly. See the bounds of memory below. Frames are
// package mux's, accounts and membership package accounts'. Enter at [New] and
// [Server.Serve].
package v4

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/accounts"
	"backstay/server/storage"
)

// Limits of sessions.
const (
	// handshakeTime is how long TLS may take.
	handshakeTime = 10 * time.Second
	// maxStrangers is how many clients of one address may be between connecting and
	// being known.
	maxStrangers = 64
	// maxSessions is how many sessions a device has. The oldest goes when there is
	// one more: it is likely one that the network has lost.
	maxSessions = 8
	// requests and credit are what HELLO allows. A credit of less could not carry
	// the largest message, an entry of the membership log.
	requests = 8
	credit   = 256 << 10
)

// Bounds of memory, 40 MiB together, however many sessions there are and whatever
// they do. A session itself takes about 100 KiB, its connection, 16 pages for requests
// and its frames on their way out; with that and the store's they add up to what the
// program promises.
const (
	// requestBytes is for what requests have sent and nobody has read: that of 50
	// with objects. It is given back when a request is answered. Requests that wait
	// hold some, so it is more than uploads at work and maxWaiting take: then one
	// of a full room waits for an upload, and sees to it that slow ones end.
	requestBytes = 16 << 20
	// deviceBytes is how much of it one device may have.
	deviceBytes   = requestBytes / 4
	uploadBytes   = 14 << 20
	downloadBytes = 10 << 20
	// perDevice is how many uploads, and downloads, of one device are at work.
	perDevice = 3
	// maxWaiting is how many requests wait for either.
	maxWaiting = 24
)

// Clock says whether stamps can be made. Its error, with a text for a person, is told
// to clients as [wire.ErrClock].
type Clock interface{ Trusted() error }

// Options of a [Server]. Store, Accounts, Key and Clock have no default.
type Options struct {
	Store    storage.Store
	Accounts *accounts.Accounts
	// Key is the server's: of its certificate and of its stamps.
	Key   ed25519.PrivateKey
	Clock Clock
	// Retention is what clients are told is in force. Default: every commit for 48
	// hours, hourly for 14 days, daily for 90 days, weekly for 104 weeks.
	Retention vault.Retention
	// Program is the version that clients are told.
	Program string
	// Log takes no name, no content and no key. Default: discarded.
	Log *slog.Logger
}

// Server serves sessions. All methods are safe for concurrent use.
type Server struct {
	o         Options
	tls       *tls.Config
	requests  room
	uploads   *budget
	downloads *budget
	mailbox   mailbox
	strangers crowd
	enrols    limiter // of ENROLL, by address
	entries   limiter // of appends to membership logs, by device
	counters  counters

	mu       sync.Mutex // guards sessions
	sessions map[vault.DeviceID][]*session
}

// Counters say what happened since the server began.
type Counters struct {
	// Sessions counts those of known clients, Enrolled devices, Refused requests
	// answered with an error.
	Sessions, Enrolled, Refused int64
	Commits                     int64
	// BytesIn are those of objects received, BytesOut of objects sent.
	BytesIn, BytesOut int64
}

type counters struct {
	sessions, enrolled, refused, commits, bytesIn, bytesOut atomic.Int64
}

// New returns a server.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Retention == (vault.Retention{}) {
		o.Retention = vault.Retention{Hours: 48, HourlyDays: 14, DailyDays: 90, WeeklyWeeks: 104}
	}
	return &Server{
		o: o, tls: wire.ServerConfig(o.Key),
		requests:  room{free: requestBytes, share: deviceBytes},
		uploads:   newBudget(uploadBytes, perDevice, maxWaiting),
		downloads: newBudget(downloadBytes, perDevice, maxWaiting),
		enrols:    limiter{burst: 30, every: 2 * time.Second},
		entries:   limiter{burst: 32, every: time.Minute},
		sessions:  make(map[vault.DeviceID][]*session),
	}
}

// Counters returns the counts.
func (s *Server) Counters() Counters {
	c := &s.counters
	return Counters{
		Sessions: c.sessions.Load(), Enrolled: c.enrolled.Load(), Refused: c.refused.Load(), Commits: c.commits.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
	}
}

// session is one client's connection after the handshake.
type session struct {
	s       *Server
	client  accounts.Client
	id      vault.DeviceID // of the device; of a root, what stands for it in budgets
	conn    *tls.Conn
	address string
	mux     *mux.Server
	members atomic.Pointer[accounts.Members] // kept, so that the log is read once
	serving context.Context                  // ends when the server takes no more requests

	away sync.Once
}

// Serve speaks version 4 on a connection whose first bytes are those of TLS, until
// the client leaves or is sent away, and closes it. When ctx ends, requests under way
// may finish; whoever wants to end them closes conn. The error says why the session
// ended, nil if the client closed it or ctx ended.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	address := addressOf(conn.RemoteAddr())
	if !s.strangers.enter(address, maxStrangers) {
		return fmt.Errorf("%w: %d connections from this address are not known yet", wire.ErrBusy, maxStrangers)
	}
	known := sync.OnceFunc(func() { s.strangers.leave(address) })
	defer known()

	secure := tls.Server(conn, s.tls)
	shaking, cancel := context.WithTimeout(ctx, handshakeTime)
	err := secure.HandshakeContext(shaking)
	cancel()
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	key, err := wire.PeerKey(secure.ConnectionState())
	if err != nil {
		return err
	}
	se := &session{s: s, client: s.o.Accounts.Who(key), address: address, conn: secure, serving: ctx}
	if se.client.Device != nil || se.client.Root {
		known()
		s.counters.sessions.Add(1)
		copy(se.id[:], key)
		if d := se.client.Device; d != nil {
			se.id = d.ID
			d.Seen(time.Now())
		}
	}
	hello, err := se.hello(ctx)
	if err == nil {
		se.mux = mux.NewServer(secure, hello, mux.Options{Log: s.o.Log, Room: s.requests.of(se.id)})
		s.enter(se)
		defer s.leave(se)
		// Whoever revokes looks for sessions, and this looks for a revocation, after
		// the session is among them: one of the two finds the other.
		_, err = se.standing(ctx)
	}
	if err != nil {
		mux.Refuse(secure, s.reply(err))
		return err
	}
	defer context.AfterFunc(ctx, func() { se.leave(&wire.Error{Code: wire.CodeClosing, Text: "the server is stopping"}) })()
	return se.mux.Serve(context.WithoutCancel(ctx), se.handle)
}

// enter adds a session, and sends the device's oldest away if there are too many.
func (s *Server) enter(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(s.sessions[se.id], se)
	if se.client.Device != nil && len(all) > maxSessions {
		go all[0].mux.End(&wire.Error{Code: wire.CodeClosing, Text: "this device has begun newer sessions"})
		all = slices.Delete(all, 0, 1)
	}
	s.sessions[se.id] = all
}

func (s *Server) leave(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(s.sessions[se.id], func(other *session) bool { return other == se })
	if len(all) == 0 {
		delete(s.sessions, se.id)
	} else {
		s.sessions[se.id] = all
	}
}

// cutRevoked ends the sessions of devices that the log has ended; but of its own by,
// which asked for that, when it is answered.
func (s *Server) cutRevoked(log *vault.Members, by *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, all := range s.sessions {
		if all[0].client.Device == nil || !accounts.Ended(log, id) {
			continue
		}
		for _, se := range all {
			if se == by {
				se.leave(wire.AsError(errRevoked))
			} else {
				go se.mux.End(wire.AsError(errRevoked))
			}
		}
	}
}

var errRevoked = fmt.Errorf("%w: it can be enrolled again as a new device", wire.ErrRevoked)

// leave tells the client to make no more requests; the session ends after those
// under way.
func (se *session) leave(why *wire.Error) { se.away.Do(func() { se.mux.GoAway(why) }) }

// standing is what a client is when it asks for something.
type standing uint8

const (
	stranger standing = 1 << iota // nobody known
	outsider                      // an enrolled device that is no member
	member                        // a live member
	root
)

// standing says what the client is now. Errors: [wire.ErrRevoked].
func (se *session) standing(ctx context.Context) (standing, error) {
	switch {
	case se.client.Root:
		return root, nil
	case se.client.Device == nil:
		return stranger, nil
	}
	m, err := se.log(ctx)
	if err != nil || m == nil {
		return outsider, err
	}
	return standingIn(m.Now(), se.id)
}

func standingIn(log *vault.Members, id vault.DeviceID) (standing, error) {
	switch _, status := log.Member(id); {
	case accounts.Ended(log, id):
		return 0, errRevoked
	case status == vault.StatusLive:
		return member, nil
	}
	return outsider, nil
}

// log returns the membership log of the account's vault, nil if it has none.
func (se *session) log(ctx context.Context) (*accounts.Members, error) {
	if m := se.members.Load(); m != nil {
		return m, nil
	}
	v := se.s.o.Accounts.Vault(se.client.Account)
	if v == nil {
		return nil, nil
	}
	m, err := se.s.o.Accounts.Members(ctx, *v)
	if err != nil {
		return nil, err
	}
	se.members.Store(m)
	return m, nil
}

func (se *session) hello(ctx context.Context) (wire.Hello, error) {
	h := wire.Hello{
		Revision: wire.Revision, Clock: time.Now(), Requests: requests, Credit: credit,
		Account: se.client.Account, Retention: se.s.o.Retention, Program: se.s.o.Program,
	}
	switch {
	case se.client.Root:
		h.Client = wire.ClientRoot
	case se.client.Device != nil:
		h.Client = wire.ClientDevice
	default:
		h.Requests, h.Credit = 0, 0 // what mux allows strangers
		return h, nil
	}
	m, err := se.log(ctx)
	if err != nil || m == nil {
		return h, err
	}
	log := m.Now()
	h.Vault, h.Members = new(log.Vault()), new(log.Head())
	if se.client.Device != nil {
		what, err := standingIn(log, se.id)
		h.Member = what == member
		return h, err
	}
	return h, nil
}

// request is a request with what its client stands for.
type request struct {
	*mux.Request
	*session
	vault   vault.ID // zero while the account has none
	members *accounts.Members
}

// verbs say who may use a verb, and how it is answered.
var verbs = map[wire.Type]struct {
	may    standing
	answer func(*request, context.Context) error
}{
	wire.TypeEnroll:  {stranger | outsider | member, (*request).enroll},
	wire.TypeHave:    {member | root, (*request).have},
	wire.TypePut:     {member, (*request).put},
	wire.TypeCommit:  {member, (*request).commit},
	wire.TypeHead:    {member | root, (*request).head},
	wire.TypeLog:     {member | root, (*request).commits},
	wire.TypeList:    {member | root, (*request).list},
	wire.TypeHistory: {member | root, (*request).history},
	wire.TypeGet:     {member | root, (*request).get},
	wire.TypeProve:   {member | root, (*request).prove},
	wire.TypeMembers: {outsider | member | root, (*request).membership},
	wire.TypeMailbox: {outsider | member, (*request).mail},
	wire.TypeDevices: {outsider | member | root, (*request).devices},
	wire.TypePing:    {outsider | member | root, (*request).ping},
}

// handle answers a request.
func (se *session) handle(ctx context.Context, r *mux.Request) error {
	err := se.answer(ctx, r)
	if err != nil {
		se.s.counters.refused.Add(1)
	}
	return se.s.reply(err)
}

func (se *session) answer(ctx context.Context, r *mux.Request) error {
	if se.client.Device != nil {
		se.client.Device.Seen(time.Now())
	}
	verb, ok := verbs[r.Verb]
	if !ok {
		return fmt.Errorf("%w: %v", wire.ErrUnsupported, r.Verb)
	}
	what, err := se.standing(ctx)
	if err != nil {
		return err
	}
	if verb.may&what == 0 {
		return fmt.Errorf("%w: %v", wire.ErrForbidden, r.Verb)
	}
	q := &request{Request: r, session: se}
	if what != stranger {
		if q.members, err = se.log(ctx); err != nil {
			return err
		}
		if q.members != nil {
			q.vault = q.members.Now().Vault()
		}
	}
	return verb.answer(q, ctx)
}

// told are the errors of the store that clients are told by a code. The text of those
// marked says more than is theirs to know.
var told = []struct {
	err, as error
	secret  bool
}{
	{storage.ErrNotFound, wire.ErrNotFound, false},
	{storage.ErrInvalid, wire.ErrMalformed, false},
	{storage.ErrMissingRef, wire.ErrMissingRefs, false},
	{storage.ErrConflict, wire.ErrConflict, false},
	{storage.ErrDigest, wire.ErrDigest, false},
	{storage.ErrFull, wire.ErrFull, true},
	{storage.ErrFailed, wire.ErrFailed, true},
	{storage.ErrClosed, wire.ErrClosing, true},
	{storage.ErrCorrupt, wire.ErrCorrupt, true},
}

// reply returns the error that a client is told.
func (s *Server) reply(err error) error {
	if err == nil || wire.CodeOf(err) != wire.CodeInternal {
		return err
	}
	for _, t := range told {
		if !errors.Is(err, t.err) {
			continue
		}
		if t.secret {
			s.o.Log.Error("request failed", "err", err)
			return t.as
		}
		return fmt.Errorf("%w: %w", t.as, err)
	}
	return err
}

// tooSlow ends the session because others wait for the memory it holds.
func (se *session) tooSlow() {
	go se.mux.End(&wire.Error{Code: wire.CodeBusy, Text: "others wait, and this connection was too slow: try again later"})
}
