package cmd_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lab is a server and a machine that backs up to it with protocol 4.
type lab struct {
	testing.TB
	// docs is what is protected; conf and state are the agent's folders, data the
	// server's, kit the file of the recovery kit.
	dir, docs, conf, state, data, kit string
	// lines follow docs in transfer.info.
	lines  []string
	server *process
	addr   string
}

// newLab makes the folders. The server does not run yet.
func newLab(tb testing.TB) *lab {
	tb.Helper()
	dir, err := filepath.EvalSymlinks(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	l := &lab{TB: tb, dir: dir}
	for name, path := range map[string]*string{"docs": &l.docs, "conf": &l.conf, "state": &l.state, "data": &l.data, "kit": &l.kit} {
		*path = filepath.Join(dir, name)
	}
	for _, d := range []string{l.docs, l.conf} {
		if err := os.Mkdir(d, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	return l
}

// serve starts the server on a free port and tells an enrolled agent where it is.
func (l *lab) serve(flags ...string) {
	l.Helper()
	args := append([]string{"run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", l.data}, flags...)
	l.server = start(l, l.dir, nil, "server", args...)
	m, err := l.server.wait(`^listening on (\S+),`)
	if err != nil {
		l.Fatal(err)
	}
	l.addr = m[1]
	if _, err := os.Stat(filepath.Join(l.conf, "transfer.info")); err == nil {
		l.transfer()
	}
}

// transfer writes transfer.info, in one step: a running agent reads it.
func (l *lab) transfer() {
	l.Helper()
	text := strings.Join(append([]string{l.addr, "desk", l.docs}, l.lines...), "\n") + "\n"
	path := filepath.Join(l.conf, "transfer.info")
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		l.Fatal(err)
	}
}

// stop ends the server in peace.
func (l *lab) stop() {
	l.Helper()
	if code, err := l.server.end(); code != 0 || err != nil {
		out, _ := l.server.output()
		l.Fatalf("the server ends with %d, %v\n%s", code, err, out)
	}
}

// join enrols the machine as desk; the invitation's flags may be given.
func (l *lab) join(invite ...string) {
	l.Helper()
	var made struct{ Invitation string }
	if err := json.Unmarshal([]byte(l.must(0, "server", append([]string{"invite", "--json", "--data", l.data}, invite...)...)), &made); err != nil {
		l.Fatal(err)
	}
	l.agent(0, "join", made.Invitation, l.docs, "--name", "desk", "--phrase-file", l.kit)
}

// must runs a program that has to exit with a code, and returns what it printed.
func (l *lab) must(code int, name string, args ...string) string {
	l.Helper()
	out, got := run(l, l.dir, name, args...)
	if got != code {
		l.Fatalf("%s %s: exit %d, want %d\n%s", name, strings.Join(args, " "), got, code, out)
	}
	return out
}

// agent runs a command of the agent on the machine's folders.
func (l *lab) agent(code int, args ...string) string {
	l.Helper()
	return l.must(code, "agent", append(args, "--config", l.conf, "--state", l.state)...)
}

// watch starts the agent.
func (l *lab) watch(flags ...string) *process {
	l.Helper()
	return start(l, l.dir, nil, "agent", append([]string{"run", "--verbose", "--config", l.conf, "--state", l.state}, flags...)...)
}

// recover gets everything back with the kit alone, as on an empty machine, and
// returns where docs are then.
func (l *lab) recover(code int, flags ...string) string {
	l.Helper()
	empty := l.TempDir()
	to := filepath.Join(empty, "back")
	args := append([]string{"recover", "--phrase-file", l.kit, "--to", to, "--server", l.addr}, flags...)
	cmd := exec.CommandContext(l.Context(), program("agent"), args...)
	cmd.Dir = empty
	for _, home := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"} {
		cmd.Env = append(cmd.Env, home+"="+filepath.Join(empty, "home"))
	}
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		l.Fatalf("recover: exit %d, want %d: %v\n%s", got, code, err, out)
	}
	return filepath.Join(to, "desk", strings.TrimPrefix(l.docs, filepath.VolumeName(l.docs)))
}

// write writes a file below docs.
func (l *lab) write(name, content string) {
	l.Helper()
	path := filepath.Join(l.docs, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		l.Fatal(err)
	}
}

// wait waits for a line of a program's output.
func (l *lab) wait(p *process, pattern string) []string {
	l.Helper()
	m, err := p.wait(pattern)
	if err != nil {
		l.Fatal(err)
	}
	return m
}

// end ends a program as a person does; it must exit with 0.
func (l *lab) end(p *process) {
	l.Helper()
	if code, err := p.end(); code != 0 || err != nil {
		out, _ := p.output()
		l.Fatalf("%s ends with %d, %v\n%s", p.cmd.Path, code, err, out)
	}
}

// files returns every regular file below a folder, by its path there.
func files(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		rel, rerr := filepath.Rel(dir, path)
		all[filepath.ToSlash(rel)] = string(content)
		return errors.Join(err, rerr)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// copyTree copies a folder of files, as an administrator does.
func copyTree(tb testing.TB, from, to string) {
	tb.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		tb.Fatal(err)
	}
	// CopyFS does not keep modes, and the programs refuse secrets that others
	// can read.
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		} else if err == nil {
			return os.Chmod(path, 0o600)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func random(rng interface{ Uint32() uint32 }, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

// eventually waits until ok says so; what says what is wrong if it never does.
func (l *lab) eventually(ok func() bool, what func() string) {
	l.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			l.Fatal(what())
		}
	}
}
