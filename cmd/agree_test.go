package cmd_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"backstay/agent/localapi"
	"backstay/tray"
)

// latest keeps the newest status that a client is told.
type latest struct {
	mu sync.Mutex // guards what follows
	st localapi.Status
}

func (l *latest) follow(t *testing.T, c *localapi.Client) {
	var group sync.WaitGroup
	group.Go(func() {
		for st, err := range c.Watch(t.Context()) {
			if err != nil {
				return
			}
			l.mu.Lock()
			l.st = st
			l.mu.Unlock()
		}
	})
	t.Cleanup(group.Wait)
}

// becomes waits until f is content with the newest status.
func (l *latest) becomes(t *testing.T, what string, f func(localapi.Status) bool) localapi.Status {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		l.mu.Lock()
		st := l.st
		l.mu.Unlock()
		if f(st) {
			tick.Stop()
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not told; the last was %+v", what, st)
		}
	}
}

// canonical is a status as it is on the wire.
func canonical(t *testing.T, st localapi.Status) string {
	t.Helper()
	data, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAllSayTheSame drives random changes through a local API: events, the command
// line, plain and as JSON, and the tray agree on each.
func TestAllSayTheSame(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	state := t.TempDir()
	s := newScripted()
	s.serve(t, state)
	var events latest
	events.follow(t, localapi.NewClient(state))
	reasons := []string{"", "no route to host", "line\nbreak \u202e and \x1b[31m", strings.Repeat("long ", 100), "\xff bytes", "<b>&amp;</b>"}
	now := time.Now()
	for n := range 200 {
		st := localapi.Status{
			State: localapi.States()[r.IntN(len(localapi.States()))], Reason: strings.ToValidUTF8(reasons[r.IntN(len(reasons))], "\uFFFD"),
			Protected: n + 1, Waiting: r.IntN(3) * r.IntN(1000), Excluded: r.IntN(5), Problems: r.IntN(3), FirstPass: r.IntN(2) == 0,
			Server: "backup.example:1256", Device: "desk", Bytes: r.Int64N(1 << 40), Rate: r.Int64N(2) * r.Int64N(1<<30), Version: "v1",
		}
		if r.IntN(4) > 0 {
			safe := now.Add(-time.Duration(1+r.IntN(40))*time.Hour - 30*time.Minute).UTC()
			st.LastSafe = &safe
		}
		if r.IntN(4) == 0 || st.State == localapi.Paused {
			st.PausedBy = []string{localapi.PausedByYou, "battery"}[r.IntN(2)]
			if until := now.Add(time.Duration(r.IntN(72)) * time.Hour).UTC(); r.IntN(2) == 0 {
				st.PausedUntil = &until
			}
		}
		s.set(st)
		want := canonical(t, st)
		told := events.becomes(t, want, func(got localapi.Status) bool { return got.Protected == n+1 })
		if got := canonical(t, told); got != want {
			t.Fatalf("step %d: events say %s,\nwant %s", n, got, want)
		}
		said := func(flags ...string) string {
			cmd := exec.Command(program("agent"), append([]string{"status", "--state", state}, flags...)...)
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else a second each, with the race detector
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		plain, asJSON := said(), said("--json")
		if got := strings.TrimSpace(asJSON); got != want {
			t.Fatalf("step %d: the command line says %s,\nwant %s", n, got, want)
		}
		at := time.Now()
		lines := append([]string{told.Summary(at)}, told.Details(at)...)
		if want := strings.Join(lines, "\n  ") + "\n"; plain != want {
			t.Fatalf("step %d: the command line says %q,\nwant %q", n, plain, want)
		}
		v := tray.Render(tray.Input{Reach: tray.Answers, Status: told}, at)
		if v.Tooltip != lines[0] || v.Menu[0].Label != lines[0] || v.Menu[1].Label != lines[1] || v.Icon != string(st.State) {
			t.Fatalf("step %d: the tray shows %s, %q, %q, %q; want %s, %q", n, v.Icon, v.Tooltip, v.Menu[0].Label, v.Menu[1].Label, st.State, lines)
		}
	}
}

// TestEventsMissNothing does to a real agent what changes its status in every way, and
// compares what was told with what it says when asked.
func TestEventsMissNothing(t *testing.T) {
	work := t.TempDir()
	docs, conf, state := filepath.Join(work, "docs"), filepath.Join(work, "c"), filepath.Join(work, "s")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program(name), args...)
		cmd.Dir = work
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	write(filepath.Join(docs, "a.txt"), "one")
	server := start(t, work, nil, "server", "run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", filepath.Join(work, "data"))
	if _, err := server.wait(`^listening on (\S+),`); err != nil {
		t.Fatal(err)
	}
	var made struct{ Invitation string }
	if err := json.Unmarshal([]byte(run("server", "invite", "--json", "--data", filepath.Join(work, "data"))), &made); err != nil {
		t.Fatal(err)
	}
	run("agent", "join", made.Invitation, docs, "--config", conf, "--state", state, "--phrase-file", filepath.Join(work, "kit"))
	agent := start(t, work, os.Environ(), "agent", "run", "--config", conf, "--state", state)
	if _, err := agent.wait(`connected to`); err != nil {
		t.Fatal(err)
	}
	c := localapi.NewClient(state)
	var events latest
	events.follow(t, c)
	transfer, err := os.ReadFile(filepath.Join(conf, "transfer.info"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func()
		till func(localapi.Status) bool
	}{
		{"the first pass", func() {}, func(st localapi.Status) bool { return st.State == localapi.Protected && st.Bytes == 3 }},
		{"a file is saved", func() { write(filepath.Join(docs, "b.txt"), "four") }, func(st localapi.Status) bool { return st.State == localapi.Protected && st.Bytes == 7 }},
		{"many are", func() {
			for n := range 500 {
				write(filepath.Join(docs, fmt.Sprintf("d%d/%d.txt", n%7, n)), "x")
			}
		}, func(st localapi.Status) bool { return st.State == localapi.Protected && st.Bytes == 507 }},
		{"a file is deleted", func() { os.Remove(filepath.Join(docs, "b.txt")) }, func(st localapi.Status) bool { return st.State == localapi.Protected && st.Bytes == 503 }},
		{"a pause of nothing", func() { run("agent", "pause", "2s", "--state", state) }, func(st localapi.Status) bool { return st.State == localapi.Paused && st.PausedUntil != nil }},
		{"its end", func() {}, func(st localapi.Status) bool { return st.State == localapi.Protected && st.PausedBy == "" }},
		{"a pause", func() { run("agent", "pause", "--state", state) }, func(st localapi.Status) bool { return st.PausedBy == "you" && st.PausedUntil == nil }},
		{"a change in the pause", func() { write(filepath.Join(docs, "c.txt"), "12345") }, func(st localapi.Status) bool { return st.State == localapi.Paused && st.Waiting > 0 }},
		{"a pause that ends by itself", func() { run("agent", "pause", "1s", "--state", state) }, func(st localapi.Status) bool {
			return st.State == localapi.Protected && st.PausedBy == "" && st.Bytes == 508
		}},
		{"a rule", func() { write(filepath.Join(conf, "transfer.info"), string(transfer)+"!c.txt\n") }, func(st localapi.Status) bool {
			return st.State == localapi.Protected && st.Excluded == 1 && st.Bytes == 503
		}},
		{"a folder that goes", func() { os.Rename(docs, docs+" gone") }, func(st localapi.Status) bool { return st.State == localapi.Attention && st.Problems == 1 }},
		{"a folder that comes back", func() { os.Rename(docs+" gone", docs) }, func(st localapi.Status) bool { return st.State == localapi.Protected }},
		{"a server that goes", func() { server.kill() }, func(st localapi.Status) bool { return st.State == localapi.Offline }},
		{"a change meanwhile", func() { write(filepath.Join(docs, "e.txt"), "e") }, func(st localapi.Status) bool { return st.State == localapi.Offline && st.Waiting > 0 }},
	} {
		step.do()
		events.becomes(t, step.name, func(told localapi.Status) bool {
			if !step.till(told) {
				return false
			}
			asked, err := c.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return reflect.DeepEqual(canonical(t, told), canonical(t, asked))
		})
	}
}
