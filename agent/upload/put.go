package upload

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"backstay/agent/catalog"
	"backstay/internal/backoff"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

const (
	// A batch of objects is sent when it has batchBytes, or nothing was added
	// for batchTime; batches are under way at a time.
	batchBytes   = 2 << 20
	batchObjects = 2048
	batchTime    = 5 * time.Millisecond
	batches      = 4
	// askBytes is the size from which a batch is worth asking whether the server
	// has it already.
	askBytes = 64 << 10
	// noteChunks is how many chunks may be on the server without the catalog
	// knowing: after a crash the server is asked about them.
	noteChunks = 512
)

// putter sends objects in batches, several at a time. It is safe for concurrent
// use.
type putter struct {
	session Session
	catalog *catalog.Destination
	// hold is Options.Hold.
	hold func(context.Context) error
	// ask: the server may hold objects that the catalog does not know of.
	ask bool
	// noted are the chunks in the catalog, if it had none when the session began:
	// asking it for every chunk of a first pass would cost more than it finds.
	noted *filter
	// slots holds a token for each batch that is being sent.
	slots   chan struct{}
	ctx     context.Context
	cancel  context.CancelCauseFunc
	sending sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	cur    *batch
	// recent are chunks that the catalog does not have yet, by hash.
	recent map[vault.Hash]recent
}

type recent struct {
	chunk catalog.Chunk
	batch *batch
}

// batch is a set of objects that is sent in one request.
type batch struct {
	objects [][]byte
	// room is where the objects lie that fit into it.
	room  *[batchBytes]byte
	ids   []vault.ObjectID
	size  int
	timer *time.Timer
	done  chan struct{}
	err   error
}

// wait waits until the server has the batch.
func (b *batch) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// newPutter returns a putter. ask says that the server, and the catalog, may hold
// chunks already.
func newPutter(ctx context.Context, s Session, c *catalog.Destination, hold func(context.Context) error, ask bool) *putter {
	p := &putter{session: s, catalog: c, hold: hold, ask: ask, slots: make(chan struct{}, batches), recent: map[vault.Hash]recent{}}
	if !ask {
		p.noted = &filter{}
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// known looks a chunk up that is on the server or on its way. The batch, if there
// is one, has to be waited for.
func (p *putter) known(ctx context.Context, hash vault.Hash, size int) (vault.ObjectID, *batch, bool, error) {
	p.mu.Lock()
	r, ok := p.recent[hash]
	p.mu.Unlock()
	if ok && r.chunk.Size == size {
		return r.chunk.ID, r.batch, true, nil
	}
	if p.noted != nil && !p.noted.has(hash) {
		return vault.ObjectID{}, nil, false, nil
	}
	id, ok, err := p.catalog.Chunk(ctx, hash, size)
	return id, nil, ok, err
}

// filter is a set of hashes that may say of one too many that it is in it. The
// hashes are a secret function's, so their bits are as good as random.
type filter struct {
	mu   sync.Mutex // guards bits
	bits [1 << 17]uint64
}

func (f *filter) has(h vault.Hash) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; i < 12; i += 4 {
		if b := binary.LittleEndian.Uint32(h[i:]) % (64 << 17); f.bits[b/64]&(1<<(b%64)) == 0 {
			return false
		}
	}
	return true
}

func (f *filter) add(h vault.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; i < 12; i += 4 {
		b := binary.LittleEndian.Uint32(h[i:]) % (64 << 17)
		f.bits[b/64] |= 1 << (b % 64)
	}
}

// add adds a copy of an object and returns the batch it goes with. It blocks while
// too much is under way.
func (p *putter) add(ctx context.Context, object []byte, id vault.ObjectID) (*batch, error) {
	p.mu.Lock()
	if p.cur != nil && (p.cur.size+len(object) > batchBytes && p.cur.size > 0 || len(p.cur.objects) == batchObjects) {
		b := p.take(p.cur)
		p.mu.Unlock()
		if err := p.send(ctx, b); err != nil {
			return nil, err
		}
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	if p.cur == nil {
		b := &batch{done: make(chan struct{})}
		b.timer = time.AfterFunc(batchTime, func() {
			p.mu.Lock()
			mine := p.take(b)
			p.mu.Unlock()
			if mine != nil {
				_ = p.send(p.ctx, mine) // the batch carries the error
			}
		})
		p.cur = b
	}
	b := p.cur
	b.timer.Reset(batchTime)
	if !slices.Contains(b.ids, id) {
		b.keep(object, id)
	}
	return b, nil
}

// rooms are the memory of batches, which is used again and again.
var rooms = sync.Pool{New: func() any { return new([batchBytes]byte) }}

// keep adds a copy of an object. Not every one has room: a chunk may be larger than a
// batch, and while one batch was sent another goroutine may have begun the next.
func (b *batch) keep(object []byte, id vault.ObjectID) {
	at, end := b.size, b.size+len(object)
	if end > batchBytes {
		object = slices.Clone(object)
	} else {
		if b.room == nil {
			b.room = rooms.Get().(*[batchBytes]byte)
		}
		copy(b.room[at:end], object)
		object = b.room[at:end]
	}
	b.objects, b.ids, b.size = append(b.objects, object), append(b.ids, id), end
}

// take makes b the caller's to send, if nobody has taken it. The caller holds mu.
func (p *putter) take(b *batch) *batch {
	if b == nil || p.cur != b {
		return nil
	}
	b.timer.Stop()
	p.cur = nil
	return b
}

// flush sends what is gathered.
func (p *putter) flush(ctx context.Context) error {
	p.mu.Lock()
	b := p.take(p.cur)
	p.mu.Unlock()
	return p.send(ctx, b)
}

// send starts sending a batch when there is room.
func (p *putter) send(ctx context.Context, b *batch) error {
	if b == nil {
		return nil
	}
	fail := func(err error) error {
		b.err = err
		close(b.done)
		return err
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	case <-p.ctx.Done():
		return fail(context.Cause(p.ctx))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		<-p.slots
		return fail(errClosed)
	}
	p.sending.Go(func() {
		defer func() { <-p.slots }()
		defer close(b.done)
		b.err = p.transfer(b)
		b.objects, b.ids = nil, nil
		if b.room != nil {
			rooms.Put(b.room)
			b.room = nil
		}
	})
	return nil
}

// transfer sends a batch in an order that says nothing about a file's.
func (p *putter) transfer(b *batch) error {
	if err := p.hold(p.ctx); err != nil {
		return err
	}
	rand.Shuffle(len(b.ids), func(i, j int) {
		b.ids[i], b.ids[j] = b.ids[j], b.ids[i]
		b.objects[i], b.objects[j] = b.objects[j], b.objects[i]
	})
	if p.ask && b.size >= askBytes {
		var have []bool
		err := whileBusy(p.ctx, func() (err error) {
			have, err = p.session.Have(p.ctx, b.ids)
			return err
		})
		if err != nil {
			return err
		}
		var missing [][]byte
		for i, ok := range have {
			if !ok {
				missing = append(missing, b.objects[i])
			}
		}
		b.objects = missing
	}
	if len(b.objects) == 0 {
		return nil
	}
	return whileBusy(p.ctx, func() error { return p.session.Put(p.ctx, b.objects...) })
}

// busyTries is how often a request is made of a server that is busy before the
// session is given up, and with it what waits for it.
const busyTries = 12

// whileBusy makes a request again, after a while, as long as the server has too much
// to do.
func whileBusy(ctx context.Context, request func() error) error {
	wait := backoff.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	for n := 1; ; n++ {
		err := request()
		if !errors.Is(err, v4.ErrBusy) || n == busyTries {
			return err
		}
		select {
		case <-time.After(wait.Next()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stored notes that a chunk goes with a batch, so that the next file that has it
// need not send it.
func (p *putter) stored(c catalog.Chunk, b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent[c.Hash] = recent{c, b}
}

// noteSome tells the catalog of the chunks that are on the server, if there are
// many.
func (p *putter) noteSome(ctx context.Context) error {
	p.mu.Lock()
	few := len(p.recent) < noteChunks
	p.mu.Unlock()
	if few {
		return nil
	}
	return p.note(ctx)
}

// note tells the catalog of all chunks that are on the server.
func (p *putter) note(ctx context.Context) error {
	p.mu.Lock()
	var chunks []catalog.Chunk
	for _, r := range p.recent {
		select {
		case <-r.batch.done:
			if r.batch.err == nil {
				chunks = append(chunks, r.chunk)
			}
		default:
		}
	}
	p.mu.Unlock()
	if len(chunks) == 0 {
		return nil
	}
	if err := p.catalog.AddChunks(ctx, slices.Values(chunks)); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range chunks {
		if p.noted != nil {
			p.noted.add(c.Hash)
		}
		delete(p.recent, c.Hash)
	}
	return nil
}

var errClosed = errors.New("the uploader has ended")

// close waits for what is under way; after an error it is not waited for long.
func (p *putter) close(err error) {
	if err != nil {
		p.cancel(err)
	}
	p.mu.Lock()
	b := p.take(p.cur)
	p.closed = true
	p.mu.Unlock()
	if b != nil {
		b.err = errClosed
		close(b.done)
	}
	p.sending.Wait()
	p.cancel(errClosed)
}
