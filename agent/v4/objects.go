package v4

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Have says for each id, in order, whether the server has the object. It takes any
// number of ids. It is a hint: an object may be gone until a commit refers to it.
func (s *Session) Have(ctx context.Context, ids []vault.ObjectID) ([]bool, error) {
	have := make([]bool, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), wire.MaxIDs)
		err := s.ask(ctx, wire.TypeHave, wire.IDsRequest{IDs: ids[:n]}.Append(nil), func(body []byte) error {
			a, err := wire.ParseHaveAnswer(body)
			if err == nil && len(a.Have) != n {
				err = fmt.Errorf("%w: %d answers for %d objects", wire.ErrMalformed, len(a.Have), n)
			}
			have = append(have, a.Have...)
			return err
		})
		if err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return have, nil
}

// Put stores objects, those that others refer to first. They are durable when it
// returns. The objects must not change until then.
//
// Errors: [wire.ErrTooLarge] for more than wire.MaxPutObjects objects or
// wire.MaxPutBytes bytes of them, before anything is sent; [wire.ErrMissingRefs] and
// what else the server answers.
func (s *Session) Put(ctx context.Context, objects ...[]byte) error {
	return s.send(ctx, wire.TypePut, wire.AppendEmpty(nil), objects, wire.MaxPutObjects, wire.ParseEmpty)
}

// Commit stores a signed commit with objects, among which its records are, in order.
// They are durable when it returns with the server's stamp, which has not been
// verified.
//
// Errors: [wire.ErrTooLarge] for more than wire.MaxCommitObjects objects or
// wire.MaxPutBytes bytes of them, before anything is sent; [wire.ErrConflict],
// [wire.ErrMissingRefs], [wire.ErrDigest], [wire.ErrStaleMembers] and what else the
// server answers.
func (s *Session) Commit(ctx context.Context, commit []byte, objects [][]byte) (stamp []byte, err error) {
	request := wire.CommitRequest{Commit: commit}.Append(nil)
	err = s.send(ctx, wire.TypeCommit, request, objects, wire.MaxCommitObjects, func(body []byte) error {
		a, err := wire.ParseCommitAnswer(body)
		stamp = bytes.Clone(a.Stamp)
		return err
	})
	return stamp, err
}

func (s *Session) send(ctx context.Context, verb wire.Type, request []byte, objects [][]byte, most int, parse func([]byte) error) error {
	bytes := 0
	for _, o := range objects {
		bytes += len(o)
	}
	if len(objects) > most || bytes > wire.MaxPutBytes {
		return fmt.Errorf("%v: %w: %d objects of %d bytes", verb, wire.ErrTooLarge, len(objects), bytes)
	}
	st, err := s.mux.Open(ctx, verb, request, true)
	if err != nil {
		return fmt.Errorf("%v: %w", verb, err)
	}
	defer st.Close()
	unsent := sendObjects(st, objects)
	// If the server did not want all of it, its answer says why.
	if err := only(verb, st, parse); err != nil {
		return err
	}
	if unsent != nil {
		return fmt.Errorf("%v: %w", verb, unsent)
	}
	return nil
}

func sendObjects(st interface {
	io.Writer
	CloseWrite() error
}, objects [][]byte) error {
	var head [4]byte
	for _, o := range objects {
		if _, err := st.Write(wire.AppendObjectHead(head[:0], len(o))); err != nil {
			return err
		}
		if _, err := st.Write(o); err != nil {
			return err
		}
	}
	return st.CloseWrite()
}

const (
	// getRequests is how many requests one Get has under way: their objects are
	// hashed side by side, and no answer waits for the consumer of another.
	getRequests = 4
	// getBuffers is how many objects one Get holds.
	getBuffers = getRequests + 2
)

// Get yields the objects with the ids in any order, each once, and every one but a
// chunk with the bytes of its id. A chunk is told from another by who opens it: what
// refers to it states a keyed hash of its plaintext, too, and hashing it here as well
// would be a tenth of what restoring it costs. It implements [vault.Fetch] and takes
// any number of ids. Data is valid until the next step.
//
// An object that does not come is yielded with its id and an error: wrapping
// [vault.ErrMissing] if the server does not have it, [vault.ErrCorrupt] if what it has
// is damaged or other bytes came, else what ended the request, as every other object
// of it is.
func (s *Session) Get(ctx context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		ids := unique(ids)
		size := min(max((len(ids)+getRequests-1)/getRequests, 1), wire.MaxIDs)
		batches := make(chan []vault.ObjectID, len(ids)/size+1)
		for ; len(ids) > 0; ids = ids[min(size, len(ids)):] {
			batches <- ids[:min(size, len(ids))]
		}
		close(batches)

		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		g := getter{s: s, stop: make(chan struct{}), out: make(chan got), free: make(chan []byte, getBuffers)}
		defer close(g.stop)
		for range getBuffers {
			g.free <- nil
		}
		var workers sync.WaitGroup
		for range min(getRequests, len(batches)) {
			workers.Go(func() {
				for batch := range batches {
					g.batch(ctx, batch)
				}
			})
		}
		wg.Go(func() {
			workers.Wait()
			close(g.out)
		})
		for o := range g.out {
			more := yield(o.Object, o.err)
			if o.buf != nil {
				g.free <- o.buf
			}
			if !more {
				return
			}
		}
	}
}

func unique(ids []vault.ObjectID) []vault.ObjectID {
	seen := make(map[vault.ObjectID]struct{}, len(ids))
	out := make([]vault.ObjectID, 0, len(ids))
	for _, id := range ids {
		if _, ok := seen[id]; !ok {
			seen[id] = struct{}{}
			out = append(out, id)
		}
	}
	return out
}

// got is what one step of Get yields; buf is the memory of the object, to be given
// back.
type got struct {
	vault.Object
	err error
	buf []byte
}

// getter is what the requests of one Get share.
type getter struct {
	s    *Session
	stop chan struct{} // closed when nothing more is yielded
	out  chan got
	free chan []byte
}

// give hands an object or error to the consumer; false if there is none any more.
func (g *getter) give(o got) bool {
	select {
	case g.out <- o:
		return true
	case <-g.stop:
		return false
	}
}

// batch gets the objects of one request, and gives each of them or its error.
func (g *getter) batch(ctx context.Context, ids []vault.ObjectID) {
	left := make(map[vault.ObjectID]struct{}, len(ids))
	for _, id := range ids {
		left[id] = struct{}{}
	}
	err := g.request(ctx, ids, left)
	for id := range left {
		if !g.give(got{Object: vault.Object{ID: id}, err: fmt.Errorf("%v of object %v: %w", wire.TypeGet, id, err)}) {
			return
		}
	}
}

// request gives what comes and takes it out of left. The error is for the others.
func (g *getter) request(ctx context.Context, ids []vault.ObjectID, left map[vault.ObjectID]struct{}) error {
	st, err := g.s.mux.Open(ctx, wire.TypeGet, wire.IDsRequest{IDs: ids}.Append(nil), false)
	if err != nil {
		return err
	}
	defer st.Close()
	body, err := st.Message()
	if err == nil {
		err = wire.ParseEmpty(body)
	}
	if err != nil {
		return ended(err)
	}
	r := wire.NewGotReader(st)
	for {
		var buf []byte
		select {
		case buf = <-g.free:
		case <-g.stop:
			return nil
		}
		o, state, err := r.Next(buf[:0])
		if cap(o.Data) > cap(buf) {
			buf = o.Data
		}
		if err != nil {
			g.free <- buf
			return ended(err)
		}
		if _, ok := left[o.ID]; !ok {
			g.free <- buf
			return fmt.Errorf("%w: object %v, not asked for or sent before", wire.ErrMalformed, o.ID)
		}
		delete(left, o.ID)
		switch {
		case state == wire.Missing:
			err = fmt.Errorf("object %v: %w", o.ID, vault.ErrMissing)
		case state == wire.Damaged:
			err = fmt.Errorf("object %v: %w on the server", o.ID, vault.ErrCorrupt)
		case !chunk(o.Data) && vault.Identify(o.Data) != o.ID:
			err = fmt.Errorf("object %v: %w: the server sent other bytes", o.ID, vault.ErrCorrupt)
			o.Data = nil
		}
		if buf == nil {
			buf = []byte{} // to be told from an error without one
		}
		if !g.give(got{o, err, buf}) {
			return nil
		}
	}
}

func chunk(object []byte) bool {
	h, _, err := vault.ParseHeader(object)
	return err == nil && h.Type == vault.TypeChunk
}

// ended is the error of an answer that ends where it should not.
func ended(err error) error {
	if err == io.EOF {
		return fmt.Errorf("%w: the answer ends before all objects have come", wire.ErrMalformed)
	}
	return err
}
