package catalog_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"backstay/agent/catalog"
	"backstay/agent/scan/facts"
)

const benchFiles = 300_000

func benchVersions() []catalog.Version {
	vs := make([]catalog.Version, benchFiles)
	folders := rand.New(rand.NewPCG(1, 2)).Perm(benchFiles / 10)
	for i := range vs {
		f := folders[i/10]
		vs[i] = catalog.Version{
			Path: fmt.Sprintf("/home/someone/Documents/projects/%03d/%03d/file-%08d.txt", f/100, f%100, i),
			Facts: facts.Facts{Type: facts.Regular, Mode: 0o644, Dev: 2049, Inode: uint64(i) + 1<<20, Size: int64(i),
				MTime: 1_700_000_000_000_000_000 + int64(i), CTime: 1_700_000_000_000_000_000 + int64(i)},
		}
	}
	return vs
}

func BenchmarkAcknowledge(b *testing.B) {
	c, err := catalog.Open(b.Context(), b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	vs := benchVersions()
	d, err := c.Destination(b.Context(), "x")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for batch := range len(vs) / 1000 {
			if err := d.Acknowledge(b.Context(), vs[batch*1000:(batch+1)*1000]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*len(vs))/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkKnown(b *testing.B) {
	c, err := catalog.Open(b.Context(), b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	d, err := c.Destination(b.Context(), "x")
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Acknowledge(b.Context(), benchVersions()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		k, err := d.Known(b.Context(), "/home")
		if err != nil || k.Len() != benchFiles {
			b.Fatal(err, k.Len())
		}
	}
	b.ReportMetric(float64(b.N*benchFiles)/b.Elapsed().Seconds(), "rows/s")
}
