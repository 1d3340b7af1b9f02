package settle_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"backstay/agent/settle"
)

// run touches a path at the given moments and returns when it was due. A capture
// that is torn touches it again.
func run(touched func(time.Duration) bool, torn func(n int) bool, total time.Duration) (due []time.Duration, items []settle.Item) {
	q := settle.New(settle.Options{})
	start := time.Now()
	for at := time.Duration(0); at < total; at += 100 * time.Millisecond {
		if touched(at) {
			q.Touch("/a", time.Now())
		}
		for _, it := range q.Due(time.Now()) {
			due = append(due, time.Since(start))
			items = append(items, it)
			if torn(len(due)) {
				q.Touch(it.Path, time.Now())
			}
		}
		time.Sleep(100 * time.Millisecond) // the bubble's clock
	}
	return due, items
}

func TestDue(t *testing.T) {
	const s = time.Second
	until := func(end time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at < end }
	}
	every := func(gap, end time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at < end && at%gap == 0 }
	}
	never := func(int) bool { return false }
	for _, tt := range []struct {
		name     string
		touched  func(time.Duration) bool
		torn     func(int) bool
		total    time.Duration
		want     []time.Duration
		restless int // how many of them
	}{
		{"saved once", until(1), never, 20 * s, []time.Duration{s / 2}, 0},
		{"saved in three seconds", until(3 * s), never, 20 * s, []time.Duration{3*s + 400*time.Millisecond}, 0},
		{"two saves far apart", every(5*s, 6*s), never, 20 * s, []time.Duration{s / 2, 5*s + s/2}, 0},
		{"autosaved every three seconds", every(3*s, 10*s), never, 20 * s, []time.Duration{s / 2, 3*s + s/2, 6*s + s/2, 9*s + s/2}, 0},
		{"never rests", until(time.Hour), never, 200 * s, []time.Duration{10 * s, 30 * s, 70 * s, 150 * s}, 4},
		{"never rests for long, then does", until(50 * s), never, 500 * s, []time.Duration{10 * s, 30 * s, 49*s + 900*time.Millisecond + 2*s}, 2},
		{"quick again after that", func(at time.Duration) bool { return at < 12*s || at == 60*s }, never, 100 * s,
			[]time.Duration{10 * s, 11*s + 900*time.Millisecond + 2*s, 60*s + s/2}, 1},
		{"a line every second", every(s, time.Hour), never, 100 * s,
			[]time.Duration{s / 2, s + s/2, 2*s + s/2, 3*s + s/2, 4*s + s/2, 14*s + s/2, 34*s + s/2, 74*s + s/2}, 3},
		{"torn once and left alone", until(1), func(n int) bool { return n == 1 }, 20 * s, []time.Duration{s / 2, s}, 0},
		{"torn whenever it is captured", until(1), func(int) bool { return true }, 10 * s,
			[]time.Duration{s / 2, s, 3 * s / 2, 2 * s, 5 * s / 2, 9 * s / 2, 13 * s / 2, 17 * s / 2}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				due, items := run(tt.touched, tt.torn, tt.total)
				if !slices.Equal(due, tt.want) {
					t.Errorf("due at %v, want %v", due, tt.want)
				}
				restless := 0
				for _, it := range items {
					if it.Restless {
						restless++
					}
				}
				if restless != tt.restless {
					t.Errorf("%d restless, want %d", restless, tt.restless)
				}
			})
		})
	}
}

func TestIntervalIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		due, _ := run(func(time.Duration) bool { return true }, func(int) bool { return false }, 5*time.Hour)
		longest := time.Duration(0)
		for i := 1; i < len(due); i++ {
			longest = max(longest, due[i]-due[i-1])
		}
		if n := len(due); longest != 15*time.Minute || n < 20 || n > 30 {
			t.Errorf("captured %d times in five hours, at most %v apart", n, longest)
		}
	})
}

func TestOrderAndLimit(t *testing.T) {
	q := settle.New(settle.Options{Limit: 100})
	now := time.Unix(1000, 0)
	for i := range 100 {
		if !q.Touch(fmt.Sprint(i), now.Add(time.Duration(i)*time.Millisecond)) {
			t.Fatal("refused below the limit")
		}
	}
	now = now.Add(100 * time.Millisecond)
	if q.Touch("one more", now) {
		t.Error("accepted beyond the limit")
	}
	if !q.Touch("0", now) {
		t.Error("refused a path it holds")
	}
	if n := q.Waiting(); n != 100 {
		t.Errorf("%d wait", n)
	}
	due := q.Due(now.Add(time.Second))
	if len(due) != 100 || due[0].Path != "1" || due[99].Path != "0" || q.Waiting() != 0 {
		t.Errorf("due: %v", due)
	}
	if q.Due(now.Add(time.Hour)) != nil {
		t.Error("due twice")
	}
	if _, ok := q.Next(); ok {
		t.Error("still remembered")
	}
}

// TestEveryTouchIsFollowed: whatever is touched and when, a path is due after its
// last touch, no later than Next says and the longest interval allows.
func TestEveryTouchIsFollowed(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		q := settle.New(settle.Options{Longest: time.Minute})
		now := time.Unix(1000, 0)
		open := map[string]time.Time{} // first touch since it was last due
		take := func() {
			for _, it := range q.Due(now) {
				if _, ok := open[it.Path]; !ok {
					r.Fatalf("%s is due without a touch", it.Path)
				}
				delete(open, it.Path)
			}
			for path, since := range open {
				if now.Sub(since) > time.Minute {
					r.Fatalf("%s waits for %v", path, now.Sub(since))
				}
			}
			if q.Waiting() != len(open) {
				r.Fatalf("%d wait, want %d", q.Waiting(), len(open))
			}
		}
		for range rapid.IntRange(1, 100).Draw(r, "touches") {
			until := now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(r, "ms")) * time.Millisecond)
			for next, ok := q.Next(); ok && !next.After(until); next, ok = q.Next() {
				now = next
				take()
			}
			now = until
			path := rapid.SampledFrom([]string{"/a", "/b", "/c"}).Draw(r, "path")
			q.Touch(path, now)
			if _, ok := open[path]; !ok {
				open[path] = now
			}
		}
		for next, ok := q.Next(); ok; next, ok = q.Next() {
			now = next
			take()
		}
		if len(open) > 0 {
			r.Fatalf("never due: %v", open)
		}
	})
}

func BenchmarkTouchAndDue(b *testing.B) {
	paths := make([]string, 50_000)
	for i := range paths {
		paths[i] = fmt.Sprintf("/home/someone/folder/file-%d", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		q := settle.New(settle.Options{})
		now := time.Unix(1000, 0)
		for _, p := range paths {
			q.Touch(p, now)
		}
		if n := len(q.Due(now.Add(time.Minute))); n != len(paths) {
			b.Fatal(n)
		}
	}
}
