// Package disk is the default store: append-only pack files and an SQLite index
// over them, in one folder.
//
// The one invariant: bytes before index, index before ack, unlink last. Packs hold
// everything; the index only finds it and is rebuilt from the packs when it is
// lost. A pack grows at its end alone, by groups of changes that share one flush,
// and a flush that fails ends the process's use of the store.
//
// The package does not rewrite packs, judge what may be deleted, or look into
// bodies. Enter at [Open]. The bytes of a pack are in SPEC.md, "Packs".
package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"zombiezen.com/go/sqlite"

	"backstay/internal/durable"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

var (
	_ storage.Store   = (*Store)(nil)
	_ storage.Deleter = (*Store)(nil)
)

// ErrLocked: another process has the store open.
var ErrLocked = errors.New("in use by another process; stop that one first")

// Options adjust a store. The zero value is what a server uses.
type Options struct {
	// Log receives what recovery and removal did; default slog.Default().
	Log *slog.Logger
	// Now is the clock of stamps; default time.Now.
	Now func() time.Time
	// PackSize is the length in bytes from which a new pack is begun; default
	// 64 MiB.
	PackSize int64
	// FS is the file system under the packs; default the real one. The index
	// always lies in the real one.
	FS FS
}

const (
	defaultPackSize = 64 << 20
	// Reader connections and the page caches of all connections, in KiB, are
	// what a store costs in memory at rest.
	readers        = 4
	readerCacheKiB = 1 << 10
	writerCacheKiB = 8 << 10
	// pageRows is how many rows an iteration reads at once, so that it holds no
	// connection while its caller works.
	pageRows = 256
)

// Store is an open store. All methods are safe for concurrent use.
type Store struct {
	dir      string
	fs       FS
	log      *slog.Logger
	now      func() time.Time
	packSize int64
	lock     *flock.Flock

	// The writer's goroutine owns these, as Open does before it starts.
	index    index
	active   *activePack // nil until the first change
	nextPack uint32
	gather   []byte

	queue   *queue
	written chan struct{} // closed when the writer has ended
	pool    pool
	damage  []Damage // fixed by Open

	calls  sync.RWMutex // held for reading by calls in progress
	closed bool         // guarded by calls

	mu     sync.Mutex // guards what follows
	counts storage.Stats
	last   int64 // newest stamp that may be read
	cause  error // why the store failed
	failed chan struct{}
}

// Damage is a place in a pack that does not hold what was written there. It is
// kept as it is.
type Damage struct {
	Pack   uint32
	Offset int64 // bytes from the start of the pack
	Length int64
	What   string
}

// Open opens the store in dir and creates it if there is none. It adopts what a
// crash left acknowledged or whole, and rebuilds the index if that is missing or
// not readable. A store that another process has open: [ErrLocked].
func Open(dir string, o Options) (*Store, error) {
	s := &Store{
		dir: dir, fs: o.FS, log: o.Log, now: o.Now, packSize: o.PackSize,
		gather: make([]byte, 0, gatherBytes+entryHeader),
		queue:  newQueue(), written: make(chan struct{}), failed: make(chan struct{}),
	}
	if s.fs == nil {
		s.fs = osFS{}
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.packSize <= 0 {
		s.packSize = defaultPackSize
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, errors.Join(err, s.release()))
	}
	s.setCounts(s.index.counts)
	go s.write()
	return s, nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.packs(), 0o700); err != nil {
		return err
	}
	s.lock = flock.New(filepath.Join(s.dir, "lock"), flock.SetPermissions(0o600))
	switch ok, err := s.lock.TryLock(); {
	case err != nil:
		return err
	case !ok:
		return ErrLocked
	}
	if err := s.refuseNewer(); err != nil {
		return err
	}
	if err := s.openIndex(); err != nil {
		return err
	}
	for _, dir := range []string{s.dir, filepath.Dir(s.dir)} {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	s.pool = newPool(s.indexName())
	return s.recover()
}

// release closes what open opened.
func (s *Store) release() error {
	err := s.pool.close()
	if s.active != nil {
		err = errors.Join(err, s.active.f.Close())
	}
	if s.index.conn != nil {
		err = errors.Join(err, s.index.conn.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// Close implements [storage.Store].
func (s *Store) Close() error {
	// The queue first, so that calls in progress end.
	s.queue.close()
	s.calls.Lock()
	defer s.calls.Unlock()
	if s.closed {
		return storage.ErrClosed
	}
	s.closed = true
	<-s.written
	return s.release()
}

// Failed is closed when the store has failed: it then acknowledges nothing more,
// and the process that owns it should end.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Damage lists what [Open] found damaged.
func (s *Store) Damage() []Damage { return slices.Clone(s.damage) }

func (s *Store) packs() string     { return filepath.Join(s.dir, "packs") }
func (s *Store) indexName() string { return filepath.Join(s.dir, "index.db") }

func (s *Store) packName(n uint32) string {
	return filepath.Join(s.packs(), fmt.Sprintf("%08d.pack", n))
}

// openPack opens a pack for reading.
func (s *Store) openPack(n uint32) (File, error) { return s.fs.OpenFile(s.packName(n), os.O_RDONLY) }

// enter begins a call; leave ends it.
func (s *Store) enter() error {
	s.calls.RLock()
	if s.closed {
		s.calls.RUnlock()
		return storage.ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.calls.RUnlock() }

// fail records why the store can acknowledge nothing more and returns the error
// callers get.
func (s *Store) fail(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		s.cause = cause
		if isBroken(cause) {
			s.suspect()
		}
		close(s.failed)
		s.log.Error("store failed", "error", cause)
	}
	return fmt.Errorf("%w: %w", storage.ErrFailed, s.cause)
}

// failure returns what [storage.ErrFailed] wraps, or nil.
func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", storage.ErrFailed, s.cause)
}

// storageFull tells want of room from failure.
func storageFull(err error) bool {
	return !errors.Is(err, errFlush) && (isFull(err) || sqlite.ErrCode(err).ToPrimary() == sqlite.ResultFull)
}

func (s *Store) setCounts(c storage.Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.last = c, s.index.lastTime
}

// object is one that its sender's call has checked.
type object struct {
	id     vault.ObjectID
	header vault.Header
	data   []byte
}

// check identifies and parses objects.
func check(objects [][]byte) (checked []object, size int64, err error) {
	checked = make([]object, len(objects))
	for i, b := range objects {
		h, _, err := vault.ParseHeader(b)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", storage.ErrInvalid, err)
		}
		checked[i] = object{vault.Identify(b), h, b}
		size += int64(len(b))
	}
	return checked, size, nil
}

// Put implements [storage.Objects].
func (s *Store) Put(ctx context.Context, v vault.ID, objects ...[]byte) ([]vault.ObjectID, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	checked, size, err := check(objects)
	if len(objects) == 0 || err != nil {
		return nil, err
	}
	ids := make([]vault.ObjectID, len(checked))
	for i := range checked {
		ids[i] = checked[i].id
	}
	return ids, s.submit(ctx, size, func(g *group) error {
		n, err := s.index.addVault(v)
		if err != nil {
			return err
		}
		return g.put(n, v, checked, 0)
	})
}

// Commit implements [storage.Log].
func (s *Store) Commit(ctx context.Context, c storage.Commit) (time.Time, []byte, error) {
	if err := s.enter(); err != nil {
		return time.Time{}, nil, err
	}
	defer s.leave()
	if err := c.Check(); err != nil {
		return time.Time{}, nil, err
	}
	objects, size, err := check(c.Objects)
	if err != nil {
		return time.Time{}, nil, err
	}
	var made change
	err = s.submit(ctx, size+int64(len(c.Body)+len(c.Records)*changedSize), func(g *group) error {
		var err error
		made, err = g.commitChange(c, objects)
		return err
	})
	if err != nil {
		return time.Time{}, nil, err
	}
	return stampTime(made.time), made.stamp, nil
}

// Set implements [storage.Registry].
func (s *Store) Set(ctx context.Context, items ...storage.Item) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := storage.CheckItems(items); len(items) == 0 || err != nil {
		return err
	}
	var size int64
	for _, it := range items {
		size += int64(len(it.Body))
	}
	return s.submit(ctx, size, func(g *group) error { return g.set(items) })
}

// Delete implements [storage.Deleter].
func (s *Store) Delete(ctx context.Context, v vault.ID, ids ...vault.ObjectID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	switch {
	case len(ids) == 0:
		return nil
	case len(ids) > storage.MaxDelete:
		return fmt.Errorf("delete of %d objects, at most %d: %w", len(ids), storage.MaxDelete, storage.ErrInvalid)
	}
	return s.submit(ctx, int64(len(ids)*len(vault.ObjectID{})), func(g *group) error { return g.delete(v, ids) })
}

// Stats implements [storage.Store].
func (s *Store) Stats(ctx context.Context) (storage.Stats, error) {
	if err := s.enter(); err != nil {
		return storage.Stats{}, err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return storage.Stats{}, err
	}
	s.mu.Lock()
	c := s.counts
	s.mu.Unlock()
	files, err := s.fs.ReadDir(s.packs())
	if err != nil {
		return storage.Stats{}, err
	}
	for _, f := range files {
		c.BytesStored += f.Size()
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(s.indexName() + suffix); err == nil {
			c.BytesStored += info.Size()
		}
	}
	return c, nil
}
