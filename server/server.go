// Package server keeps what agents and version 3 clients send. It owns one data
// folder: the store, the keys that seal the legacy area, the log, and the socket
// through which commands on this machine talk to it.
//
// The one invariant: what is acknowledged to a peer is durable in the store, so
// losing the process or power at any moment loses nothing that was acknowledged.
//
// Enter at [Open]; [Server.Run] serves until its context ends. A server that is
// open but not running answers the commands of package admin all the same, which
// is how they work on a stopped one.
package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"backstay/internal/localsock"
	"backstay/protocol/vault"
	"backstay/server/accounts"
	"backstay/server/admin"
	"backstay/server/storage"
	"backstay/server/storage/disk"
	"backstay/server/v3"
	"backstay/server/v4"
)

const (
	// headerTime is how long a new connection may take to show what it speaks.
	headerTime = 10 * time.Second
	// grace is how long sessions may finish after Run's context has ended. It
	// leaves room within the 15 s in which the program promises to end.
	grace = 10 * time.Second
)

// Options say what a server works on. Config and Log may be left zero for the
// commands that only read a stopped server's store.
type Options struct {
	// Data is the data folder; it is made if it is missing.
	Data   string
	Config Config
	// Log takes no file name, no content and no key. Default: discarded.
	Log *slog.Logger
}

// Server is an open data folder. All methods are safe for concurrent use.
type Server struct {
	o        Options
	log      *slog.Logger
	store    *disk.Store
	legacy   *v3.Area
	vault    vault.ID // of the legacy area
	accounts *accounts.Accounts
	agents   *v4.Server
	key      ed25519.PrivateKey
	clock    *clock
	started  time.Time
	sessions sessions
	refused  refusals
	// listening is closed when addr is set.
	listening chan struct{}
	addr      net.Addr
}

// Open opens the store and the keys of a data folder. No other process can open
// it until Close.
func Open(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	store, err := disk.Open(filepath.Join(o.Data, "store"), disk.Options{Log: o.Log})
	if err != nil {
		return nil, err
	}
	s := &Server{
		o: o, log: o.Log, store: store, started: time.Now(),
		sessions:  sessions{max: o.Config.MaxSessions, maxPerAddress: o.Config.MaxPerAddress, byAddress: map[string]int{}},
		refused:   refusals{log: o.Log},
		listening: make(chan struct{}),
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// open opens what lies in the store and beside it.
func (s *Server) open(ctx context.Context) error {
	stats, err := s.store.Stats(ctx)
	if err != nil {
		return err
	}
	legacy, err := loadLegacyKey(s.o.Data, stats.Objects == 0)
	if err != nil {
		return err
	}
	s.vault = legacy.vault
	if s.legacy, err = v3.Open(ctx, s.store, vault.NewKeyring(legacy.vault, legacy.key), s.o.legacy()); err != nil {
		return err
	}
	s.accounts, err = accounts.Open(ctx, s.store, accounts.Options{
		Reserved: []vault.ID{legacy.vault}, SeenFile: filepath.Join(s.o.Data, seenFile), Log: s.log,
	})
	if err != nil {
		return err
	}
	invited := false
	for _, err := range s.store.Items(ctx, storage.KindInvitation, storage.Key{}) {
		if err != nil {
			return err
		}
		invited = true
		break
	}
	if s.key, err = loadServerKey(s.o.Data, !invited); err != nil {
		return err
	}
	if s.clock, err = openClock(s.o.Data, time.Now, s.log); err != nil {
		return err
	}
	s.agents = v4.New(v4.Options{
		Store: s.store, Accounts: s.accounts, Key: s.key, Clock: s.clock, Program: program(), Log: s.log,
	})
	return nil
}

// seenFile holds when devices were last seen.
const seenFile = "seen"

// program is the version that agents are told.
func program() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

func (o Options) legacy() v3.Options {
	return v3.Options{
		OAEP:        o.Config.V3OAEP,
		OAEPByName:  o.Config.V3OAEPByName,
		Series:      o.Config.series(),
		AckResend:   o.Config.V3AckResend,
		OnlyAllowed: o.Config.V3 == V3On,
		IdleTimeout: o.Config.idle(),
		Log:         o.Log,
	}
}

// Close releases the data folder.
func (s *Server) Close() error { return s.store.Close() }

// Addr waits until Run listens and returns the address, or nil if ctx ends first.
func (s *Server) Addr(ctx context.Context) net.Addr {
	select {
	case <-s.listening:
		return s.addr
	case <-ctx.Done():
		return nil
	}
}

// Run listens and serves until ctx ends, then lets sessions finish for a short
// while and returns nil. It returns an error when it cannot listen, and when the
// store has failed: then nothing more is acknowledged and the program must end.
// Run is called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	listener, err := net.Listen("tcp", s.o.Config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w; another program may have the port: choose one with --listen", err)
	}
	defer listener.Close()
	local, err := localsock.Listen(s.o.Data)
	if err != nil {
		return err
	}
	var services sync.WaitGroup
	defer services.Wait()
	defer cancel(nil)
	services.Go(func() { s.serveHTTP(ctx, local, admin.Handler(s)) })
	metrics, err := s.listenMetrics()
	if err != nil {
		return err
	}
	if metrics != nil {
		services.Go(func() { s.serveHTTP(ctx, metrics, s.metricsHandler()) })
	}
	services.Go(func() {
		select {
		case <-s.store.Failed():
			cancel(storage.ErrFailed)
		case <-ctx.Done():
		}
	})
	services.Go(func() { s.clock.run(ctx) })
	services.Go(func() { s.accounts.Run(ctx) })
	s.addr = listener.Addr()
	close(s.listening)
	s.log.Info("listening", "address", s.addr.String(), "v3", string(s.o.Config.V3), "data", s.o.Data)
	context.AfterFunc(ctx, func() { listener.Close() })
	s.accept(ctx, listener)
	s.logStats()
	if cause := context.Cause(ctx); errors.Is(cause, storage.ErrFailed) {
		return cause
	}
	return nil
}

// listenMetrics returns nil where no metrics are wanted, and where nobody said so
// and the default port is taken.
func (s *Server) listenMetrics() (net.Listener, error) {
	address := s.o.Config.Metrics
	if address == "off" {
		return nil, nil
	}
	if address == "" {
		address = defaultMetrics
	}
	l, err := net.Listen("tcp", address)
	if err != nil && s.o.Config.Metrics == "" {
		s.log.Warn("no metrics: the default address is taken", "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w; set metrics to another loopback address or to off", err)
	}
	s.log.Info("metrics", "url", "http://"+l.Addr().String()+"/metrics")
	return l, nil
}

// accept serves connections until ctx ends and every session has ended.
func (s *Server) accept(ctx context.Context, listener net.Listener) {
	// hard ends sessions that outlast the grace.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cut) })
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			// Out of descriptors, most likely: sessions that end free some.
			s.log.Error("accept", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		if !s.sessions.enter(conn.RemoteAddr()) {
			s.refused.add(time.Now(), conn.RemoteAddr(), "too many sessions")
			conn.Close()
			continue
		}
		running.Go(func() {
			defer s.sessions.leave(conn.RemoteAddr())
			defer conn.Close()
			stop := context.AfterFunc(hard, func() { conn.Close() })
			defer stop()
			s.serve(ctx, conn)
		})
	}
}

// serve finds out what a connection speaks and serves it.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	// A peer that has sent nothing yet has nothing to finish.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	peer := host(conn.RemoteAddr())
	first, replay, err := peek(conn, headerTime)
	stop()
	switch {
	case err != nil:
		s.log.Debug("session", "peer", peer, "err", err)
	case isTLS(first):
		s.session(peer, 4, func() error { return s.agents.Serve(ctx, replay) })
	case s.o.Config.V3 == V3Off, s.o.Config.V3 == V3Loopback && !isLoopback(conn.RemoteAddr()):
		s.refused.add(time.Now(), conn.RemoteAddr(), "protocol version 3 is not allowed from there")
	case s.clock.Trusted() != nil:
		s.refused.add(time.Now(), conn.RemoteAddr(), "the clock is not confirmed")
	default:
		s.session(peer, 3, func() error { return s.legacy.Serve(ctx, replay) })
	}
}

// session logs how a session begins and ends.
func (s *Server) session(peer string, protocol int, serve func() error) {
	log := s.log.With("peer", peer, "protocol", protocol)
	log.Debug("session starts")
	if err := serve(); err != nil {
		log.Info("session ends", "err", err)
	} else {
		log.Debug("session ends")
	}
}

func (s *Server) serveHTTP(ctx context.Context, l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTime, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("serve", "address", l.Addr().String(), "err", err)
	}
}

func (s *Server) logStats() {
	st, err := s.Stats(context.Background())
	if err != nil {
		s.log.Error("statistics", "err", err)
		return
	}
	c := s.legacy.Counters()
	s.log.Info("stopped", "up", time.Since(s.started).Round(time.Second).String(),
		"commits", s.agents.Counters().Commits, "files_received", c.Files, "bytes_received", c.Bytes, "checksums_wrong", c.ChecksumWrong,
		"devices", st.Devices, "files", st.Files, "versions", st.Versions, "bytes_stored", st.BytesStored)
}

// sessions counts and bounds connections.
type sessions struct {
	max, maxPerAddress int
	now                atomic.Int64

	mu        sync.Mutex // guards byAddress
	byAddress map[string]int
}

func (s *sessions) enter(a net.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := host(a)
	if int(s.now.Load()) >= s.max || s.byAddress[h] >= s.maxPerAddress {
		return false
	}
	s.byAddress[h]++
	s.now.Add(1)
	return true
}

func (s *sessions) leave(a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := host(a)
	if s.byAddress[h]--; s.byAddress[h] == 0 {
		delete(s.byAddress, h)
	}
	s.now.Add(-1)
}
