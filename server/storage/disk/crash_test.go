package disk

import (
	"bytes"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/server/storage/storagetest"
)

// simFS is a file system in memory that knows what a power cut may take: what was
// written to a file since its last sync, names made or removed since the folder's.
// It holds the packs of many stores, by their full names.
type simFS struct {
	// lies breaks a promise: "sync" does not keep data, "syncdir" not names.
	lies string

	mu    sync.Mutex // guards what follows
	files map[string]*simFile
	gone  map[string]*simFile // removed, but not durably
	dir   string              // flushes of files below it are told to flush
	flush func()
}

// simFile is a file's content now and what is durable of it.
type simFile struct {
	fs      *simFS
	name    string
	data    []byte
	durable []byte
	pending []simWrite // what leads from durable to data
	named   bool       // its name is durable
}

// simWrite is a write, or with no data a truncation.
type simWrite struct {
	off  int64
	data []byte
}

// apply returns b as it is after the write; b itself stays.
func (w simWrite) apply(b []byte) []byte {
	size := max(int64(len(b)), w.off+int64(len(w.data)))
	if w.data == nil {
		size = w.off
	}
	after := make([]byte, size)
	copy(after, b)
	copy(after[min(w.off, size):], w.data)
	return after
}

func newSimFS() *simFS {
	return &simFS{files: map[string]*simFile{}, gone: map[string]*simFile{}, flush: func() {}}
}

// flushing tells of a flush below dir that is about to take effect.
func (s *simFS) flushing(name string) {
	s.mu.Lock()
	f := s.flush
	below := filepath.Dir(filepath.Dir(name)) == s.dir
	s.mu.Unlock()
	if below {
		f()
	}
}

func (s *simFS) OpenFile(name string, flag int) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	switch {
	case f == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case f != nil && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case f == nil:
		f = &simFile{fs: s, name: name}
		s.files[name] = f
	}
	return f, nil
}

type simInfo struct {
	fs.FileInfo
	name string
	size int64
}

func (i simInfo) Name() string { return i.name }
func (i simInfo) Size() int64  { return i.size }

func (s *simFS) ReadDir(dir string) (infos []fs.FileInfo, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.files {
		if filepath.Dir(name) == dir {
			infos = append(infos, simInfo{name: filepath.Base(name), size: int64(len(f.data))})
		}
	}
	return infos, nil
}

func (s *simFS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	if f == nil {
		return fs.ErrNotExist
	}
	delete(s.files, name)
	if f.named {
		s.gone[name] = f
	}
	return nil
}

func (s *simFS) SyncDir(dir string) error {
	s.flushing(filepath.Join(dir, "any"))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lies == "syncdir" {
		return nil
	}
	for name, f := range s.files {
		f.named = f.named || filepath.Dir(name) == dir
	}
	maps.DeleteFunc(s.gone, func(name string, _ *simFile) bool { return filepath.Dir(name) == dir })
	return nil
}

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(b, off)
}

func (f *simFile) change(w simWrite) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.data = w.apply(f.data)
	f.pending = append(f.pending, w)
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.change(simWrite{off, bytes.Clone(b)})
	return len(b), nil
}

func (f *simFile) Truncate(size int64) error {
	f.change(simWrite{off: size})
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *simFile) Sync() error {
	f.fs.flushing(f.name)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.lies != "sync" {
		f.durable, f.pending = f.data, nil
	}
	return nil
}

func (f *simFile) Close() error { return nil }

// fates are what a power cut may do to the writes that were not flushed; names that
// were not flushed are lost where lose is set.
var fates = []struct {
	name string
	lose bool
	kept func([]simWrite) []simWrite
}{
	{"all lost", true, func([]simWrite) []simWrite { return nil }},
	{"all kept", false, func(w []simWrite) []simWrite { return w }},
	{"only the last kept", false, func(w []simWrite) []simWrite { return w[max(0, len(w)-1):] }},
	{"the last lost", false, func(w []simWrite) []simWrite { return w[:max(0, len(w)-1)] }},
	{"each torn", false, func(w []simWrite) []simWrite { return tear(w, 0.5, 1) }},
	{"each begun late", false, func(w []simWrite) []simWrite { return tear(w, 0, 0.7) }},
}

// tear keeps only what lies outside the part from..to of each write; what it takes
// from the inside reads as zeros.
func tear(writes []simWrite, from, to float64) []simWrite {
	var torn []simWrite
	for _, w := range writes {
		n := float64(len(w.data))
		if w.data == nil {
			torn = append(torn, w)
			continue
		}
		a, b := int(n*from), int(n*to)
		torn = append(torn, simWrite{w.off, w.data[:a:a]}, simWrite{w.off + int64(b), w.data[b:]})
	}
	return slices.DeleteFunc(torn, func(w simWrite) bool { return w.data != nil && len(w.data) == 0 })
}

// crash copies the packs below from to below to as fate leaves them.
func (s *simFS) crash(from, to string, lose bool, kept func([]simWrite) []simWrite) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]*simFile{}
	for name, f := range s.files {
		if f.named || !lose {
			found[name] = f
		}
	}
	if lose {
		maps.Copy(found, s.gone)
	}
	for name, f := range found {
		below, err := filepath.Rel(from, name)
		if err != nil || filepath.Dir(below) != "packs" {
			continue
		}
		b := f.durable
		for _, w := range kept(f.pending) {
			b = w.apply(b)
		}
		name := filepath.Join(to, below)
		s.files[name] = &simFile{fs: s, name: name, data: b, durable: b, named: true}
	}
}

// machine returns a machine on which index.db lies in the real file system, where
// it is copied as it is at the cut or lost altogether.
func machine(t *testing.T, lies string) storagetest.Machine {
	sim := newSimFS()
	sim.lies = lies
	dir := t.TempDir()
	images := t.TempDir()
	n := 0
	return storagetest.Machine{
		// Damage is not a mistake here: without the index, a place that a cut
		// left torn cannot be told from one that rotted.
		Backend: storagetest.Backend{
			Open: func(dir string, now func() time.Time) (storagetest.Store, error) {
				return Open(dir, Options{Now: now, PackSize: smallPacks, Log: quiet, FS: sim})
			},
			Forget: forget,
		},
		Dir: dir,
		Watch: func(flush func()) {
			sim.mu.Lock()
			defer sim.mu.Unlock()
			sim.dir, sim.flush = dir, flush
		},
		Crashes: func() iter.Seq2[string, string] {
			return func(yield func(string, string) bool) {
				for _, fate := range fates {
					for _, index := range []string{"kept", "lost"} {
						n++
						image := filepath.Join(images, fmt.Sprint(n))
						sim.crash(dir, image, fate.lose, fate.kept)
						if err := os.Mkdir(image, 0o700); err != nil {
							t.Fatal(err)
						}
						if index == "kept" {
							copyIndex(t, dir, image)
						}
						if !yield(fate.name+", index "+index, image) {
							return
						}
					}
				}
			}
		},
	}
}

func copyIndex(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"index.db", "index.db-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCrashes(t *testing.T) {
	t.Parallel()
	storagetest.RunCrashes(t, machine(t, ""))
}

func TestCrashControl(t *testing.T) {
	for _, lies := range []string{"sync", "syncdir"} {
		t.Run(lies, func(t *testing.T) {
			t.Parallel()
			storagetest.RunCrashControl(t, machine(t, lies))
		})
	}
}
