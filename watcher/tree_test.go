package watcher

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// In these tests time is synthetic, the disk is real, and what the system says is made up.

func TestCoalesce(t *testing.T) {
	root := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{}
		s := start(t, p, Options{Coalesce: 100 * time.Millisecond}, Root{Path: root})
		time.Sleep(time.Second)
		begin := time.Now()
		p.push(root, "first", 0)
		synctest.Wait()
		if got := s.seen(root); len(got) != 1 {
			t.Errorf("after a quiet time the first change waits: %q", got)
		}
		for i := range 20 {
			time.Sleep(5 * time.Millisecond)
			p.push(root, fmt.Sprint("name ", i%2), 0)
			synctest.Wait()
			if got := s.seen(root); len(got) != 1 && time.Since(begin) < 100*time.Millisecond {
				t.Errorf("after %v there are %q", time.Since(begin), got)
			}
		}
		synctest.Wait()
		want := []string{join(root, "first"), join(root, "name 0"), join(root, "name 1")}
		if got := s.seen(root); !slices.Equal(got, want) || s.batches[root] != 2 {
			t.Errorf("after %v there are %q in %d batches", time.Since(begin), got, s.batches[root])
		}
		s.stop()
	})
}

func TestSlowSink(t *testing.T) {
	root := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{}
		s := start(t, p, Options{}, Root{Path: root})
		s.hold = make(chan struct{})
		const files = 50_000
		for i := range files {
			p.push(root, fmt.Sprint(i), 0)
			p.push(root, fmt.Sprint(i), 0)
			if i%1000 == 0 {
				time.Sleep(time.Second) // the tree takes it, the Sink does not return
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(p.q.events); n != 0 {
			t.Errorf("a slow Sink leaves %d notices of the system unread", n)
		}
		close(s.hold)
		synctest.Wait()
		rescans, _ := s.told(root)
		if got := len(s.seen(root)); got != files || s.batches[root] != 2 || rescans != nil {
			t.Errorf("%d of %d paths in %d batches, rescans %v", got, files, s.batches[root], rescans)
		}
		s.stop()
	})
}

func TestQueue(t *testing.T) {
	q := newQueue()
	for range 2 {
		q.push(event{1, "file", 0})
		q.push(event{1, "dir", isDir | appeared})
	}
	want := []event{{1, "file", 0}, {1, "dir", isDir | appeared}, {1, "dir", isDir | appeared}}
	if events, lost := q.take(); lost || !slices.Equal(events, want) {
		t.Errorf("took %v, lost %v", events, lost)
	}
	q.push(event{1, "file", 0})
	if events, lost := q.take(); lost || len(events) != 1 {
		t.Errorf("what was taken before counts as a repetition: %v, lost %v", events, lost)
	}
	for i := range maxPending + 10 {
		q.push(event{id: i})
	}
	if events, lost := q.take(); !lost || events != nil {
		t.Errorf("queue: %d events, lost %v", len(events), lost)
	}
	q.push(event{id: 1})
	if events, lost := q.take(); lost || len(events) != 1 {
		t.Errorf("queue afterwards: %d events, lost %v", len(events), lost)
	}
}

// TestTooMuch has more happen than is kept for a Sink that does not return.
func TestTooMuch(t *testing.T) {
	root := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{}
		s := start(t, p, Options{}, Root{Path: root})
		s.hold = make(chan struct{})
		for i := range maxPending + 10 {
			p.push(root, fmt.Sprint(i), 0)
			if i%10_000 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Second)
		close(s.hold)
		synctest.Wait()
		if rescans, _ := s.told(root); !slices.Equal(rescans, []Reason{Overflow}) {
			t.Errorf("rescans %v", rescans)
		}
		s.stop()
	})
}

// TestOverflowStorm loses notices without end: recovery must come, but not all the time.
func TestOverflowStorm(t *testing.T) {
	root := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{}
		s := start(t, p, Options{}, Root{Path: root})
		time.Sleep(time.Minute)
		for range 100 {
			p.lose()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if rescans, _ := s.told(root); len(rescans) < 5 || len(rescans) > 6 {
			t.Errorf("%d rescans for ten seconds of overflow", len(rescans))
		}
		s.stop()
	})
}

func TestPolling(t *testing.T) {
	root := tempDir(t)
	write(t, root+"/d/f", "1")
	write(t, root+"/d/keep", "1")
	write(t, root+"/out/f", "1")
	synctest.Test(t, func(t *testing.T) {
		p := &deaf{backend: &puppet{}}
		skip := func(path string, _ bool) bool { return filepath.Base(path) == "out" }
		s := start(t, p, Options{PollInterval: time.Minute}, Root{root, skip})
		st := s.inMode(t, root, Polling)
		if st.Polled != 2 || st.Watched != 0 || !strings.Contains(st.Why, "the test will not have it") || !strings.Contains(st.Why, "1m0s") {
			t.Errorf("state %+v", st)
		}
		expect := func(names ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, path := range s.seen(root) {
				if info, err := os.Lstat(path); err != nil || !info.IsDir() {
					got = append(got, filepath.ToSlash(path[len(root)+1:]))
				}
			}
			if !slices.Equal(got, names) {
				t.Errorf("reported %q, want %q", got, names)
			}
			s.reset()
		}
		write(t, root+"/d/f", "22")
		write(t, root+"/d/new/deep/g", "1")
		write(t, root+"/out/f", "22")
		time.Sleep(59 * time.Second)
		expect()
		time.Sleep(time.Second)
		expect("d/f", "d/new/deep/g")
		time.Sleep(time.Minute)
		expect()

		remove(t, root+"/d/new")
		write(t, root+"/d/new", "a file now")
		must(t, os.Remove(root+"/d/f"))
		time.Sleep(time.Minute)
		expect("d/f", "d/new")

		// The system watches again: what happened before is not lost, and there is no more polling.
		write(t, root+"/d/keep", "22")
		write(t, root+"/e/h", "1")
		p.cure()
		time.Sleep(time.Minute)
		expect("d/keep", "e/h")
		if st := s.inMode(t, root, Watching); st.Polled != 0 || st.Watched != 3 {
			t.Errorf("state %+v", st)
		}
		write(t, root+"/d/keep", "333")
		time.Sleep(time.Hour)
		expect()
		s.stop()
	})
}

// TestCovered is for systems that watch a root as a whole.
func TestCovered(t *testing.T) {
	root := tempDir(t)
	write(t, root+"/a/b/f", "1")
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{whole: true}
		skip := func(path string, dir bool) bool { return dir && filepath.Base(path) == "out" }
		s := start(t, p, Options{}, Root{root, skip})
		if st := s.inMode(t, root, Watching); st.Watched != 1 {
			t.Errorf("state %+v", st)
		}
		local := filepath.FromSlash
		for _, c := range []struct {
			name string
			do   func()
			what what
			on   string
			want []string
		}{
			{"change below", func() {}, 0, "a/b/f", []string{"a/b/f"}},
			{"change in what is skipped", func() {}, 0, "a/out/x/f", nil},
			{"deletion", func() {}, vanished, "a/b/gone", []string{"a/b/gone"}},
			{"folder moved in", func() { write(t, root+"/a/in/x/g", "1"); write(t, root+"/a/in/out/g", "1") }, appeared, "a/in",
				[]string{"a/in", "a/in/x", "a/in/x/g"}},
			{"folder that went again", func() {}, appeared, "a/short", []string{"a/short"}},
		} {
			s.reset()
			c.do()
			p.push(root, local(c.on), c.what)
			time.Sleep(time.Second)
			var got []string
			for _, path := range s.seen(root) {
				got = append(got, filepath.ToSlash(path[len(root)+1:]))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: reported %q, want %q", c.name, got, c.want)
			}
		}

		// At once, and again when the table of mounts is looked at next.
		p.push(root, "", mounted)
		time.Sleep(5 * time.Second)
		if rescans, _ := s.told(root); !slices.Equal(rescans, []Reason{Mounts, Mounts}) && !slices.Equal(rescans, []Reason{Mounts}) {
			t.Errorf("rescans %v", rescans)
		}

		// The watch ends though the root stands, as when a network drive has a hiccup.
		s.reset()
		p.push(root, "", ended)
		time.Sleep(10 * time.Second)
		if rescans, st := s.told(root); !slices.Equal(rescans, []Reason{Overflow}) || st.Watched != 1 {
			t.Errorf("rescans %v, state %+v", rescans, st)
		}
		s.stop()
	})
}

// TestCoveredAtLast compares a root folder by folder, until the system will watch it as a whole.
func TestCoveredAtLast(t *testing.T) {
	root := tempDir(t)
	write(t, root+"/a/b/f", "1")
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{whole: true}
		d := &deaf{backend: p}
		s := start(t, d, Options{}, Root{Path: root})
		if st := s.inMode(t, root, Polling); st.Polled != 3 {
			t.Errorf("state %+v", st)
		}
		d.cure()
		time.Sleep(time.Minute)
		rescans, st := s.told(root)
		if st.Mode != Watching || st.Watched != 1 || st.Polled != 0 || !slices.Equal(rescans, []Reason{Overflow}) {
			t.Errorf("rescans %v, state %+v", rescans, st)
		}
		p.push(root, filepath.FromSlash("a/b/f"), 0)
		time.Sleep(time.Second)
		if !slices.Contains(s.seen(root), filepath.Join(root, "a", "b", "f")) {
			t.Errorf("reported %q", s.seen(root))
		}
		s.stop()
	})
}

// TestVanishingRoot has a root deleted under a Sink that is behind: nothing of it may be reported as changed once it is gone.
func TestVanishingRoot(t *testing.T) {
	for _, c := range []struct {
		name    string
		deleted func(p *puppet, root string) // what the system says then
	}{
		{"its entries were deleted", func(p *puppet, root string) {
			p.push(root, "d", isDir|vanished)
			p.push(root, "f", 0)
		}},
		{"its watch ended", func(p *puppet, root string) { p.push(root, "", ended) }},
		{"it was moved", func(p *puppet, root string) { p.push(root, "", maybeMoved) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := join(tempDir(t), "root")
			write(t, join(root, "d/f"), "1")
			synctest.Test(t, func(t *testing.T) {
				p := &puppet{}
				s := start(t, p, Options{LookInterval: time.Hour}, Root{Path: root})
				s.hold = make(chan struct{})
				p.push(root, "held", 0)
				time.Sleep(time.Second)
				p.push(root, "waiting", 0)
				time.Sleep(time.Second)
				remove(t, root)
				c.deleted(p, root)
				time.Sleep(time.Second)
				close(s.hold)
				synctest.Wait()
				if _, st := s.told(root); st.Mode != Gone {
					t.Errorf("state %+v", st)
				}
				if got := s.seen(root); !slices.Equal(got, []string{join(root, "held")}) {
					t.Errorf("reported %q", got)
				}
				s.stop()
			})
		})
	}
}

// TestStaleNotices gives notices that are older than what the tree has found out by itself.
func TestStaleNotices(t *testing.T) {
	root := tempDir(t)
	write(t, root+"/a/sub/f", "1")
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{}
		s := start(t, p, Options{}, Root{Path: root})
		if _, st := s.told(root); st.Watched != 3 {
			t.Fatalf("state %+v", st)
		}
		p.push(root, "never", isDir|appeared)
		p.push(root, "never", isDir|vanished)
		p.push(root, "a", isDir|vanished) // then it was made again
		p.push(root, "a", isDir|appeared)
		p.push(root+"/a", "", maybeMoved)
		p.push(root+"/a/sub", "", ended)
		time.Sleep(time.Second)
		if _, st := s.told(root); st.Watched != 3 || st.Mode != Watching {
			t.Errorf("state %+v", st)
		}
		if !slices.Contains(s.seen(root), join(root, filepath.FromSlash("a/sub/f"))) {
			t.Errorf("reported %q", s.seen(root))
		}
		s.stop()
	})
}
