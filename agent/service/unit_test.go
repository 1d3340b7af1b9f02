package service

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// odd is a folder with all that has a meaning in one of the texts; oddProgram what of
// it systemd takes in the path of a program.
const (
	odd        = `/opt/a b/100%h "$HOME"\ü&<x>`
	oddProgram = `/opt/a b/100%h $HOME ü&<x>`
)

var texts = []struct {
	name string
	kind Kind
	s    Service
}{
	{"systemd-user", Systemd, Service{Executable: "/usr/bin/backstay-agent"}},
	{"systemd-user-odd", Systemd, Service{Executable: oddProgram, Config: odd, State: "/home/ada/state"}},
	{"systemd-system", Systemd, Service{System: true, Executable: "/usr/bin/backstay-agent"}},
	{"systemd-system-installed", Systemd, Service{System: true, Executable: "/usr/bin/backstay-agent", Config: "/etc/backstay", State: "/srv/a b/state"}},
	{"launchd-user", Launchd, Service{Executable: "/Applications/Backstay.app/Contents/MacOS/backstay-agent"}},
	{"launchd-user-odd", Launchd, Service{Executable: odd, Config: odd, State: "/Users/ada/state"}},
	{"launchd-system", Launchd, Service{System: true, Executable: "/usr/local/bin/backstay-agent"}},
}

func TestUnit(t *testing.T) {
	for _, tt := range texts {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Unit(tt.kind, tt.s)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", tt.name+".golden")
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))) {
				t.Errorf("differs from %s; see the difference after: go test -update\n%s", golden, got)
			}
		})
	}
}

func TestUnitRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind Kind
		s    Service
	}{
		{"a path that would be a line of its own", Systemd, Service{Executable: "/bin/a\nExecStartPre=/bin/evil"}},
		{"a folder that would", Systemd, Service{Executable: "/bin/a", State: "/x\nUser=root"}},
		{"not UTF-8", Launchd, Service{Executable: "/bin/\xff"}},
		{"what systemd refuses", Systemd, Service{Executable: `/bin/"a"`}},
		{"a relative path", Systemd, Service{Executable: "agent"}},
		{"another system", "sysv", Service{Executable: "/bin/a"}},
	} {
		if text, err := Unit(tt.kind, tt.s); err == nil {
			t.Errorf("%s: %s", tt.name, text)
		}
	}
}

// What launchd reads from a property list is what was to be said.
func TestPropertyListSaysTheCommand(t *testing.T) {
	for _, tt := range texts {
		if tt.kind != Launchd {
			continue
		}
		text, err := Unit(tt.kind, tt.s)
		if err != nil {
			t.Fatal(err)
		}
		values := plist(t, text)
		want := append([]string{tt.s.Executable}, tt.s.arguments()...)
		if got := values["ProgramArguments"]; !slices.Equal(got, want) {
			t.Errorf("%s: runs %q, want %q", tt.name, got, want)
		}
		for key, want := range map[string]string{"Label": Label, "RunAtLoad": "true", "SuccessfulExit": "false", "Umask": "63"} {
			if got := values[key]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s is %q, want %q", tt.name, key, got, want)
			}
		}
	}
}

// plist returns the values of every key of a property list.
func plist(t *testing.T, text []byte) map[string][]string {
	t.Helper()
	values := map[string][]string{}
	d := xml.NewDecoder(bytes.NewReader(text))
	key := ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return values
		}
		if err != nil {
			t.Fatal(err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch name := start.Name.Local; name {
		case "key", "string", "integer":
			var value string
			if err := d.DecodeElement(&value, &start); err != nil {
				t.Fatal(err)
			}
			if name == "key" {
				key = value
			} else {
				values[key] = append(values[key], value)
			}
		case "true", "false":
			values[key] = append(values[key], name)
		}
	}
}

// systemd finds nothing to say about the units.
func TestSystemdVerifiesUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("systemd-analyze is not here (Debian: systemd)")
	}
	// It looks for the program, so there has to be one, at an odd place, too.
	dir := t.TempDir()
	program := filepath.Join(dir, oddProgram[1:])
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, mode string
		s          Service
	}{
		{"user", "--user", Service{Executable: "/bin/true"}},
		{"user, at an odd place", "--user", Service{Executable: program, Config: odd, State: odd}},
		{"system", "--system", Service{System: true, Executable: "/bin/true"}},
		{"system, at an odd place", "--system", Service{System: true, Executable: program, State: odd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := Unit(Systemd, tt.s)
			if err != nil {
				t.Fatal(err)
			}
			verify := func(text string) (string, error) {
				unit := filepath.Join(t.TempDir(), Name+".service")
				if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(analyze, "verify", "--man=no", tt.mode, unit)
				cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
				out, err := cmd.CombinedOutput()
				// Of this machine's own units it may have something to say.
				var about []string
				for line := range strings.Lines(string(out)) {
					if strings.Contains(line, Name) {
						about = append(about, line)
					}
				}
				return strings.Join(about, ""), err
			}
			if said, err := verify(string(text)); said != "" || err != nil {
				t.Errorf("%v: %s\n%s", err, said, text)
			}
			if said, _ := verify(string(text) + "NoSuchKey=1\n"); said == "" {
				t.Error("an unknown key is not noticed: the check checks nothing")
			}
		})
	}
}
