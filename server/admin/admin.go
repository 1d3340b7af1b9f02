// Package admin is how the server's commands reach what they ask about: over the
// local socket of a running server, or in the store of a stopped one. Both are the
// same [Service], so a command does not know which it talks to.
//
// On the socket it is HTTP with JSON. Answers that stream end with a trailer that
// says whether they are whole.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"backstay/internal/localsock"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/v3"
)

// Stats is what "server stats --json" prints; fields may be added, never renamed.
type Stats struct {
	Accounts int64 `json:"accounts"`
	Devices  int64 `json:"devices"`
	Files    int64 `json:"files"`
	Versions int64 `json:"versions"`
	Objects  int64 `json:"objects"`
	// BytesLogical is what the stored objects add up to, BytesStored what packs
	// and index take on the disk.
	BytesLogical int64 `json:"bytes_logical"`
	BytesStored  int64 `json:"bytes_stored"`
	Sessions     int64 `json:"sessions"`
	// ClockProblem is why no commits are taken, empty if they are.
	ClockProblem string `json:"clock_problem,omitempty"`
}

// InviteOptions say whom an invitation is for.
type InviteOptions struct {
	// Account is its name; empty means "default".
	Account string
	// TTL is how long it holds; 0 means 7 days.
	TTL time.Duration
	// Address is the host:port it carries; empty means where the server listens.
	Address string
}

// Invitation is what "server invite --json" prints.
type Invitation struct {
	// Invitation is the line to paste. It holds a secret.
	Invitation string    `json:"invitation"`
	Expires    time.Time `json:"expires"`
	Account    string    `json:"account"`
}

// Device is an element of what "server devices --json" prints.
type Device struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Account string `json:"account"`
	// LastSeen is null if the device never came, LastSafe if it has nothing here.
	LastSeen *time.Time `json:"last_seen"`
	LastSafe *time.Time `json:"last_safe"`
	Revoked  bool       `json:"revoked"`
}

// Account is an element of what "server accounts --json" prints.
type Account struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Vault is empty until a device has made it.
	Vault   string `json:"vault"`
	Devices int    `json:"devices"`
}

// Service is what commands ask of a server.
type Service interface {
	Stats(ctx context.Context) (Stats, error)
	Invite(ctx context.Context, o InviteOptions) (Invitation, error)
	Devices(ctx context.Context) ([]Device, error)
	Accounts(ctx context.Context) ([]Account, error)
	// ConfirmClock believes the system's clock and returns its time.
	ConfirmClock(ctx context.Context) (time.Time, error)
	// V3Files yields what is damaged with its client and the error, and goes
	// on; an error without a client ends it.
	V3Files(ctx context.Context) iter.Seq2[v3.File, error]
	V3Get(ctx context.Context, client, file string, w io.Writer) error
	V3Allow(ctx context.Context, name string) error
}

// codes is the one table of errors that cross the socket as themselves.
var codes = []struct {
	code string
	err  error
}{
	{"not_found", storage.ErrNotFound},
	{"corrupt", storage.ErrCorrupt},
	{"corrupt", vault.ErrCorrupt},
	{"invalid", storage.ErrInvalid},
	{"full", storage.ErrFull},
	{"failed", storage.ErrFailed},
}

const (
	trailerCode = "Backstay-Code"
	trailerText = "Backstay-Error"
	codeDone    = "done"
	codeOther   = "error"
)

func codeOf(err error) string {
	if err == nil {
		return codeDone
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return codeOther
}

// remoteError is an error as the server told it.
type remoteError struct {
	text string
	err  error // the sentinel behind the code, or nil
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }

// decode returns the error that codeOf and its text came from.
func decode(code, text string) error {
	e := &remoteError{text: text}
	for _, c := range codes {
		if c.code == code && e.err == nil {
			e.err = c.err
		}
	}
	return e
}

// listed is a line of the listing: a file, or what is wrong with one.
type listed struct {
	v3.File
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// Handler answers a Client.
func Handler(s Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/stats", func(w http.ResponseWriter, r *http.Request) {
		st, err := s.Stats(r.Context())
		answer(w, st, err)
	})
	mux.HandleFunc("POST /v1/invite", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		ttl, err := time.ParseDuration(q.Get("ttl"))
		var i Invitation
		if err == nil {
			i, err = s.Invite(r.Context(), InviteOptions{Account: q.Get("account"), TTL: ttl, Address: q.Get("address")})
		}
		answer(w, i, err)
	})
	mux.HandleFunc("GET /v1/devices", func(w http.ResponseWriter, r *http.Request) {
		devices, err := s.Devices(r.Context())
		answer(w, devices, err)
	})
	mux.HandleFunc("GET /v1/accounts", func(w http.ResponseWriter, r *http.Request) {
		accounts, err := s.Accounts(r.Context())
		answer(w, accounts, err)
	})
	mux.HandleFunc("POST /v1/clock/confirm", func(w http.ResponseWriter, r *http.Request) {
		now, err := s.ConfirmClock(r.Context())
		answer(w, now, err)
	})
	mux.HandleFunc("GET /v1/v3/files", func(w http.ResponseWriter, r *http.Request) {
		enc := json.NewEncoder(w)
		for f, err := range s.V3Files(r.Context()) {
			if err != nil && f.ClientID == "" {
				finish(w, err)
				return
			}
			line := listed{File: f}
			if err != nil {
				line.Code, line.Error = codeOf(err), err.Error()
			}
			if err := enc.Encode(line); err != nil {
				return // nobody listens any more
			}
		}
		finish(w, nil)
	})
	mux.HandleFunc("GET /v1/v3/file", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		finish(w, s.V3Get(r.Context(), q.Get("client"), q.Get("file"), w))
	})
	mux.HandleFunc("POST /v1/v3/allow", func(w http.ResponseWriter, r *http.Request) {
		finish(w, s.V3Allow(r.Context(), r.URL.Query().Get("name")))
	})
	return mux
}

// answer sends a value, or why there is none.
func answer(w http.ResponseWriter, v any, err error) {
	if err == nil {
		err = json.NewEncoder(w).Encode(v)
	}
	finish(w, err)
}

// finish ends an answer with the trailer that says how it ended.
func finish(w http.ResponseWriter, err error) {
	w.Header().Set(http.TrailerPrefix+trailerCode, codeOf(err))
	if err != nil {
		w.Header().Set(http.TrailerPrefix+trailerText, url.QueryEscape(err.Error()))
	}
	// Trailers need a body that has begun.
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// Client is the Service of the server that runs on a data folder. Its errors wrap
// localsock.ErrNotRunning when none does.
type Client struct{ http *http.Client }

// NewClient returns a client for the server on a data folder. It dials on use.
func NewClient(data string) *Client { return &Client{localsock.Client(data)} }

// call makes a request and hands the body to read; the error is the trailer's
// where the server gave one.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://server"+path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the running server answers %s; it may be of another version: restart it", resp.Status)
	}
	readErr := read(resp.Body)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("the server's answer broke off: %w", err)
	}
	switch code := resp.Trailer.Get(trailerCode); code {
	case codeDone:
		return readErr
	case "":
		return errors.New("the server's answer broke off")
	default:
		text, err := url.QueryUnescape(resp.Trailer.Get(trailerText))
		if err != nil {
			return err
		}
		return decode(code, text)
	}
}

// ask makes a request whose answer is one value.
func ask[T any](ctx context.Context, c *Client, method, path string, q url.Values) (v T, err error) {
	err = c.call(ctx, method, path, q, func(r io.Reader) error { return json.NewDecoder(r).Decode(&v) })
	return v, err
}

// Stats asks for the counts.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	return ask[Stats](ctx, c, "GET", "/v1/stats", nil)
}

// Invite asks for an invitation.
func (c *Client) Invite(ctx context.Context, o InviteOptions) (Invitation, error) {
	q := url.Values{"account": {o.Account}, "ttl": {o.TTL.String()}, "address": {o.Address}}
	return ask[Invitation](ctx, c, "POST", "/v1/invite", q)
}

// Devices asks for the enrolled devices.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	return ask[[]Device](ctx, c, "GET", "/v1/devices", nil)
}

// Accounts asks for the accounts.
func (c *Client) Accounts(ctx context.Context) ([]Account, error) {
	return ask[[]Account](ctx, c, "GET", "/v1/accounts", nil)
}

// ConfirmClock has the server believe its system's clock.
func (c *Client) ConfirmClock(ctx context.Context) (time.Time, error) {
	return ask[time.Time](ctx, c, "POST", "/v1/clock/confirm", nil)
}

// V3Files asks for the listing; it streams.
func (c *Client) V3Files(ctx context.Context) iter.Seq2[v3.File, error] {
	return func(yield func(v3.File, error) bool) {
		stopped := false
		err := c.call(ctx, "GET", "/v1/v3/files", nil, func(r io.Reader) error {
			dec := json.NewDecoder(r)
			for {
				var line listed
				if err := dec.Decode(&line); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				var err error
				if line.Error != "" {
					err = decode(line.Code, line.Error)
				}
				if !yield(line.File, err) {
					stopped = true
					return nil
				}
			}
		})
		if err != nil && !stopped {
			yield(v3.File{}, err)
		}
	}
}

// V3Get asks for a file's content. What was written to w is whole only if the
// error is nil.
func (c *Client) V3Get(ctx context.Context, client, file string, w io.Writer) error {
	q := url.Values{"client": {client}, "file": {file}}
	return c.call(ctx, "GET", "/v1/v3/file", q, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// V3Allow admits a name.
func (c *Client) V3Allow(ctx context.Context, name string) error {
	return c.call(ctx, "POST", "/v1/v3/allow", url.Values{"name": {name}}, func(io.Reader) error { return nil })
}
