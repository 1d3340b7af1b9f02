package agent

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestQueueSmallAndNewFirst(t *testing.T) {
	q := newQueue(func() {})
	for _, f := range []struct {
		path string
		size int64
		age  time.Duration
	}{
		{"large and old", 1 << 30, 1000 * time.Hour},
		{"large and new", 1 << 30, time.Second},
		{"small and old", 1000, 1000 * time.Hour},
		{"small and new", 1000, time.Second},
		{"from the future", 1000, -time.Hour},
	} {
		q.add(item{path: f.path, score: score(f.size, f.age)})
	}
	want := []string{"from the future", "small and new", "large and new", "small and old", "large and old"}
	for i, w := range want {
		if it, ok, _ := q.take(); !ok || it.path != w {
			t.Errorf("%d: %q, want %q", i, it.path, w)
		}
	}
	if _, ok, _ := q.take(); ok || q.len() != 0 {
		t.Error("not empty")
	}
}

func TestQueueHoldsAPathOnce(t *testing.T) {
	q := newQueue(func() {})
	q.add(item{path: "a", score: 9})
	q.add(item{path: "b", score: 5})
	q.add(item{path: "a", score: 1})
	if it, _, _ := q.take(); it.path != "a" || it.score != 1 {
		t.Fatalf("%+v", it)
	}
	if it, _, _ := q.take(); it.path != "b" {
		t.Fatalf("%+v", it)
	}
	_, ok, more := q.take()
	if ok {
		t.Fatal("a path twice")
	}
	q.done("a")
	q.add(item{path: "a"})
	<-more
}

func TestQueueHasAPathUnderWayOnce(t *testing.T) {
	q := newQueue(func() {})
	q.add(item{path: "a", score: 3})
	q.take()
	q.add(item{path: "a", score: 1})
	q.add(item{path: "a", score: 2})
	if _, ok, more := q.take(); ok || q.len() != 1 {
		t.Fatalf("taken while it is under way; %d items", q.len())
	} else {
		q.done("a")
		<-more
	}
	if it, ok, _ := q.take(); !ok || it.score != 2 {
		t.Fatalf("%+v, %v", it, ok)
	}
	q.done("a")
	if _, ok, _ := q.take(); ok || q.len() != 0 {
		t.Fatal("not empty")
	}
}

func TestQueueRetain(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 0))
	q := newQueue(func() {})
	for i := range 1000 {
		q.add(item{root: fmt.Sprint(i % 3), path: fmt.Sprint(i), score: rng.IntN(50)})
	}
	q.retain(func(it item) bool { return it.root != "1" })
	last, n := -1, 0
	for {
		it, ok, _ := q.take()
		if !ok {
			break
		}
		if it.root == "1" || it.score < last {
			t.Fatalf("after score %d: %+v", last, it)
		}
		last, n = it.score, n+1
	}
	if n != 667 {
		t.Fatalf("%d kept", n)
	}
}

func TestQueueDropsTheLast(t *testing.T) {
	q := newQueue(func() {})
	for i := range 5 * queueLimit {
		q.add(item{root: "r", path: fmt.Sprint(i), score: i % 1000})
	}
	if n := q.len(); n >= 2*queueLimit || !q.incomplete() || q.again() != nil {
		t.Fatalf("%d items, incomplete %v", n, q.incomplete())
	}
	last, n := 0, 0
	for {
		it, ok, _ := q.take()
		if !ok {
			break
		}
		if it.score < last {
			t.Fatalf("score %d after %d", it.score, last)
		}
		last, n = it.score, n+1
	}
	if n < queueLimit {
		t.Errorf("%d items kept of %d", n, 5*queueLimit)
	}
	if roots := q.again(); len(roots) != 1 || roots[0] != "r" || q.incomplete() {
		t.Errorf("%q", roots)
	}
}
