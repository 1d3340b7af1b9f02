package v4

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/internal/mux"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage/disk"
)

// benchChunk is the size of the average chunk.
const benchChunk = 1 << 20

func benchDevice(b *testing.B) *device {
	b.Helper()
	store, err := disk.Open(b.TempDir(), disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return newHome(b, store).enrol("a").found()
}

// parallel has n goroutines do b.N things in all.
func parallel(b *testing.B, n int, do func(i int) error) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range n {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		next <- i
	}
	close(next)
	wg.Wait()
}

// BenchmarkPut sends chunks, eight to a request, and has them durable.
func BenchmarkPut(b *testing.B) {
	for _, streams := range []int{1, 3} {
		b.Run(fmt.Sprint("streams=", streams), func(b *testing.B) {
			d := benchDevice(b)
			b.SetBytes(7 * benchChunk)
			template := randomChunk(benchChunk - 200)
			parallel(b, streams, func(i int) error {
				var data []byte
				for n := range 7 {
					data = append(wire.AppendObjectHead(data, len(template)), template...)
					copy(data[len(data)-40:], fmt.Sprintf("%20d%20d", i, n))
				}
				_, _, err := d.exchange(context.Background(), wire.TypePut, wire.AppendEmpty(nil), data)
				return err
			})
		})
	}
}

// BenchmarkGet fetches chunks, 64 to a request.
func BenchmarkGet(b *testing.B) {
	for _, streams := range []int{1, 3} {
		b.Run(fmt.Sprint("streams=", streams), func(b *testing.B) {
			d := benchDevice(b)
			var ids []vault.ObjectID
			for range 64 {
				chunk := randomChunk(benchChunk)
				if err := d.put(chunk); err != nil {
					b.Fatal(err)
				}
				ids = append(ids, vault.Identify(chunk))
			}
			body := wire.IDsRequest{IDs: ids}.Append(nil)
			b.SetBytes(64 * benchChunk)
			parallel(b, streams, func(int) error { return drain(d.Client, body) })
		})
	}
}

func drain(c *mux.Client, body []byte) error {
	s, err := c.Open(context.Background(), wire.TypeGet, body, false)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Message(); err != nil {
		return err
	}
	buf := make([]byte, 0, benchChunk+1000)
	for r, n := wire.NewGotReader(s), 0; n < 64; n++ {
		if o, state, err := r.Next(buf); err != nil || state != wire.Stored || len(o.Data) < benchChunk {
			return fmt.Errorf("object %d: %d bytes, %v", n, len(o.Data), err)
		}
	}
	return nil
}

// BenchmarkCommit saves a file of 10 KB: its chunk and record in one commit.
func BenchmarkCommit(b *testing.B) {
	d := benchDevice(b)
	var took []time.Duration
	b.ResetTimer()
	for range b.N {
		chunk := randomChunk(10_000)
		record := d.record("file", chunk)
		start := time.Now()
		if err := d.commit([][]byte{record}, chunk); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
