package history_test

import (
	"testing"
	"time"

	"backstay/agent/history"
)

func TestAt(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 1, time.UTC) }
	versions := []history.Version{{Time: day(20), Seq: 3}, {Time: day(10), Seq: 2}, {Time: day(1), Seq: 1}}
	for _, tt := range []struct {
		name string
		at   time.Time
		want uint64 // 0 for none
	}{
		{"now", time.Time{}, 3},
		{"later than all", day(21), 3},
		{"between", day(15), 2},
		{"at a version's very time", day(10), 2},
		{"a moment before it", day(10).Add(-1), 1},
		{"before all", day(1).Add(-1), 0},
	} {
		if v, ok := history.At(versions, tt.at); v.Seq != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: %d, %v, want %d", tt.name, v.Seq, ok, tt.want)
		}
	}
}
