package main

import (
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
	for _, text := range []string{"soon", "-2h", "2", "1.5d", "d", "2026-13-01", "yesterday noon", "2h ago"} {
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
