package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Object is a sealed object and its id.
type Object struct {
	ID   ObjectID
	Data []byte
}

// Fetch yields the sealed objects with the ids in any order, each once. An object
// that cannot be had is yielded with its ID and the error. Data is valid until
// the next step.
type Fetch func(ctx context.Context, ids []ObjectID) iter.Seq2[Object, error]

// ReadContent writes the bytes that c describes to w, in order, fetching objects
// in batches of bounded size. Every object is opened, and its type, length and
// hash are compared with what refers to it, before a byte of it reaches w.
//
// Errors are a [*PieceError] for an object that is missing (ErrMissing or the
// fetcher's error) or damaged (ErrCorrupt), else w's or ctx's. What reached w
// before is right. Only if c.Sum is stated and all of it has another hash, an
// [ErrContent] that is no PieceError comes at the end: then nothing is.
func (k *Keyring) ReadContent(ctx context.Context, w io.Writer, c Content, fetch Fetch) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	if len(c.Entries) == 0 {
		_, err := w.Write(c.Inline)
		return err
	}
	r := contentReader{keys: k, w: w, fetch: fetch, buf: plainBuffers.Get().(*[]byte)}
	defer func() { plainBuffers.Put(r.buf) }()
	if c.Sum == nil {
		return r.read(ctx, c)
	}
	sum := sha256.New()
	r.w = io.MultiWriter(w, sum)
	if err := r.read(ctx, c); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), c.Sum[:]) {
		return fmt.Errorf("read content: %w: all its pieces are right, but its SHA-256 is not the one recorded", ErrContent)
	}
	return nil
}

// Bounds of one batch: its plaintext is held in memory at once.
const (
	batchBytes  = MaxPlaintext
	batchPieces = 64
)

// contentReader reads the pieces of a content in batches.
type contentReader struct {
	keys   *Keyring
	w      io.Writer
	fetch  Fetch
	buf    *[]byte
	offset uint64
}

// read writes the content of a list, or of a whole file, and moves offset on.
func (r *contentReader) read(ctx context.Context, c Content) error {
	for rest := c.Entries; len(rest) > 0; {
		if c.Level > 0 {
			list, err := r.list(ctx, c.Level-1, rest[0])
			if err != nil {
				return err
			}
			if err := r.read(ctx, list); err != nil {
				return err
			}
			rest = rest[1:]
			continue
		}
		n, size := 0, 0
		for n < min(len(rest), batchPieces) && (n == 0 || size+int(rest[n].Size) <= batchBytes) {
			size += int(rest[n].Size)
			n++
		}
		if err := r.chunks(ctx, rest[:n], size); err != nil {
			return err
		}
		if _, err := r.w.Write(*r.buf); err != nil {
			return err
		}
		r.offset += uint64(size)
		rest = rest[n:]
	}
	return nil
}

// list fetches and opens the list that e refers to.
func (r *contentReader) list(ctx context.Context, level uint8, e Entry) (Content, error) {
	var c Content
	err := r.each(ctx, []Entry{e}, func(_ int, object []byte) error {
		entries, err := r.keys.OpenList(object, e, level)
		c = Content{Size: e.Size, Level: level, Entries: entries}
		return err
	})
	return c, err
}

// OpenList opens the chunk list that e refers to and returns its entries, which are of
// a level (SPEC.md, "Chunk lists"). Errors: those of [Keyring.Open], and others of the
// class [ErrCorrupt].
func (k *Keyring) OpenList(object []byte, e Entry, level uint8) ([]Entry, error) {
	plaintext, h, err := k.openEntry(nil, object, TypeList, e)
	if err != nil {
		return nil, err
	}
	c, err := parseList(plaintext, h.Refs, e.Size)
	if err == nil && c.Level != level {
		err = fmt.Errorf("%w: list of level %d, want %d", ErrContent, c.Level, level)
	}
	return c.Entries, err
}

// chunks fetches and opens the chunks of a batch, size bytes together, into buf.
func (r *contentReader) chunks(ctx context.Context, batch []Entry, size int) error {
	*r.buf = slices.Grow((*r.buf)[:0], size)[:size]
	return r.each(ctx, batch, func(i int, object []byte) error {
		at := 0
		for _, e := range batch[:i] {
			at += int(e.Size)
		}
		e := batch[i]
		plaintext, _, err := r.keys.openEntry((*r.buf)[at:at:at+int(e.Size)], object, TypeChunk, e)
		if err == nil && uint64(len(plaintext)) != e.Size {
			err = fmt.Errorf("%w: chunk of %d bytes, want %d", ErrContent, len(plaintext), e.Size)
		}
		return err
	})
}

// openEntry opens an object and checks that it is the one that e refers to.
func (k *Keyring) openEntry(dst, object []byte, want Type, e Entry) ([]byte, Header, error) {
	plaintext, h, err := k.Open(dst, object)
	if err != nil {
		return nil, h, err
	}
	if h.Type != want || k.Hash(plaintext) != e.Hash {
		return nil, h, fmt.Errorf("%w: it is another %v", ErrContent, h.Type)
	}
	return plaintext, h, nil
}

// each fetches the objects that a batch refers to and calls f for every index
// once, in the order in which they come.
func (r *contentReader) each(ctx context.Context, batch []Entry, f func(i int, object []byte) error) error {
	indexes := make(map[ObjectID][]int, len(batch)) // of the entries still to be had
	ids := make([]ObjectID, 0, len(batch))
	for i, e := range batch {
		if indexes[e.Ref] == nil {
			ids = append(ids, e.Ref)
		}
		indexes[e.Ref] = append(indexes[e.Ref], i)
	}
	for o, err := range r.fetch(ctx, ids) {
		at, wanted := indexes[o.ID]
		if !wanted {
			if err != nil {
				return fmt.Errorf("fetch content: %w", err)
			}
			continue
		}
		for _, i := range at {
			if err == nil {
				err = f(i, o.Data)
			}
			if err != nil {
				return r.fail(batch, i, err)
			}
		}
		delete(indexes, o.ID)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for i, e := range batch {
		if indexes[e.Ref] != nil {
			return r.fail(batch, i, ErrMissing)
		}
	}
	return nil
}

func (r *contentReader) fail(batch []Entry, i int, err error) error {
	p := &PieceError{ID: batch[i].Ref, Offset: r.offset, Size: batch[i].Size, Err: err}
	for _, e := range batch[:i] {
		p.Offset += e.Size
	}
	return p
}

// PieceError says which piece of a file could not be read.
type PieceError struct {
	ID ObjectID
	// Offset and Size are the bytes of the file that the object stands for.
	Offset, Size uint64
	Err          error
}

func (e *PieceError) Error() string {
	return fmt.Sprintf("bytes %d to %d, object %v: %v", e.Offset, e.Offset+e.Size, e.ID, e.Err)
}

func (e *PieceError) Unwrap() error { return e.Err }
