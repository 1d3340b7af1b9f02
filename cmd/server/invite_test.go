package main

import (
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1d": 24 * time.Hour, "90m": 90 * time.Minute, "24h": 24 * time.Hour,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "1.5d": 0, "99999999d": 0, "7": 0, "-5h": 0, "soon": 0,
	} {
		if got, err := parseSpan(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
