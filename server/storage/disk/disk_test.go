package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"backstay/server/storage/storagetest"
)

var quiet = slog.New(slog.DiscardHandler)

// open opens a store and closes it with the test, unless that has done so.
func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet
	}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// flip changes one bit in the middle of data where that lies last in a pack of dir.
func flip(dir string, data []byte) error {
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*.pack"))
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(packs) {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if i := bytes.LastIndex(b, data); i >= 0 {
			b[i+len(data)/2] ^= 1
			return os.WriteFile(name, b, 0o600)
		}
	}
	return errors.New("the data is in no pack")
}

// forget removes the index of a closed store.
func forget(dir string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, "index.db"+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// smallPacks makes the scripts of storagetest come by new and freed packs.
const smallPacks = 100 << 10

// backend returns a backend of small packs on fsys that takes any damage it finds
// for a mistake.
func backend(fsys FS) storagetest.Backend {
	return storagetest.Backend{
		Open: func(dir string, now func() time.Time) (storagetest.Store, error) {
			s, err := Open(dir, Options{Now: now, PackSize: smallPacks, Log: quiet, FS: fsys})
			if err != nil {
				return nil, err
			}
			if d := s.Damage(); len(d) != 0 {
				return nil, errors.Join(fmt.Errorf("damage found: %+v", d), s.Close())
			}
			return s, nil
		},
		Damage: flip,
		Forget: forget,
	}
}

func TestContract(t *testing.T) { storagetest.Run(t, backend(nil)) }

func TestModel(t *testing.T) { storagetest.RunModel(t, backend(nil), 200, 1, 2, 3, 4) }
