// Package cmd_test runs the real programs against each other, as a person would:
// the scripts in testdata/script, and what scripts are too small for.
package cmd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a test waits for what must come; nothing is measured by it.
const patience = time.Minute

// bin is the folder with the programs under test.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "backstay-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		args := []string{"build", "-o", dir + string(filepath.Separator)}
		if raceEnabled {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "./agent", "./server", "./tray")...)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the programs:", err)
			return 1
		}
		bin = dir
		return m.Run()
	}())
}

func program(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(bin, name)
}

// process is a program running in the background.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and err is set
	err  error

	mu    sync.Mutex // guards what follows
	out   strings.Builder
	grown chan struct{} // closed and replaced when out grows
}

// start runs a program in dir with its standard output and error together.
func start(tb testing.TB, dir string, env []string, name string, args ...string) *process {
	tb.Helper()
	p := &process{cmd: exec.Command(program(name), args...), done: make(chan struct{}), grown: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.read(r)
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) read(r io.ReadCloser) {
	defer r.Close()
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		p.mu.Lock()
		p.out.WriteString(line)
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *process) output() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String(), p.grown
}

// wait returns the submatches of the first match of pattern in the output.
func (p *process) wait(pattern string) ([]string, error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, err
	}
	timeout := time.After(patience)
	for {
		out, grown := p.output()
		if m := re.FindStringSubmatch(out); m != nil {
			return m, nil
		}
		select {
		case <-grown:
		case <-p.done:
			out, _ := p.output()
			if m := re.FindStringSubmatch(out); m != nil {
				return m, nil
			}
			return nil, fmt.Errorf("%s ended without %q: %v\n%s", p.cmd.Path, pattern, p.err, out)
		case <-timeout:
			return nil, fmt.Errorf("%s does not say %q:\n%s", p.cmd.Path, pattern, out)
		}
	}
}

// end ends the program as a person does and returns its exit code.
func (p *process) end() (int, error) {
	// Twice, as happens where a whole process group is ended.
	for range 2 {
		if err := interrupt(p.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return 0, err
		}
	}
	return p.exit()
}

// exit waits for the program to end by itself.
func (p *process) exit() (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		out, _ := p.output()
		return 0, fmt.Errorf("%s does not end:\n%s", p.cmd.Path, out)
	}
}

// kill ends the program without warning.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

func interrupt(p *os.Process) error {
	if runtime.GOOS == "windows" {
		return p.Kill()
	}
	return p.Signal(syscall.SIGTERM)
}

// TestScripts runs every script with these commands besides testscript's own:
//
//	serve [FLAG...]       start a server on a free port with the data folder
//	                      $WORK/data; sets $ADDR
//	background NAME PROGRAM [ARG...]   start a program
//	await NAME PATTERN    wait until its output matches
//	end NAME [CODE]      end it as Ctrl-C does; it must exit with CODE, default 0
//	crash NAME            end it without warning
//	status CODE PROGRAM [ARG...]       run a program that must exit with CODE
//	transfer DIR LINE...   write DIR/transfer.info
//	invite [FLAG...]      let the server make an invitation; sets $INVITATION
//	now VAR               set VAR to the time, as --at takes it, and let it pass
//	pick VAR FIELD KEY=VALUE PROGRAM [ARG...]  set VAR to a field of the element with
//	                      that value of the JSON array that a program prints
//	capture VAR NAME PATTERN   set VAR to what the first group matches in its output
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			for _, dir := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"} {
				env.Setenv(dir, filepath.Join(env.WorkDir, "home"))
			}
			env.Values["processes"] = map[string]*process{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":      cmdServe,
			"background": cmdBackground,
			"await":      cmdAwait,
			"end":        cmdEnd,
			"crash":      cmdCrash,
			"status":     cmdStatus,
			"transfer":   cmdTransfer,
			"invite":     cmdInvite,
			"now":        cmdNow,
			"pick":       cmdPick,
			"capture":    cmdCapture,
		},
	})
}

func processes(ts *testscript.TestScript) map[string]*process {
	return ts.Value("processes").(map[string]*process)
}

func background(ts *testscript.TestScript, name, program string, args ...string) *process {
	env := []string{"PATH=" + ts.Getenv("PATH"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	for _, v := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"} {
		env = append(env, v+"="+ts.Getenv(v))
	}
	tb := &deferring{TB: nil, ts: ts}
	p := start(tb, ts.MkAbs("."), env, program, args...)
	processes(ts)[name] = p
	return p
}

// deferring is as much of a testing.TB as start needs.
type deferring struct {
	testing.TB
	ts *testscript.TestScript
}

func (d *deferring) Helper()           {}
func (d *deferring) Fatal(args ...any) { d.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (d *deferring) Cleanup(f func())  { d.ts.Defer(f) }

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	args = append([]string{"run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", ts.MkAbs("data")}, args...)
	p := background(ts, "server", "server", args...)
	m, err := p.wait(`^listening on (\S+),`)
	ts.Check(err)
	ts.Setenv("ADDR", m[1])
}

func cmdBackground(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: background NAME PROGRAM [ARG...]")
	}
	background(ts, args[0], args[1], args[2:]...)
}

func named(ts *testscript.TestScript, args []string) *process {
	if len(args) == 0 || processes(ts)[args[0]] == nil {
		ts.Fatalf("no such process: %q", args)
	}
	return processes(ts)[args[0]]
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args)
	if len(args) != 2 {
		ts.Fatalf("usage: await NAME PATTERN")
	}
	_, err := p.wait(args[1])
	ts.Check(err)
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args)
	want := "0"
	if len(args) == 2 {
		want = args[1]
	}
	code, err := p.end()
	ts.Check(err)
	out, _ := p.output()
	ts.Logf("%s:\n%s", args[0], out)
	if fmt.Sprint(code) != want {
		ts.Fatalf("%s exits with %d, want %s", args[0], code, want)
	}
}

func cmdCrash(ts *testscript.TestScript, neg bool, args []string) { named(ts, args).kill() }

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exits with %d, want %s", code, args[0])
	}
}

func cmdTransfer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: transfer DIR LINE...")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(os.WriteFile(filepath.Join(dir, "transfer.info"), []byte(strings.Join(args[1:], "\n")+"\n"), 0o600))
}

func cmdInvite(ts *testscript.TestScript, neg bool, args []string) {
	args = append([]string{"invite", "--json", "--data", ts.MkAbs("data")}, args...)
	ts.Check(ts.Exec("server", args...))
	var made struct{ Invitation string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &made))
	ts.Setenv("INVITATION", made.Invitation)
}

func cmdNow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: now VAR")
	}
	at := time.Now()
	ts.Setenv(args[0], at.Format(time.RFC3339Nano))
	// Stamps come from the same machine's clock: the next is later.
	for !time.Now().After(at) {
	}
}

func cmdPick(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: pick VAR FIELD KEY=VALUE PROGRAM [ARG...]")
	}
	ts.Check(ts.Exec(args[3], args[4:]...))
	var list []map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &list))
	key, value, _ := strings.Cut(args[2], "=")
	i := slices.IndexFunc(list, func(e map[string]any) bool { return fmt.Sprint(e[key]) == value })
	if i < 0 {
		ts.Fatalf("no element with %s in %v", args[2], list)
	}
	ts.Setenv(args[0], fmt.Sprint(list[i][args[1]]))
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture VAR NAME PATTERN")
	}
	m, err := named(ts, args[1:]).wait(args[2])
	ts.Check(err)
	ts.Setenv(args[0], m[1])
}

// run runs a program to its end and returns what it printed and its exit code.
func run(tb testing.TB, dir, name string, args ...string) (string, int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(name), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		tb.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
