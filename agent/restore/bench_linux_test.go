package restore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/protocol/vault/cut"
)

func cpu() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// target is a new folder in memory.
func target(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "restore")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "to")
}

func benchmark(b *testing.B, l *lab) {
	sel := l.all()
	var report Report
	start := cpu()
	for b.Loop() {
		var err error
		if report, err = Run(context.Background(), l, sel, Options{Keys: l.keys, To: target(b)}); err != nil || len(report.Failed) > 0 {
			b.Fatal(err, report.Failed)
		}
	}
	b.ReportMetric((cpu()-start).Seconds()/float64(b.N), "cpu-s/op")
	b.SetBytes(report.Bytes)
}

// BenchmarkTiny is 100,000 tiny files in 10,000 folders, in the order of a first
// pass, which is by age.
func BenchmarkTiny(b *testing.B) {
	l := newLab(b)
	meta := vault.Metadata{ModTime: time.Unix(1_700_000_000, 1), Mode: new(uint32(0o644)), Owner: &vault.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}}
	closed := meta
	closed.Mode = new(uint32(0o755))
	var folders, files []change
	for i := range 10_000 {
		dir := fmt.Sprintf("/home/%d/%d", i/100, i)
		if i%100 == 0 {
			folders = append(folders, put(filepath.Dir(dir), vault.Record{Type: vault.TypeFolder, Metadata: closed}))
		}
		folders = append(folders, put(dir, vault.Record{Type: vault.TypeFolder, Metadata: closed}))
		for j := range 10 {
			rec := inline(fmt.Sprintf("content %d %0600d", i*j, j))
			rec.Metadata = meta
			files = append(files, put(fmt.Sprintf("%s/file %d", dir, j), rec))
		}
	}
	rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	l.commit(folders...)
	for len(files) > 0 {
		n := min(len(files), vault.MaxRecords)
		l.commit(files[:n]...)
		files = files[n:]
	}
	benchmark(b, l)
}

// BenchmarkLarge is a file of half a gigabyte that does not compress.
func BenchmarkLarge(b *testing.B) {
	l := newLab(b)
	content := make([]byte, 512<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	l.commit(put("/large", vault.Record{Type: vault.TypeFile, Content: l.content(content, cut.New(l.keys.ChunkerKey()))}))
	content = nil
	benchmark(b, l)
}

// BenchmarkMixed is 2,000 files of 10 KB to 1 MB.
func BenchmarkMixed(b *testing.B) {
	l := newLab(b)
	random := rand.NewChaCha8([32]byte{})
	var changes []change
	for i := range 2000 {
		content := make([]byte, 10_000+i*i%990_000/4)
		random.Read(content)
		changes = append(changes, put(fmt.Sprintf("/home/%d/%d", i/50, i), l.file(content)))
	}
	l.commit(changes...)
	benchmark(b, l)
}

// BenchmarkReadState verifies a state of 100,000 paths and selects all of it.
func BenchmarkReadState(b *testing.B) {
	l := newLab(b)
	l.clock = l.clock.Add(time.Minute)
	e := entry{time: l.clock}
	random := rand.NewChaCha8([32]byte{})
	for range 100_000 {
		r := wire.Row{Op: vault.OpPut, Seq: 1, Time: l.clock}
		for _, id := range [][]byte{r.Path[:], r.Parent[:1], r.Record[:]} {
			random.Read(id)
		}
		e.rows = append(e.rows, r)
	}
	l.log = append(l.log, e)
	m := &Moment{Commit: vault.Commit{Device: l.device.ID(), Seq: 1, Digest: l.digest(l.log)}, Time: l.clock}
	rows := state(l.log, l.clock)
	src := &liar{lab: l, sorted: rows}
	for b.Loop() {
		s, err := ReadState(context.Background(), src, m)
		if err == nil {
			_, err = s.All()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
