package scan_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"backstay/agent/catalog"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
)

const (
	benchFolders = 30_000
	benchFiles   = 10 * benchFolders
)

func benchTree(b *testing.B) string {
	root := b.TempDir()
	for f := range benchFolders {
		dir := filepath.Join(root, fmt.Sprintf("area-%02d", f%20), fmt.Sprintf("project-%03d", f/20%100), fmt.Sprintf("folder-%05d", f))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		for i := range benchFiles / benchFolders {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("some-file-%d.txt", i)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	return root
}

// BenchmarkScan scans 300,000 files in 30,000 folders from a warm cache. "known
// from disk" reads what is known from the catalog every time, "all known" compares
// only.
func BenchmarkScan(b *testing.B) {
	root := benchTree(b)
	c, err := catalog.Open(b.Context(), b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	d, err := c.Destination(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	load := func(ctx context.Context, path string) (scan.Known, error) { return d.Known(ctx, path) }
	excludeNothing := func([]string, bool) bool { return false }

	run := func(name string, o scan.Options, found int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := scan.Root(b.Context(), root, o)
				if err != nil || r.ByType[facts.Regular] != benchFiles || r.Found != found {
					b.Fatalf("%+v %v", r, err)
				}
			}
			b.ReportMetric(float64(b.N*benchFiles)/b.Elapsed().Seconds(), "files/s")
		})
	}
	found := func([]scan.Entry) error { return nil }
	run("nothing known", scan.Options{FilesOnly: true, Known: load, Found: found}, benchFiles)
	_, err = scan.Root(b.Context(), root, scan.Options{FilesOnly: true, Found: func(es []scan.Entry) error {
		vs := make([]catalog.Version, len(es))
		for i, e := range es {
			vs[i] = catalog.Version{Path: e.Path, Facts: e.Facts}
		}
		return d.Acknowledge(b.Context(), vs)
	}})
	if err != nil {
		b.Fatal(err)
	}
	k, err := d.Known(b.Context(), root)
	if err != nil {
		b.Fatal(err)
	}
	all := func(context.Context, string) (scan.Known, error) { return k, nil }
	run("all known", scan.Options{FilesOnly: true, Known: all, Found: found}, 0)
	run("all known and rules", scan.Options{FilesOnly: true, Known: all, Found: found, Exclude: excludeNothing}, 0)
	run("known from disk", scan.Options{FilesOnly: true, Known: load, Found: found}, 0)
}
