package disk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/storagetest"
)

// fresh returns a chunk of about n bytes that no other call returns. It is random
// no more than it must be, so that making it costs less than storing it.
func fresh(counter *atomic.Uint64, body []byte) []byte {
	binary.LittleEndian.PutUint64(body, counter.Add(1))
	return storagetest.Chunk(body)
}

var sizes = []struct {
	name string
	n    int
}{{"4KiB", 4 << 10}, {"1MiB", 1 << 20}}

func BenchmarkPut(b *testing.B) {
	for _, size := range sizes {
		for _, putters := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/putters=%d", size.name, putters), func(b *testing.B) {
				s := open(b, b.TempDir(), Options{})
				var counter atomic.Uint64
				var left atomic.Int64
				left.Store(int64(b.N))
				b.SetBytes(int64(size.n))
				b.ResetTimer()
				var wg sync.WaitGroup
				for range putters {
					wg.Go(func() {
						body := make([]byte, size.n)
						for left.Add(-1) >= 0 {
							if err := store(ctx, s, home, fresh(&counter, body)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkPutBatch puts 256 objects of 4 KiB with each call.
func BenchmarkPutBatch(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	var counter atomic.Uint64
	body := make([]byte, 4<<10)
	b.SetBytes(256 * 4 << 10)
	for b.Loop() {
		batch := make([][]byte, 256)
		for i := range batch {
			batch[i] = fresh(&counter, body)
		}
		must(b, store(ctx, s, home, batch...))
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			s := open(b, b.TempDir(), Options{})
			var counter atomic.Uint64
			body := make([]byte, size.n)
			var ids []vault.ObjectID
			for range 64 << 20 / size.n / 16 {
				batch := make([][]byte, 16)
				for i := range batch {
					batch[i] = fresh(&counter, body)
					ids = append(ids, vault.Identify(batch[i]))
				}
				must(b, store(ctx, s, home, batch...))
			}
			b.SetBytes(int64(size.n))
			b.ResetTimer()
			for n := 0; n < b.N; {
				for _, err := range s.Get(ctx, home, ids[:min(len(ids), b.N-n)]) {
					must(b, err)
					n++
				}
			}
		})
	}
}

// fillObjects puts rows of n objects into the index, whose bytes are nowhere.
func fillObjects(b *testing.B, s *Store, n int) (ids []vault.ObjectID) {
	r := rand.New(rand.NewPCG(1, 1))
	for len(ids) < n {
		must(b, s.submit(ctx, 0, func(g *group) error {
			v, err := s.index.addVault(home)
			if err != nil {
				return err
			}
			for range min(20_000, n-len(ids)) {
				var id vault.ObjectID
				binary.LittleEndian.PutUint64(id[:], r.Uint64())
				binary.LittleEndian.PutUint64(id[8:], r.Uint64())
				ids = append(ids, id)
				if _, err := s.index.addObject(v, id, vault.Header{Type: vault.TypeChunk}, location{1, 100, 100}, checked); err != nil {
					return err
				}
			}
			return keepRows(g)
		}))
	}
	return ids
}

// keepRows gives a group of nothing but rows an entry, so that it is not undone.
func keepRows(g *group) error {
	body := encodeItem(storage.Item{Kind: 99, Rev: uint64(g.end)})
	g.stage(kindItem, 0, vault.ID{}, sha256.Sum256(body), body)
	return nil
}

func BenchmarkHas(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	ids := fillObjects(b, s, 1_000_000)
	r := rand.New(rand.NewPCG(2, 2))
	batch := make([]vault.ObjectID, 1024)
	b.ResetTimer()
	for b.Loop() {
		for i := range batch {
			batch[i] = ids[r.IntN(len(ids))]
		}
		if _, err := s.Has(ctx, home, batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "ids/s")
}

// BenchmarkCommit is one small file at a time: a chunk and its record.
func BenchmarkCommit(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	seq := uint64(0)
	for b.Loop() {
		seq++
		commit(b, s, seq, chunk(fmt.Sprint(seq), 10_000))
	}
}

// BenchmarkCommitRecords commits 10,000 records without content: those of a first
// pass, and those of paths that were put before.
func BenchmarkCommitRecords(b *testing.B) {
	const n = 10_000
	batch := func(seq uint64, paths uint64) storage.Commit {
		c := storage.Commit{Vault: home, Device: mine, After: seq - 1, Seq: seq}
		for i := range n {
			r := storagetest.Record(vault.RecordHeader{
				Device: mine, Seq: seq, Path: pathName(int(paths), i), Parent: pathName(i / 10), Op: vault.OpPut,
			})
			c.Objects = append(c.Objects, r)
			c.Records = append(c.Records, vault.Identify(r))
		}
		return c
	}
	for _, again := range []bool{false, true} {
		b.Run(fmt.Sprint("again=", again), func(b *testing.B) {
			s := open(b, b.TempDir(), Options{})
			for seq := uint64(1); b.Loop(); seq++ {
				b.StopTimer()
				paths := seq
				if again {
					paths = 0
				}
				c := batch(seq, paths)
				b.StartTimer()
				if _, _, err := s.Commit(ctx, c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkPutTiny puts 100,000 of the smallest files there are, 1,000 with each
// call.
func BenchmarkPutTiny(b *testing.B) {
	const n = 100_000
	s := open(b, b.TempDir(), Options{})
	var counter atomic.Uint64
	body := make([]byte, 100)
	for b.Loop() {
		for range n / 1000 {
			batch := make([][]byte, 1000)
			for i := range batch {
				batch[i] = fresh(&counter, body)
			}
			must(b, store(ctx, s, home, batch...))
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "objects/s")
}

func pathName(i ...int) (p vault.PathID) {
	sum := sha256.Sum256(fmt.Append(nil, i))
	copy(p[:], sum[:])
	return p
}

// BenchmarkHistory asks for history among a million paths of five versions each:
// a folder of 1,000, now and in the middle; the versions of a path; a commit; the
// whole state.
func BenchmarkHistory(b *testing.B) {
	const folders, files, rounds = 1000, 1000, 5
	s := open(b, b.TempDir(), Options{})
	// Filling it is not what is measured: one transaction a round, in memory.
	must(b, s.submit(ctx, 0, func(*group) error { return s.index.script("PRAGMA cache_size = -1500000") }))
	seq := uint64(0)
	for range rounds {
		must(b, s.submit(ctx, 0, func(g *group) error {
			for folder := range folders {
				seq++
				c := change{device: mine, seq: seq, after: seq - 1, time: int64(seq)}
				for file := range files {
					path := pathName(folder, file)
					id := vault.ObjectID(sha256.Sum256(fmt.Append(path[:], seq)))
					c.records = append(c.records, changed{id, path, pathName(folder), vault.OpPut})
				}
				dev, _, err := s.index.addChange(home, c, vouched)
				if err != nil {
					return err
				}
				body := c.encode()
				if err := s.index.addCommit(dev.n, c, g.stage(kindCommit, 0, home, sha256.Sum256(body), body)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	r := rand.New(rand.NewPCG(3, 3))
	then := time.Unix(0, int64(seq/2))
	count := func(b *testing.B, want int, versions iter.Seq2[storage.Version, error]) {
		n := 0
		for _, err := range versions {
			must(b, err)
			n++
		}
		if n != want {
			b.Fatalf("%d versions, want %d", n, want)
		}
	}
	for _, c := range []struct {
		name string
		ask  func(b *testing.B)
	}{
		{"children/now", func(b *testing.B) {
			count(b, files, s.Children(ctx, home, mine, pathName(r.IntN(folders/2)), time.Time{}))
		}},
		{"children/then", func(b *testing.B) {
			count(b, files, s.Children(ctx, home, mine, pathName(r.IntN(folders/2)), then))
		}},
		{"versions", func(b *testing.B) {
			count(b, rounds, s.Versions(ctx, home, mine, pathName(r.IntN(folders), r.IntN(files))))
		}},
		{"commit at", func(b *testing.B) {
			_, err := s.CommitAt(ctx, home, mine, time.Unix(0, 1+r.Int64N(int64(seq))))
			must(b, err)
		}},
		{"records", func(b *testing.B) {
			count(b, files, s.Records(ctx, home, mine, 1+r.Uint64N(seq)))
		}},
		{"state/now", func(b *testing.B) { count(b, folders*files, s.State(ctx, home, mine, time.Time{})) }},
		{"state/then", func(b *testing.B) { count(b, folders*files, s.State(ctx, home, mine, then)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.ask(b)
			}
		})
	}
}

// BenchmarkRebuild makes the index anew from 256 MiB of packs.
func BenchmarkRebuild(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "store")
			s := open(b, dir, Options{})
			var counter atomic.Uint64
			body := make([]byte, size.n)
			const total = 256 << 20
			for range total / size.n / 64 {
				batch := make([][]byte, 64)
				for i := range batch {
					batch[i] = fresh(&counter, body)
				}
				must(b, store(ctx, s, home, batch...))
			}
			must(b, s.Close())
			b.SetBytes(total)
			for b.Loop() {
				must(b, forget(dir))
				s := open(b, dir, Options{})
				must(b, s.Close())
			}
		})
	}
}
