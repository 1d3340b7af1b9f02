package agent

import (
	"container/heap"
	"maps"
	"math/bits"
	"slices"
	"sort"
	"sync"
	"time"

	"backstay/protocol/vault"
)

// item is a path that is to be sent.
type item struct {
	root, path string
	// op is what there is to say of it; protocol 3 knows puts only.
	op vault.Op
	// score orders the queue, the least first.
	score int
}

// score is small for what is small and was changed lately, so that something is
// safe within seconds and a large old file does not keep what was just saved
// waiting. Both weigh by their magnitude: twice as old counts as twice as large.
func score(size int64, age time.Duration) int {
	const smallest, newest = 64 << 10, time.Minute
	return bits.Len64(uint64(max(size, 0)/smallest)) + bits.Len64(uint64(max(age, 0)/newest))
}

// queueLimit is how many items a queue keeps, at some 300 bytes each and the path:
// what a scan finds beyond is found again by the next one.
const queueLimit = 1 << 15

// queue holds what is to be sent, each path once. It lives in memory only: after a
// crash it is found again by comparing the catalog with the disk. When it is full it
// drops the items that are last in order, and says of which roots. It is safe for
// concurrent use.
type queue struct {
	mu    sync.Mutex // guards what follows
	heap  items
	index map[string]*entry
	// out are the paths that were taken and are not done, later what was added for
	// them meanwhile: a path is under way once, or an older reading of it could
	// arrive after a newer one.
	out   map[string]struct{}
	later map[string]item
	// dropped are the roots of which items were dropped.
	dropped map[string]bool
	// more is closed and replaced when an item is added.
	more chan struct{}

	changed func() // told when len may have changed
}

type entry struct {
	item
	at int // position in the heap
}

func newQueue(changed func()) *queue {
	return &queue{
		changed: changed, index: map[string]*entry{}, out: map[string]struct{}{}, later: map[string]item{},
		dropped: map[string]bool{}, more: make(chan struct{}),
	}
}

// add puts an item in. Of two for one path the newer says what there is to do, and
// the better score stays.
func (q *queue) add(it item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(it)
}

// push is add. The caller holds mu.
func (q *queue) push(it item) {
	if _, ok := q.out[it.path]; ok {
		q.later[it.path] = it
		q.changed()
		return
	}
	if e := q.index[it.path]; e != nil {
		e.score, e.op = min(e.score, it.score), it.op
		heap.Fix(&q.heap, e.at)
		return
	}
	e := &entry{item: it}
	q.index[it.path] = e
	heap.Push(&q.heap, e)
	// Half at a time, so that a drop costs little for each item.
	if len(q.heap) >= 2*queueLimit {
		q.drop()
	}
	close(q.more)
	q.more = make(chan struct{})
	q.changed()
}

// drop keeps the first queueLimit items.
func (q *queue) drop() {
	sort.Sort(q.heap)
	for _, e := range q.heap[queueLimit:] {
		q.dropped[e.root] = true
		delete(q.index, e.path)
	}
	clear(q.heap[queueLimit:])
	q.heap = q.heap[:queueLimit] // what is in order is a heap
}

// incomplete says whether items were dropped.
func (q *queue) incomplete() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.dropped) > 0
}

// again returns the roots of which items were dropped, once the queue is empty.
func (q *queue) again() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) > 0 || len(q.dropped) == 0 {
		return nil
	}
	roots := slices.Sorted(maps.Keys(q.dropped))
	clear(q.dropped)
	return roots
}

// take removes and returns the first item, or returns a channel that is closed
// when there may be one. The path is out until done is called.
func (q *queue) take() (item, bool, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return item{}, false, q.more
	}
	e := heap.Pop(&q.heap).(*entry)
	delete(q.index, e.path)
	q.out[e.path] = struct{}{}
	q.changed()
	return e.item, true, nil
}

// done says that an item that was taken is not under way any more.
func (q *queue) done(path string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.out, path)
	if it, ok := q.later[path]; ok {
		delete(q.later, path)
		q.push(it)
	}
}

// retain drops the items that are not wanted any more.
func (q *queue) retain(wanted func(item) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.heap[:0]
	for _, e := range q.heap {
		if wanted(e.item) {
			e.at = len(kept)
			kept = append(kept, e)
			continue
		}
		delete(q.index, e.path)
	}
	clear(q.heap[len(kept):])
	q.heap = kept
	heap.Init(&q.heap)
	q.changed()
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.heap) + len(q.later)
}

// items is the heap; see container/heap.
type items []*entry

func (h items) Len() int { return len(h) }
func (h items) Less(i, j int) bool {
	if h[i].score != h[j].score {
		return h[i].score < h[j].score
	}
	return h[i].path < h[j].path
}
func (h items) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *items) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}
func (h *items) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
