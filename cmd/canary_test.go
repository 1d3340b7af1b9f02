package cmd_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"backstay/agent/device"
	"backstay/protocol/vault"
)

// TestNothingShows lets a machine do all it can do with a server, records every
// byte between the two, and looks for what nobody but the machine may know: in the
// record, in all that the server keeps, logs and measures, and in the agent's log.
func TestNothingShows(t *testing.T) {
	l := newLab(t)
	rng := rand.New(rand.NewPCG(1, 2))
	// In a record, in one chunk, in several, and so that they compress well.
	contents := map[string]string{
		"canaryfolder-Qx7/canaryfile-one.txt": "canarycontent-in-the-record",
		"canaryfolder-Qx7/canaryfile-two.txt": strings.Repeat("canarycontent-in-one-chunk ", 2000),
		"canaryfile-three.bin":                random(rng, 3<<20) + "canarycontent-in-several-chunks",
	}
	for name, content := range contents {
		l.write(name, content)
	}
	// Both on ports of their own; the server is told its metrics' in advance.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := free.Addr().String()
	free.Close()
	l.serve("--verbose", "--metrics", metrics)
	wire := record(t, l.addr)
	l.join("--address", wire.addr)
	l.addr = wire.addr // of the proxy: what transfer.info and the kit say
	l.agent(0, "backup")
	a := l.watch()
	l.wait(a, `^connected to`)
	l.write("canaryfolder-Qx7/canaryfile-four.txt", "canarycontent-while-running")
	l.wait(a, `canaryfile-four\.txt safe$`)
	l.write("canaryfolder-Qx7/canaryfile-one.txt", "canarycontent-changed")
	l.wait(a, `canaryfile-one\.txt safe$`)
	l.agent(0, "restore", l.docs, "--to", filepath.Join(l.dir, "before"))
	if err := os.Remove(filepath.Join(l.docs, "canaryfile-three.bin")); err != nil {
		t.Fatal(err)
	}
	l.agent(0, "backup")
	l.agent(0, "find", "canaryfile-three")
	l.agent(0, "ls", l.docs, "--deleted")
	l.agent(0, "history", filepath.Join(l.docs, "canaryfolder-Qx7/canaryfile-one.txt"))
	l.agent(1, "history", filepath.Join(l.docs, "canaryfolder-Qx7/canaryfile-never.txt"))
	l.agent(1, "restore", filepath.Join(l.docs, "canaryfile-never.txt"))
	l.agent(0, "restore", l.docs, "--to", filepath.Join(l.dir, "out"))
	l.agent(0, "verify", "--all")
	l.agent(0, "devices")
	l.recover(0)
	resp, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	measured, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Contains(measured, []byte("backstay_v4_commits_total")) {
		t.Fatalf("metrics: %v\n%s", err, measured)
	}
	l.end(a)
	l.stop()

	secret := secrets(t, l)
	for _, found := range leaks(l.places(wire, measured), secret) {
		t.Error(found)
	}
	if n := len(wire.bytes()); n < 6<<20 {
		t.Errorf("only %d bytes were recorded: the test proves nothing", n)
	}

	// The same search finds what is planted.
	l.serve()
	wire = record(t, l.addr)
	conn, err := net.Dial("tcp", wire.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET /canaryfile-one.txt\n\n")
	io.Copy(io.Discard, conn) // until the server has had enough of it
	conn.Close()
	l.write("canaryfile-five.txt", "x")
	a = l.watch("--debug") // whose log may hold names
	l.wait(a, `canaryfile-five\.txt safe$`)
	l.end(a)
	l.stop()
	planted := filepath.Join(l.data, "store", "planted")
	if err := os.WriteFile(planted, []byte("x"+base64.StdEncoding.EncodeToString(secret["the device's seed"])), 0o600); err != nil {
		t.Fatal(err)
	}
	measured = append(measured, hex.EncodeToString(secret["the root's key"])...)
	found := strings.Join(leaks(l.places(wire, measured), secret), "\n")
	for _, want := range []string{
		"a file's name in the wire", "the path of docs in " + filepath.Join(l.state, "agent.log"), "the device's seed in " + planted, "the root's key in the metrics",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("planted, and not found: %s; found:\n%s", want, found)
		}
	}
}

// places are where to look for secrets.
func (l *lab) places(wire *recorder, metrics []byte) map[string][]byte {
	l.Helper()
	said, _ := l.server.output()
	places := map[string][]byte{"the wire": wire.bytes(), "the metrics": metrics, "what the server says": []byte(said)}
	for _, path := range []string{l.data, filepath.Join(l.state, "agent.log")} {
		err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				places[path], err = os.ReadFile(path)
				places["the name of "+path] = []byte(filepath.Base(path))
			}
			return err
		})
		if err != nil {
			l.Fatal(err)
		}
	}
	return places
}

// secrets are what nobody but the machine may know, by what they are.
func secrets(t *testing.T, l *lab) map[string][]byte {
	d, err := device.Load(l.conf)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(l.kit)
	if err != nil {
		t.Fatal(err)
	}
	kit, err := vault.ParseKit(data)
	if err != nil {
		t.Fatal(err)
	}
	root, err := vault.NewIdentity(vault.RoleRoot, kit.Seed)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{
		"a file's name": []byte("canaryfile"), "a folder's name": []byte("canaryfolder"), "the path of docs": []byte(l.docs),
		"a file's content":  []byte("canarycontent"),
		"the device's seed": d.Seed[:], "the device's key": d.Identity.TLS().Seed(),
		"the root's seed": kit.Seed[:], "the root's key": root.TLS().Seed(),
	}
	words := strings.Fields(vault.Phrase(kit.Seed))
	for i := range len(words) - 1 {
		all[fmt.Sprintf("words %d and %d of the phrase", i+1, i+2)] = []byte(words[i] + " " + words[i+1])
	}
	return all
}

// leaks says where something secret stands, as it is or in one of the ways in which
// programs write bytes.
func leaks(places map[string][]byte, secret map[string][]byte) []string {
	var found []string
	for what, s := range secret {
		forms := [][]byte{s, []byte(hex.EncodeToString(s)), []byte(strings.ToUpper(hex.EncodeToString(s)))}
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			// At every place relative to the groups of three bytes; what the
			// neighbours have a part in is left out.
			for shift := range 3 {
				text := enc.EncodeToString(append(make([]byte, shift), s...))
				forms = append(forms, []byte(text[(shift*8+5)/6:len(text)-1]))
			}
		}
		for where, content := range places {
			for _, form := range forms {
				if bytes.Contains(content, form) {
					found = append(found, what+" in "+where)
					break
				}
			}
		}
	}
	return found
}

// A recorder stands between programs and a server and keeps what they say.
type recorder struct {
	addr string

	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func record(t *testing.T, server string) *recorder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: listener.Addr().String()}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go r.carry(client, server)
		}
	}()
	return r
}

func (r *recorder) carry(client net.Conn, server string) {
	var way sync.WaitGroup
	defer way.Wait()
	defer client.Close()
	up, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer up.Close()
	way.Go(func() {
		io.Copy(io.MultiWriter(r, client), up)
		client.Close()
	})
	io.Copy(io.MultiWriter(r, up), client)
	up.Close()
}

// Write implements io.Writer.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.Write(p)
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.all.Bytes())
}
