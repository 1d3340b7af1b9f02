package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChange(t *testing.T) {
	for _, tt := range []struct {
		name, before, key, value, after, err string
	}{
		{"in no file", "", "settle", "2s", "settle = \"2s\"\n", ""},
		{"in its place", "# mine\nsettle = '1s' # why\npoll = '1m'", "settle", "2s", "# mine\nsettle = \"2s\"\npoll = '1m'\n", ""},
		{"left out", "settle = '1s'\npoll = '1m'\n", "settle", "", "poll = '1m'\n", ""},
		{"a path with what needs quoting", "", "log_file", `C:\a "b"`, `log_file = "C:\\a \"b\""` + "\n", ""},
		{"no such key", "", "speed", "1", "", "no key"},
		{"no span of time", "poll = '1m'\n", "settle", "soon", "poll = '1m'\n", "no span of time"},
		{"out of range", "", "rescan", "1s", "", "at least 1m"},
		{"a line of its own", "", "log_file", "a\nsettle = '9s'", "", "no value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.before != "" {
				write(t, dir, map[string]string{SettingsFile: tt.before})
			}
			err := Change(dir, tt.key, tt.value)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
			got, err := os.ReadFile(filepath.Join(dir, SettingsFile))
			if err != nil && tt.after != "" || string(got) != tt.after {
				t.Errorf("%q, %v, want %q", got, err, tt.after)
			}
		})
	}
}

func TestChangeKeepsTables(t *testing.T) {
	if got, want := edit("[later]\nsettle = 1\n", "settle", "2"), "settle = 2\n[later]\nsettle = 1\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestList(t *testing.T) {
	s := DefaultSettings()
	s.Rescan = Duration(3 * 3600e9)
	list := s.List()
	if len(list) < 4 || list[0] != (Setting{"settle", "500ms", "500ms"}) || list[1] != (Setting{"rescan", "3h", "4h"}) {
		t.Errorf("%+v", list)
	}
}
