package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// meter passes connections on to a server and counts what comes back.
type meter struct {
	net.Listener
	back atomic.Int64
}

func newMeter(tb testing.TB, server string) *meter {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	m := &meter{Listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				conn, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer conn.Close()
				go func() {
					io.Copy(conn, client)
					conn.Close()
				}()
				io.Copy(client, io.TeeReader(conn, m))
			}()
		}
	}()
	return m
}

func (m *meter) Write(p []byte) (int, error) {
	m.back.Add(int64(len(p)))
	return len(p), nil
}

// TestRestoreOfAFileIsProvenAlone restores files and folders of a device with many
// paths, and counts what that takes.
func TestRestoreOfAFileIsProvenAlone(t *testing.T) {
	const files = 4000
	const list = files * 72 // path, parent and record of each, at least
	l := newLab(t)
	in := func(name string) string { return filepath.Join(l.docs, name) }
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		write(fmt.Sprint("file", i), fmt.Sprint("one ", i))
	}
	l.serve()
	l.join()
	l.agent(0, "backup")
	before := time.Now()
	write("file7", "two")
	if err := os.Mkdir(in("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("folder/inner", "inner")
	if err := os.Remove(in("file8")); err != nil {
		t.Fatal(err)
	}
	l.agent(0, "backup")

	m := newMeter(t, l.addr)
	l.addr = m.Addr().String()
	l.transfer()
	const certain, word = "complete, compared with what the device signed", "rests on the server's word"
	for i, tt := range []struct {
		name   string
		args   []string
		forget bool
		code   int
		says   string
		whole  bool
		want   map[string]string
	}{
		{"a file", []string{in("file7")}, false, 0, certain, false, map[string]string{"file7": "two"}},
		{"two", []string{in("file7"), in("file9")}, false, 0, certain, false, map[string]string{"file7": "two", "file9": "one 9"}},
		{"as it was", []string{in("file7"), "--at", before.Format(time.RFC3339Nano)}, false, 0, word, false, map[string]string{"file7": "one 7"}},
		{"as it was and is", []string{in("file9"), "--at", before.Format(time.RFC3339Nano)}, false, 0, certain, false, map[string]string{"file9": "one 9"}},
		{"deleted since", []string{in("file8"), "--at", before.Format(time.RFC3339Nano)}, false, 0, certain, false, map[string]string{"file8": "one 8"}},
		{"a folder", []string{in("folder")}, false, 0, certain, true, map[string]string{"folder/inner": "inner"}},
		{"a file and a folder", []string{in("file9"), in("folder")}, false, 0, certain, true, map[string]string{"file9": "one 9", "folder/inner": "inner"}},
		{"deleted", []string{in("file8")}, false, 1, "is NOT restored: the path was not there at that time", true, nil},
		{"a file, the catalog lost", []string{in("file9")}, true, 0, word, false, map[string]string{"file9": "one 9"}},
	} {
		if tt.forget {
			if err := os.RemoveAll(l.state); err != nil {
				t.Fatal(err)
			}
		}
		to := filepath.Join(l.dir, fmt.Sprint("out", i))
		m.back.Store(0)
		said := l.agent(tt.code, append([]string{"restore", "--to", to}, tt.args...)...)
		if !strings.Contains(said, tt.says) {
			t.Errorf("%s: %s", tt.name, said)
		}
		if n := m.back.Load(); n >= list != tt.whole {
			t.Errorf("%s: the server sent %d bytes, the list of all paths is more than %d", tt.name, n, list)
		}
		for name, want := range tt.want {
			if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
				t.Errorf("%s: %s is %q, %v", tt.name, name, got, err)
			}
		}
	}
	var said struct{ Newest, Complete bool }
	if err := json.Unmarshal([]byte(l.agent(0, "restore", in("file9"), "--to", filepath.Join(l.dir, "json"), "--json")), &said); err != nil || said.Newest || !said.Complete {
		t.Errorf("%+v, %v", said, err)
	}
}
