package localsock

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClientReachesListener(t *testing.T) {
	for _, tt := range []struct{ name, sub string }{
		{"short path", "data"},
		{"path too long for a socket address", strings.Repeat("long/", 40)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), tt.sub)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			client := Client(dir)
			if _, err := client.Get("http://local/"); !errors.Is(err, ErrNotRunning) {
				t.Fatalf("before anything listens: %v, want ErrNotRunning", err)
			}
			// The second round finds what the first left behind.
			for range 2 {
				serveOnce(t, dir, client)
			}
		})
	}
}

func serveOnce(t *testing.T, dir string, client *http.Client) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "answer to "+r.URL.Path)
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	resp, err := client.Get("http://local/v1/question")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "answer to /v1/question" {
		t.Fatalf("got %q, %v", body, err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if ul, ok := l.(interface {
		Addr() net.Addr
		SetUnlinkOnClose(bool)
	}); ok {
		info, err := os.Stat(ul.Addr().String())
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("socket %v, %v; want mode 0600", info, err)
		}
		ul.SetUnlinkOnClose(false)
	}
	srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Fatal(err)
	}
}
