package cmd_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backstay/agent/localapi"
)

// until asks until the agent is in a state, and returns all it says.
func (l *lab) until(state localapi.State) localapi.Status {
	l.Helper()
	var st localapi.Status
	waitFor(l, func() (bool, string) {
		// Between two states no agent may answer.
		out, code := run(l, l.dir, "agent", "status", "--json", "--config", l.conf, "--state", l.state)
		st = localapi.Status{}
		_ = json.NewDecoder(strings.NewReader(out)).Decode(&st)
		return code == 0 && st.State == state, out
	})
	return st
}

// waitFor asks until the answer is yes; what it saw last is told if that never comes.
func waitFor(tb testing.TB, ask func() (bool, string)) {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; {
		ok, saw := ask()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("it does not come to that; seen last: %s", saw)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-tb.Context().Done():
			tb.Fatal(tb.Context().Err())
		}
	}
}

// A service that is not set up, or whose files are damaged, waits and says so, and
// goes on by itself when that has changed.
func TestServiceWaitsUntilItIsSetUp(t *testing.T) {
	l := newLab(t)
	l.serve()
	l.write("a.txt", "hello")
	// The folder comes later, too.
	if err := os.Remove(l.conf); err != nil {
		t.Fatal(err)
	}
	service := start(t, l.dir, nil, "agent", "service", "run", "--config", l.conf, "--state", l.state)
	if st := l.until(localapi.NotSetUp); !strings.Contains(st.Reason, "agent join") {
		t.Errorf("it does not say what to do: %q", st.Reason)
	}
	l.agent(4, "resume")
	if out := l.must(1, "agent", "service", "run", "--config", l.conf, "--state", l.state); !strings.Contains(out, "another agent is running") {
		t.Errorf("a second agent says: %s", out)
	}
	l.join()
	if st := l.until(localapi.Protected); st.Protected != 2 {
		t.Errorf("after joining: %+v", st)
	}
	if code, err := service.end(); code != 0 || err != nil {
		t.Fatalf("ends with %d, %v", code, err)
	}

	// By hand, it is told at once.
	me := filepath.Join(l.conf, "me.info")
	good, err := os.ReadFile(me)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(me, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("what is this\n"))
	l.agent(1, "run")
	service = start(t, l.dir, nil, "agent", "service", "run", "--config", l.conf, "--state", l.state)
	if st := l.until(localapi.Failing); !strings.Contains(st.Reason, "me.info line") || st.Problems != 1 {
		t.Errorf("damaged keys: %+v", st)
	}
	write(good)
	l.until(localapi.Protected)
	if code, err := service.end(); code != 0 || err != nil {
		t.Fatalf("ends with %d, %v", code, err)
	}
	if out, _ := service.output(); strings.Contains(out, "a.txt") {
		t.Errorf("what the system keeps of it names files: %s", out)
	}
}
