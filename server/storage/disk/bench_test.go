package disk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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

// BenchmarkCommitRecords is a first pass: commits of 1,024 small records.
func BenchmarkCommitRecords(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	seq := uint64(0)
	for b.Loop() {
		seq++
		c := storage.Commit{Vault: home, Device: mine, Seq: seq}
		for i := range 1024 {
			sum := sha256.Sum256(fmt.Append(nil, seq, i))
			r := storagetest.Record(vault.RecordHeader{
				Device: mine, Seq: seq, Path: vault.PathID(sum[:16]), Parent: vault.PathID{byte(i)}, Op: vault.OpPut,
			})
			c.Objects = append(c.Objects, r)
			c.Records = append(c.Records, vault.Identify(r))
		}
		if _, err := s.Commit(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*1024)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkChildren lists a folder of 1,000 among a million paths of five versions
// each, now and in the middle of history.
func BenchmarkChildren(b *testing.B) {
	const folders, files, rounds = 1000, 1000, 5
	s := open(b, b.TempDir(), Options{})
	name := func(i ...int) (p vault.PathID) {
		sum := sha256.Sum256(fmt.Append(nil, i))
		copy(p[:], sum[:])
		return p
	}
	seq := uint64(0)
	for range rounds {
		for folder := range folders {
			seq++
			c := change{device: mine, seq: seq, time: int64(seq)}
			for file := range files {
				path := name(folder, file)
				id := vault.ObjectID(sha256.Sum256(fmt.Append(path[:], seq)))
				c.records = append(c.records, changed{id, path, name(folder), vault.OpPut})
			}
			must(b, s.submit(ctx, 0, func(g *group) error {
				if _, err := s.index.addChange(home, c, location{1, 100, 100}, vouched); err != nil {
					return err
				}
				return keepRows(g)
			}))
		}
	}
	for when, at := range map[string]time.Time{"now": {}, "then": time.Unix(0, int64(seq/2))} {
		b.Run(when, func(b *testing.B) {
			r := rand.New(rand.NewPCG(3, 3))
			for b.Loop() {
				n := 0
				for _, err := range s.Children(ctx, home, mine, name(r.IntN(folders/2)), at) {
					must(b, err)
					n++
				}
				if n != files {
					b.Fatalf("%d children", n)
				}
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
