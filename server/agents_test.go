package server

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"backstay/internal/mux"
	wire3 "backstay/protocol/v3"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/admin"
	"backstay/server/storage"
)

// session begins a session of protocol version 4 with an identity.
func session(t testing.TB, addr string, pin wire.Pin, id *vault.Identity) (*mux.Client, *tls.Conn) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, wire.ClientConfig(id.TLS(), pin))
	if err != nil {
		t.Fatal(err)
	}
	c, err := mux.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, conn
}

func ask4(t testing.TB, c *mux.Client, verb wire.Type, body []byte) ([]byte, error) {
	t.Helper()
	s, err := c.Open(t.Context(), verb, body, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	m, err := s.Message()
	return slices.Clone(m), err
}

// join redeems an invitation as it is pasted.
func join(t testing.TB, text string) (*vault.Identity, *mux.Client) {
	t.Helper()
	i, err := wire.ParseInvitation(text)
	if err != nil {
		t.Fatal(err)
	}
	id, err := vault.NewIdentity(vault.RoleDevice, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	c, conn := session(t, i.Addresses[0], i.Pin, id)
	e, err := wire.ExportEnroll(conn.ConnectionState())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask4(t, c, wire.TypeEnroll, wire.SignEnroll(e, i, id.Public(), "Ada's laptop").Append(nil)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c, _ = session(t, i.Addresses[0], i.Pin, id)
	return id, c
}

// found makes the vault of the device's account, with it as a member.
func found(t *testing.T, id *vault.Identity, c *mux.Client) (*vault.Members, *vault.Identity) {
	t.Helper()
	root, err := vault.NewIdentity(vault.RoleRoot, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	log := vault.NewMembers(vault.NewID())
	grow := func(raw []byte, err error) {
		t.Helper()
		if err == nil {
			err = log.Append(raw)
		}
		if err == nil {
			_, err = ask4(t, c, wire.TypeMembers, wire.MembersRequest{Entry: raw}.Append(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	grow(log.SignGenesis(root, time.Now()))
	keys, err := log.Unlock(root, vault.EntryHash{})
	if err != nil {
		t.Fatal(err)
	}
	grow(log.SignAdd(root, keys, id.Public(), "Ada's laptop", time.Now()))
	return log, root
}

// commit sends the device's first commit, of nothing.
func commit(t *testing.T, id *vault.Identity, log *vault.Members, c *mux.Client) error {
	t.Helper()
	raw, err := vault.Commit{
		Device: id.ID(), Seq: 1, Root: vault.RecordsRoot(nil), Digest: new(vault.Digest).Sum(), Members: log.Head(), Time: time.Now(),
	}.Sign(log.Vault(), id)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask4(t, c, wire.TypeCommit, wire.CommitRequest{Commit: raw}.Append(nil))
	return err
}

// TestAnAgent goes from the invitation to a commit, and what the administrator sees
// of it, while the server runs and after.
func TestAnAgent(t *testing.T) {
	s, logged := open(t, nil)
	_, stop := run(t, s)
	client := admin.NewClient(s.o.Data)
	made, err := client.Invite(t.Context(), admin.InviteOptions{Account: "home", TTL: time.Hour})
	if err != nil || made.Account != "home" || time.Until(made.Expires) > time.Hour {
		t.Fatalf("%+v, %v", made, err)
	}
	id, c := join(t, made.Invitation)
	log, _ := found(t, id, c)
	for _, when := range []string{"running", "stopped"} {
		asked := admin.Service(client)
		if when == "stopped" {
			if err := commit(t, id, log, c); err != nil {
				t.Fatal(err)
			}
			stop()
			asked = s
		}
		devices, err := asked.Devices(t.Context())
		if err != nil || len(devices) != 1 {
			t.Fatalf("%s: %+v, %v", when, devices, err)
		}
		d := devices[0]
		if d.ID != id.ID().String() || d.Name != "Ada's laptop" || d.Account != "home" || d.Revoked || d.LastSeen == nil || (d.LastSafe != nil) != (when == "stopped") {
			t.Errorf("%s: %+v", when, d)
		}
		accounts, err := asked.Accounts(t.Context())
		if err != nil || len(accounts) != 1 || accounts[0].Name != "home" || accounts[0].Devices != 1 || accounts[0].Vault != log.Vault().String() {
			t.Errorf("%s: %+v, %v", when, accounts, err)
		}
		st, err := asked.Stats(t.Context())
		if err != nil || st.Accounts != 1 || st.Devices != 1 || st.ClockProblem != "" {
			t.Errorf("%s: %+v, %v", when, st, err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.o.Data, seenFile)); err != nil {
		t.Error(err)
	}
	if text := logged.String(); strings.Contains(text, "laptop") || strings.Contains(text, "home") || strings.Contains(text, made.Invitation) {
		t.Errorf("the log tells names or secrets:\n%s", text)
	}
}

func TestInvitationsNameWhereTheServerListens(t *testing.T) {
	s, _ := open(t, nil)
	if _, err := s.Invite(t.Context(), admin.InviteOptions{}); !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "--address") {
		t.Errorf("port 0: %v", err)
	}
	for name, tt := range map[string]struct{ listen, address, want string }{
		"one address":     {"192.0.2.7:99", "", "192.0.2.7:99"},
		"a name":          {"backup.example:99", "", "backup.example:99"},
		"said by hand":    {":99", "backup.example:1", "backup.example:1"},
		"everywhere":      {":99", "", ":99"},
		"everywhere, too": {"[::]:99", "", ":99"},
	} {
		s.o.Config.Listen = tt.listen
		made, err := s.Invite(t.Context(), admin.InviteOptions{Address: tt.address})
		if err != nil {
			t.Fatal(name, err)
		}
		i, err := wire.ParseInvitation(made.Invitation)
		if err != nil || !strings.HasSuffix(i.Addresses[0], tt.want) || i.Account != "default" {
			t.Errorf("%s: %v, %v", name, i.Addresses, err)
		}
	}
	for _, bad := range []string{"backup.example", "backup.example:0", ":1", strings.Repeat("x", 3000) + ":1"} {
		if _, err := s.Invite(t.Context(), admin.InviteOptions{Address: bad}); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%.20s: %v", bad, err)
		}
	}
}

func TestHostsOf(t *testing.T) {
	at := func(texts ...string) (all []net.Addr) {
		for _, text := range texts {
			ip, n, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			n.IP = ip
			all = append(all, n)
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		addrs []net.Addr
		host  string
		want  []string
	}{
		{"loopback only", at("127.0.0.1/8", "::1/128", "fe80::1/64"), "box", []string{"127.0.0.1"}},
		{"IPv4 first", at("::1/128", "2001:db8::5/64", "192.168.1.7/24", "fe80::1/64"), "box", []string{"192.168.1.7", "2001:db8::5", "box"}},
		{"no name", at("192.168.1.7/24"), "localhost", []string{"192.168.1.7"}},
		{"many", at("10.0.0.1/8", "10.0.0.2/8", "10.0.0.3/8", "10.0.0.4/8", "10.0.0.5/8", "10.0.0.6/8"), "box",
			[]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "box"}},
	} {
		if got := hostsOf(tt.addrs, tt.host); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestServerKey(t *testing.T) {
	dir := t.TempDir()
	if _, err := loadServerKey(dir, false); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Fatalf("invited without key: %v", err)
	}
	made, err := loadServerKey(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := loadServerKey(dir, false); err != nil || !again.Equal(made) {
		t.Fatalf("read back: %v", err)
	}
	path := filepath.Join(dir, serverKeyFile)
	for name, content := range map[string]string{
		"empty": "", "zero": "key " + strings.Repeat("0", 64) + "\n", "short": "key 00ff\n",
		"twice": strings.Repeat("key "+strings.Repeat("01", 32)+"\n", 2), "unknown": "seed 00\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadServerKey(dir, true); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoStartWithoutTheKeyThatAgentsKnow(t *testing.T) {
	s, _ := open(t, nil)
	if _, err := s.Invite(t.Context(), admin.InviteOptions{Address: "x:1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.o.Data, serverKeyFile)); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), s.o); err == nil || !strings.Contains(err.Error(), "put the file back") {
		s.Close()
		t.Fatalf("got %v", err)
	}
}

func TestClock(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var logged logBuffer
	start := func() *clock {
		t.Helper()
		c, err := openClock(dir, func() time.Time { return now }, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	for _, tt := range []struct {
		name    string
		do      func()
		trusted bool
	}{
		{"at first", func() { c.follow() }, true},
		{"a day later", func() { now = now.Add(maxLeap) }, true},
		{"a leap while it runs", func() { c.follow(); now = now.Add(maxLeap + time.Second) }, false},
		{"it is not followed", func() { c.follow(); c.follow() }, false},
		{"nor by starting again", func() { c = start(); c.follow() }, false},
		{"set right", func() { now = now.Add(-time.Hour) }, true},
		{"wrong again", func() { now = now.Add(time.Hour) }, false},
		{"confirmed", func() {
			if err := c.confirm(); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"started after it", func() { c = start() }, true},
		{"back a year", func() { now = now.AddDate(-1, 0, 0); c.follow() }, true},
		{"and ahead", func() { now = now.AddDate(1, 0, 0) }, false},
		{"file damaged", func() {
			if err := os.WriteFile(filepath.Join(dir, clockFile), []byte("soon"), 0o600); err != nil {
				t.Fatal(err)
			}
			c = start()
		}, false},
	} {
		tt.do()
		if err := c.Trusted(); (err == nil) != tt.trusted {
			t.Fatalf("%s: %v", tt.name, err)
		}
	}
	if n := strings.Count(logged.String(), "no commits are taken"); n != 2 { // once in each run
		t.Errorf("said %d times:\n%s", n, &logged)
	}
}

func TestNoCommitsWhileTheClockIsNotConfirmed(t *testing.T) {
	port := freePort(t)
	s, _ := open(t, func(c *Config) { c.Metrics = port })
	var mu sync.Mutex // guards ahead
	var ahead time.Duration
	s.clock.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}
	addr, _ := run(t, s)
	client := admin.NewClient(s.o.Data)
	made, err := client.Invite(t.Context(), admin.InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id, c := join(t, made.Invitation)
	log, _ := found(t, id, c)
	mu.Lock()
	ahead = 48 * time.Hour
	mu.Unlock()
	if err := commit(t, id, log, c); !errors.Is(err, wire.ErrClock) || !strings.Contains(err.Error(), "clock confirm") {
		t.Fatalf("commit: %v", err)
	}
	if st, err := client.Stats(t.Context()); err != nil || st.ClockProblem == "" {
		t.Errorf("%+v, %v", st, err)
	}
	resp, err := http.Get("http://" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(body), "backstay_clock_trusted 0") || !strings.Contains(string(body), "backstay_v4_enrolled_total 1") {
		t.Errorf("%v\n%s", err, body)
	}
	// Version 3 would make stamps as well.
	old := dial(t, addr)
	request, err := wire3.Field.AppendRequest(nil, wire3.ClientID{}, wire3.Message{Kind: wire3.Register, Name: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	old.Write(request)
	if n, err := old.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("version 3 is served: %d, %v", n, err)
	}
	if _, err := client.ConfirmClock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := commit(t, id, log, c); err != nil {
		t.Fatalf("confirmed: %v", err)
	}
}

// TestTheLegacyAreaIsNoAccounts has an account try to take the server's own vault.
func TestTheLegacyAreaIsNoAccounts(t *testing.T) {
	s, _ := open(t, nil)
	run(t, s)
	made, err := s.Invite(t.Context(), admin.InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, c := join(t, made.Invitation)
	root, err := vault.NewIdentity(vault.RoleRoot, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := vault.NewMembers(s.vault).SignGenesis(root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask4(t, c, wire.TypeMembers, wire.MembersRequest{Entry: raw}.Append(nil)); !errors.Is(err, wire.ErrConflict) {
		t.Fatalf("got %v", err)
	}
}
