package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestParseAt(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2026, 11, 20, 16, 30, 0, 5, zone)
	on := func(day, hour, minute, second, nanosecond int) time.Time {
		return time.Date(2026, 11, day, hour, minute, second, nanosecond, zone)
	}
	for _, tt := range []struct {
		text string
		want time.Time
	}{
		{"", time.Time{}},
		{"now", time.Time{}},
		{"2026-11-20T14:03:07Z", time.Date(2026, 11, 20, 14, 3, 7, 0, time.UTC)},
		{"2026-11-20T14:03:07.123456789+01:00", on(20, 14, 3, 7, 123456789)},
		{"2026-11-20T14:03:07", on(20, 14, 3, 7, 0)},
		{"2026-11-20 14:03:07.5", on(20, 14, 3, 7, 500000000)},
		{"2026-11-20 14:03", on(20, 14, 3, 0, 0)},
		{"2026-11-19", on(19, 23, 59, 59, 999999999)},
		{"2h", on(20, 14, 30, 0, 5)},
		{"90m", on(20, 15, 0, 0, 5)},
		{"3d", on(17, 16, 30, 0, 5)},
		{"1w", on(13, 16, 30, 0, 5)},
		{"yesterday", on(19, 23, 59, 59, 999999999)},
		{"yesterday 14:00", on(19, 14, 0, 0, 0)},
		{"today 09:15:30", on(20, 9, 15, 30, 0)},
		{"today", now},
	} {
		if got, err := parseAt(tt.text, now); err != nil || !got.Equal(tt.want) {
			t.Errorf("%q: %v, %v, want %v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"soon", "-2h", "2", "1.5d", "d", "2026-13-01", "yesterday noon", "2h ago", "2999-01-01", "1066-10-14 09:00", "0001-01-01T00:00:00Z"} {
		if got, err := parseAt(text, now); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func TestMatcher(t *testing.T) {
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"report", "/home/a/Report 2026.odt", true},
		{"home", "/home/a/x", false},
		{"home/a", "/home/a/x", true},
		{"*.odt", "/home/a/Report.odt", true},
		{"*.odt", "/home/a/Report.odt.bak", false},
		{"/home/*/x", "/home/a/x", true},
	} {
		match, err := matcher(tt.pattern)
		if err != nil || match(tt.path) != tt.want {
			t.Errorf("%q on %q: %v, want %v", tt.pattern, tt.path, err, tt.want)
		}
	}
	if _, err := matcher("[a"); err == nil {
		t.Error("a malformed pattern is taken")
	}
}

func TestRecorded(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real, link, root := filepath.Join(base, "real"), filepath.Join(base, "link"), filepath.Join(base, "root")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{link, root} {
		if err := os.Symlink(real, l); err != nil {
			t.Skip("no symbolic links here:", err)
		}
	}
	for _, tt := range []struct{ name, path, want string }{
		{"itself", real, real},
		{"a link is itself", link, link},
		{"a root that is a link is what it points to", root, real},
		{"in a link", filepath.Join(link, "a"), filepath.Join(real, "a")},
		{"in a folder that is gone, in a link", filepath.Join(root, "gone", "a"), filepath.Join(real, "gone", "a")},
		{"with dots", filepath.Join(real, "gone") + "/../a", filepath.Join(real, "a")},
	} {
		if got, err := recorded(tt.path, []string{root}); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestTargets(t *testing.T) {
	base := t.TempDir()
	in := func(parts ...string) string { return filepath.Join(append([]string{base}, parts...)...) }
	top := filepath.VolumeName(base) + string(filepath.Separator)
	for _, tt := range []struct {
		name string
		args []string
		to   string
		want int // paths, 0 for an error
	}{
		{"two", []string{in("a"), in("b")}, "out", 2},
		{"one twice", []string{in("a"), in("b", "..", "a")}, "out", 1},
		{"two of a name", []string{in("a"), in("b", "a")}, "out", 0},
		{"two of a name, beside", []string{in("a"), in("b", "a")}, "", 2},
		{"the whole system", []string{top}, "out", 1},
		{"the whole system, beside", []string{top}, "", 0},
		{"the whole system and more", []string{in("a"), top}, "out", 0},
	} {
		if got, err := targets(tt.args, nil, tt.to); len(got) != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}
