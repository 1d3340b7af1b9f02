package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"sort"
	"sync"

	"backstay/agent/metadata"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

const (
	// maxWorkers bounds the chunks that are opened at a time: each takes up to
	// 13 MB, sealed, decrypted and plain.
	maxWorkers = 4
	// slots is how many sealed chunks are in memory at a time.
	slots = 6
	// fetchesAtOnce is how many windows are under way: while the last chunks of
	// one are written the next are on the wire.
	fetchesAtOnce = 2
	// A window holds so many chunks, and so many bytes that they are still in the
	// system's memory when the whole file is hashed.
	windowChunks = 1024
	windowBytes  = 256 << 20
	// windowFiles bounds the files of several chunks in a window, which are open
	// until it is done.
	windowFiles = 32
	// readSize is for reading back what is to be hashed.
	readSize = 256 << 10
)

// A file is a path on its way into the target.
type file struct {
	want
	rec       *vault.Record
	path      string // in the tree, as recorded
	dir, base string // its folder and its last component
	name      string // what the latter is on disk
	plain     bool   // because the target does not hold the latter
	part      string // what it is called until it is complete
	place     placement
	first     *group // if others of the group wait for it

	// Of content that is not inline; used by one [run.contents] alone.
	rest   []level
	next   uint64 // content that was asked for
	taken  uint64 // of that, before this window
	sum    hash.Hash
	hashed sync.WaitGroup // the window before

	layout layout
	node   *node

	mu  sync.Mutex // guards out and err
	out *os.File
	err error // of the first piece that failed
}

// level is what is left of a list of entries.
type level struct {
	entries []vault.Entry
	number  uint8
}

// begin opens the part that the content is written into, if it is not open.
func (f *file) begin(r *run) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out != nil {
		return nil
	}
	if f.node, err = r.tree.enter(f.dir); err != nil {
		return err
	}
	out, err := f.create()
	if unholdable(err) && !f.plain {
		f.plain = true
		if f.name, f.place, err = r.find(f.node, f); err == nil {
			out, err = f.create()
		}
	}
	if err == nil && len(f.rec.Holes) > 0 {
		f.layout = newLayout(f.rec.Holes)
		// A file system that has no holes gets zeros.
		_ = metadata.SetSparse(out)
		err = out.Truncate(int64(f.rec.Size()))
	}
	if err != nil {
		r.tree.leave(f.node)
		if out != nil {
			err = errors.Join(err, out.Close(), f.node.remove(f.part))
		}
		return err
	}
	f.out = out
	return nil
}

func (f *file) create() (*os.File, error) {
	f.part = partName(f.name, f.record)
	out, err := f.node.create(f.part)
	if errors.Is(err, fs.ErrExist) { // a run that was interrupted left it
		if err = f.node.remove(f.part); err == nil {
			out, err = f.node.create(f.part)
		}
	}
	return out, err
}

// write writes content at its place. Several pieces may be written at a time.
func (f *file) write(r *run, offset uint64, content []byte) error {
	if err := f.begin(r); err != nil {
		return err
	}
	for at, n := range f.layout.spans(offset, uint64(len(content))) {
		if _, err := f.out.WriteAt(content[:n], int64(at)); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// fail notes that a piece could not be had or written.
func (f *file) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *file) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// end finishes a file all of whose content is written, or gives it up.
func (r *run) end(ctx context.Context, f *file, err error) {
	if err == nil {
		err = context.Cause(ctx)
	}
	if f.out != nil {
		defer r.tree.leave(f.node)
		if err == nil {
			r.lose(f, metadata.Apply(f.out, &f.rec.Metadata, r.o.Metadata)...)
			if !syncsWhole {
				err = f.out.Sync()
			}
		}
		if cerr := f.out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = errors.Join(err, f.node.remove(f.part))
		} else {
			err = r.settle(f.node, f, f.part)
		}
	}
	r.release(f, err == nil)
	if err != nil {
		r.fail(ctx, f.want, string(f.rec.Name), err)
		return
	}
	r.done(f, int64(f.rec.Content.Size))
}

// contents fetches the content of files, in windows of bounded size: a part of a
// large file, or many small ones, in the order in which they are stored.
func (r *run) contents(ctx context.Context, files <-chan *file, opens chan<- func(*[]byte)) {
	var f *file // that has more than fitted
	for {
		w := window{pieces: make(map[vault.ObjectID][]piece)}
		for !w.crowded() {
			if f == nil {
				var more bool
				if f, more = <-files; !more {
					break
				}
				f.rest = []level{{f.rec.Content.Entries, f.rec.Content.Level}}
			}
			if r.take(ctx, &w, f) {
				f = nil
			}
		}
		if len(w.files) == 0 {
			return
		}
		r.load(ctx, &w, opens)
		if f != nil && len(f.rest) == 0 { // it failed
			f = nil
		}
	}
}

// A window is what is fetched at once.
type window struct {
	pieces map[vault.ObjectID][]piece // by the chunk that they are made of
	ids    []vault.ObjectID
	files  []*file
	opened int // of several chunks
	bytes  uint64
}

// A piece is a chunk's place in a file.
type piece struct {
	*file
	entry  vault.Entry
	offset uint64
}

// full says that no chunk more is taken, crowded that no file more is.
func (w *window) full() bool    { return len(w.ids) >= windowChunks || w.bytes >= windowBytes }
func (w *window) crowded() bool { return w.full() || w.opened >= windowFiles }

// take takes chunks of a file into a window and reports whether that is all of them.
func (r *run) take(ctx context.Context, w *window, f *file) bool {
	f.taken = f.next
	w.files = append(w.files, f)
	if f.several() {
		w.opened++
	}
	for full := false; len(f.rest) > 0; full = w.full() {
		top := &f.rest[len(f.rest)-1]
		if len(top.entries) == 0 {
			f.rest = f.rest[:len(f.rest)-1]
			continue
		}
		if full {
			return false
		}
		e := top.entries[0]
		top.entries = top.entries[1:]
		if top.number > 0 {
			list, err := r.list(ctx, e, top.number-1)
			if err != nil {
				f.fail(fmt.Errorf("bytes from %d on: %w", f.next, err))
				f.rest = nil
				return true
			}
			f.rest = append(f.rest, list)
			continue
		}
		if w.pieces[e.Ref] == nil {
			w.ids = append(w.ids, e.Ref)
			w.bytes += e.Size
		}
		w.pieces[e.Ref] = append(w.pieces[e.Ref], piece{f, e, f.next})
		f.next += e.Size
	}
	return true
}

// several reports whether the content is more than one chunk.
func (f *file) several() bool { return len(f.rec.Content.Entries) > 1 || f.rec.Content.Level > 0 }

// load fetches a window, has its chunks opened and written, and finishes the files
// that are complete with it.
func (r *run) load(ctx context.Context, w *window, opens chan<- func(*[]byte)) {
	if len(w.ids) > 0 {
		r.chunks(ctx, w, opens)
	}
	for _, f := range w.files {
		if ctx.Err() != nil || f.failed() != nil {
			f.rest = nil
		}
		f.hashed.Wait() // one after the other
		f.hashed.Add(1)
		from, to, last := f.taken, f.next, len(f.rest) == 0
		opens <- func(plain *[]byte) {
			defer f.hashed.Done()
			r.check(ctx, f, from, to, last, plain)
		}
	}
}

// chunks fetches the chunks of a window and waits until they are written.
func (r *run) chunks(ctx context.Context, w *window, opens chan<- func(*[]byte)) {
	var opening sync.WaitGroup
	for o, err := range r.src.Get(ctx, w.ids) {
		pieces, wanted := w.pieces[o.ID]
		switch {
		case err != nil && (!wanted || !gone(err)):
			r.stop(fmt.Errorf("fetch content: %w", err))
		case err != nil:
			for _, p := range pieces {
				p.fail(p.at(err))
			}
		case wanted:
			slot := <-r.slots
			*slot = append((*slot)[:0], o.Data...)
			opening.Add(1)
			opens <- func(plain *[]byte) {
				defer opening.Done()
				r.place(ctx, pieces, *slot, plain)
				r.slots <- slot
			}
		}
		delete(w.pieces, o.ID)
	}
	opening.Wait()
	for _, pieces := range w.pieces {
		for _, p := range pieces {
			p.fail(p.at(vault.ErrMissing))
		}
	}
}

// at says which bytes of the file an error is about.
func (p piece) at(err error) error {
	return &vault.PieceError{ID: p.entry.Ref, Offset: p.offset, Size: p.entry.Size, Err: err}
}

// place opens a chunk and writes it everywhere it belongs.
func (r *run) place(ctx context.Context, pieces []piece, object []byte, plain *[]byte) {
	out, h, err := r.keys.Open((*plain)[:0], object)
	var hash vault.Hash
	if err == nil {
		*plain = out
		hash = r.keys.Hash(out)
	}
	for _, p := range pieces {
		err := err
		switch {
		case err != nil:
		case h.Type != vault.TypeChunk || hash != p.entry.Hash || uint64(len(out)) != p.entry.Size:
			err = fmt.Errorf("%w: it is another %v", vault.ErrContent, h.Type)
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		if err != nil {
			p.fail(p.at(err))
		} else if err = p.write(r, p.offset, out); err != nil {
			p.fail(err)
		}
		r.meter.add(0, int64(p.entry.Size), 0, false)
	}
}

// check reads back what a window wrote of a file for the hash of all of it, and
// with the last ends the file. A single chunk has its own hash.
func (r *run) check(ctx context.Context, f *file, from, to uint64, last bool, buf *[]byte) {
	err := f.failed()
	if err == nil && f.several() {
		err = f.hash(from, to, buf)
		if sum := f.rec.Content.Sum; err == nil && last && (sum == nil || !bytes.Equal(f.sum.Sum(nil), sum[:])) {
			err = fmt.Errorf("%w: all its pieces are right, but its SHA-256 is not the one recorded", vault.ErrContent)
		}
		if err != nil {
			f.fail(err)
		}
	}
	if last {
		r.end(ctx, f, err)
	}
}

func (f *file) hash(from, to uint64, buf *[]byte) error {
	if f.sum == nil {
		f.sum = sha256.New()
	}
	if cap(*buf) < readSize {
		*buf = make([]byte, readSize)
	}
	for at, n := range f.layout.spans(from, to-from) {
		section := io.NewSectionReader(f.out, int64(at), int64(n))
		if copied, err := io.CopyBuffer(struct{ io.Writer }{f.sum}, section, (*buf)[:readSize]); err != nil {
			return err
		} else if copied != int64(n) {
			return fmt.Errorf("read back: %w", io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// list fetches the list that e refers to, whose entries are of a level.
func (r *run) list(ctx context.Context, e vault.Entry, number uint8) (level, error) {
	for o, err := range r.src.Get(ctx, []vault.ObjectID{e.Ref}) {
		if err == nil {
			var entries []vault.Entry
			if entries, err = r.keys.OpenList(o.Data, e, number); err == nil {
				return level{entries, number}, nil
			}
		}
		if !gone(err) {
			r.stop(fmt.Errorf("fetch content: %w", err))
		}
		return level{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return level{}, err
	}
	return level{}, vault.ErrMissing
}

// same reports whether what stands at a name is already what rec says.
func (r *run) same(n *node, name string, at facts.Facts, rec *vault.Record) bool {
	switch rec.Type {
	case vault.TypeSymlink:
		target, err := n.readlink(name)
		return at.Type == facts.Symlink && err == nil && target == string(rec.Target)
	case vault.TypeFIFO:
		return at.Type == facts.FIFO
	case vault.TypeCharDevice:
		return at.Type == facts.CharDevice
	case vault.TypeBlockDevice:
		return at.Type == facts.BlockDevice
	case vault.TypeFile:
	default:
		return false
	}
	if at.Type != facts.Regular || uint64(at.Size) != rec.Size() {
		return false
	}
	// Windows counts time in hundreds of nanoseconds.
	if !rec.ModTime.IsZero() && at.MTime/100 == rec.ModTime.UnixNano()/100 && (rec.Mode == nil || (at.Mode^*rec.Mode)&modeBits == 0) {
		return true
	}
	return !r.o.Overwrite && r.sameContent(n, name, &rec.Content, rec.Holes)
}

// sameContent compares a file that stands there with content of one list. One that
// cannot be read is another.
func (r *run) sameContent(n *node, name string, c *vault.Content, holes []vault.Hole) bool {
	if c.Level > 0 || len(holes) > 0 {
		return false
	}
	f, err := n.read(name)
	if err != nil {
		return false
	}
	defer f.Close()
	if len(c.Entries) == 0 {
		got, err := io.ReadAll(io.LimitReader(f, int64(c.Size)+1))
		return err == nil && bytes.Equal(got, c.Inline)
	}
	for _, e := range c.Entries {
		buf := make([]byte, e.Size)
		if _, err := io.ReadFull(f, buf); err != nil || r.keys.Hash(buf) != e.Hash {
			return false
		}
	}
	return true
}

// A layout says where content lies in a file with holes. The zero value has none.
type layout struct {
	holes []vault.Hole
	// starts are the places in the content where the holes are.
	starts []uint64
}

func newLayout(holes []vault.Hole) layout {
	l := layout{holes, make([]uint64, len(holes))}
	before := uint64(0)
	for i, h := range holes {
		l.starts[i] = h.Offset - before
		before += h.Length
	}
	return l
}

// spans yields where n bytes of content from an offset on lie in the file: offset
// and length of each part without a hole.
func (l layout) spans(offset, n uint64) iter.Seq2[uint64, uint64] {
	return func(yield func(at, n uint64) bool) {
		i := sort.Search(len(l.starts), func(i int) bool { return l.starts[i] > offset })
		for n > 0 {
			at, part := offset, n
			if i > 0 { // behind hole i-1
				at = l.holes[i-1].Offset + l.holes[i-1].Length + (offset - l.starts[i-1])
			}
			if i < len(l.starts) {
				part = min(n, l.starts[i]-offset)
			}
			if !yield(at, part) {
				return
			}
			offset += part
			n -= part
			i++
		}
	}
}
