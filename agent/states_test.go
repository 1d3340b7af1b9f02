package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"backstay/agent/catalog"
	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/localapi"
	"backstay/agent/settle"
	"backstay/agent/upload"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// newWork returns an agent that is not running, with nothing to protect.
func newWork(t *testing.T) (w *work, notices *[]string) {
	t.Helper()
	c, err := catalog.Open(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	identity, err := vault.NewIdentity(vault.RoleDevice, vault.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	notices = new([]string)
	a := &agent{
		o: Options{Protocol: 4, Events: func(e Event) {
			if e.Kind == Notice {
				*notices = append(*notices, e.Text)
			}
		}},
		log: slog.New(slog.DiscardHandler), cat: c, problems: map[string]problem{}, cfg: config.Config{Address: "server"},
		device: &device.Device{Name: "desk", Identity: identity},
	}
	return &work{
		agent: a, queue: newQueue(func() {}), settling: settle.New(settle.Options{}), rescans: map[string]string{}, torn: map[string]int{},
		wake: make(chan struct{}, 1), scanned: map[string]bool{}, refused: map[string]bool{}, gate: make(chan struct{}),
	}, notices
}

func status(t *testing.T, w *work) localapi.Status {
	t.Helper()
	st, err := w.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFailingStays: what a person has to do something about is shown until what was
// refused is done, whatever else succeeds, and while it is tried again.
func TestFailingStays(t *testing.T) {
	for _, refusal := range []error{v4.ErrFull, v4.ErrQuota, v4.ErrClock, v4.ErrFailed, v4.ErrRevoked, upload.ErrTwoCopies} {
		t.Run(refusal.Error(), func(t *testing.T) {
			w, _ := newWork(t)
			// take is what happens when the uploader takes an item and gives a result.
			take := func(path string, outcome upload.Outcome) {
				t.Helper()
				w.queue.add(item{path: path, op: vault.OpPut})
				for {
					it, ok := w.nextItem(t.Context())
					if !ok {
						t.Fatal("nothing to take")
					}
					if it.Path == path {
						break
					}
					defer w.result(upload.Result{Item: it, Outcome: upload.Again})
				}
				w.result(upload.Result{Item: upload.Item{Path: path, Op: vault.OpPut}, Outcome: outcome})
			}
			is := func(when string, want localapi.State) {
				t.Helper()
				if st := status(t, w); st.State != want || want == localapi.Failing && (!strings.Contains(st.Reason, refusal.Error()) || !strings.Contains(st.Reason, "; ")) {
					t.Errorf("%s: %s, %q, want %s", when, st.State, st.Reason, want)
				}
			}
			take("/large", upload.Again)
			take("/small", upload.Again)
			err := fmt.Errorf("commit 3: %w", refusal)
			w.state(err.Error(), failure(err))
			is("refused", localapi.Failing)
			w.state("", localapi.Problem{})
			is("connected again", localapi.Failing)
			take("/small", upload.Safe)
			take("/other", upload.Safe)
			is("something else is safe", localapi.Failing)
			w.state("the network is down", localapi.Problem{})
			is("offline as well", localapi.Failing)
			w.state("", localapi.Problem{})
			list, perr := w.Problems(t.Context())
			if perr != nil || len(list) != 1 || list[0].Fix == "" {
				t.Errorf("%+v, %v", list, perr)
			}
			take("/large", upload.Safe)
			if st := status(t, w); st.State == localapi.Failing {
				t.Errorf("all is safe, and it says: %q", st.Reason)
			}
		})
	}
	if p := failure(errors.New("the connection broke")); p.Reason != "" {
		t.Errorf("%+v for what passes by itself", p)
	}
}

// TestClocks: clocks that disagree are a problem of its own until they agree, and told
// of once.
func TestClocks(t *testing.T) {
	w, notices := newWork(t)
	now := time.Now()
	for _, tt := range []struct {
		name   string
		server time.Time
		apart  bool
		told   int
	}{
		{"the same", now, false, 0},
		{"an hour ahead", now.Add(time.Hour), false, 0},
		{"a dead battery in the machine", now.AddDate(50, 0, 0), true, 1},
		{"still", now.AddDate(50, 0, 0), true, 1},
		{"set", now.Add(-23 * time.Hour), false, 2},
		{"a dead battery in the server", time.Unix(600, 0), true, 3},
	} {
		w.compareClocks(tt.server)
		st := status(t, w)
		list, err := w.Problems(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(*notices) != tt.told {
			t.Errorf("%s: told %q", tt.name, *notices)
		}
		if !tt.apart {
			if st.State == localapi.Attention || st.Problems != 0 || len(list) != 0 {
				t.Errorf("%s: %+v, %+v", tt.name, st, list)
			}
			continue
		}
		server := tt.server.UTC().Format("2006-01-02 15:04")
		if st.State != localapi.Attention || st.Problems != 1 || !strings.Contains(st.Reason, server) {
			t.Errorf("%s: %+v", tt.name, st)
		}
		if len(list) != 1 || list[0].Path != "" || !strings.Contains(list[0].Reason, server) || !strings.Contains(list[0].Reason, now.UTC().Format("2006-01-02")) || !strings.Contains(list[0].Fix, "set") {
			t.Errorf("%s: %+v", tt.name, list)
		}
	}
}
