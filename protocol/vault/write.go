package vault

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Cutter decides where the chunks of a file end. It is used by one goroutine.
type Cutter interface {
	// Max returns the length of the longest chunk, at most MaxPlaintext.
	Max() int
	// Cut returns the length of the chunk that buf starts with, or 0 if it does
	// not end in buf; never 0 if buf is Max long. An earlier call for the same
	// chunk returned 0 for the first seen bytes of buf.
	Cut(buf []byte, seen int) int
}

// FixedCutter cuts chunks of its value in bytes.
type FixedCutter int

// Max implements [Cutter].
func (c FixedCutter) Max() int { return int(c) }

// Cut implements [Cutter].
func (c FixedCutter) Cut(buf []byte, _ int) int {
	if len(buf) < int(c) {
		return 0
	}
	return int(c)
}

// WriteOptions tunes [Keyring.WriteContent].
type WriteOptions struct {
	// Cutter cuts the chunks. Default: FixedCutter of 1 MiB.
	Cutter Cutter
	// Workers is how many chunks are sealed at a time. Default: GOMAXPROCS.
	Workers int
	// Window is how many sealed objects may be in put at a time. Default: 4.
	Window int
	// Known is asked for every chunk, by its keyed hash and its size in bytes,
	// before it is sealed. If it knows an object with that plaintext, the content
	// refers to this and nothing is sealed or put. It is called from several
	// goroutines at a time. Default: nothing is known.
	Known func(hash Hash, size int) (ObjectID, bool)
	// Stored is told of every chunk after put has taken it. It is called from
	// several goroutines at a time. Default: nobody is told.
	Stored func(Entry)
	// Sum asks for Content.Sum. Default: it stays nil.
	Sum bool
}

// chunkSize is the length of the chunks of the default cutter.
const chunkSize = 1 << 20

// WriteContent reads r to its end, seals what it reads and gives every object to
// put, then returns the description for the record. Content of up to InlineMax
// bytes makes no object. put returns the object's id as [Identify] computes it:
// a store does that anyway, and a second pass over all bytes would show.
//
// put is called from several goroutines at a time and in no particular order,
// except that an object is put only after put has returned for everything it
// refers to. object is valid until put returns. WriteContent blocks until r has
// ended and every put has returned; it holds at most Workers+1 chunks in the
// clear and Window sealed ones, whatever r's length.
//
// The first error of r, put or ctx ends it and is returned, wrapped; what put had
// accepted by then stays where it is and is referred to by nothing.
func (k *Keyring) WriteContent(ctx context.Context, r io.Reader, put func(ctx context.Context, object []byte) (ObjectID, error), opts WriteOptions) (Content, error) {
	in := chunks{r: r, cutter: opts.Cutter}
	if in.cutter == nil {
		in.cutter = FixedCutter(chunkSize)
	}
	if in.cutter.Max() < 1 || in.cutter.Max() > MaxPlaintext {
		return Content{}, fmt.Errorf("cut content: chunks of up to %d bytes, want 1 to %d", in.cutter.Max(), MaxPlaintext)
	}
	in.buf = plainBuffers.Get().(*[]byte)
	*in.buf = (*in.buf)[:0]
	defer func() { plainBuffers.Put(in.buf) }()
	// Most files end within the first step, and are read by one call.
	if err := in.fill(max(InlineMax+1, min(readStep, in.cutter.Max()))); err != nil {
		return Content{}, fmt.Errorf("read content: %w", err)
	}
	if len(*in.buf) <= InlineMax {
		return Content{Size: uint64(len(*in.buf)), Inline: slices.Clone(*in.buf)}, nil
	}

	ctx, cancel := context.WithCancel(ctx)
	w := contentWriter{
		keys:   k,
		put:    put,
		plain:  make(chan struct{}, max(1, cmp.Or(opts.Workers, runtime.GOMAXPROCS(0)))),
		sealed: make(chan struct{}, max(1, cmp.Or(opts.Window, 4))),
		known:  opts.Known,
		stored: opts.Stored,
	}
	if opts.Sum {
		w.sum = newContentSum(cap(w.plain))
	}
	c, err := w.run(ctx, &in)
	cancel()
	w.sum.stop()
	w.running.Wait()
	if err == nil {
		c.Sum = w.sum.sum()
	}
	return c, err
}

// run writes all chunks and returns the description of the content.
func (w *contentWriter) run(ctx context.Context, in *chunks) (Content, error) {
	for {
		chunk, err := in.next()
		if err == io.EOF {
			return w.finish(ctx)
		}
		if err != nil {
			return Content{}, fmt.Errorf("read content: %w", err)
		}
		if err := w.write(ctx, chunk, in.last()); err != nil {
			return Content{}, err
		}
	}
}

// chunks cuts what it reads. Of buf, everything up to its length has been read.
type chunks struct {
	r      io.Reader
	cutter Cutter
	buf    *[]byte
	ended  bool
}

// readStep is how much is read before the cutter looks again: what a cut leaves
// over, less than that, is copied once.
const readStep = 256 << 10

// fill reads until buf is n long or r has ended. It is no io.ReadFull, which
// gives a source that broke off and one that ended the same error.
func (c *chunks) fill(n int) error {
	buf := *c.buf
	buf = slices.Grow(buf, max(0, n-len(buf)))
	for len(buf) < n && !c.ended {
		m, err := c.r.Read(buf[len(buf):n])
		buf = buf[:len(buf)+m]
		if err == io.EOF {
			c.ended = true
		} else if err != nil {
			return err
		}
	}
	*c.buf = buf
	return nil
}

// next returns the next chunk, in a buffer that is the caller's to give back, or
// io.EOF.
func (c *chunks) next() (*[]byte, error) {
	for seen := 0; ; {
		buf := *c.buf
		n := c.cutter.Cut(buf, seen)
		if n == 0 && c.ended {
			n = len(buf)
		}
		if n > 0 {
			chunk := c.buf
			c.buf = plainBuffers.Get().(*[]byte)
			*c.buf = append(slices.Grow((*c.buf)[:0], min(cap(buf), c.cutter.Max())), buf[n:]...)
			*chunk = buf[:n]
			return chunk, nil
		}
		if c.ended {
			return nil, io.EOF
		}
		seen = len(buf)
		if err := c.fill(min(len(buf)+readStep, c.cutter.Max())); err != nil {
			return nil, err
		}
	}
}

// last says whether next has returned the last chunk.
func (c *chunks) last() bool { return c.ended && len(*c.buf) == 0 }

// contentWriter seals chunks in goroutines of its own, but for the last one, and
// gathers their entries in order. Its methods are called by one goroutine, except seal.
type contentWriter struct {
	keys    *Keyring
	put     func(ctx context.Context, object []byte) (ObjectID, error)
	known   func(hash Hash, size int) (ObjectID, bool)
	stored  func(Entry)
	sum     *contentSum // nil if nobody asks for it
	running sync.WaitGroup
	// plain and sealed hold a token for each chunk in the clear, counted from
	// write, and each sealed one: they bound the memory in use.
	plain, sealed chan struct{}
	// pending are the pieces under way, in the order of the content.
	pending []*piece
	// levels are the entries of each level that no list has taken yet.
	levels [][]Entry
}

// piece is a chunk under way; done is closed when entry or err is set.
type piece struct {
	entry Entry
	err   error
	done  chan struct{}
}

// write starts sealing a chunk and gathers what has become ready. After the last
// chunk there is nothing to do meanwhile, so it is sealed at once: most files have
// no other, and handing them over costs more than it gains.
func (w *contentWriter) write(ctx context.Context, chunk *[]byte, last bool) error {
	w.sum.more()
	select {
	case w.plain <- struct{}{}:
	case <-ctx.Done():
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c := &plain{buf: chunk, slots: w.plain}
	c.users.Store(1)
	w.sum.add(c)
	p := &piece{done: make(chan struct{})}
	w.pending = append(w.pending, p)
	seal := func() {
		defer close(p.done)
		p.entry, p.err = w.seal(ctx, c)
	}
	if last {
		seal()
	} else {
		w.running.Go(seal)
	}
	return w.gather(ctx, MaxRefs)
}

// seal seals and puts one chunk, unless it is known, and releases it.
func (w *contentWriter) seal(ctx context.Context, chunk *plain) (Entry, error) {
	release := sync.OnceFunc(chunk.release)
	defer release()
	plaintext := *chunk.buf
	e := Entry{Size: uint64(len(plaintext)), Hash: w.keys.Hash(plaintext)}
	if w.known != nil {
		if id, ok := w.known(e.Hash, len(plaintext)); ok {
			e.Ref = id
			return e, nil
		}
	}
	select {
	case w.sealed <- struct{}{}:
	case <-ctx.Done():
		return Entry{}, context.Cause(ctx)
	}
	defer func() { <-w.sealed }()
	object := objectBuffers.Get().(*[]byte)
	defer objectBuffers.Put(object)
	var err error
	if *object, err = w.keys.seal((*object)[:0], Header{Type: TypeChunk}, plaintext); err != nil {
		return Entry{}, err
	}
	release()
	if e.Ref, err = w.put(ctx, *object); err != nil {
		return Entry{}, fmt.Errorf("put chunk: %w", err)
	}
	if w.stored != nil {
		w.stored(e)
	}
	return e, nil
}

// plain is a chunk in the clear. When its last user releases it, its buffer and
// its slot are free for others.
type plain struct {
	buf   *[]byte
	slots chan struct{}
	users atomic.Int32
}

func (p *plain) release() {
	if p.users.Add(-1) == 0 {
		plainBuffers.Put(p.buf)
		<-p.slots
	}
}

// contentSum computes the SHA-256 of a content of several chunks, beside the
// sealing: it can only be computed from the start to the end, on one processor. The
// methods are called by the goroutine that writes, and do nothing on nil.
type contentSum struct {
	// first is the only chunk so far. Most files have no other, and need no sum.
	first *plain
	// chunks has room for all there can be at a time, so no send waits.
	chunks chan *plain
	hash   hash.Hash
	done   chan struct{} // closed when hash is complete; nil before there is one
}

func newContentSum(chunks int) *contentSum {
	return &contentSum{chunks: make(chan *plain, chunks)}
}

// more is called before each chunk, and before it takes a slot, which with one
// slot only the first one can free.
func (s *contentSum) more() {
	if s == nil || s.first == nil {
		return
	}
	s.hash, s.done = sha256.New(), make(chan struct{})
	go func() {
		defer close(s.done)
		for chunk := range s.chunks {
			s.hash.Write(*chunk.buf)
			chunk.release()
		}
	}()
	s.chunks <- s.first
	s.first = nil
}

// add adds a chunk, whose user it becomes.
func (s *contentSum) add(chunk *plain) {
	if s == nil {
		return
	}
	chunk.users.Add(1)
	if s.done == nil {
		s.first = chunk
		return
	}
	s.chunks <- chunk
}

// stop waits until all chunks are hashed. It is called once.
func (s *contentSum) stop() {
	if s == nil {
		return
	}
	close(s.chunks)
	if s.first != nil {
		s.first.release()
	}
	if s.done != nil {
		<-s.done
	}
}

// sum returns the hash after stop, or nil if there was no second chunk.
func (s *contentSum) sum() *[sha256.Size]byte {
	if s == nil || s.done == nil {
		return nil
	}
	return new([sha256.Size]byte(s.hash.Sum(nil)))
}

// gather takes the entries of finished pieces, in order, and waits for some if
// more than limit are pending.
func (w *contentWriter) gather(ctx context.Context, limit int) error {
	for len(w.pending) > 0 {
		p := w.pending[0]
		if len(w.pending) <= limit {
			select {
			case <-p.done:
			default:
				return nil
			}
		}
		<-p.done
		if p.err != nil {
			return p.err
		}
		w.pending = w.pending[1:]
		if err := w.add(ctx, 0, p.entry); err != nil {
			return err
		}
	}
	return nil
}

// add adds an entry to a level. Everything it refers to has been put.
func (w *contentWriter) add(ctx context.Context, level int, e Entry) error {
	if level == len(w.levels) {
		w.levels = append(w.levels, nil)
	}
	w.levels[level] = append(w.levels[level], e)
	if len(w.levels[level]) > MaxRefs {
		return w.list(ctx, level)
	}
	return nil
}

// list puts the first list of a level and adds it to the level above.
func (w *contentWriter) list(ctx context.Context, level int) error {
	entries := w.levels[level]
	n := listEnd(entries)
	part := Content{Level: uint8(level), Entries: entries[:n]}
	plaintext := appendList(nil, part.Level, part.Entries)
	e := Entry{Hash: w.keys.Hash(plaintext)}
	for i := range part.Entries {
		e.Size += part.Entries[i].Size
	}
	object, err := w.keys.seal(nil, Header{Type: TypeList, Refs: part.Refs()}, plaintext)
	if err != nil {
		return err
	}
	if e.Ref, err = w.put(ctx, object); err != nil {
		return fmt.Errorf("put list: %w", err)
	}
	w.levels[level] = slices.Delete(entries, 0, n)
	return w.add(ctx, level+1, e)
}

// finish waits for all pieces and returns the description. The level that has
// made no list is the top.
func (w *contentWriter) finish(ctx context.Context) (Content, error) {
	if err := w.gather(ctx, 0); err != nil {
		return Content{}, err
	}
	level := 0
	for ; level < len(w.levels)-1; level++ {
		for len(w.levels[level]) > 0 {
			if err := w.list(ctx, level); err != nil {
				return Content{}, err
			}
		}
	}
	c := Content{Level: uint8(level), Entries: w.levels[level]}
	for i := range c.Entries {
		c.Size += c.Entries[i].Size
	}
	return c, c.check()
}

// Buffers of chunks and of sealed chunks, apart because their sizes differ.
var (
	plainBuffers  = sync.Pool{New: func() any { return new([]byte) }}
	objectBuffers = sync.Pool{New: func() any { return new([]byte) }}
)
