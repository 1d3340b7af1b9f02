package capture_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"backstay/agent/capture"
	"backstay/protocol/vault"
)

// holesTaken are as many holes as a file may have.
const holesTaken = 65_536

// sparse makes a file of size bytes with data at the given offsets.
func sparse(t testing.TB, path string, size int64, data []byte, at ...int64) {
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	for _, at := range at {
		_, err := f.WriteAt(data, at)
		must(t, err)
	}
	must(t, f.Close())
}

func TestHoles(t *testing.T) {
	const block = 64 << 10 // no file system has larger ones
	data := bytes.Repeat([]byte("data"), block/4)
	tests := []struct {
		name string
		size int64
		at   []int64
		want []vault.Hole
	}{
		{"no hole", block, []int64{0}, nil},
		{"empty", 0, nil, nil},
		{"nothing else", 1 << 20, nil, []vault.Hole{{Offset: 0, Length: 1 << 20}}},
		{"nothing else, odd", 1<<20 + 1, nil, []vault.Hole{{Offset: 0, Length: 1<<20 + 1}}},
		{"first", 2 * block, []int64{block}, []vault.Hole{{Offset: 0, Length: block}}},
		{"last", 3*block + 5, []int64{0}, []vault.Hole{{Offset: block, Length: 2*block + 5}}},
		{"between", 5 * block, []int64{0, 4 * block}, []vault.Hole{{Offset: block, Length: 3 * block}}},
		{"around", 5 * block, []int64{2 * block}, []vault.Hole{{Offset: 0, Length: 2 * block}, {Offset: 3 * block, Length: 2 * block}}},
		{"beyond 4 GiB", 1 << 40, []int64{1 << 39}, []vault.Hole{{Offset: 0, Length: 1 << 39}, {Offset: 1<<39 + block, Length: 1<<39 - block}}},
	}
	root := t.TempDir()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(root, test.name)
			sparse(t, path, test.size, data, test.at...)
			f := open(t, root, path)
			defer f.Close()
			holes, err := f.SkipHoles()
			must(t, err)
			if len(holes) != len(test.want) {
				t.Fatalf("holes %v, want %v", holes, test.want)
			}
			for i := range holes {
				if holes[i] != test.want[i] {
					t.Errorf("hole %v, want %v", holes[i], test.want[i])
				}
			}
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, bytes.Repeat(data, len(test.at))) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			must(t, f.Check())
		})
	}
}

// TestHolesNotAskedFor: without SkipHoles everything is read.
func TestHolesNotAskedFor(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	sparse(t, path, 1<<20, []byte("x"), 1<<19)
	f := open(t, root, path)
	defer f.Close()
	if n, err := io.Copy(io.Discard, f); n != 1<<20 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestHoleFilled: a write into a hole is a change like any other.
func TestHoleFilled(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	sparse(t, path, 1<<20, []byte("x"), 0)
	f := open(t, root, path)
	defer f.Close()
	_, err := f.SkipHoles()
	must(t, err)
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = w.WriteAt([]byte("y"), 1<<19)
	must(t, errors.Join(err, w.Close()))
	_, err = io.Copy(io.Discard, f)
	must(t, err)
	if err := f.Check(); !errors.Is(err, capture.ErrTorn) {
		t.Errorf("Check: %v", err)
	}
}

// TestTooManyHoles: a file that is all holes and ends is read whole.
func TestTooManyHoles(t *testing.T) {
	root := t.TempDir()
	for name, pieces := range map[string]int{"just enough": holesTaken, "one more": holesTaken + 1} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(root, name)
			const step = 8 << 10
			f, err := os.Create(path)
			must(t, err)
			for i := range int64(pieces) {
				_, err := f.WriteAt([]byte{1}, i*step+step/2)
				must(t, err)
			}
			must(t, f.Close())
			c := open(t, root, path)
			defer c.Close()
			holes, err := c.SkipHoles()
			must(t, err)
			if want := pieces; pieces <= holesTaken && len(holes) != want || pieces > holesTaken && holes != nil {
				t.Errorf("%d holes", len(holes))
			}
			if n, err := io.Copy(io.Discard, c); err != nil || (holes == nil) != (n == c.Facts().Size) {
				t.Errorf("read %d of %d bytes, %v", n, c.Facts().Size, err)
			}
			must(t, os.Remove(path))
		})
	}
}
