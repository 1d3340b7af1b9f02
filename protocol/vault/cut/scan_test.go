package cut

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/cpu"
)

// testKey is the key of all tests that need no certain one.
var testKey = [32]byte([]byte("a key that only the tests are of"))

// random returns n bytes that depend on the seed alone.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// TestFoldWindow multiplies bit by bit.
func TestFoldWindow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var window, fold [windowSize]byte
		for i := range windowSize {
			window[i] = byte(rnd.Uint32()) | byte(rnd.Uint32())&-byte(rnd.Uint32()&1)
			fold[i] = byte(rnd.Uint32())
		}
		if rnd.Uint32()%4 == 0 { // as many carries as there can be
			for i := range windowSize {
				fold[i] = ^window[i]
			}
		}
		var hi, lo uint64
		for i := 0; i < windowSize; i += 16 {
			x := binary.LittleEndian.Uint64(window[i:]) ^ binary.LittleEndian.Uint64(fold[i:])
			y := binary.LittleEndian.Uint64(window[i+8:]) ^ binary.LittleEndian.Uint64(fold[i+8:])
			for b := range 64 {
				if x>>b&1 == 1 {
					lo ^= y << b
					hi ^= y >> (64 - b)
				}
			}
		}
		var want, got [16]byte
		binary.LittleEndian.PutUint64(want[:], lo)
		binary.LittleEndian.PutUint64(want[8:], hi)
		if (&keys{fold: fold}).foldWindow(&got, &window); got != want {
			t.Fatalf("window %x under %x folds to %x, want %x", window, fold, got, want)
		}
	}
}

// TestRoundKeys has the expansion of FIPS 197, appendix A.1.
func TestRoundKeys(t *testing.T) {
	key := []byte{0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c}
	last := []byte{0xd0, 0x14, 0xf9, 0xa8, 0xc9, 0xee, 0x25, 0x89, 0xe1, 0x3f, 0x0c, 0xc8, 0xb6, 0x63, 0x0c, 0xa6}
	k := newKeys(make([]byte, windowSize), key)
	if !bytes.Equal(k.rounds[:aes.BlockSize], key) || !bytes.Equal(k.rounds[10*aes.BlockSize:], last) {
		t.Errorf("round keys %x", k.rounds)
	}
}

// checkKernels compares every kernel with Go at every start of data.
func checkKernels(tb testing.TB, key [32]byte, data []byte, mask uint32, starts int) {
	tb.Helper()
	c := newCutter(key)
	for start := range min(starts, len(data)+1) {
		buf := data[start:len(data):len(data)]
		want := c.scan(buf, mask)
		for _, k := range kernels() {
			free := want
			if free < 0 {
				free = max(0, len(buf)-windowSize+1)
			}
			if n := k.skip(c.keys, buf, mask); n != free/k.step*k.step {
				tb.Fatalf("%s skips %d positions of %d bytes from %d on under %#x, %d are free", k.name, n, len(buf), start, mask, free)
			}
			with := *c
			with.skip = k.skip
			if got := with.scan(buf, mask); got != want {
				tb.Fatalf("%s finds %d in %d bytes from %d on under %#x, Go %d", k.name, got, len(buf), start, mask, want)
			}
		}
	}
}

// TestKernelIsUsed makes sure that the other tests are about kernels.
func TestKernelIsUsed(t *testing.T) {
	has := cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	if used := New(testKey).skip != nil; used != has {
		t.Errorf("the CPU has the instructions: %v, a kernel is used: %v", has, used)
	}
}

func TestKernelsEqualGo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		data   []byte
		mask   uint32
		starts int
	}{
		{"nothing", nil, 0, 1},
		{"no value is zero", random(1, 3000), 1<<32 - 1, 65},
		{"every value is zero", random(2, 300), 0, 65},
		{"one bit", random(3, 1000), 1 << 31, 300},
		{"the lowest bit", random(4, 300), 1, 300},
		{"five bits", random(5, 2000), 31, 500},
		{"eight bits", random(6, 4000), 0xff, 300},
		{"other eight bits", random(7, 4000), 0x00a5a500, 300},
		{"twelve bits", random(8, 16000), 1<<12 - 1, 65},
		{"below the average", random(9, 40000), maskBelow, 2},
		{"zeros", make([]byte, 2000), maskAbove, 65},
		{"zeros under one bit", make([]byte, 2000), 2, 65},
		{"ones", bytes.Repeat([]byte{0xff}, 2000), 4, 65},
		{"16-byte records", bytes.Repeat(random(10, 16), 100), 7, 65},
		{"17-byte records", bytes.Repeat(random(11, 17), 100), 15, 65},
		{"text", bytes.Repeat([]byte("GET /index.html HTTP/1.1 200\n"), 100), 31, 65},
	} {
		t.Run(tt.name, func(t *testing.T) { checkKernels(t, testKey, tt.data, tt.mask, tt.starts) })
	}
	t.Run("all short lengths", func(t *testing.T) {
		data := random(12, 400)
		for n := range data {
			checkKernels(t, testKey, data[:n], 1<<32-1, 1)
			checkKernels(t, testKey, data[:n], 0x3f, 1)
		}
	})
	t.Run("keys", func(t *testing.T) {
		for i := range uint64(50) {
			checkKernels(t, [32]byte(random(i, 32)), random(100+i, 500), 0x7f, 20)
		}
	})
}

// TestWindowIsAllThatCounts changes every bit in and around a window.
func TestWindowIsAllThatCounts(t *testing.T) {
	c := newCutter(testKey)
	data := random(20, 3*windowSize)
	value := func() (block [16]byte) {
		c.keys.foldWindow(&block, (*[windowSize]byte)(data[windowSize:]))
		return block
	}
	was := value()
	for bit := range 8 * len(data) {
		data[bit/8] ^= 1 << (bit % 8)
		if within := bit/8/windowSize == 1; (value() != was) != within {
			t.Errorf("bit %d counts: %v", bit, !within)
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
}

// FuzzKernels takes a key and data from one input.
func FuzzKernels(f *testing.F) {
	f.Add(random(1, 32+200), uint32(0xff), uint8(3))
	f.Add(append(random(2, 32), make([]byte, 500)...), uint32(1), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, mask uint32, starts uint8) {
		if len(in) >= 32 {
			checkKernels(t, [32]byte(in), in[32:], mask, int(starts)+1)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	goOnly := newCutter(testKey)
	data := random(1, 4<<20)
	for _, k := range append(kernels(), kernel{name: "Go"}) {
		b.Run(k.name, func(b *testing.B) {
			c := *goOnly
			c.skip = k.skip
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if c.scan(data, 1<<32-1) >= 0 {
					b.Fatal("a value of 32 zeros")
				}
			}
		})
	}
}
