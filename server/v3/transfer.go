package v3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
)

const (
	// smallFile is the ciphertext size up to which a file is received at once,
	// however many are, and stored in one step with its record: it takes little
	// more memory than this, and one flush.
	smallFile = 256 << 10
	// chunkSize is where larger files are cut.
	chunkSize = 1 << 20
	// readSize is how much ciphertext is asked for at a time.
	readSize = 128 << 10
	// putWindow is how many chunks of one file are on their way into the store:
	// enough to fill one of its group flushes.
	putWindow = 8
)

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// errDropped is what the sealing side of a transfer sees when the transfer ends
// early.
var errDropped = errors.New("the file was not received whole")

// A transfer is one attempt to receive a file, over one or more packets. What the
// session's goroutine reads and decrypts, another one cuts, seals and stores; the
// pipe between them holds the faster one back.
type transfer struct {
	asm     wire.Assembly
	dec     *wire.Decrypter
	sum     *cksum.Digest
	pipe    *io.PipeWriter
	release func()

	done    chan struct{} // closed when the fields below are set
	content vault.Content
	objects [][]byte // of a small file, still to be stored
	err     error
}

// startTransfer takes a file whose first packet is m. It waits for a place among
// the large transfers, or for stop.
func (a *Area) startTransfer(ctx context.Context, stop <-chan struct{}, key wire.SessionKey, m wire.Message) (*transfer, error) {
	size := max(int64(m.ContentSize), wire.CiphertextSize(int64(m.OrigSize)))
	if size > wire.CiphertextSize(a.o.MaxFile) {
		return nil, fmt.Errorf("ciphertext of %d bytes: %w", size, errTooLarge)
	}
	pr, pw := io.Pipe()
	t := &transfer{pipe: pw, sum: cksum.New(), release: func() {}, done: make(chan struct{})}
	var err error
	if t.dec, err = wire.NewDecrypter(t, key); err != nil {
		return nil, err
	}
	opts := vault.WriteOptions{Cutter: vault.FixedCutter(chunkSize), Window: putWindow}
	put := func(ctx context.Context, object []byte) (vault.ObjectID, error) {
		ids, err := a.store.Put(ctx, a.keys.Vault(), object)
		if err != nil {
			return vault.ObjectID{}, err
		}
		return ids[0], nil
	}
	if size <= smallFile {
		opts = vault.WriteOptions{Cutter: vault.FixedCutter(size), Workers: 1, Window: 1}
		put = func(_ context.Context, object []byte) (vault.ObjectID, error) {
			t.objects = append(t.objects, bytes.Clone(object))
			return vault.Identify(object), nil
		}
	} else {
		select {
		case a.transfers <- struct{}{}:
		default: // stopping is no reason not to take a place that is free
			select {
			case a.transfers <- struct{}{}:
			case <-stop:
				return nil, errStopped
			}
		}
		t.release = func() { <-a.transfers }
	}
	go func() {
		defer close(t.done)
		t.content, t.err = a.keys.WriteContent(ctx, pr, put, opts)
		pr.CloseWithError(t.err)
	}()
	return t, nil
}

// Write takes plaintext from the Decrypter.
func (t *transfer) Write(p []byte) (int, error) {
	t.sum.Write(p)
	return t.pipe.Write(p)
}

// receive reads n bytes of ciphertext. It returns how many it has not read; an
// error without any left to read is not the reader's.
func (t *transfer) receive(r *bufio.Reader, n int64) (left int64, err error) {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for n > 0 {
		m, err := r.Read(buf[:min(n, readSize)])
		n -= int64(m)
		if _, err := t.dec.Write(buf[:m]); err != nil {
			return n, err
		}
		if err != nil {
			return n, &readError{err}
		}
	}
	return 0, nil
}

// readError says that the stream itself is at its end.
type readError struct{ err error }

func (e *readError) Error() string { return fmt.Sprintf("read content: %v", e.err) }
func (e *readError) Unwrap() error { return e.err }

// finish checks the end of the ciphertext and waits until every chunk is durable
// or in objects. The transfer is over either way.
func (t *transfer) finish() error {
	err := t.dec.Close()
	if err == nil {
		err = t.asm.CheckPlain(t.dec.Plain())
	}
	if err != nil {
		t.drop()
		return err
	}
	t.pipe.Close()
	<-t.done
	t.release()
	return t.err
}

// drop ends the transfer; what it stored is referred to by nothing.
func (t *transfer) drop() {
	t.pipe.CloseWithError(errDropped)
	<-t.done
	t.release()
}
