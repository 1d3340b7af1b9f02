package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// store is a place for objects that refuses an object before what it refers to.
type store struct {
	mu      sync.Mutex // guards objects
	objects map[ObjectID][]byte
	fetched int // the largest number of objects asked for at once
}

func newStore() *store { return &store{objects: make(map[ObjectID][]byte)} }

func (s *store) put(_ context.Context, object []byte) (ObjectID, error) {
	h, _, err := ParseHeader(object)
	if err != nil {
		return ObjectID{}, err
	}
	id := Identify(object)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range h.Refs {
		if s.objects[ref] == nil {
			return id, fmt.Errorf("put before %v, to which it refers", ref)
		}
	}
	s.objects[id] = slices.Clone(object)
	return id, nil
}

// fetch yields in an order of its own, as a store does, and overwrites what it
// yielded at the next step.
func (s *store) fetch(_ context.Context, ids []ObjectID) iter.Seq2[Object, error] {
	s.fetched = max(s.fetched, len(ids))
	ids = slices.SortedFunc(slices.Values(ids), func(a, b ObjectID) int { return bytes.Compare(a[:], b[:]) })
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		panic("an id twice in one fetch")
	}
	return func(yield func(Object, error) bool) {
		for _, id := range ids {
			data, ok := s.objects[id]
			if !ok {
				continue
			}
			data = slices.Clone(data)
			goOn := yield(Object{id, data}, nil)
			clear(data)
			if !goOn {
				return
			}
		}
	}
}

func TestContent(t *testing.T) {
	k := testKeyring(t)
	mixed := slices.Concat(textBytes(1_500_000, 1), randomBytes(1_500_000, 2), make([]byte, 3_000_000))
	for _, test := range []struct {
		name    string
		data    []byte
		cutter  Cutter
		level   uint8
		entries int // -1: any number
	}{
		{"empty", nil, nil, 0, 0},
		{"one byte", []byte{7}, nil, 0, 0},
		{"largest inline", randomBytes(InlineMax, 1), nil, 0, 0},
		{"largest inline with short chunks", randomBytes(InlineMax, 1), FixedCutter(100), 0, 0},
		{"smallest chunk", randomBytes(InlineMax+1, 1), nil, 0, 1},
		{"one full chunk", randomBytes(1<<20, 1), nil, 0, 1},
		{"one byte more", randomBytes(1<<20+1, 1), nil, 0, 2},
		{"mixed", mixed, nil, 0, 6},
		{"mixed, largest chunks", mixed, FixedCutter(MaxPlaintext), 0, 2},
		{"zeros: the same chunk again and again", make([]byte, 500_000), FixedCutter(1000), 0, 500},
		{"as many chunks as a record takes", randomBytes(MaxRefs*64, 1), FixedCutter(64), 0, MaxRefs},
		{"one chunk more", randomBytes(MaxRefs*64+1, 1), FixedCutter(64), 1, -1},
		{"cut by content", randomBytes(300_000, 3), cutAfterZero(1000), 1, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStore()
			c, err := k.WriteContent(t.Context(), iotest.HalfReader(bytes.NewReader(test.data)), s.put, WriteOptions{Cutter: test.cutter, Sum: true})
			if err != nil {
				t.Fatal(err)
			}
			if c.Level != test.level || test.entries >= 0 && len(c.Entries) != test.entries || len(c.Entries) > MaxRefs {
				t.Fatalf("%d entries of level %d", len(c.Entries), c.Level)
			}
			if (c.Sum != nil) != (test.entries < 0 || test.entries > 1) || c.Sum != nil && *c.Sum != sha256.Sum256(test.data) {
				t.Errorf("hash %x of %d entries", c.Sum, len(c.Entries))
			}
			var out bytes.Buffer
			if err := k.ReadContent(t.Context(), &out, c, s.fetch); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), test.data) || c.Size != uint64(len(test.data)) {
				t.Fatalf("%d bytes written, others of length %d read", len(test.data), out.Len())
			}
			if s.fetched > batchPieces {
				t.Errorf("%d objects fetched at once", s.fetched)
			}
			r := Record{Type: TypeFile, Content: c}
			if again, err := DecodeRecord(r.Append(nil), c.Refs()); err != nil || !reflect.DeepEqual(again.Content, c) {
				t.Errorf("through a record: %v", err)
			}
			again, err := k.WriteContent(t.Context(), bytes.NewReader(test.data), s.put, WriteOptions{Cutter: test.cutter, Workers: 1, Window: 1, Sum: true})
			if err != nil || !reflect.DeepEqual(c, again) {
				t.Errorf("written again to something else (%v)", err)
			}
			again, err = k.WriteContent(t.Context(), bytes.NewReader(test.data), s.put, WriteOptions{Cutter: test.cutter})
			if c.Sum = nil; err != nil || !reflect.DeepEqual(c, again) {
				t.Errorf("written without hash to something else (%v)", err)
			}
		})
	}
}

// TestKnown writes a content of which some chunks are stored already, under
// objects of an earlier epoch.
func TestKnown(t *testing.T) {
	old := NewKeyring(ID{1, 2, 3}, Key{4, 5, 6})
	k := testKeyring(t)
	s := newStore()
	data := randomBytes(MaxRefs*100+2000, 1)
	before, err := old.WriteContent(t.Context(), bytes.NewReader(data[:50_000]), s.put, WriteOptions{Cutter: FixedCutter(100)})
	if err != nil {
		t.Fatal(err)
	}
	refs := make(map[Hash]ObjectID)
	for _, e := range before.Entries {
		refs[e.Hash] = e.Ref
	}
	stored := len(s.objects)
	var mu sync.Mutex
	asked := 0
	c, err := k.WriteContent(t.Context(), bytes.NewReader(data), s.put, WriteOptions{Cutter: FixedCutter(100), Sum: true,
		Known: func(h Hash, size int) (ObjectID, bool) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			ref, ok := refs[h]
			return ref, ok && size == 100
		}})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(data)/100 - len(refs) + len(c.Entries); len(s.objects)-stored != want || asked != len(data)/100 || c.Level != 1 {
		t.Errorf("%d objects put, want %d; asked for %d; %d entries of level %d", len(s.objects)-stored, want, asked, len(c.Entries), c.Level)
	}
	var out bytes.Buffer
	if err := k.ReadContent(t.Context(), &out, c, s.fetch); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%d bytes came back, %v", out.Len(), err)
	}
}

// cutAfterZero cuts after every zero byte, in chunks of up to its value: a small
// cutter by content, that looks at no byte twice.
type cutAfterZero int

func (c cutAfterZero) Max() int { return int(c) }

func (c cutAfterZero) Cut(buf []byte, seen int) int {
	buf = buf[:min(len(buf), int(c))]
	if i := bytes.IndexByte(buf[min(seen, len(buf)):], 0); i >= 0 {
		return seen + i + 1
	}
	if len(buf) == int(c) {
		return int(c)
	}
	return 0
}

// TestCut checks that a cutter that sees the content bit by bit cuts where it does
// when it sees all of it.
func TestCut(t *testing.T) {
	k := testKeyring(t)
	data := randomBytes(10_000, 3)
	for i := range data {
		data[i] %= 16
	}
	c, err := k.WriteContent(t.Context(), bytes.NewReader(data), newStore().put, WriteOptions{Cutter: cutAfterZero(50)})
	if err != nil || len(c.Entries) < 200 || c.Level > 0 {
		t.Fatalf("%d entries of level %d, %v", len(c.Entries), c.Level, err)
	}
	for i, e := range c.Entries {
		n := cutAfterZero(50).Cut(data, 0)
		if n == 0 {
			n = len(data)
		}
		if e.Size != uint64(n) || e.Hash != k.Hash(data[:n]) {
			t.Fatalf("chunk %d has %d bytes, want %d", i, e.Size, n)
		}
		data = data[n:]
	}
}

// TestNestedLists writes and reads a list of lists of lists.
func TestNestedLists(t *testing.T) {
	k := testKeyring(t)
	s := newStore()
	w := contentWriter{keys: k, put: s.put}
	var want []byte
	for n := range MaxRefs + 1 {
		plaintext := []byte{byte(n), byte(n >> 8)}
		want = append(want, plaintext...)
		object, id, err := k.Seal(nil, Header{Type: TypeChunk}, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.put(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		// Each chunk gets a list of its own, so few suffice for another level.
		if err := w.add(t.Context(), 0, Entry{Ref: id, Size: 2, Hash: k.Hash(plaintext)}); err != nil {
			t.Fatal(err)
		}
		if err := w.list(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	c, err := w.finish(t.Context())
	if err != nil || c.Level != 2 || len(c.Entries) < 2 {
		t.Fatalf("%d entries of level %d, %v", len(c.Entries), c.Level, err)
	}
	var out bytes.Buffer
	if err := k.ReadContent(t.Context(), &out, c, s.fetch); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Fatal("other bytes came back")
	}
}

// TestListsAreStable inserts a chunk into a long file: all but a few lists stay.
func TestListsAreStable(t *testing.T) {
	k := testKeyring(t)
	data := randomBytes(60_000, 1)
	lists := func(data []byte) map[ObjectID]bool {
		s := newStore()
		c, err := k.WriteContent(t.Context(), bytes.NewReader(data), s.put, WriteOptions{Cutter: FixedCutter(4)})
		if err != nil {
			t.Fatal(err)
		}
		refs := make(map[ObjectID]bool)
		for _, ref := range c.Refs() {
			refs[ref] = true
		}
		return refs
	}
	before, after := lists(data), lists(slices.Insert(slices.Clone(data), 20_000, 1, 2, 3, 4))
	fresh := 0
	for ref := range after {
		if !before[ref] {
			fresh++
		}
	}
	if len(before) < 15 || fresh > 4 {
		t.Errorf("%d of %d lists are new", fresh, len(after))
	}
}

func TestWriteContentErrors(t *testing.T) {
	k := testKeyring(t)
	broken := errors.New("broken")
	data := randomBytes(300_000, 1)
	puts := func(n int) func(context.Context, []byte) (ObjectID, error) {
		var mu sync.Mutex
		return func(_ context.Context, object []byte) (ObjectID, error) {
			mu.Lock()
			defer mu.Unlock()
			if n--; n < 0 {
				return ObjectID{}, broken
			}
			return Identify(object), nil
		}
	}
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	for _, test := range []struct {
		name string
		ctx  context.Context
		r    io.Reader
		put  func(context.Context, []byte) (ObjectID, error)
		opts WriteOptions
		want error
	}{
		{"reading breaks beside the hash", t.Context(), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), puts(1e6), WriteOptions{Cutter: FixedCutter(1000), Sum: true}, broken},
		{"no put works beside the hash", t.Context(), bytes.NewReader(data), puts(0), WriteOptions{Cutter: FixedCutter(1000), Sum: true, Workers: 1}, broken},
		{"reading breaks at once", t.Context(), iotest.ErrReader(broken), puts(1e6), WriteOptions{}, broken},
		{"reading breaks within the inline part", t.Context(), io.MultiReader(bytes.NewReader(data[:100]), iotest.ErrReader(broken)), puts(1e6), WriteOptions{}, broken},
		{"reading breaks later", t.Context(), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), puts(1e6), WriteOptions{}, broken},
		{"the source is cut off", t.Context(), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(io.ErrUnexpectedEOF)), puts(1e6), WriteOptions{}, io.ErrUnexpectedEOF},
		{"no put works", t.Context(), bytes.NewReader(data), puts(0), WriteOptions{}, broken},
		{"the last put does not work", t.Context(), bytes.NewReader(data), puts(299), WriteOptions{Cutter: FixedCutter(1000)}, broken},
		{"the put of a list does not work", t.Context(), bytes.NewReader(data), puts(3000), WriteOptions{Cutter: FixedCutter(100)}, broken},
		{"canceled before", canceled, bytes.NewReader(data), puts(1e6), WriteOptions{}, broken},
		{"chunks longer than an object takes", t.Context(), bytes.NewReader(data), puts(1e6), WriteOptions{Cutter: FixedCutter(MaxPlaintext + 1)}, nil},
		{"chunks of nothing", t.Context(), bytes.NewReader(data), puts(1e6), WriteOptions{Cutter: FixedCutter(0)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := k.WriteContent(test.ctx, test.r, test.put, test.opts)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || c.Size != 0 {
				t.Fatalf("%d bytes, error %v", c.Size, err)
			}
		})
	}
}

// TestWriteContentBounds holds every put back and checks what is under way then:
// Window objects in put, and no more read than has a place.
func TestWriteContentBounds(t *testing.T) {
	for _, sum := range []bool{false, true} {
		t.Run(fmt.Sprintf("sum %v", sum), func(t *testing.T) { testWriteContentBounds(t, sum) })
	}
}

func testWriteContentBounds(t *testing.T, sum bool) {
	synctest.Test(t, func(t *testing.T) {
		const size, workers, window = 1 << 20, 2, 3
		k := testKeyring(t)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var read, started, running int
		source := readFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			read += len(p)
			return len(p), nil
		})
		put := func(ctx context.Context, _ []byte) (ObjectID, error) {
			mu.Lock()
			started++
			running++
			mu.Unlock()
			<-ctx.Done()
			time.Sleep(time.Second) // of the bubble's clock: a put that ends late
			mu.Lock()
			running--
			mu.Unlock()
			return ObjectID{}, ctx.Err()
		}
		result := make(chan error, 1)
		go func() {
			_, err := k.WriteContent(ctx, source, put, WriteOptions{Cutter: FixedCutter(size), Workers: workers, Window: window, Sum: sum})
			mu.Lock()
			defer mu.Unlock()
			if running > 0 {
				t.Errorf("returned with %d puts running", running)
			}
			result <- err
		}()
		synctest.Wait()
		mu.Lock()
		if started != window || read > (window+workers+1)*size {
			t.Errorf("%d puts and %d bytes under way", started, read)
		}
		mu.Unlock()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestMemory streams far more than may be in memory, in both directions. The
// limit leaves room for a collector that comes late and for the race detector,
// under which pools forget at random; BenchmarkWriteContent reports the peak.
func TestMemory(t *testing.T) {
	const total, limit = 128 << 20, 64 << 20
	k := testKeyring(t)
	peak := watchMemory()
	var mu sync.Mutex
	c, err := k.WriteContent(t.Context(), stream(total), func(_ context.Context, object []byte) (ObjectID, error) {
		mu.Lock()
		defer mu.Unlock()
		peak()
		return Identify(object), nil
	}, WriteOptions{})
	if err != nil || c.Size != total {
		t.Fatal(c.Size, err)
	}
	if n := peak(); n > limit {
		t.Errorf("writing %d bytes took %d bytes of memory", total, n)
	}

	// One chunk stands for all of them: reading has only to be long.
	block := randomBytes(1<<20, 1)
	h := k.Hash(block)
	object, id, err := k.Seal(nil, Header{Type: TypeChunk}, block)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Entries {
		c.Entries[i] = Entry{Ref: id, Size: uint64(len(block)), Hash: h}
	}
	peak = watchMemory()
	err = k.ReadContent(t.Context(), io.Discard, c, func(_ context.Context, ids []ObjectID) iter.Seq2[Object, error] {
		peak()
		return func(yield func(Object, error) bool) { yield(Object{id, object}, nil) }
	})
	if n := peak(); err != nil || n > limit {
		t.Errorf("reading %d bytes took %d bytes of memory (%v)", total, n, err)
	}
}

// watchMemory returns a function that measures by how much the heap has grown
// since, and returns the most it has found.
func watchMemory() func() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var peak, base uint64 = 0, m.HeapInuse
	return func() uint64 {
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse-min(base, m.HeapInuse))
		return peak
	}
}

// stream returns a reader of n incompressible bytes, of which no two chunks are
// alike for a while.
func stream(n int64) io.Reader {
	block := randomBytes(3<<20+7, 1)
	at := 0
	return io.LimitReader(readFunc(func(p []byte) (int, error) {
		m := copy(p, block[at:])
		at = (at + m) % len(block)
		return m, nil
	}), n)
}

func TestReadContentErrors(t *testing.T) {
	k := testKeyring(t)
	s := newStore()
	data := slices.Concat(randomBytes(150_000, 1), randomBytes(50_000, 1)) // the first 50 chunks and the last are the same
	write := func(cut int) Content {
		c, err := k.WriteContent(t.Context(), bytes.NewReader(data), s.put, WriteOptions{Cutter: FixedCutter(cut)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	flat, nested := write(1000), write(100)
	sealAs := func(h Header, plaintext []byte) ObjectID {
		object, id, err := k.Seal(nil, h, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		s.objects[id] = object
		return id
	}
	note := sealAs(Header{Type: TypeNote}, data[3000:4000])
	longer := sealAs(Header{Type: TypeChunk}, data[3000:4001])
	last := sealAs(Header{Type: TypeChunk}, data[149_900:150_000]) // stored already: the last chunk that stands once
	firstList := nested.Entries[0]
	listPlain, listHeader, err := k.Open(nil, s.objects[firstList.Ref])
	if err != nil {
		t.Fatal(err)
	}
	// Lists as another device of the vault could seal them, by what is changed.
	forgeList := func(edit func(list *Content)) (c Content) {
		list, err := parseList(listPlain, listHeader.Refs, firstList.Size)
		if err != nil {
			t.Fatal(err)
		}
		edit(&list)
		plaintext := appendList(nil, list.Level, list.Entries)
		c = nested
		c.Entries = slices.Clone(nested.Entries)
		c.Entries[0].Ref = sealAs(Header{Type: TypeList, Refs: list.Refs()}, plaintext)
		c.Entries[0].Hash = k.Hash(plaintext)
		return c
	}
	edit := func(c Content, i int, f func(*Entry)) Content {
		c.Entries = slices.Clone(c.Entries)
		f(&c.Entries[i])
		return c
	}
	double := func(e *Entry) { e.Size += 1 << 63 }
	upperPlain := appendList(nil, 1, nested.Entries)
	upper := Entry{Ref: sealAs(Header{Type: TypeList, Refs: nested.Refs()}, upperPlain), Size: nested.Size, Hash: k.Hash(upperPlain)}
	withSum := func(c Content) Content {
		c.Sum = new(sha256.Sum256(data[1:]))
		return c
	}
	broken := errors.New("broken")
	for _, test := range []struct {
		name   string
		c      Content
		change func(o *Object, err *error) bool // false: not yielded
		want   error
		offset int64 // of the PieceError; -1: none
	}{
		{"chunk missing", flat, func(o *Object, _ *error) bool { return o.ID != flat.Entries[70].Ref }, ErrMissing, 70_000},
		{"chunk missing twice", flat, func(o *Object, _ *error) bool { return o.ID != flat.Entries[3].Ref }, ErrMissing, 3000},
		{"list missing", nested, func(o *Object, _ *error) bool { return o.ID != nested.Entries[1].Ref }, ErrMissing, int64(nested.Entries[0].Size)},
		{"chunk in a later list missing", nested, func(o *Object, _ *error) bool { return o.ID != last }, ErrMissing, 149_900},
		{"chunk cannot be had", flat, func(o *Object, err *error) bool {
			if o.ID == flat.Entries[120].Ref {
				*o, *err = Object{ID: o.ID}, broken
			}
			return true
		}, broken, 120_000},
		{"nothing can be had", flat, func(o *Object, err *error) bool { *o, *err = Object{}, broken; return true }, broken, -1},
		{"chunk under no id that was asked for", flat, func(o *Object, _ *error) bool {
			if o.ID == flat.Entries[0].Ref {
				o.ID = ObjectID{}
			}
			return true
		}, ErrMissing, 0},
		{"chunk altered", flat, func(o *Object, _ *error) bool { o.Data[len(o.Data)-1] ^= 1; return true }, ErrOpen, -2},
		{"chunk cut short", flat, func(o *Object, _ *error) bool { o.Data = o.Data[:10]; return true }, ErrMalformed, -2},
		{"another chunk under its id", flat, func(o *Object, _ *error) bool {
			if o.ID == flat.Entries[60].Ref {
				o.Data = s.objects[flat.Entries[61].Ref]
			}
			return true
		}, ErrContent, 60_000},
		{"a note with its bytes", edit(flat, 3, func(e *Entry) { e.Ref = note }), nil, ErrContent, 3000},
		{"a longer chunk", edit(flat, 3, func(e *Entry) { e.Ref, e.Hash = longer, k.Hash(data[3000:4001]) }), nil, ErrContent, 3000},
		{"a list where a chunk is due", edit(flat, 0, func(e *Entry) { e.Ref = firstList.Ref }), nil, ErrContent, 0},
		{"a chunk where a list is due", edit(nested, 0, func(e *Entry) { e.Ref = flat.Entries[0].Ref }), nil, ErrContent, 0},
		{"another list", edit(nested, 0, func(e *Entry) { e.Ref = nested.Entries[1].Ref }), nil, ErrContent, 0},
		{"list of another level", forgeList(func(c *Content) { c.Level = 1 }), nil, ErrContent, 0},
		{"list of less content", forgeList(func(c *Content) { c.Entries[0].Size-- }), nil, ErrMalformed, 0},
		{"list of more content", forgeList(func(c *Content) { c.Entries[0].Size++ }), nil, ErrMalformed, 0},
		{"list with a chunk of nothing", forgeList(func(c *Content) { c.Entries[0].Size, c.Entries[1].Size = 0, 200 }), nil, ErrMalformed, 0},
		{"list of other lists", Content{Size: nested.Size, Level: 1, Entries: []Entry{upper}}, nil, ErrContent, 0},
		{"sizes that wrap around", edit(edit(nested, 0, double), 1, double), nil, ErrMalformed, -1},
		{"more than a signed size", Content{Size: 1 << 63, Level: 1, Entries: []Entry{{Size: 1 << 63}}}, nil, ErrMalformed, -1},
		{"chunk larger than any", Content{Size: MaxPlaintext + 1, Entries: []Entry{{Size: MaxPlaintext + 1}}}, nil, ErrMalformed, -1},
		{"more inline than stated", Content{Size: 1, Inline: []byte("ab")}, nil, ErrMalformed, -1},
		{"inline content too long", Content{Size: InlineMax + 1, Inline: make([]byte, InlineMax+1)}, nil, ErrMalformed, -1},
		{"nested too deep", Content{Size: 1, Level: MaxLevel + 1, Entries: []Entry{{Size: 1}}}, nil, ErrMalformed, -1},
		{"another hash", withSum(flat), nil, ErrContent, -1},
		{"another hash of lists", withSum(nested), nil, ErrContent, -1},
		{"hash of a single chunk", withSum(Content{Size: 1000, Entries: flat.Entries[:1]}), nil, ErrMalformed, -1},
		{"hash of inline content", withSum(Content{Size: 1, Inline: []byte("a")}), nil, ErrMalformed, -1},
		{"too many entries", Content{Size: MaxRefs + 1, Entries: slices.Repeat([]Entry{{Size: 1}}, MaxRefs+1)}, nil, ErrMalformed, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			fetch := func(ctx context.Context, ids []ObjectID) iter.Seq2[Object, error] {
				return func(yield func(Object, error) bool) {
					for o, err := range s.fetch(ctx, ids) {
						if (test.change == nil || test.change(&o, &err)) && !yield(o, err) {
							return
						}
					}
				}
			}
			var out bytes.Buffer
			err := k.ReadContent(t.Context(), &out, test.c, fetch)
			if !errors.Is(err, test.want) || !errors.Is(err, ErrCorrupt) && test.want != ErrMissing && test.want != broken {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			piece, ok := errors.AsType[*PieceError](err)
			if ok != (test.offset != -1) || ok && test.offset >= 0 && (piece.Offset != uint64(test.offset) || uint64(out.Len()) > piece.Offset) {
				t.Errorf("error %v after %d bytes, want one at %d", err, out.Len(), test.offset)
			}
			if !bytes.HasPrefix(data, out.Bytes()) {
				t.Error("wrong bytes were written")
			}
		})
	}
	if err := k.ReadContent(t.Context(), brokenWriter{broken}, flat, s.fetch); !errors.Is(err, broken) {
		t.Errorf("writer's error: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if err := k.ReadContent(ctx, io.Discard, flat, func(context.Context, []ObjectID) iter.Seq2[Object, error] {
		return func(func(Object, error) bool) {}
	}); !errors.Is(err, broken) {
		t.Errorf("canceled: %v", err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// FuzzList checks that what is accepted as a list has no other encoding and the
// size that was asked for.
func FuzzList(f *testing.F) {
	f.Add(appendList(nil, 0, []Entry{{Size: 1 << 20}, {Size: 5, Hash: Hash{1}}}), uint64(1<<20+5))
	f.Add(appendList(nil, 3, []Entry{{Size: 1 << 40}}), uint64(1<<40))
	f.Fuzz(func(t *testing.T, list []byte, size uint64) {
		refs := make([]ObjectID, len(list)/entrySize)
		c, err := parseList(list, refs, size)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		var sum uint64
		for _, e := range c.Entries {
			sum += e.Size
		}
		if again := appendList(nil, c.Level, c.Entries); !bytes.Equal(again, list) || sum != size {
			t.Fatalf("%s was encoded again as %s, of %d bytes", hex.EncodeToString(list), hex.EncodeToString(again), sum)
		}
	})
}

func BenchmarkWriteContent(b *testing.B) {
	for _, sum := range []bool{false, true} {
		b.Run(fmt.Sprintf("sum=%v", sum), func(b *testing.B) {
			const total = 512 << 20
			k := NewKeyring(ID{1}, Key{2})
			b.SetBytes(total)
			b.ReportAllocs()
			peak := watchMemory()
			var mu sync.Mutex
			for b.Loop() {
				if _, err := k.WriteContent(b.Context(), stream(total), func(_ context.Context, object []byte) (ObjectID, error) {
					mu.Lock()
					defer mu.Unlock()
					peak()
					return Identify(object), nil
				}, WriteOptions{Sum: sum}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(peak())/(1<<20), "peak-MiB")
		})
	}
}
