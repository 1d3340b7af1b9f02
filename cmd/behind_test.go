package cmd_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// status waits until the running agent says that it is in a state.
func (l *lab) status(want string) {
	l.Helper()
	var out string
	l.eventually(func() bool {
		var st struct{ State string }
		code := 0
		// One that was just started may not answer yet.
		out, code = run(l, l.dir, "agent", "status", "--json", "--config", l.conf, "--state", l.state)
		return code == 0 && json.Unmarshal([]byte(out), &st) == nil && st.State == want
	}, func() string { return "the state is not " + want + ":\n" + out })
}

// TestServerBehind puts an old copy of the server's disk back: the machine notices,
// says so until somebody has taken note, and sends again what is missing.
func TestServerBehind(t *testing.T) {
	l := newLab(t)
	l.write("early.txt", "early")
	l.write("changed.txt", "first")
	l.serve()
	l.join()
	l.agent(0, "backup")
	l.stop()
	old := filepath.Join(l.dir, "old")
	copyTree(t, l.data, old)
	l.serve()
	l.write("late.txt", "late")
	l.write("changed.txt", "second")
	if err := os.Remove(filepath.Join(l.docs, "early.txt")); err != nil {
		t.Fatal(err)
	}
	l.agent(0, "backup")
	l.stop()
	if err := os.RemoveAll(l.data); err != nil {
		t.Fatal(err)
	}
	copyTree(t, old, l.data)
	l.serve()

	// A restore gives what there is and says that it is not all.
	out := l.agent(5, "restore", l.docs, "--to", filepath.Join(l.dir, "out"))
	if !strings.Contains(out, "the server is behind") {
		t.Errorf("restore does not say that the server is behind:\n%s", out)
	}
	want := map[string]string{"early.txt": "early", "changed.txt": "first"}
	if got := files(t, filepath.Join(l.dir, "out", "docs")); !maps.Equal(got, want) {
		t.Errorf("restored %v, want %v", got, want)
	}
	if out := l.agent(5, "verify", "--all"); !strings.Contains(out, "the server is behind") {
		t.Errorf("verify does not say that the server is behind:\n%s", out)
	}

	a := l.watch()
	l.wait(a, `^ALARM: the server has lost backups`)
	l.wait(a, `late\.txt safe$`)
	l.status("alarm")
	if out := l.agent(0, "problems"); !strings.Contains(out, "lost backups") || !strings.Contains(out, "--acknowledge") {
		t.Errorf("problems does not show the alarm:\n%s", out)
	}
	l.agent(0, "backup")
	l.agent(5, "restore", l.docs, "--to", filepath.Join(l.dir, "alarmed"))
	// The alarm outlives the agent, and ends when somebody has taken note.
	l.end(a)
	a = l.watch()
	l.status("alarm")
	l.agent(0, "problems", "--acknowledge")
	l.status("protected")
	if out := l.agent(0, "problems", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("problems after the acknowledgement: %s", out)
	}
	l.end(a)
	l.agent(0, "verify", "--all")
	if got, want := files(t, l.recover(0)), files(t, l.docs); !maps.Equal(got, want) {
		t.Errorf("recovered %v, want %v", got, want)
	}
	// What the server still had of before is there, too.
	if out := l.agent(0, "history", filepath.Join(l.docs, "changed.txt"), "--json"); strings.Count(out, `"size":`) != 2 {
		t.Errorf("history: %s", out)
	}
}

// TestMachineRolledBack puts an old copy of the machine's own folders back, as a
// snapshot of its disk does: it takes over what it has sent since, raises no alarm,
// and goes on.
func TestMachineRolledBack(t *testing.T) {
	l := newLab(t)
	l.write("early.txt", "early")
	l.serve()
	l.join()
	l.agent(0, "backup")
	conf, state := l.dir+"/conf.old", l.dir+"/state.old"
	copyTree(t, l.conf, conf)
	copyTree(t, l.state, state)
	l.write("late.txt", "late")
	l.agent(0, "backup")
	for from, to := range map[string]string{conf: l.conf, state: l.state} {
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		copyTree(t, from, to)
	}
	l.write("later.txt", "later")
	a := l.watch()
	l.wait(a, `later\.txt safe$`)
	l.status("protected")
	l.end(a)
	if out, _ := a.output(); strings.Contains(out, "ALARM") {
		t.Errorf("an alarm for what the machine did itself:\n%s", out)
	}
	l.agent(0, "verify", "--all")
	if got, want := files(t, l.recover(0)), files(t, l.docs); !maps.Equal(got, want) {
		t.Errorf("recovered %v, want %v", got, want)
	}
}

// TestTwoCopies runs a machine and a copy of it at a time. Both would write one
// history, so one of them stops and says why; the other goes on.
func TestTwoCopies(t *testing.T) {
	l := newLab(t)
	l.write("file.txt", "one")
	l.serve()
	l.join()
	l.agent(0, "backup")
	twin := *l
	twin.conf, twin.state = l.dir+"/conf.twin", l.dir+"/state.twin"
	copyTree(t, l.conf, twin.conf)
	copyTree(t, l.state, twin.state)
	a := l.watch()
	l.wait(a, `^connected to`)
	l.write("file.txt", "two")
	l.wait(a, `file\.txt safe$`)
	twin.write("twin.txt", "from the copy's run")
	// The first one has a session under way; the copy commits in one of its own.
	// Whoever comes second with a commit finds the head moved.
	b := twin.watch()
	l.wait(b, `^connected to`)
	text := `another copy of this device is at work`
	noticed := func(p *process) bool {
		out, _ := p.output()
		return strings.Contains(out, text)
	}
	n := 0
	l.eventually(func() bool {
		n++
		l.write("file.txt", strings.Repeat("x", n))
		return noticed(a) || noticed(b)
	}, func() string { return "neither copy notices the other" })
	stopped, other := l, &twin
	if noticed(b) {
		stopped, other = other, stopped
	}
	stopped.status("failing")
	if out := stopped.agent(0, "status"); !strings.Contains(out, text) {
		t.Errorf("status does not say why:\n%s", out)
	}
	other.write("file.txt", "the last")
	other.agent(0, "backup")
	l.end(a)
	l.end(b)
	if got, want := files(t, l.recover(0)), files(t, l.docs); !maps.Equal(got, want) {
		t.Errorf("recovered %v, want %v", got, want)
	}
}
