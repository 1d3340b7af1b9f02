package upload

import (
	"context"
	"sync"

	"backstay/agent/catalog"
	"backstay/protocol/vault"
)

// sealers is how many chunks of one file are sealed at a time.
const sealers = 3

// contentPut takes the objects of one file's content and remembers which batches
// have to arrive before the file's record may be committed.
type contentPut struct {
	u *Uploader

	mu      sync.Mutex // guards what follows
	batches map[*batch]struct{}
	byID    map[vault.ObjectID]*batch
	failure error
}

func (c *contentPut) need(b *batch) {
	if c.batches == nil {
		c.batches = map[*batch]struct{}{}
	}
	c.batches[b] = struct{}{}
}

func (c *contentPut) needs() []*batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*batch
	for b := range c.batches {
		all = append(all, b)
	}
	return all
}

// known implements vault.WriteOptions.Known.
func (c *contentPut) known(ctx context.Context, hash vault.Hash, size int) (vault.ObjectID, bool) {
	id, b, ok, err := c.u.put.known(ctx, hash, size)
	if err != nil {
		// The chunk is sent again: that costs time and loses nothing.
		c.u.o.Log.Debug("look up a chunk", "err", err)
		return id, false
	}
	if ok && b != nil {
		c.mu.Lock()
		c.need(b)
		c.mu.Unlock()
	}
	return id, ok
}

// put gives a copy of an object to the putter. A list has to wait: the server
// takes it only when it has what the list refers to.
func (c *contentPut) put(ctx context.Context, object []byte) (vault.ObjectID, error) {
	id := vault.Identify(object)
	h, _, err := vault.ParseHeader(object)
	if err == nil && h.Type == vault.TypeList {
		err = c.arrived(ctx)
	}
	var b *batch
	if err == nil {
		b, err = c.u.put.add(ctx, object, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.failure == nil {
			c.failure = err
		}
		return id, err
	}
	c.need(b)
	if c.byID == nil {
		c.byID = map[vault.ObjectID]*batch{}
	}
	c.byID[id] = b
	return id, nil
}

// stored implements vault.WriteOptions.Stored.
func (c *contentPut) stored(e vault.Entry) {
	c.mu.Lock()
	b := c.byID[e.Ref]
	delete(c.byID, e.Ref)
	c.mu.Unlock()
	if b != nil {
		c.u.put.stored(catalog.Chunk{Hash: e.Hash, Size: int(e.Size), ID: e.Ref}, b)
	}
}

// arrived waits until the server has everything that was put so far.
func (c *contentPut) arrived(ctx context.Context) error {
	if err := c.u.put.flush(ctx); err != nil {
		return err
	}
	for _, b := range c.needs() {
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := range c.batches {
		select {
		case <-b.done:
			delete(c.batches, b)
		default:
		}
	}
	return nil
}
