package cmd_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestBadServers lets the agent meet servers that are none: it says so in one line
// that names the peer, ends with the code for a server that cannot be reached, and
// leaves no identity behind.
func TestBadServers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string
	}{
		{"nonsense", strings.Repeat("HTTP/1.1 400 Bad Request\r\n\r\n", 4)},
		{"nothing", ""},
		{"half a header", "\x03\x40"},
		{"half a payload", "\x03\x40\x06\x10\x00\x00\x00abcd"},
		{"a payload of 4 GiB", "\x03\x40\x06\xff\xff\xff\xffabcd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.Read(make([]byte, 4096))
					conn.Write([]byte(tt.answer))
					conn.Close()
				}
			}()
			dir := t.TempDir()
			addr := l.Addr().String()
			write(t, filepath.Join(dir, "transfer.info"), addr+"\nada\nfile\n")
			write(t, filepath.Join(dir, "file"), "content")
			out, code := run(t, dir, "agent", "backup", "--protocol", "3", "--state", filepath.Join(dir, "state"))
			if code != 4 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "agent: ") || !strings.Contains(out, addr) {
				t.Fatalf("exit %d, want 4 and one line with the peer:\n%s", code, out)
			}
			if _, err := os.Stat(filepath.Join(dir, "me.info")); err == nil {
				t.Fatal("wrote me.info")
			}
		})
	}
}

// TestAgentIsKilled kills the agent at many moments of its first pass; in the end
// everything is there once it runs through.
func TestAgentIsKilled(t *testing.T) {
	dir := t.TempDir()
	data, conf, docs, state := filepath.Join(dir, "data"), filepath.Join(dir, "conf"), filepath.Join(dir, "docs"), filepath.Join(dir, "state")
	for _, d := range []string{conf, docs} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]string{}
	for i := range 200 {
		name := strings.Repeat("n", 1+i)
		names["docs_"+name] = name
		write(t, filepath.Join(docs, name), strings.Repeat(name, 20))
	}
	s := start(t, dir, nil, "server", "run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", data)
	m, err := s.wait(`^listening on (\S+),`)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(conf, "transfer.info"), m[1]+"\nada\n"+docs+"\n")
	agent := func() *process {
		return start(t, dir, nil, "agent", "run", "--protocol", "3", "--verbose", "--config", conf, "--state", state)
	}
	// The first run gets to register: a server gives a name away only once.
	for range 12 {
		a := agent()
		if _, err := a.wait(`nn safe$|all safe`); err != nil {
			t.Fatal(err)
		}
		a.kill()
	}
	write(t, filepath.Join(docs, "n"), "the last one")
	a := agent()
	if _, err := a.wait(`all safe`); err != nil {
		t.Fatal(err)
	}
	if code, err := a.end(); code != 0 || err != nil {
		t.Fatalf("exit %d, %v", code, err)
	}
	for stored, name := range names {
		want, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(name)%20 != 1 && name != "n" {
			continue // a process each: some are enough
		}
		got, code := run(t, dir, "server", "v3", "get", "--data", data, "ada", stored)
		if code != 0 || got != string(want) {
			t.Fatalf("%s: exit %d, %q", stored, code, got)
		}
	}
	if out, _ := run(t, dir, "server", "stats", "--data", data, "--json"); !strings.Contains(out, `"files":200,`) {
		t.Fatalf("%s", out)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRestlessFile backs up a file that is written all the time: there is a copy in
// the end, but nobody is told that it is a clean one.
func TestRestlessFile(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, nil, "server", "run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", filepath.Join(dir, "data"))
	m, err := s.wait(`^listening on (\S+),`)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "transfer.info"), m[1]+"\nada\nfile\n")
	// Large, so that reading it takes a while, and several writers, so that
	// one that does not get its turn leaves no quiet moment that long.
	const size = 64 << 20
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		writers.Go(func() {
			for i := int64(w); ; i++ {
				select {
				case <-stop:
					return
				default:
					f.WriteAt([]byte{byte(i)}, i%size)
				}
			}
		})
	}
	out, code := run(t, dir, "agent", "backup", "--protocol", "3", "--state", filepath.Join(dir, "state"))
	close(stop)
	writers.Wait()
	f.Close()
	if code != 3 || !strings.Contains(out, "file is NOT protected: it changes all the time") {
		t.Fatalf("exit %d, want 3:\n%s", code, out)
	}
	if out, code := run(t, dir, "server", "v3", "get", "--data", filepath.Join(dir, "data"), "ada", "file"); code != 0 {
		t.Fatalf("no copy at all: exit %d\n%s", code, out)
	}
}
