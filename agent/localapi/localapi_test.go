package localapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"backstay/agent/localapi"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

// told is a service that says what it was asked.
type told struct {
	localapi.Service
	paths  []string
	until  time.Time
	reason string

	objects []vault.ObjectID
}

func (s *told) Status(context.Context) (localapi.Status, error) {
	return localapi.Status{State: localapi.Working, Waiting: 3, Reason: s.reason}, nil
}

func (s *told) Problems(context.Context) ([]localapi.Problem, error) {
	return nil, errors.New("it broke")
}

func (s *told) Pause(_ context.Context, until time.Time) error { s.until = until; return nil }

func (s *told) Backup(_ context.Context, paths []string) (localapi.Report, error) {
	s.paths = paths
	return localapi.Report{Files: 2}, &localapi.Error{Text: "no room", Code: 4}
}

func (s *told) Resend(_ context.Context, paths []string, objects []vault.ObjectID) ([]string, error) {
	s.paths, s.objects = paths, objects
	return paths[:1], nil
}

func TestClientAndHandler(t *testing.T) {
	dir := t.TempDir()
	c, ctx := localapi.NewClient(dir), t.Context()
	if _, err := c.Status(ctx); !errors.Is(err, localsock.ErrNotRunning) {
		t.Fatalf("nobody there: %v", err)
	}
	l, err := localsock.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &told{}
	srv := &http.Server{Handler: localapi.Handler(s)}
	go srv.Serve(l)
	defer srv.Close()

	if st, err := c.Status(ctx); err != nil || st.State != localapi.Working || st.Waiting != 3 {
		t.Errorf("status %+v, %v", st, err)
	}
	var e *localapi.Error
	if _, err := c.Problems(ctx); !errors.As(err, &e) || e.Code != 0 || e.Text != "it broke" {
		t.Errorf("problems: %v", err)
	}
	until := time.Now().Add(time.Hour)
	if err := c.Pause(ctx, until); err != nil || !s.until.Equal(until) {
		t.Errorf("pause until %v, want %v: %v", s.until, until, err)
	}
	paths := []string{"/a\nb", "/caf\xe9", "/" + strings.Repeat("long/", 2000)}
	if _, err := c.Backup(ctx, paths); !errors.As(err, &e) || e.Code != 4 {
		t.Errorf("backup: %v", err)
	}
	if !slices.Equal(s.paths, paths) {
		t.Errorf("paths arrive as %q", s.paths)
	}
	objects := []vault.ObjectID{{1}, {2, 31: 3}}
	if sent, err := c.Resend(ctx, paths[1:], objects); err != nil || !slices.Equal(sent, paths[1:2]) {
		t.Errorf("resent %q, %v", sent, err)
	}
	if !slices.Equal(s.paths, paths[1:]) || !slices.Equal(s.objects, objects) {
		t.Errorf("to be sent again arrives as %q, %v", s.paths, s.objects)
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ path, text, raw string }{
		{"/a/ü", "/a/ü", ""},
		{"/a\nb", "/a\nb", ""},
		{"/caf\xe9/x", "/caf\uFFFD/x", "/caf\xe9/x"},
	} {
		if text, raw := localapi.Text(tt.path); text != tt.text || string(raw) != tt.raw {
			t.Errorf("%q: %q, %q", tt.path, text, raw)
		}
	}
}

// Other users of the machine get the state and its numbers, and no more.
func TestStatusHandler(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/v1/status", http.StatusOK},
		{"GET", "/v1/problems", http.StatusForbidden},
		{"POST", "/v1/pause", http.StatusForbidden},
		{"POST", "/v1/backup", http.StatusForbidden},
		{"POST", "/v1/status", http.StatusForbidden},
		{"GET", "/v2/whatever", http.StatusForbidden},
	} {
		s := &told{reason: "/home/ada/secret.txt"}
		w := httptest.NewRecorder()
		localapi.StatusHandler(s).ServeHTTP(w, httptest.NewRequest(tt.method, "http://agent"+tt.path, strings.NewReader(`{"until":"2026-11-20T14:03:07Z"}`)))
		if w.Code != tt.want || strings.Contains(w.Body.String(), "secret") || !s.until.IsZero() || s.paths != nil {
			t.Errorf("%s %s: %d, want %d; it was done: %+v; answered: %s", tt.method, tt.path, w.Code, tt.want, s, w.Body)
		}
	}
}

func TestClientSaysWhyItIsRefused(t *testing.T) {
	dir := t.TempDir()
	l, err := localsock.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: localapi.StatusHandler(&told{})}
	go srv.Serve(l)
	defer srv.Close()
	c := localapi.NewClient(dir)
	if st, err := c.Status(t.Context()); err != nil || st.State != localapi.Working {
		t.Errorf("status: %+v, %v", st, err)
	}
	var e *localapi.Error
	if err := c.Resume(t.Context()); !errors.As(err, &e) || e.Code != 1 || !strings.Contains(e.Text, "root") {
		t.Errorf("resume: %v", err)
	}
	if _, err := c.Problems(t.Context()); !errors.As(err, &e) || e.Code != 1 {
		t.Errorf("problems: %v", err)
	}
}
