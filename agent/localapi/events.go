package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"
)

const (
	// statusGap is the least time between two looks at the status for one client:
	// a busy agent changes a thousand times a second, and a change is to be seen
	// within a tenth.
	statusGap = 90 * time.Millisecond
	// heartbeat is how often a client that has nothing to be told hears that the
	// agent lives; one that hears nothing for silence takes it for hung.
	heartbeat = 15 * time.Second
	silence   = 3 * heartbeat
	// writeTimeout is for a client that does not read.
	writeTimeout = 30 * time.Second
)

// ErrNoAnswer says that the agent is there and does not answer.
var ErrNoAnswer = errors.New("the agent does not answer")

// events answers GET /v1/events: server-sent events, each with a Status, one at once
// and one for each change. It ends with an event "error" if there is none to give.
func events(s Service) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		out := http.NewResponseController(w)
		write := func(format string, args ...any) bool {
			_ = out.SetWriteDeadline(time.Now().Add(writeTimeout)) // a test's recorder has none
			_, err := fmt.Fprintf(w, format, args...)
			return err == nil && out.Flush() == nil
		}
		beat := time.NewTicker(heartbeat)
		defer beat.Stop()
		var last []byte
		for {
			// First the channel: what changes after it is asked for is not missed.
			changed := s.StatusChanged()
			st, err := s.Status(r.Context())
			if err != nil {
				text, _ := json.Marshal(answer[struct{}]{Error: err.Error()}) // cannot fail
				write("event: error\ndata: %s\n\n", text)
				return
			}
			data, err := json.Marshal(st)
			if err != nil {
				return
			}
			if !bytes.Equal(data, last) {
				if !write("data: %s\n\n", data) {
					return
				}
				last = data
			}
			gap := time.NewTimer(statusGap)
			for waiting := true; waiting; {
				select {
				case <-changed:
					waiting = false
				case <-beat.C:
					if !write(": alive\n\n") {
						return
					}
				case <-r.Context().Done():
					return
				}
			}
			select {
			case <-gap.C:
			case <-r.Context().Done():
				return
			}
		}
	}
}

// maxEvent bounds a line of the events.
const maxEvent = 1 << 20

// Watch yields the status as it is and then each time it changes, some ten times a
// second at most; what changes in between is in the next. It ends with one error:
// localsock.ErrNotRunning when no agent runs or the one that did has ended,
// [ErrNoAnswer] when it is silent for 45 s, an [*Error], or that of ctx. The caller
// may then watch again.
func (c *Client) Watch(ctx context.Context) iter.Seq2[Status, error] {
	return func(yield func(Status, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		hung := time.AfterFunc(silence, func() { cancel(ErrNoAnswer) })
		defer hung.Stop()
		err := c.watch(ctx, hung, func(st Status) bool { return yield(st, nil) })
		if err == nil {
			return
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		yield(Status{}, err)
	}
}

// watch gives events to yield; nil says that yield wants no more.
func (c *Client) watch(ctx context.Context, hung *time.Timer, yield func(Status) bool) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://agent/v1/events", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return otherVersion(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	failed := false
	for lines.Scan() {
		hung.Reset(silence)
		line := lines.Bytes()
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case bytes.Equal(line, []byte("event: error")):
			failed = true
		case ok && failed:
			var a answer[struct{}]
			if err := json.Unmarshal(data, &a); err != nil {
				return fmt.Errorf("an event of the agent: %w", err)
			}
			return &Error{a.Error, a.Code}
		case ok:
			var st Status
			if err := json.Unmarshal(data, &st); err != nil {
				return fmt.Errorf("an event of the agent: %w", err)
			}
			if !yield(st) {
				return nil
			}
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errEnded
}
