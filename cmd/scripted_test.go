package cmd_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"backstay/agent/localapi"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

// scripted is an agent's local API whose status the test sets.
type scripted struct {
	mu   sync.Mutex // guards what follows
	st   localapi.Status
	next chan struct{}
	did  []string
}

func newScripted() *scripted { return &scripted{next: make(chan struct{})} }

// serve answers on a state folder until stop is called.
func (s *scripted) serve(tb testing.TB, state string) (stop func()) {
	tb.Helper()
	l, err := localsock.Listen(state)
	if err != nil {
		tb.Fatal(err)
	}
	srv := &http.Server{Handler: localapi.Handler(s)}
	var group sync.WaitGroup
	group.Go(func() { srv.Serve(l) })
	stop = sync.OnceFunc(func() {
		srv.Close()
		group.Wait()
	})
	tb.Cleanup(stop)
	return stop
}

func (s *scripted) set(st localapi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st = st
	close(s.next)
	s.next = make(chan struct{})
}

func (s *scripted) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, fmt.Sprintf(format, args...))
}

func (s *scripted) done() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.did, " ")
}

// Status implements localapi.Service, as do the others.
func (s *scripted) Status(context.Context) (localapi.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st, nil
}

// Resend is not asked for.
func (s *scripted) Resend(context.Context, []string, []vault.ObjectID) ([]string, error) {
	return nil, nil
}

func (s *scripted) StatusChanged() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

func (s *scripted) Problems(context.Context) ([]localapi.Problem, error) { return nil, nil }
func (s *scripted) Acknowledge(context.Context) error                    { s.note("acknowledge"); return nil }

func (s *scripted) Pause(_ context.Context, until time.Time) error {
	switch left := time.Until(until); {
	case until.IsZero():
		s.note("pause")
	case left > 59*time.Minute && left <= time.Hour:
		s.note("pause-1h")
	default:
		s.note("pause-until-%s", until.Local().Format("15:04"))
	}
	return nil
}

func (s *scripted) Resume(context.Context) error { s.note("resume"); return nil }

func (s *scripted) Activity(context.Context) (localapi.Activity, error) {
	return localapi.Activity{}, nil
}

func (s *scripted) Days(context.Context) ([]localapi.Day, error) { return nil, nil }

func (s *scripted) Backup(_ context.Context, paths []string) (localapi.Report, error) {
	s.note("backup%v", paths)
	return localapi.Report{}, nil
}
