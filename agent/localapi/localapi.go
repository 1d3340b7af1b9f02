// Package localapi is how commands, tray and dashboard on this machine ask the
// running agent: JSON over HTTP over the local socket of its state folder. Everybody
// renders the one [Status] that the agent gives, and keeps no truth of their own.
package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

// State is the agent's state in one word. Values are stable.
type State string

// The states, the worst first: where several hold, the first is shown.
const (
	NotSetUp  State = "not_set_up" // nobody has said what to protect, and where
	Alarm     State = "alarm"      // the server lost or changed what it had acknowledged
	Failing   State = "failing"    // nothing can be protected until a person acts
	Attention State = "attention"  // some paths in scope are not protected
	Offline   State = "offline"    // the server cannot be reached; changes are kept
	Paused    State = "paused"
	FirstPass State = "first_pass" // not everything has been sent once
	Working   State = "working"    // changes are on their way
	Protected State = "protected"  // everything in scope is on the server
)

// Status is what there is to know at a glance. Fields may be added, never renamed.
type Status struct {
	State State `json:"state"`
	// Reason says in a line why the state is what it is, where that helps.
	Reason string `json:"reason,omitempty"`
	// Protected counts paths on the server as they are here, Waiting changes
	// that are not there yet, Excluded paths skipped by a rule, a folder as one.
	Protected int `json:"protected"`
	Waiting   int `json:"waiting"`
	Excluded  int `json:"excluded"`
	Problems  int `json:"problems"`
	// LastSafe is when the server last acknowledged something; nil before.
	LastSafe *time.Time `json:"last_safe"`
	// FirstPass: not every folder has been sent whole once.
	FirstPass   bool       `json:"first_pass"`
	PausedUntil *time.Time `json:"paused_until"`
	Server      string     `json:"server"`
	Device      string     `json:"device"`
	Vault       string     `json:"vault"`
	// Bytes is the size of the protected files.
	Bytes int64 `json:"bytes"`
	// Rate is how many bytes a second are being read and sent; 0 while nothing is.
	Rate int64 `json:"rate"`
	// PausedBy says why the agent is paused: PausedByYou, or what it waits for, in
	// words; empty while it is not.
	PausedBy string `json:"paused_by,omitempty"`
	// Version is the agent's program.
	Version string `json:"version"`
}

// PausedByYou: a person asked for the pause.
const PausedByYou = "you"

// Problem is a path in scope that is not protected, or what else a person must
// know; Path is empty where it is about no path.
type Problem struct {
	Path string `json:"path"`
	// PathBytes are the true bytes of a path that is not UTF-8.
	PathBytes []byte `json:"path_bytes,omitempty"`
	Reason    string `json:"reason"`
	Fix       string `json:"fix"`
}

// Text is a path as JSON can carry it, with its true bytes if they are not UTF-8.
func Text(path string) (text string, raw []byte) {
	if utf8.ValidString(path) {
		return path, nil
	}
	return string([]rune(path)), []byte(path)
}

// Report says what a backup did.
type Report struct {
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"`
	Problems []Problem `json:"problems"`
}

// Service is what the agent answers.
type Service interface {
	Status(ctx context.Context) (Status, error)
	// StatusChanged returns a channel that is closed when what Status returns may
	// have changed since the call.
	StatusChanged() <-chan struct{}
	Problems(ctx context.Context) ([]Problem, error)
	// Acknowledge ends the alarms that a person has taken note of.
	Acknowledge(ctx context.Context) error
	// Pause stops sending until a time, the zero time for until Resume.
	Pause(ctx context.Context, until time.Time) error
	Resume(ctx context.Context) error
	// Backup looks at everything, or at the paths given, at once, and returns
	// when what it found is on the server.
	Backup(ctx context.Context, paths []string) (Report, error)
	// Resend has paths captured and sent again that the server was found not to
	// hold as it should, and forgets that it has these objects. It returns the
	// paths for which it does so, without waiting for them.
	Resend(ctx context.Context, paths []string, objects []vault.ObjectID) ([]string, error)
}

// Handler answers a Client.
func Handler(s Service) http.Handler {
	mux := http.NewServeMux()
	handle(mux, "GET /v1/status", func(r *http.Request, _ struct{}) (Status, error) { return s.Status(r.Context()) })
	mux.Handle("GET /v1/events", events(s))
	handle(mux, "GET /v1/problems", func(r *http.Request, _ struct{}) ([]Problem, error) { return s.Problems(r.Context()) })
	handle(mux, "POST /v1/acknowledge", func(r *http.Request, _ struct{}) (struct{}, error) { return struct{}{}, s.Acknowledge(r.Context()) })
	handle(mux, "POST /v1/pause", func(r *http.Request, p pause) (struct{}, error) { return struct{}{}, s.Pause(r.Context(), p.Until) })
	handle(mux, "POST /v1/resume", func(r *http.Request, _ struct{}) (struct{}, error) { return struct{}{}, s.Resume(r.Context()) })
	handle(mux, "POST /v1/backup", func(r *http.Request, b backup) (Report, error) {
		return s.Backup(r.Context(), rawTexts(b.Paths))
	})
	handle(mux, "POST /v1/resend", func(r *http.Request, l lost) (backup, error) {
		paths, err := s.Resend(r.Context(), rawTexts(l.Paths), l.Objects)
		return backup{raw(paths)}, err
	})
	return mux
}

// StatusHandler answers a Client that may know how the agent is doing and nothing else:
// another user of the machine. What is asked beyond is refused with 403.
func StatusHandler(s Service) http.Handler {
	allowed := http.NewServeMux()
	handle(allowed, "GET /v1/status", func(r *http.Request, _ struct{}) (Status, error) {
		st, err := s.Status(r.Context())
		// It may name files.
		st.Reason = ""
		return st, err
	})
	// Whatever is added to the API is refused until it is allowed here.
	allowed.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(answer[any]{Error: refused, Code: 1}) // nobody may be listening any more
	})
	return allowed
}

const refused = "this agent protects the whole machine, and only its administrator may ask it that: give the same command as root"

type pause struct {
	Until time.Time `json:"until"`
}

// backup carries paths as bytes: they need not be UTF-8.
type backup struct {
	Paths [][]byte `json:"paths"`
}

// lost says what the server was found not to hold.
type lost struct {
	backup
	Objects []vault.ObjectID `json:"objects"`
}

func raw(texts []string) [][]byte {
	raw := make([][]byte, len(texts))
	for i, t := range texts {
		raw[i] = []byte(t)
	}
	return raw
}

func rawTexts(raw [][]byte) []string {
	texts := make([]string, len(raw))
	for i, b := range raw {
		texts[i] = string(b)
	}
	return texts
}

// answer is what every request is answered with.
type answer[T any] struct {
	Value T      `json:"value"`
	Error string `json:"error,omitempty"`
	// Code is the exit code that the error stands for.
	Code int `json:"code,omitempty"`
}

// Error is an error as the agent told it.
type Error struct {
	Text string
	// Code is the exit code of a command that ends with it.
	Code int
}

func (e *Error) Error() string { return e.Text }

// maxBody bounds a request: a thousand long paths.
const maxBody = 16 << 20

func handle[In, Out any](mux *http.ServeMux, pattern string, f func(*http.Request, In) (Out, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		var out answer[Out]
		var err error
		if out.Value, err = f(r, in); err != nil {
			out.Error = err.Error()
			if e, ok := errors.AsType[*Error](err); ok {
				out.Code = e.Code
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // nobody may be listening any more
	})
}

// Client asks the agent of a state folder. Its errors wrap localsock.ErrNotRunning
// when none runs, or are an *Error.
type Client struct{ http *http.Client }

// NewClient returns a client for the agent on a state folder. It dials on use.
func NewClient(state string) *Client { return &Client{localsock.Client(state)} }

// errEnded: the agent that was spoken to is gone.
var errEnded = fmt.Errorf("%w: it has ended", localsock.ErrNotRunning)

func otherVersion(status string) error {
	return fmt.Errorf("the running agent answers %s; it may be of another version: restart it", status)
}

func call[Out any](ctx context.Context, c *Client, method, path string, in any) (Out, error) {
	var out answer[Out]
	body, writer := io.Pipe()
	go func() { writer.CloseWithError(json.NewEncoder(writer).Encode(in)) }()
	defer body.Close()
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return out.Value, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return out.Value, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden {
		return out.Value, otherVersion(resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out.Value, fmt.Errorf("the agent's answer broke off: %w", err)
	}
	if out.Error != "" {
		return out.Value, &Error{out.Error, out.Code}
	}
	return out.Value, nil
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, "GET", "/v1/status", nil)
}

// Problems asks for what is not protected.
func (c *Client) Problems(ctx context.Context) ([]Problem, error) {
	return call[[]Problem](ctx, c, "GET", "/v1/problems", nil)
}

// Acknowledge ends the alarms.
func (c *Client) Acknowledge(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, "POST", "/v1/acknowledge", struct{}{})
	return err
}

// Pause stops sending.
func (c *Client) Pause(ctx context.Context, until time.Time) error {
	_, err := call[struct{}](ctx, c, "POST", "/v1/pause", pause{until})
	return err
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, "POST", "/v1/resume", struct{}{})
	return err
}

// Backup asks for a backup now and waits for its end.
func (c *Client) Backup(ctx context.Context, paths []string) (Report, error) {
	return call[Report](ctx, c, "POST", "/v1/backup", backup{raw(paths)})
}

// Resend has paths and objects sent again; see [Service].
func (c *Client) Resend(ctx context.Context, paths []string, objects []vault.ObjectID) ([]string, error) {
	b, err := call[backup](ctx, c, "POST", "/v1/resend", lost{backup{raw(paths)}, objects})
	return rawTexts(b.Paths), err
}
