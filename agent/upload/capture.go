package upload

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"path/filepath"
	"time"

	"backstay/agent/capture"
	"backstay/agent/metadata"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
	"backstay/protocol/vault/cut"
)

// dir is the folder that a path is in.
func dir(path string) string { return filepath.Dir(path) }

// capture makes the record of an item. Where there is none to commit it returns
// what became of the item instead; no outcome means that the session has ended.
func (u *Uploader) capture(ctx context.Context, it Item) (*ready, Result) {
	result := Result{Item: it}
	if it.Op != vault.OpPut {
		return &ready{item: it, rec: vault.Record{Name: []byte(it.Path)}}, result
	}
	r, err := u.describe(ctx, it)
	switch {
	case err == nil:
		return r, result
	case errors.Is(err, capture.ErrVanished):
		// Whether it was deleted only a scan can say.
		result.Outcome = Safe
	case errors.Is(err, capture.ErrTorn):
		result.Outcome = Restless
	case ctx.Err() != nil || errors.As(err, new(sendError)):
		result.Outcome = Again
	default:
		result.Outcome, result.Problem = Failed, facts.Explain(it.Path, err)
	}
	return nil, result
}

// sendError is an error of the server or the catalog rather than of the path.
type sendError struct{ error }

func (e sendError) Unwrap() error { return e.error }

// describe captures a path. It tries a file first: most paths are files.
func (u *Uploader) describe(ctx context.Context, it Item) (*ready, error) {
	f, err := capture.Open(it.Root, it.Path)
	if err == nil && f.Unsettled() > 0 {
		// Once: a file that is written all the time is torn all the same.
		wait := f.Unsettled()
		f.Close()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		f, err = capture.Open(it.Root, it.Path)
	}
	if err == nil {
		defer f.Close()
		return u.file(ctx, it, f)
	}
	if !errors.Is(err, capture.ErrNotRegular) {
		return nil, err
	}
	d, err := capture.Entry(it.Root, it.Path)
	partial, err := part(err)
	if err != nil || d.Type == 0 {
		if err == nil {
			err = partial
		}
		return nil, err
	}
	return &ready{item: it, facts: d.Facts, partial: partial, rec: vault.Record{
		Name: []byte(it.Path), Type: d.Type, Metadata: d.Metadata, Target: d.Target, Device: d.Device,
	}}, nil
}

// part tells a problem with some of a path's metadata, without which the rest is
// kept all the same, from an error.
func part(err error) (*facts.Problem, error) {
	if p, ok := errors.AsType[*facts.Problem](err); ok {
		return p, nil
	}
	return nil, err
}

// file captures a regular file and gives its content to the putter.
func (u *Uploader) file(ctx context.Context, it Item, f *capture.File) (*ready, error) {
	r := &ready{item: it, facts: f.Facts(), rec: vault.Record{Name: []byte(it.Path), Type: vault.TypeFile}}
	var err error
	r.rec.Metadata, err = f.Metadata()
	if r.partial, err = part(err); err != nil {
		return nil, err
	}
	if r.rec.Holes, err = f.SkipHoles(); err != nil {
		return nil, err
	}
	if links, key := f.Link(); links > 1 {
		r.rec.Link = u.linkGroup(key)
	}
	if r.facts.Size > smallFile {
		select {
		case u.large <- struct{}{}:
			defer func() { <-u.large }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if r.rec.Content, r.needs, err = u.content(ctx, it, f); err != nil {
		return nil, err
	}
	if err = f.Check(); err == nil {
		return r, nil
	}
	if errors.Is(err, capture.ErrTorn) && it.Fuzzy {
		r.torn, r.rec.Fuzzy = true, true
		return r, nil
	}
	u.o.Sent(it.Path, -int64(r.rec.Content.Size))
	return nil, err
}

// content seals what a file holds and does not exist on the server yet.
func (u *Uploader) content(ctx context.Context, it Item, f *capture.File) (vault.Content, []*batch, error) {
	c := contentPut{u: u}
	cutter := u.cutters.Get().(*cut.Cutter)
	defer u.cutters.Put(cutter)
	content, err := u.o.Keys.WriteContent(ctx, meter{f, func(n int) { u.o.Sent(it.Path, int64(n)) }}, c.put, vault.WriteOptions{
		Cutter: cutter, Sum: true, Known: func(h vault.Hash, size int) (vault.ObjectID, bool) { return c.known(ctx, h, size) },
		Stored: c.stored, Workers: sealers, Window: sealers,
	})
	if err != nil {
		if c.failure != nil {
			err = sendError{c.failure}
		}
		return content, nil, err
	}
	return content, c.needs(), nil
}

// linkGroup names a file with several names.
func (u *Uploader) linkGroup(k metadata.LinkKey) *vault.LinkGroup {
	b := append([]byte("backstay/1 hard link"), u.device[:]...)
	b = binary.LittleEndian.AppendUint64(b, k.Volume)
	b = append(b, k.File[:]...)
	g := vault.LinkGroup(u.o.Keys.Hash(b))
	return &g
}

// meter tells how much was read.
type meter struct {
	r    io.Reader
	tell func(n int)
}

func (m meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if n > 0 {
		m.tell(n)
	}
	return n, err
}
