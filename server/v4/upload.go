package v4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

const (
	// flushBytes is from when on the objects of a PUT are stored while others still
	// come: enough for the store to be quick, little to hold.
	flushBytes = 2 << 20
	// growBytes is by how much a claim grows at least.
	growBytes = 64 << 10
)

// upload is the objects of a PUT or COMMIT as they come.
type upload struct {
	*claim
	q       *request
	objects *wire.ObjectReader
	in      sizes
	used    int // bytes of the claim, for the credit and objects that are held
}

// upload begins to take objects, no more at once than most bytes.
func (q *request) upload(ctx context.Context, most, maxObjects int) (*upload, error) {
	c, err := q.s.uploads.enter(ctx, q.id, credit, credit+most, q.tooSlow)
	if err != nil {
		return nil, err
	}
	u := &upload{claim: c, q: q, in: sizes{r: q.Request}, used: credit}
	u.objects = wire.NewObjectReader(&u.in, maxObjects, wire.MaxPutBytes)
	return u, nil
}

// next returns the next object, io.EOF after the last. When there is no room for it,
// flush makes some, or is nil, and next waits.
func (u *upload) next(ctx context.Context, flush func() error) ([]byte, error) {
	n, err := u.in.size()
	if err != nil {
		return nil, err
	}
	if err := u.room(ctx, n, flush); err != nil {
		return nil, err
	}
	u.used += n
	object, err := u.objects.Next(make([]byte, 0, n))
	u.q.s.counters.bytesIn.Add(int64(len(object)))
	return object, err
}

// room makes the claim large enough for n bytes more.
func (u *upload) room(ctx context.Context, n int, flush func() error) error {
	for {
		need, left := u.used+n-u.held, u.most-u.held
		switch {
		case need <= 0, need <= left && u.try(min(max(need, growBytes), left)):
			return nil
		case flush != nil && u.used > credit:
			if err := flush(); err != nil {
				return err
			}
		case need > left:
			return fmt.Errorf("%w: objects of more than %d bytes", wire.ErrTooLarge, wire.MaxPutBytes)
		default:
			return u.grow(ctx, need)
		}
	}
}

// stored says that no object is held any more.
func (u *upload) stored() {
	u.shrink(u.held - credit)
	u.used = credit
}

// sizes tells the size of the next object before it is read: memory is claimed first.
type sizes struct {
	r    io.Reader
	head [4]byte
	left []byte // of head
}

// size returns the size of the object that follows, as far as one can be; the object
// reader judges it. It is io.EOF after the last.
func (s *sizes) size() (int, error) {
	n, err := io.ReadFull(s.r, s.head[:])
	s.left = s.head[:n]
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	return int(min(int64(binary.LittleEndian.Uint32(s.head[:])), int64(vault.MaxObject))), nil
}

func (s *sizes) Read(p []byte) (int, error) {
	if len(s.left) > 0 {
		n := copy(p, s.left)
		s.left = s.left[n:]
		return n, nil
	}
	return s.r.Read(p)
}

// put stores objects. They are stored while others still come; so an error leaves any
// subset, and what is there is not sent again.
func (q *request) put(ctx context.Context) error {
	if err := wire.ParseEmpty(q.Body); err != nil {
		return err
	}
	u, err := q.upload(ctx, flushBytes+vault.MaxObject, wire.MaxPutObjects)
	if err != nil {
		return err
	}
	defer u.leave()
	var batch [][]byte
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if _, err := q.s.o.Store.Put(ctx, q.vault, batch...); err != nil {
			return q.s.lacks(ctx, q.vault, batch, nil, err)
		}
		clear(batch)
		batch = batch[:0]
		u.stored()
		return nil
	}
	for {
		object, err := u.next(ctx, flush)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		batch = append(batch, object)
		if u.used >= credit+flushBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return q.Answer(wire.AppendEmpty(nil))
}

// commit appends to the device's history.
func (q *request) commit(ctx context.Context) error {
	m, err := wire.ParseCommitRequest(q.Body)
	if err != nil {
		return err
	}
	c, err := vault.OpenCommit(q.vault, m.Commit, q.client.Device.Sign)
	switch {
	case errors.Is(err, vault.ErrSignature):
		return fmt.Errorf("%w: %w", wire.ErrForbidden, err)
	case err != nil:
		return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	case c.Device != q.id:
		return fmt.Errorf("%w: commit of device %v", wire.ErrForbidden, c.Device)
	}
	// What can be refused is, before the objects are taken.
	if err := q.allows(q.members.Now(), c); err != nil {
		return err
	}
	head, err := q.s.o.Store.Head(ctx, q.vault, q.id)
	if err != nil {
		return err
	}
	if err := follows(c, head); err != nil {
		return err
	}
	u, err := q.upload(ctx, wire.MaxPutBytes, wire.MaxCommitObjects)
	if err != nil {
		return err
	}
	defer u.leave()
	var objects [][]byte
	var records []vault.ObjectID
	for {
		object, err := u.next(ctx, nil)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		objects = append(objects, object)
		h, _, err := vault.ParseHeader(object)
		if err != nil {
			return fmt.Errorf("%w: object %d: %w", wire.ErrMalformed, len(objects)-1, err)
		}
		if h.Record == nil {
			continue
		}
		switch h.Record.Op { // whose it is the store looks at
		case vault.OpPut, vault.OpDelete, vault.OpOutOfScope:
		default:
			return fmt.Errorf("%w: record with operation %d", wire.ErrMalformed, h.Record.Op)
		}
		records = append(records, vault.Identify(object))
	}
	if len(records) != c.Count || vault.RecordsRoot(records) != c.Root {
		return fmt.Errorf("%w: the %d records that came are not the %d that the commit states", wire.ErrMalformed, len(records), c.Count)
	}
	hash := vault.HashCommit(m.Commit)
	var stamp []byte
	err = q.members.While(func(log *vault.Members) error {
		if err := q.allows(log, c); err != nil {
			return err
		}
		_, stamp, err = q.s.o.Store.Commit(ctx, storage.Commit{
			Vault: q.vault, Device: q.id, After: head.Seq, Seq: c.Seq,
			Objects: objects, Records: records, Digest: &c.Digest, Body: m.Commit,
			Stamp: func(at time.Time) []byte { return vault.SignStamp(q.vault, hash, at, q.s.o.Key) },
		})
		return err
	})
	if err != nil {
		return q.s.lacks(ctx, q.vault, objects, records, err)
	}
	q.s.counters.commits.Add(1)
	return q.Answer(wire.CommitAnswer{Stamp: stamp}.Append(nil))
}

// allows says whether a commit can be taken as far as the clock and the membership
// go.
func (q *request) allows(log *vault.Members, c vault.Commit) error {
	if err := q.s.o.Clock.Trusted(); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrClock, err)
	}
	what, err := standingIn(log, q.id)
	switch {
	case err != nil:
		return err
	case what != member:
		return fmt.Errorf("%w: the device is no member", wire.ErrForbidden)
	case c.Members != log.Head():
		return fmt.Errorf("%w: the commit names %v, the head is %v", wire.ErrStaleMembers, c.Members, log.Head())
	}
	return nil
}

// follows says whether a commit follows the newest one, which it names in key 13 if
// that is not the one before it.
func follows(c vault.Commit, head storage.Head) error {
	after := vault.Position{Seq: c.Seq - 1, Hash: c.Prev}
	if c.After != nil {
		after = *c.After
	}
	if after.Seq != head.Seq || head.Seq > 0 && *after.Hash != vault.HashCommit(head.Body) {
		return fmt.Errorf("%w: commit %d follows number %d, the newest is %d", wire.ErrConflict, c.Seq, after.Seq, head.Seq)
	}
	return nil
}

// lacks adds to an error of the store that says so which objects are missing: those
// that objects refer to and that are neither stored nor before them.
func (s *Server) lacks(ctx context.Context, v vault.ID, objects [][]byte, records []vault.ObjectID, err error) error {
	if !errors.Is(err, storage.ErrMissingRef) {
		return err
	}
	e := &wire.Error{Code: wire.CodeMissingRefs, Text: wire.ErrMissingRefs.Error()}
	before := make(map[vault.ObjectID]bool, len(objects))
	asked := make(map[vault.ObjectID]bool)
	page := make([]vault.ObjectID, 0, wire.MaxIDs)
	ask := func() error {
		has, err := s.o.Store.Has(ctx, v, page)
		for i := range has {
			if !has[i] && len(e.IDs) < wire.MaxIDs {
				e.IDs = append(e.IDs, page[i])
			}
		}
		page = page[:0]
		clear(asked)
		for _, id := range e.IDs { // once is enough
			asked[id] = true
		}
		return err
	}
	for _, object := range objects {
		h, _, err := vault.ParseHeader(object)
		if err != nil {
			return err
		}
		for _, id := range h.Refs {
			if before[id] || asked[id] {
				continue
			}
			asked[id] = true
			if page = append(page, id); len(page) == cap(page) {
				if err := ask(); err != nil {
					return err
				}
			}
		}
		before[vault.Identify(object)] = true
	}
	if err := ask(); err != nil {
		return err
	}
	return e
}
