package v3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// maxConflicts is how often a commit is tried again: each time another server on
// the same store has committed for the same client in between.
const maxConflicts = 16

// File is the newest listed version of one file of one client.
type File struct {
	Client   string `json:"client"`
	ClientID string `json:"client_id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	// Time is when the version became durable.
	Time     time.Time `json:"time"`
	Checksum uint32    `json:"checksum"` // POSIX cksum
	// Verified says that the client confirmed the checksum. Some never do.
	Verified bool `json:"verified"`
	// Versions is how many versions are kept, those found wrong not counted.
	Versions int `json:"versions"`
}

// change is what one record states about a path of a client.
type change struct {
	path vault.PathID
	op   vault.Op
	rec  vault.Record
	refs []vault.ObjectID
	// objects are those of refs that are not stored yet.
	objects [][]byte
}

// commit appends a record to a client's history and returns its id when it is
// durable with all it refers to.
func (a *Area) commit(ctx context.Context, id wire.ClientID, c change) (vault.ObjectID, error) {
	mu := &a.commits[id[len(id)-1]]
	mu.Lock()
	defer mu.Unlock()
	plain := c.rec.Append(nil)
	device := vault.DeviceID(id)
	for tries := 0; ; tries++ {
		head, err := a.store.Head(ctx, a.keys.Vault(), device)
		if err != nil {
			return vault.ObjectID{}, err
		}
		h := vault.Header{Type: vault.TypeRecord, Refs: c.refs, Record: &vault.RecordHeader{Device: device, Seq: head.Seq + 1, Path: c.path, Op: c.op}}
		object, record, err := a.keys.Seal(nil, h, plain)
		if err != nil {
			return vault.ObjectID{}, err
		}
		_, _, err = a.store.Commit(ctx, storage.Commit{
			Vault: a.keys.Vault(), Device: device, After: head.Seq, Seq: head.Seq + 1,
			Objects: append(c.objects[:len(c.objects):len(c.objects)], object), Records: []vault.ObjectID{record},
		})
		if !errors.Is(err, storage.ErrConflict) || tries == maxConflicts {
			return record, err
		}
	}
}

// damage gives errors about something that is referred to the class that callers
// know: for them, a piece that is gone or not authentic is not a missing file.
func damage(err error) error {
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, vault.ErrMissing):
		return fmt.Errorf("%w: %v", storage.ErrCorrupt, err)
	case errors.Is(err, vault.ErrCorrupt):
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	return err
}

// record fetches and opens a record that the index names. One that is gone or not
// what the index says is storage.ErrCorrupt.
func (a *Area) record(ctx context.Context, d vault.DeviceID, v storage.Version) (plain []byte, refs []vault.ObjectID, err error) {
	err = storage.ErrNotFound
	for o, getErr := range a.store.Get(ctx, a.keys.Vault(), []vault.ObjectID{v.Record}) {
		if err = getErr; err != nil {
			break
		}
		var h vault.Header
		if plain, h, err = a.keys.Open(nil, o.Data); err != nil {
			break
		}
		want := vault.RecordHeader{Device: d, Seq: v.Seq, Path: v.Path, Op: v.Op}
		if h.Type != vault.TypeRecord || *h.Record != want {
			err = vault.ErrContent
		}
		refs = h.Refs
	}
	if err != nil {
		return nil, nil, fmt.Errorf("record %v: %w", v.Record, damage(err))
	}
	return plain, refs, nil
}

// newest finds the newest put of a path that was not found wrong, whether it was
// found right, and how many such puts there are; storage.ErrNotFound if none.
func (a *Area) newest(ctx context.Context, d vault.DeviceID, p vault.PathID) (put storage.Version, verified bool, listed int, err error) {
	// Every void record stands above the one put it is about. So as soon as
	// there are more puts than voids, one of them is the newest that counts,
	// and all that was said about it has been seen.
	var top []storage.Version
	decided := false
	for v, err := range a.store.Versions(ctx, a.keys.Vault(), d, p) {
		if err != nil {
			return put, false, 0, err
		}
		if !decided {
			top = append(top, v)
		}
		switch v.Op {
		case vault.OpPut:
			listed++
		case vault.OpVoid:
			listed--
		}
		decided = decided || listed > 0
	}
	verdicts := make(map[vault.ObjectID]vault.Op)
	for _, v := range top {
		switch {
		case v.Op == vault.OpPut && verdicts[v.Record] != vault.OpVoid:
			return v, verdicts[v.Record] == vault.OpValid, listed, nil
		case v.Op == vault.OpValid, v.Op == vault.OpVoid:
			_, refs, err := a.record(ctx, d, v)
			if err == nil && len(refs) != 1 {
				err = fmt.Errorf("record %v: %w: a verdict on %d records", v.Record, storage.ErrCorrupt, len(refs))
			}
			switch {
			case err == nil:
				verdicts[refs[0]] = v.Op
			case v.Op == vault.OpVoid || !errors.Is(err, storage.ErrCorrupt):
				return put, false, 0, err
			}
			// A damaged confirmation leaves its put unconfirmed; without a
			// damaged refutation no version could be trusted to be the one.
		}
	}
	return put, false, 0, storage.ErrNotFound
}

// putRecord opens the record of a put.
func (a *Area) putRecord(ctx context.Context, d vault.DeviceID, v storage.Version) (vault.Record, error) {
	plain, refs, err := a.record(ctx, d, v)
	if err != nil {
		return vault.Record{}, err
	}
	rec, err := vault.DecodeRecord(plain, refs)
	if err == nil && (rec.Type != vault.TypeFile || rec.CKSum == nil || a.keys.Path(d, rec.Name) != v.Path) {
		err = vault.ErrContent
	}
	if err != nil {
		return vault.Record{}, fmt.Errorf("record %v: %w", v.Record, damage(err))
	}
	return rec, nil
}

// Files yields the newest listed version of every file of every client. What is
// damaged is yielded with the client it belongs to and the error, and the
// iteration goes on; an error without a client ends it.
func (a *Area) Files(ctx context.Context) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		// Iterations of the store are not nested, and none is left open while
		// the caller works: both would hold on to the store.
		var items []storage.Item
		for it, err := range a.store.Items(ctx, storage.KindV3Client, storage.Key{}) {
			if err != nil {
				yield(File{}, fmt.Errorf("list version 3 clients: %w", err))
				return
			}
			items = append(items, it)
		}
		for _, it := range items {
			client, err := a.open(it)
			if err != nil {
				client.id = wire.ClientID(it.Key[:wire.ClientIDSize])
				if !yield(File{ClientID: client.id.String()}, fmt.Errorf("client %v: %w", client.id, err)) {
					return
				}
			}
			if !a.clientFiles(ctx, client, yield) {
				return
			}
		}
	}
}

// clientFiles yields the files of one client, and false when Files is to end.
func (a *Area) clientFiles(ctx context.Context, client note, yield func(File, error) bool) bool {
	d := vault.DeviceID(client.id)
	var paths []vault.PathID
	for v, err := range a.store.Children(ctx, a.keys.Vault(), d, vault.PathID{}, time.Time{}) {
		if err != nil {
			yield(File{}, fmt.Errorf("list client %v: %w", client.id, err))
			return false
		}
		paths = append(paths, v.Path)
	}
	for _, p := range paths {
		f := File{Client: client.name, ClientID: client.id.String()}
		put, verified, versions, err := a.newest(ctx, d, p)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		var rec vault.Record
		if err == nil {
			rec, err = a.putRecord(ctx, d, put)
		}
		if err == nil {
			f.Name, f.Size, f.Time, f.Checksum = string(rec.Name), int64(rec.Content.Size), put.Time, *rec.CKSum
			f.Verified, f.Versions = verified, versions
		} else {
			err = fmt.Errorf("client %v: %w", client.id, err)
			if !errors.Is(err, storage.ErrCorrupt) {
				yield(File{}, err)
				return false
			}
		}
		if !yield(f, err) {
			return false
		}
	}
	return true
}

// Get writes the newest listed version of a file to w, confirmed or not, in
// bounded memory. The client is named by its id, 32 hex digits, or by its name.
//
// Every byte is checked before it reaches w, and size and checksum at the end: w
// has the whole file only if Get returns nil, else at most a beginning of it. No
// such client or file is storage.ErrNotFound, damage is storage.ErrCorrupt.
func (a *Area) Get(ctx context.Context, client, name string, w io.Writer) error {
	n, err := a.find(ctx, client)
	if err != nil {
		return fmt.Errorf("client %q: %w", client, err)
	}
	d := vault.DeviceID(n.id)
	if err := a.get(ctx, d, a.keys.Path(d, []byte(name)), w); err != nil {
		return fmt.Errorf("file %q of client %q: %w", name, client, err)
	}
	return nil
}

// find returns the client with an id or, failing that, a name: a client that
// registers the id of another as its name must not stand in for it.
func (a *Area) find(ctx context.Context, client string) (note, error) {
	if id, err := wire.ParseClientID(client); err == nil {
		n, _, err := a.clientByID(ctx, id)
		if !errors.Is(err, storage.ErrNotFound) {
			return n, err
		}
	}
	n, _, err := a.clientByName(ctx, client)
	return n, err
}

func (a *Area) get(ctx context.Context, d vault.DeviceID, p vault.PathID, w io.Writer) error {
	put, _, _, err := a.newest(ctx, d, p)
	if err != nil {
		return err
	}
	rec, err := a.putRecord(ctx, d, put)
	if err != nil {
		return err
	}
	out := &checked{w: w, sum: cksum.New()}
	if err := a.keys.ReadContent(ctx, out, rec.Content, a.fetch); err != nil {
		return damage(err)
	}
	if out.n != rec.Content.Size || out.sum.Sum32() != *rec.CKSum {
		return fmt.Errorf("%w: size or checksum of the content is not that of the record", storage.ErrCorrupt)
	}
	return nil
}

// fetch is the store's Get as package vault wants it.
func (a *Area) fetch(ctx context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return a.store.Get(ctx, a.keys.Vault(), ids)
}

// checked counts and sums what it passes on.
type checked struct {
	w   io.Writer
	sum *cksum.Digest
	n   uint64
}

func (c *checked) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.sum.Write(p[:n])
	c.n += uint64(n)
	return n, err
}
