package main

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
)

func TestPlanCountsAndSizes(t *testing.T) {
	for i, want := range []struct {
		files, folders int // folders below the top one
		bytes          int64
	}{
		{78_579, 5_096, 1_320_000_000},
		{4_451, 299, 2_000_000_000},
		{2, 0, 1_600_000_000},
		{100_020, 10_214, 63_000_000},
	} {
		set := dataSets[i]
		t.Run(set.name, func(t *testing.T) {
			files := set.plan(1)
			paths, folders, sum := map[string]bool{}, map[string]bool{}, int64(0)
			for _, f := range files {
				paths[f.path] = true
				for dir := filepath.Dir(f.path); dir != "."; dir = filepath.Dir(dir) {
					folders[dir] = true
				}
				sum += f.size
			}
			if len(files) != want.files || len(paths) != want.files || len(folders) != want.folders {
				t.Errorf("%d files, %d paths, %d folders; want %d, %d", len(files), len(paths), len(folders), want.files, want.folders)
			}
			if d := sum - want.bytes; max(d, -d) > want.bytes/20 {
				t.Errorf("%d bytes, want about %d", sum, want.bytes)
			}
			if n := len(set.plan(0.1)); n != scaled(want.files, 0.1) && set.name != "C" {
				t.Errorf("%d files at a tenth", n)
			}
		})
	}
}

func TestDataAreTheSameEveryTime(t *testing.T) {
	for _, set := range dataSets {
		t.Run(set.name, func(t *testing.T) {
			scale := 0.001
			sum := func(d *data) (sum [32]byte) {
				h := sha256.New()
				for _, f := range d.files {
					b, err := os.ReadFile(filepath.Join(d.root, f.path))
					if err != nil {
						t.Fatal(err)
					}
					info, err := os.Stat(filepath.Join(d.root, f.path))
					if err != nil {
						t.Fatal(err)
					}
					h.Write([]byte(info.ModTime().UTC().String()))
					h.Write(b)
				}
				return [32]byte(h.Sum(nil))
			}
			dir := t.TempDir()
			d, err := makeData(set.name, filepath.Join(dir, "one"), set.plan(scale))
			if err != nil {
				t.Fatal(err)
			}
			other, err := makeData(set.name, filepath.Join(dir, "two"), set.plan(scale))
			if err != nil {
				t.Fatal(err)
			}
			first := sum(d)
			if sum(other) != first {
				t.Error("made twice, the data differ")
			}
			if err := same(d.root, other.root); err != nil {
				t.Error(err)
			}

			if err := d.change(1); err != nil {
				t.Fatal(err)
			}
			changed := sum(d)
			if changed == first {
				t.Error("change changed nothing")
			}
			if same(d.root, other.root) == nil {
				t.Error("same does not see the change")
			}
			if d, err = makeData(set.name, d.root, d.files); err != nil {
				t.Fatal(err)
			}
			if sum(d) != first {
				t.Error("changed data were taken for new ones")
			}
			if err := d.change(2); err != nil {
				t.Fatal(err)
			}
			if sum(d) == changed {
				t.Error("both versions are the same")
			}
			if err := d.restore(); err != nil {
				t.Fatal(err)
			}
			if sum(d) != first {
				t.Error("restore left a change")
			}
			if _, err := os.Stat(d.note()); err != nil {
				t.Error("restored data would be made again: ", err)
			}
		})
	}
}

func TestChangeInserts(t *testing.T) {
	for _, tt := range []struct {
		name string
		file file
		grow int64
	}{
		{"small", file{size: 1000, content: prose}, 16},
		{"empty", file{}, 16},
		{"one byte", file{size: 1}, 16},
		{"more than a piece", file{size: 3*piece + 1, content: noise}, 16},
		{"big", file{size: 2 * piece, content: noise, big: true}, 1 + appended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after bytes.Buffer
			var buf []byte
			if err := tt.file.writeTo(&before, &buf); err != nil {
				t.Fatal(err)
			}
			if err := tt.file.writeChanged(&after, 1, &buf); err != nil {
				t.Fatal(err)
			}
			if int64(before.Len()) != tt.file.size || int64(after.Len()) != tt.file.size+tt.grow {
				t.Errorf("%d bytes, then %d", before.Len(), after.Len())
			}
			at, extra := tt.file.size/2, int64(16)
			if tt.file.big {
				at, extra = tt.file.size/3, 1
			}
			if !bytes.Equal(before.Bytes()[:at], after.Bytes()[:at]) || !bytes.Equal(before.Bytes()[at:], after.Bytes()[at+extra:tt.file.size+extra]) {
				t.Error("something beside the inserted bytes is different")
			}
		})
	}
}

// Real source compresses to a quarter, letters to two fifths; the figures of
// programs that compress mean nothing on other data.
func TestContentCompresses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		content  content
		from, to float64
	}{
		{"source", source, 0.15, 0.35},
		{"prose", prose, 0.3, 0.5},
		{"object", object, 0.3, 0.6},
		{"noise", noise, 0.99, 1.01},
		{"image", image, 0.2, 0.4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var packed bytes.Buffer
			w, err := flate.NewWriter(&packed, flate.BestSpeed)
			if err != nil {
				t.Fatal(err)
			}
			var buf []byte
			f := file{size: 8 << 20, content: tt.content, seed: 1}
			if err := f.writeTo(w, &buf); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if r := float64(packed.Len()) / float64(f.size); r < tt.from || r > tt.to {
				t.Errorf("compresses to %.3f, want %v to %v", r, tt.from, tt.to)
			}
		})
	}
}
