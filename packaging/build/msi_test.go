package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what must come; nothing is measured by it.
const patience = time.Minute

// windows is a Windows as wine has it, for one test.
type windows struct {
	testing.TB
	prefix string
}

func newWindows(t *testing.T) *windows {
	t.Helper()
	w := &windows{t, filepath.Join(t.TempDir(), "prefix")}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, flag := range []string{"--kill", "--wait"} {
			_ = w.command(ctx, "wineserver", flag).Run() // it may have ended
		}
	})
	w.run(0, "wineboot", "--init")
	// Programs in Go ask this library for random numbers, which this wine lacks.
	if err := os.WriteFile(w.path("windows/system32/bcryptprimitives.dll"), forwarder("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *windows) path(name string) string { return filepath.Join(w.prefix, "drive_c", name) }

func (w *windows) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "WINEPREFIX="+w.prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml=", "DISPLAY=")
	cmd.WaitDelay = time.Second // what it started may hold its output
	return cmd
}

// run runs a program, which has to exit with a code, and returns what it printed.
func (w *windows) run(code int, name string, args ...string) string {
	w.Helper()
	if name != "wineboot" {
		args = append([]string{name}, args...)
		name = "wine"
	}
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	cmd := w.command(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		w.Fatalf("%s %v: %v %v\n%s", name, args, err, ctx.Err(), out)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		w.Fatalf("%s %v: exit %d, want %d\n%s", name, args, got, code, out)
	}
	return string(out)
}

// installed returns what a package of ours has left in the system: the files of its
// folder, the menu, and what is started at login.
func (w *windows) installed() []string {
	w.Helper()
	found := []string{}
	for _, pattern := range []string{"Program Files/Backstay/*", "users/*/AppData/Roaming/Microsoft/Windows/Start Menu/Programs/Backstay*", "ProgramData/Microsoft/Windows/Start Menu/Programs/Backstay*"} {
		names, err := filepath.Glob(w.path(pattern))
		if err != nil {
			w.Fatal(err)
		}
		for _, name := range names {
			found = append(found, filepath.Base(name))
		}
	}
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	out, _ := w.command(ctx, "wine", "reg", "query", `HKLM\Software\Microsoft\Windows\CurrentVersion\Run`).Output() // no such key, no entry
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "REG_SZ") {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
	}
	if w.command(ctx, "wine", "reg", "query", `HKLM\Software\Backstay`).Run() == nil {
		found = append(found, `HKLM\Software\Backstay`)
	}
	slices.Sort(found)
	return found
}

// TestMSI installs the package for Windows, has it run, replaces it by a newer one, and
// removes that while it runs, each without a question.
func TestMSI(t *testing.T) {
	if raceEnabled {
		t.Skip("the plain run does it")
	}
	need(t, "wixl", "wine", "wineserver")
	b := aBuild(t)
	made := func(v version) string {
		b.forget().version = v
		if err := b.all(t.Context(), []string{"*.msi"}); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(b.out, "backstay_"+v.String()+"_amd64.msi")
	}
	old := made(version{major: 1, minor: 2, patch: 3})
	newer := made(version{major: 1, minor: 2, patch: 3, commits: 4, hash: "0123456789ab"})
	w := newWindows(t)

	const agent = `C:\Program Files\Backstay\agent.exe`
	want := []string{
		"Backstay.lnk", "LICENSE.txt", "README.md", "agent.exe", `backstay-agent REG_SZ "` + agent + `" service keep`,
		`backstay-tray REG_SZ "C:\Program Files\Backstay\tray.exe"`, "third-party.txt", "tray.exe", `HKLM\Software\Backstay`,
	}
	slices.Sort(want)
	w.run(0, "msiexec", "/i", old, "/qn")
	if got := w.installed(); !slices.Equal(got, want) {
		t.Fatalf("installed: %q, want %q", got, want)
	}
	if out := w.run(0, agent, "--version"); !strings.Contains(out, "agent version 1.2.3") {
		t.Errorf("--version: %q", out)
	}
	w.run(4, agent, "service", "status")
	w.run(0, agent, "service", "start")
	if out := w.run(0, agent, "service", "status"); !strings.Contains(out, `HKLM\`) {
		t.Errorf("service status: %s", out)
	}

	w.run(0, "msiexec", "/i", newer, "/qn")
	if got := w.installed(); !slices.Equal(got, want) {
		t.Errorf("upgraded: %q, want %q", got, want)
	}
	w.run(0, agent, "service", "start")
	w.run(0, "msiexec", "/x", newer, "/qn")
	if got := w.installed(); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

// forwarder returns a library for Windows (PE32+) whose one function is another
// library's.
func forwarder(name, function, target string) []byte {
	const (
		rva    = 0x1000 // of its one section
		align  = 0x200
		header = 40 // of the table of exports
	)
	le := binary.LittleEndian
	section := make([]byte, align)
	at := header + 4 + 4 + 4 // three tables of one entry: functions, names, ordinals
	put := func(s string) uint32 {
		here := uint32(rva + at)
		at += copy(section[at:], s+"\x00")
		return here
	}
	le.PutUint32(section[12:], put(name))
	le.PutUint32(section[16:], 1) // the first ordinal
	le.PutUint32(section[20:], 1) // how many functions
	le.PutUint32(section[24:], 1) // how many names
	for i, table := range []int{header, header + 4, header + 8} {
		le.PutUint32(section[28+4*i:], uint32(rva+table))
	}
	le.PutUint32(section[header+4:], put(function))
	le.PutUint32(section[header:], put(target))

	var b bytes.Buffer
	w := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, le, v) // to memory
		}
	}
	dos := make([]byte, 64)
	copy(dos, "MZ")
	dos[60] = 64
	w(dos, []byte("PE\x00\x00"))
	w(uint16(0x8664), uint16(1), uint32(0), uint32(0), uint32(0), uint16(240), uint16(0x2022))
	w(uint16(0x20b), uint16(0), uint32(0), uint32(align), uint32(0), uint32(0), uint32(rva))
	w(uint64(0x180000000), uint32(rva), uint32(align), uint16(6), uint16(0), uint16(0), uint16(0), uint16(6), uint16(0), uint32(0))
	w(uint32(2*rva), uint32(align), uint32(0), uint16(3), uint16(0x100))
	w(uint64(0x100000), uint64(0x1000), uint64(0x100000), uint64(0x1000), uint32(0), uint32(16))
	w(uint32(rva), uint32(at), make([]byte, 15*8)) // exports, and nothing else
	w([]byte(".edata\x00\x00"), uint32(at), uint32(rva), uint32(align), uint32(align), uint32(0), uint32(0), uint32(0), uint32(0x40000040))
	w(make([]byte, align-b.Len()), section)
	return b.Bytes()
}

// TestOnWindows runs the tests of packages whose code is the same on every system, on
// Windows. Those that need what this wine lacks are not among them.
func TestOnWindows(t *testing.T) {
	if raceEnabled {
		t.Skip("the plain run does it")
	}
	need(t, "wine", "wineserver")
	w := newWindows(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	cmd := w.command(ctx, "go", "test", "-vet=off", "-timeout=4m", "-exec=wine",
		"backstay/protocol/cbor", "backstay/protocol/cksum", "backstay/protocol/info", "backstay/protocol/v3", "backstay/protocol/v4", "backstay/agent/settle")
	// What tests on the machine itself must find, wine need not have.
	cmd.Env = append(cmd.Env, "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "BACKSTAY_REQUIRE=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
