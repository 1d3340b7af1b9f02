package watcher

import (
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

var burst = flag.Int("burst", 20_000, "files that BenchmarkBurst creates; 200000 is a night's unpacking")

// BenchmarkStart watches 50,000 directories. It reports what they cost while being watched.
func BenchmarkStart(b *testing.B) {
	root := tempDir(b)
	const folders = 50_000
	for i := range folders / 50 {
		for j := range 49 {
			write(b, filepath.Join(root, fmt.Sprint("a", i), fmt.Sprint("b", j), "f"), "")
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		s := start(b, newBackend(), Options{}, Root{Path: root})
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/1e6, "heap-MB")
		s.stop()
		b.StartTimer()
	}
}

// A stopwatch is a Sink that says when a path was reported.
type stopwatch struct {
	path     string
	reported chan time.Time
}

func (s *stopwatch) Changed(_ string, paths []string) {
	if slices.Contains(paths, s.path) {
		select {
		case s.reported <- time.Now():
		default:
		}
	}
}
func (s *stopwatch) Rescan(string, Reason) { s.reported <- time.Now() }
func (s *stopwatch) State(string, State)   {}

// BenchmarkLatency is the time from writing a file, after quiet, until the Sink hears of it.
func BenchmarkLatency(b *testing.B) {
	root := tempDir(b)
	for i := range 1000 {
		write(b, filepath.Join(root, fmt.Sprint(i), "f"), "")
	}
	sink := &stopwatch{filepath.Join(root, "500", "f"), make(chan time.Time, 1)}
	roots := make(chan []Root, 1)
	roots <- []Root{{Path: root}}
	done := make(chan error, 1)
	go func() { done <- Run(b.Context(), roots, sink, Options{Coalesce: time.Nanosecond}) }()
	b.Cleanup(func() { must(b, <-done) })
	<-sink.reported
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		write(b, sink.path, "1")
		took = append(took, (<-sink.reported).Sub(begin))
		for len(sink.reported) > 0 { // of the same write
			<-sink.reported
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}

// BenchmarkBurst creates files as fast as it goes and waits until all were reported or a rescan was asked for.
func BenchmarkBurst(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		root := tempDir(b)
		s := start(b, newBackend(), Options{}, Root{Path: root})
		b.StartTimer()
		for i := range *burst {
			write(b, filepath.Join(root, fmt.Sprint(i/1000), fmt.Sprint(i)), "")
		}
		rescans := 0
		s.wait(b, "end of the burst", func() bool {
			rescans = len(s.rescans[root])
			return rescans > 0 || len(s.changed[root]) >= *burst+(*burst+999)/1000
		})
		b.StopTimer()
		b.ReportMetric(float64(rescans), "rescans")
		s.stop()
		b.StartTimer()
	}
}
