package v3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
	"backstay/server/storage"
	"backstay/server/storage/disk"
)

// onDisk returns an empty store on disk.
func onDisk(t testing.TB) storage.Store {
	t.Helper()
	s, err := disk.Open(filepath.Join(t.TempDir(), "store"), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// pattern is an endless file that does not compress and repeats nowhere soon.
type pattern struct{ x uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		if i%8 == 0 {
			p.x += 0x9e3779b97f4a7c15
		}
		z := p.x ^ p.x>>31
		z *= 0x94d049bb133111eb
		b[i] = byte(z >> (8 * (i % 8)))
	}
	return len(b), nil
}

// stream sends a file of size bytes in total packets without holding it, and
// returns its checksum as computed here.
func (c *client) stream(name string, src io.Reader, size int64, total int) uint32 {
	c.t.Helper()
	sum := cksum.New()
	e, err := wire.NewEncrypter(io.TeeReader(io.LimitReader(src, size), sum), c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	left := wire.CiphertextSize(size)
	part := (left/int64(total) + 15) &^ 15
	buf := make([]byte, 256<<10)
	for i := range total {
		n := min(part, left)
		left -= n
		c.write(c.request(wire.Message{
			Kind: wire.File, ClientID: c.id, Name: name, ContentSize: uint32(n),
			OrigSize: uint32(size), Packet: uint16(i + 1), Total: uint16(total),
		}))
		if _, err := io.CopyBuffer(struct{ io.Writer }{c.conn}, io.LimitReader(e, n), buf); err != nil {
			c.t.Fatal(err)
		}
	}
	return sum.Sum32()
}

// liveHeap keeps the largest live heap it has seen.
type liveHeap struct{ base, max atomic.Uint64 }

func (h *liveHeap) look() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for {
		was := h.max.Load()
		if m.HeapAlloc <= was || h.max.CompareAndSwap(was, m.HeapAlloc) {
			return m.HeapAlloc
		}
	}
}

// TestMemoryIsBounded: a file takes no more memory than its few chunks under way,
// whether it is received or given back.
func TestMemoryIsBounded(t *testing.T) {
	const size, bound = 40 << 20, 24 << 20
	var heap liveHeap
	store := &faulty{Store: onDisk(t), put: func() error { heap.look(); return nil }}
	a := open(t, store, Options{})
	c := ready(t, a, wire.Field, "ada")
	heap.base.Store(heap.look())
	sum := c.stream("large", &pattern{}, size, 5)
	if m := c.answer(wire.FileReceived); m.Cksum != sum {
		t.Fatalf("checksum %d, want %d", m.Cksum, sum)
	}
	c.valid("large")
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	got := cksum.New()
	if err := a.Get(t.Context(), "ada", "large", writerFunc(func(p []byte) (int, error) {
		heap.look()
		return got.Write(p)
	})); err != nil {
		t.Fatal(err)
	}
	if got.Sum32() != sum {
		t.Error("another file came back")
	}
	if used := heap.max.Load() - heap.base.Load(); used > bound {
		t.Errorf("%d MiB of live heap for a file of %d MiB, want at most %d", used>>20, size>>20, bound>>20)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestMaxTransfers: large files wait for a place, small ones do not, and one that
// waits is received when the place is free.
func TestMaxTransfers(t *testing.T) {
	a := open(t, nil, Options{MaxTransfers: 1})
	data := fill(smallFile + 1)
	first, second, third := ready(t, a, wire.Field, "a"), ready(t, a, wire.Field, "b"), ready(t, a, wire.Field, "c")
	p := first.packets("f", data, 2)
	first.write(p[0])
	sent := make(chan error, 1)
	go func() {
		_, err := second.conn.Write(second.packets("f", data, 1)[0])
		sent <- err
	}()
	third.send("small", data[:smallFile-1])
	select {
	case <-sent:
		t.Error("two large files at a time")
	default:
	}
	first.write(p[1])
	first.received("f", data)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	second.received("f", data)
	for _, c := range []*client{first, second, third} {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMaxFile(t *testing.T) {
	const limit = 100_000
	for _, d := range dialects {
		o := options(d)
		o.MaxFile = limit
		a := open(t, nil, o)
		c := ready(t, a, d, "ada")
		c.send("f", fill(limit))
		c.write(c.packets("g", fill(limit+100), 1)[0])
		c.answer(wire.GeneralError)
		c.send("h", nil)
		if err := c.close(); err != nil {
			t.Error(err)
		}
		wantFile(t, a, "ada", "f", fill(limit))
		wantFile(t, a, "ada", "g", nil)
	}
}

// TestOnDisk: sessions over TCP into the real store, which is then opened again.
func TestOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	contents := map[string][]byte{"empty": {}, "inline": fill(4096), "chunk": fill(4097), "chunks": fill(3<<20 + 5)}
	for round := range 2 {
		s, err := disk.Open(dir, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a := open(t, s, Options{})
		c := dialTCP(t, a)
		if round == 0 {
			c.register("ada")
		}
		c.exchange("ada")
		for name, data := range contents {
			if round == 1 {
				wantFile(t, a, "ada", name, data)
				data = append(slices.Clone(data), 'x')
			}
			c.send(name, data)
			c.valid(name)
			wantFile(t, a, "ada", name, data)
		}
		if err := c.close(); err != nil {
			t.Error(err)
		}
		for name, f := range files(t, a) {
			if f.Versions != round+1 || !f.Verified {
				t.Errorf("round %d: %s: %+v", round, name, f)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := a.Get(t.Context(), "ada", "empty", io.Discard); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("get from a closed store: %v", err)
		}
	}
}

// dialTCP starts a session of a over TCP.
func dialTCP(t testing.TB, a *Area) *client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, d: wire.Field, conn: here, r: bufio.NewReader(here), priv: testKey(), served: make(chan error, 1)}
	go func() { c.served <- a.Serve(context.Background(), there) }()
	t.Cleanup(func() { here.Close() })
	return c
}

// BenchmarkServe receives one file over loopback TCP into a store on disk, client
// and server in this process.
func BenchmarkServe(b *testing.B) {
	for _, bb := range []struct {
		name string
		size int64
	}{{"256MiB", 256 << 20}, {"10KB", 10 << 10}} {
		b.Run(bb.name, func(b *testing.B) {
			a := open(b, onDisk(b), Options{})
			c := dialTCP(b, a)
			c.register("ada")
			c.exchange("ada")
			block := make([]byte, 1<<20)
			(&pattern{}).Read(block)
			b.SetBytes(bb.size)
			for i := 0; b.Loop(); i++ {
				sum := c.stream("f", &blocks{block: block, n: uint64(i) << 32}, bb.size, 1)
				if m := c.answer(wire.FileReceived); m.Cksum != sum {
					b.Fatal("wrong checksum")
				}
			}
		})
	}
}

// blocks repeats a block, each time with another beginning, so that no two are
// stored as one.
type blocks struct {
	block []byte
	n     uint64
	left  []byte
}

func (s *blocks) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		s.n++
		for i := range 8 {
			s.block[i] = byte(s.n >> (8 * i))
		}
		s.left = s.block
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// FuzzServe: whatever a peer sends, the session ends with it, and what is listed
// can be had.
func FuzzServe(f *testing.F) {
	for _, folder := range []string{"field-sha256", "field-sha1", "2022", "2023", "late2023"} {
		b, err := os.ReadFile(filepath.Join("../../protocol/testdata/v3", folder, "client-to-server.bin"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(0), b)
		f.Add(uint8(7), b)
	}
	f.Fuzz(func(t *testing.T, settings uint8, stream []byte) {
		series := wire.Series{
			S1100: []wire.Dialect{0, wire.Documented, wire.Y2022, wire.Y2023}[settings&3],
			S1025: []wire.Dialect{0, wire.Late2023}[settings>>2&1],
		}
		a := open(t, nil, Options{Series: series, MaxFile: 1 << 20, MaxSkip: 1 << 16})
		a.Serve(t.Context(), &streamConn{r: bytes.NewReader(stream)})
		for f, err := range a.Files(t.Context()) {
			if err == nil {
				err = wire.CheckFileName(f.Name)
			}
			if err == nil {
				err = a.Get(t.Context(), f.ClientID, f.Name, io.Discard)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// streamConn is a connection whose peer has sent r and takes every answer.
type streamConn struct{ r io.Reader }

func (c *streamConn) Read(p []byte) (int, error)     { return c.r.Read(p) }
func (*streamConn) Write(p []byte) (int, error)      { return len(p), nil }
func (*streamConn) Close() error                     { return nil }
func (*streamConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*streamConn) SetDeadline(time.Time) error      { return nil }
func (*streamConn) SetReadDeadline(time.Time) error  { return nil }
func (*streamConn) SetWriteDeadline(time.Time) error { return nil }
