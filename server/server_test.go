package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"backstay/internal/localsock"
	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/admin"
	"backstay/server/storage"
)

// open opens a server on a new data folder with a log that can be read.
func open(t *testing.T, change func(*Config)) (*Server, *logBuffer) {
	t.Helper()
	c := DefaultConfig()
	c.Listen, c.Metrics = "127.0.0.1:0", "off"
	if change != nil {
		change(&c)
	}
	log := &logBuffer{}
	s, err := Open(t.Context(), Options{Data: t.TempDir(), Config: c, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, log
}

// run runs a server until the test ends or stop is called.
func run(t *testing.T, s *Server) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	a := s.Addr(ctx)
	if a == nil {
		t.Fatal("does not listen")
	}
	return a.String(), stop
}

type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// ask sends a version 3 request and returns the answer.
func ask(t *testing.T, conn net.Conn, m wire.Message) wire.Message {
	t.Helper()
	b, err := wire.Field.AppendRequest(nil, wire.ClientID{}, m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	resp, err := wire.ReadResponse(conn, wire.Field)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Message
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestVersion3OnLoopback(t *testing.T) {
	s, _ := open(t, nil)
	addr, _ := run(t, s)
	if m := ask(t, dial(t, addr), wire.Message{Kind: wire.Register, Name: "ada"}); m.Kind != wire.Registered {
		t.Fatalf("got %v", m.Kind)
	}
}

// pipe is a connection that claims to come from elsewhere.
type pipe struct {
	net.Conn
	remote net.Addr
}

func (p pipe) RemoteAddr() net.Addr { return p.remote }

func TestVersion3FromElsewhere(t *testing.T) {
	away := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}
	home := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 1}
	for _, tt := range []struct {
		name   string
		mode   V3Mode
		from   net.Addr
		served bool
	}{
		{"loopback only, from loopback", V3Loopback, home, true},
		{"loopback only, from elsewhere", V3Loopback, away, false},
		{"off, from loopback", V3Off, home, false},
		{"on, from elsewhere", V3On, away, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, log := open(t, func(c *Config) { c.V3 = tt.mode })
			if err := s.V3Allow(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
			client, conn := net.Pipe()
			var serving sync.WaitGroup
			serving.Go(func() {
				s.serve(t.Context(), pipe{conn, tt.from})
				conn.Close()
			})
			request, err := wire.Field.AppendRequest(nil, wire.ClientID{}, wire.Message{Kind: wire.Register, Name: "ada"})
			if err != nil {
				t.Fatal(err)
			}
			serving.Go(func() { client.Write(request) })
			answer, err := io.ReadAll(io.LimitReader(client, 23))
			client.Close()
			serving.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if got := len(answer) > 0; got != tt.served {
				t.Fatalf("answered with %x, served should be %v", answer, tt.served)
			}
			if refused := strings.Contains(log.String(), "not allowed from there"); refused == tt.served {
				t.Fatalf("log:\n%s", log)
			}
		})
	}
}

func TestVersion3OnAdmitsAllowedNamesOnly(t *testing.T) {
	s, _ := open(t, func(c *Config) { c.V3 = V3On })
	addr, _ := run(t, s)
	if m := ask(t, dial(t, addr), wire.Message{Kind: wire.Register, Name: "ada"}); m.Kind != wire.RegistrationRefused {
		t.Fatalf("a name nobody allowed: %v", m.Kind)
	}
	if err := s.V3Allow(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	if m := ask(t, dial(t, addr), wire.Message{Kind: wire.Register, Name: "ada"}); m.Kind != wire.Registered {
		t.Fatalf("an allowed name: %v", m.Kind)
	}
}

func TestRefusalsAreLoggedOncePerMinute(t *testing.T) {
	log := &logBuffer{}
	r := refusals{log: slog.New(slog.NewTextHandler(log, nil))}
	start := time.Unix(1, 0)
	peer := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7)}
	for i := range 1000 {
		r.add(start.Add(time.Duration(i)*time.Millisecond), peer, "why")
	}
	r.add(start.Add(61*time.Second), peer, "why")
	if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "count=1000") {
		t.Fatalf("%d lines:\n%s", lines, log)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s, log := open(t, func(c *Config) { c.MaxPerAddress = 2 })
	addr, _ := run(t, s)
	for range 2 {
		ask(t, dial(t, addr), wire.Message{Kind: wire.Register, Name: "ada"})
	}
	one := dial(t, addr)
	if n, err := one.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("the third session was served: %d, %v", n, err)
	}
	if !strings.Contains(log.String(), "too many sessions") {
		t.Fatalf("log:\n%s", log)
	}
}

func TestStopDoesNotWaitForIdleSessions(t *testing.T) {
	s, log := open(t, nil)
	addr, stop := run(t, s)
	silent := dial(t, addr)
	idle := dial(t, addr)
	ask(t, idle, wire.Message{Kind: wire.Register, Name: "ada"})
	stop()
	for _, conn := range []net.Conn{silent, idle} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Fatal("still connected")
		}
	}
	if !strings.Contains(log.String(), "files_received=0") {
		t.Fatalf("no statistics at the end:\n%s", log)
	}
}

func TestMetricsAndHealth(t *testing.T) {
	port := freePort(t)
	s, _ := open(t, func(c *Config) { c.Metrics = port })
	run(t, s)
	for path, want := range map[string]string{"/healthz": "ok\n", "/metrics": "backstay_v3_files_total 0"} {
		resp, err := http.Get("http://" + port + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Fatalf("%s: %s %v, want %q in:\n%s", path, resp.Status, err, want, body)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestAdminThroughTheSocket(t *testing.T) {
	s, _ := open(t, nil)
	client := admin.NewClient(s.o.Data)
	if _, err := client.Stats(t.Context()); !errors.Is(err, localsock.ErrNotRunning) {
		t.Fatalf("before it runs: %v", err)
	}
	addr, _ := run(t, s)
	ask(t, dial(t, addr), wire.Message{Kind: wire.Register, Name: "ada"})
	st, err := client.Stats(t.Context())
	if err != nil || st.Sessions != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	for f, err := range client.V3Files(t.Context()) {
		t.Fatalf("lists %v, %v", f, err)
	}
	if err := client.V3Get(t.Context(), "ada", "none", io.Discard); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("get: %v", err)
	}
	if err := client.V3Allow(t.Context(), "bad\x01name"); !errors.Is(err, storage.ErrInvalid) {
		t.Fatalf("allow: %v", err)
	}
	if err := client.V3Allow(t.Context(), "eve"); err != nil {
		t.Fatal(err)
	}
}

func TestOneServerPerDataFolder(t *testing.T) {
	s, _ := open(t, nil)
	if _, err := Open(t.Context(), s.o); err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("opened twice: %v", err)
	}
}

func TestLegacyKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, legacyKeyFile)
	if _, err := loadLegacyKey(dir, false); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Fatalf("store without key: %v", err)
	}
	made, err := loadLegacyKey(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := loadLegacyKey(dir, false); err != nil || again != made || again.vault == (vault.ID{}) {
		t.Fatalf("read back: %v", err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, content string }{
		{"empty", ""},
		{"short key", strings.TrimSuffix(string(good), "\n")[:len(good)-3]},
		{"unknown word", string(good) + "more 00\n"},
		{"no vault", string(good[strings.Index(string(good), "key "):])},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadLegacyKey(dir, true); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if now, _ := os.ReadFile(path); string(now) != tt.content {
			t.Errorf("%s: the file was written over", tt.name)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "listen"},
		{"port out of range", func(c *Config) { c.Listen = ":70000" }, "listen"},
		{"mode", func(c *Config) { c.V3 = "yes" }, "v3"},
		{"series", func(c *Config) { c.V31100 = wire.Field }, "1100"},
		{"metrics for everybody", func(c *Config) { c.Metrics = ":1257" }, "metrics"},
		{"no sessions", func(c *Config) { c.MaxSessions = 0 }, "max_sessions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := DefaultConfig()
			c.Listen = ":1256"
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			tt.change(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error about %s", err, tt.want)
			}
		})
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := LoadConfig(dir); err != nil || c.Listen != ":1256" {
		t.Fatalf("%+v, %v", c, err)
	}
	write("port.info", "4711\r\n")
	write("server.toml", "v3 = 'on'\nv3_oaep = 'sha1'\nv3_1100 = '2022'\n[v3_oaep_by_name]\nada = 'sha256'\n")
	c, err := LoadConfig(dir)
	if err != nil || c.Listen != ":4711" || c.V3 != V3On || c.V3OAEP != wire.SHA1 || c.V31100 != wire.Y2022 || c.V3OAEPByName["ada"] != wire.SHA256 {
		t.Fatalf("%+v, %v", c, err)
	}
	write("port.info", "0")
	if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), "port.info") {
		t.Fatalf("port 0: %v", err)
	}
	write("server.toml", "v3_oaep = 'md5'\n")
	if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), "server.toml:1") {
		t.Fatalf("unknown hash: %v", err)
	}
}
