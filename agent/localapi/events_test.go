package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backstay/internal/localsock"
)

// scripted is a service whose status the test sets.
type scripted struct {
	Service
	mu   sync.Mutex
	st   Status
	err  error
	next chan struct{}
	asks int
}

func newScripted() *scripted { return &scripted{next: make(chan struct{})} }

func (s *scripted) set(st Status, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st, s.err = st, err
	close(s.next)
	s.next = make(chan struct{})
}

func (s *scripted) Status(context.Context) (Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks++
	return s.st, s.err
}

func (s *scripted) StatusChanged() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// pipes is a listener whose connections are in memory, so that time can be the
// test's.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// connect returns a client of a handler; stop ends the server.
func connect(t *testing.T, h http.Handler) (_ *Client, stop func()) {
	p := pipes(make(chan net.Conn))
	srv := &http.Server{Handler: h}
	var done sync.WaitGroup
	done.Go(func() { srv.Serve(p) })
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		p <- there
		return here, nil
	}}
	stop = sync.OnceFunc(func() {
		srv.Close()
		done.Wait()
		transport.CloseIdleConnections()
	})
	t.Cleanup(stop)
	return &Client{&http.Client{Transport: transport}}, stop
}

// seen collects what a client is told.
type seen struct {
	mu    sync.Mutex
	at    []time.Time
	st    []Status
	ended error
}

func (s *seen) watch(ctx context.Context, c *Client) {
	for st, err := range c.Watch(ctx) {
		s.mu.Lock()
		if err != nil {
			s.ended = err
		} else {
			s.at, s.st = append(s.at, time.Now()), append(s.st, st)
		}
		s.mu.Unlock()
	}
}

func TestWatchTellsEachChangeSoonAndABusyAgentSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		s.set(Status{State: Protected}, nil)
		c, stop := connect(t, Handler(s))
		var got seen
		go got.watch(t.Context(), c)
		synctest.Wait()
		if len(got.st) != 1 || got.st[0].State != Protected {
			t.Fatalf("at once: %+v", got.st)
		}

		// After a quiet time a change is told at once.
		time.Sleep(time.Hour)
		before := s.asks
		changed := time.Now()
		s.set(Status{State: Working}, nil)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if len(got.st) != 2 || got.at[1].Sub(changed) != 0 {
			t.Fatalf("after a quiet time: %+v at %v, changed %v", got.st, got.at, changed)
		}
		if before != 1 {
			t.Errorf("looked at the status %d times while nothing changed, want once", before)
		}

		// What stays the same is not told.
		time.Sleep(time.Second)
		s.set(Status{State: Working}, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(got.st) != 2 {
			t.Fatalf("told of no change: %+v", got.st)
		}

		began := time.Now()
		for n := range 5000 {
			s.set(Status{State: Working, Waiting: n}, nil)
			time.Sleep(time.Millisecond)
		}
		s.set(Status{State: Offline}, nil)
		last := time.Now()
		time.Sleep(time.Second)
		synctest.Wait()
		n := len(got.st) - 2
		if span := last.Sub(began).Seconds(); float64(n) > span*12 || float64(n) < span*9 {
			t.Errorf("%d events in %v s", n, span)
		}
		if end := got.at[len(got.at)-1]; got.st[len(got.st)-1].State != Offline || end.Sub(last) > 100*time.Millisecond {
			t.Errorf("the last change is told %v late: %+v", end.Sub(last), got.st[len(got.st)-1])
		}

		stop()
		synctest.Wait()
		if !errors.Is(got.ended, localsock.ErrNotRunning) {
			t.Errorf("ended with %v", got.ended)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	serve := func(f func(w http.ResponseWriter, r *http.Request)) http.Handler { return http.HandlerFunc(f) }
	broken := newScripted()
	broken.set(Status{}, &Error{Text: "the catalog broke", Code: 5})
	for _, tt := range []struct {
		name  string
		h     http.Handler
		after time.Duration
		is    func(error) bool
	}{
		{"an agent that hangs before it answers", serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), silence,
			func(err error) bool { return errors.Is(err, ErrNoAnswer) }},
		{"an agent that hangs later", serve(func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("data: {}\n\n"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}), silence, func(err error) bool { return errors.Is(err, ErrNoAnswer) }},
		{"an agent with no status to give", Handler(broken), 0, func(err error) bool {
			e, ok := errors.AsType[*Error](err)
			return ok && e.Text == "the catalog broke"
		}},
		{"an agent of before events", http.NewServeMux(), 0, func(err error) bool { return strings.Contains(err.Error(), "another version") }},
		{"what is no status", serve(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("data: {\"state\":7}\n\n")) }), 0,
			func(err error) bool { _, ok := errors.AsType[*json.UnmarshalTypeError](err); return ok }},
		{"a line without end", serve(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte("data: " + strings.Repeat("x", 2*maxEvent)))
		}), 0, func(err error) bool { return err != nil && !errors.Is(err, localsock.ErrNotRunning) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stop := connect(t, tt.h)
				began := time.Now()
				var got seen
				got.watch(t.Context(), c)
				if took := time.Since(began); !tt.is(got.ended) || took != tt.after {
					t.Errorf("ended after %v with %v", took, got.ended)
				}
				stop()
			})
		})
	}
}

func TestWatchStopsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c, stop := connect(t, Handler(s))
		for range c.Watch(t.Context()) {
			break
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got seen
		go got.watch(ctx, c)
		time.Sleep(24 * time.Hour) // heartbeats keep it from being taken for hung
		synctest.Wait()
		if got.ended != nil {
			t.Fatal(got.ended)
		}
		cancel()
		synctest.Wait()
		if !errors.Is(got.ended, context.Canceled) {
			t.Errorf("ended with %v", got.ended)
		}
		stop()
	})
}
