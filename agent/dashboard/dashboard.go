// Package dashboard is the agent's page in a browser, served by a process of the
// person who looks at it: what is protected and what is not, setting up, looking
// around in what was, getting it back.
//
// The one invariant: nobody but the browser that was given a one-time address by this
// process gets an answer, and nothing is changed by a GET. It keeps no truth of its
// own: what is protected the agent says (package localapi), what was the server, opened
// and checked here; a restore runs in this process, with its rights.
//
// It never runs as a service. Enter at [Run].
package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"backstay/agent/history"
	"backstay/agent/localapi"
	"backstay/agent/restore"
	"backstay/internal/localsock"
)

// Options say what a dashboard shows. Folder, State, Open and Tools must be set.
type Options struct {
	// Folder is the agent's config folder, State its state folder, both absolute.
	Folder, State string
	// Page is where to begin, one of [Pages]. Default: the overview, or setting up.
	Page string
	// Invitation is filled in where an invitation is asked for. Default: none.
	Invitation string
	// Version is that of this program.
	Version string
	// Open is given each address that a person is to see, one at a time; it works
	// once, within [addressLife].
	Open func(address string) error
	// Tools are what commands do, too.
	Tools Tools
	// Idle is how long the process stays when no page is open and nothing is being
	// restored. Default: 30 minutes.
	Idle time.Duration
	// Log gets no file names. Default: discarded.
	Log *slog.Logger
}

// Tools are what commands of the agent do as well. All must be set.
type Tools struct {
	// Find calls take for the newest version of every path whose name matches.
	Find func(pattern string, take func(Found)) error
	// Behind says, in a text, that the server does not have what it had acknowledged.
	Behind func(r *history.Reader, newest *restore.Moment) (string, error)
	// Doctor looks for what keeps files from being protected.
	Doctor func(ctx context.Context) []Finding
	// Explain says of an error what it can mean and what to do.
	Explain func(error) error
}

// Found is a path that Find found.
type Found struct {
	Path    string
	Time    time.Time
	Size    int64
	Deleted bool
}

// Finding is one thing that Doctor looked at.
type Finding struct {
	Check string
	OK    bool
	Text  string
}

// Pages are the names of what can be shown first.
func Pages() []string {
	return []string{"overview", "problems", "folders", "files", "timeline", "settings", "kit", "welcome"}
}

// idleDefault: see [Options].
const idleDefault = 30 * time.Minute

// Run shows the dashboard of a state folder: it serves it until ctx ends or nobody has
// looked for a while, or, where another process does that already, has that one open a
// new address and returns.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Idle == 0 {
		o.Idle = idleDefault
	}
	own := filepath.Join(o.State, "dashboard")
	if err := os.MkdirAll(own, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	for {
		lock := flock.New(filepath.Join(own, "lock"))
		first, err := lock.TryLock()
		if err != nil {
			return fmt.Errorf("lock %s: %w", own, err)
		}
		if first {
			defer lock.Close()
			return serve(ctx, o, own)
		}
		if err := lock.Close(); err != nil {
			return err
		}
		address, err := askFirst(ctx, own, o.Page, o.Invitation)
		if err == nil {
			return o.Open(address)
		}
		if !errors.Is(err, localsock.ErrNotRunning) {
			return err
		}
		// It begins or ends just now.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// wanted is what a second process asks the first for.
type wanted struct {
	Page       string `json:"page"`
	Invitation string `json:"invitation"`
}

// askFirst asks the process that serves for an address.
func askFirst(ctx context.Context, own, page, invitation string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := json.Marshal(wanted{page, invitation})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://dashboard/v1/address", strings.NewReader(string(body)))
	if err != nil {
		return "", err
	}
	client := localsock.Client(own)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	address, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the dashboard that runs already answers %s: %s", resp.Status, strings.TrimSpace(string(address)))
	}
	return string(address), err
}

// dashboard is one process that serves.
type dashboard struct {
	o     Options
	agent *localapi.Client
	guard *guard
	pages []byte
	began time.Time

	readers readers
	tickets tickets
	jobs    jobs
	pairing pairing
	kit     kitQuestion

	// ready: this machine was found to be set up.
	ready atomic.Bool
	// ctx is that of what outlives a request.
	ctx context.Context

	mu   sync.Mutex // guards the fields below
	open int        // requests under way, a page's stream of events among them
	last time.Time  // when the last of them ended
}

func serve(ctx context.Context, o Options, own string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the browser: %w", err)
	}
	defer l.Close()
	local, err := localsock.Listen(own)
	if err != nil {
		return err
	}
	d := newDashboard(ctx, o, l.Addr().String())
	defer d.close()
	defer cancel() // before it: what runs ends by it

	browser := &http.Server{Handler: d.handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)}
	second := &http.Server{Handler: d.localHandler(), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	for _, s := range []struct {
		server *http.Server
		l      net.Listener
	}{{browser, ownOnly{l}}, {second, local}} {
		defer s.server.Close()
		go func() { ended <- s.server.Serve(s.l) }()
	}
	if err := o.Open(d.address(o.Page, o.Invitation)); err != nil {
		return err
	}
	tick := time.NewTicker(min(o.Idle/2, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case now := <-tick.C:
			if d.idle(now) {
				return nil
			}
		}
	}
}

// ownOnly accepts connections of this user and of the administrator alone, where the
// system says whose they are.
type ownOnly struct{ net.Listener }

func (l ownOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !stranger(c) {
			return c, err
		}
		c.Close()
	}
}

func newDashboard(ctx context.Context, o Options, host string) *dashboard {
	d := &dashboard{o: o, ctx: ctx, agent: localapi.NewClient(o.State), guard: newGuard(host), began: time.Now(), last: time.Now()}
	d.readers.open = func(ctx context.Context) (*history.Reader, error) { return history.Open(ctx, o.Folder, o.Log) }
	return d
}

func (d *dashboard) close() {
	d.jobs.stop()
	d.readers.forget()
}

// address is where a browser enters, once.
func (d *dashboard) address(page, invitation string) string {
	q := url.Values{"token": {d.guard.token()}}
	if page != "" {
		q.Set("page", page)
	}
	if invitation != "" {
		q.Set("invitation", invitation)
	}
	return "http://" + d.guard.host + "/enter?" + q.Encode()
}

// localHandler answers other processes of the same user.
func (d *dashboard) localHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/address", func(w http.ResponseWriter, r *http.Request) {
		var in wanted
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		io.WriteString(w, d.address(in.Page, in.Invitation))
	})
	return mux
}

// counted notes for how long nobody has looked.
func (d *dashboard) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.open++
		d.mu.Unlock()
		defer func() {
			d.mu.Lock()
			d.open--
			d.last = time.Now()
			d.mu.Unlock()
		}()
		h.ServeHTTP(w, r)
	})
}

func (d *dashboard) idle(now time.Time) bool {
	if d.jobs.running() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open == 0 && now.Sub(d.last) >= d.o.Idle
}
