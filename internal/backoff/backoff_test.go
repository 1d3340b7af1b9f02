package backoff

import (
	"math"
	"testing"
	"time"
)

func TestNextStaysWithinBounds(t *testing.T) {
	tests := []struct {
		name     string
		b        Backoff
		min, max time.Duration
	}{
		{"defaults", Backoff{}, time.Second, 5 * time.Minute},
		{"own bounds", Backoff{Min: time.Millisecond, Max: 70 * time.Millisecond}, time.Millisecond, 70 * time.Millisecond},
		{"longest maximum", Backoff{Max: math.MaxInt64}, time.Second, math.MaxInt64},
		{"longest minimum", Backoff{Min: math.MaxInt64 - 1, Max: math.MaxInt64}, math.MaxInt64 - 1, math.MaxInt64},
		{"minimum alone", Backoff{Min: time.Hour}, time.Hour, time.Hour},
		{"negative", Backoff{Min: -1, Max: -1}, time.Second, 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			last := tt.min
			for i := range 1000 {
				d := tt.b.Next()
				most := tt.max
				if last < tt.max/3 {
					most = 3 * last
				}
				if d < tt.min || d > most {
					t.Fatalf("wait %d is %v, after %v: want %v to %v", i, d, last, tt.min, most)
				}
				last = d
			}
		})
	}
}

func TestWaitsGrowAndReset(t *testing.T) {
	var b Backoff
	var longest time.Duration
	for range 1000 {
		longest = max(longest, b.Next())
	}
	if longest < DefaultMax/2 {
		t.Errorf("longest of 1000 waits is %v, want one near %v", longest, DefaultMax)
	}
	b.Reset()
	if d := b.Next(); d > 3*DefaultMin {
		t.Errorf("first wait after Reset is %v, want at most %v", d, 3*DefaultMin)
	}
}

func TestWaitsDiffer(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 100 {
		var b Backoff
		seen[b.Next()] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 agents wait only %d different times", len(seen))
	}
}
