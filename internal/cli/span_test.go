package cli

import (
	"strings"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1.5h": 90 * time.Minute,
	} {
		if got, err := Span(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "0", "0d", "-1d", "-2h", "1.5d", "2", "soon", "99999999999w"} {
		if got, err := Span(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func TestQR(t *testing.T) {
	var b strings.Builder
	if err := QR(&b, "backstay:"+strings.Repeat("x", 200)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	width := len([]rune(lines[0]))
	if strings.Trim(lines[0], "█") != "" || width < 2*len(lines)-1 || width > 2*len(lines) {
		t.Errorf("%d lines of %d, the first %q", len(lines), width, lines[0])
	}
	// The finder pattern in the corner: a black bar of seven modules.
	if got := string([]rune(lines[1])[2:9]); got != " ▄▄▄▄▄ " && got != " ▀▀▀▀▀ " {
		t.Errorf("corner %q", got)
	}
	if err := QR(&b, strings.Repeat("x", 5000)); err == nil {
		t.Error("drawn, though no code holds so much")
	}
}
