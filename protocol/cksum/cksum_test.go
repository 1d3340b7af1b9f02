package cksum

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// reference is the definition, one bit at a time.
func reference(b []byte) uint32 {
	var crc uint32
	add := func(c byte) {
		for i := 7; i >= 0; i-- {
			top := crc>>31 ^ uint32(c>>i&1)
			crc = crc << 1
			if top != 0 {
				crc ^= 0x04C11DB7
			}
		}
	}
	for _, c := range b {
		add(c)
	}
	for n := len(b); n > 0; n >>= 8 {
		add(byte(n))
	}
	return ^crc
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestKnownVectors(t *testing.T) {
	for _, v := range []struct {
		name, in string
		want     uint32
	}{
		{"empty", "", 0xFFFFFFFF},
		{"one NUL", "\x00", 4215202376},
		{"letter", "a", 1220704766},
		{"digits", "123456789", 930766865},
	} {
		t.Run(v.name, func(t *testing.T) {
			if got := Sum32([]byte(v.in)); got != v.want {
				t.Errorf("Sum32 = %d, want %d", got, v.want)
			}
			if got := reference([]byte(v.in)); got != v.want {
				t.Errorf("reference = %d, want %d", got, v.want)
			}
		})
	}
}

func TestAgainstReference(t *testing.T) {
	for n := range 300 {
		if b := random(n); Sum32(b) != reference(b) {
			t.Errorf("length %d: Sum32 = %#x, want %#x", n, Sum32(b), reference(b))
		}
	}
	for _, n := range []int{4095, 4096, 4097, 8191, 65535, 65536, 70001} {
		if b := random(n); Sum32(b) != reference(b) {
			t.Errorf("length %d: Sum32 = %#x, want %#x", n, Sum32(b), reference(b))
		}
	}
}

func TestStreaming(t *testing.T) {
	b := random(20000)
	want := Sum32(b)
	d := New()
	for _, step := range []int{1, 7, 8, 9, 4096, 5000, 20000} {
		d.Reset()
		for rest := b; len(rest) > 0; {
			n := min(step, len(rest))
			if m, err := d.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
			d.Sum32() // must not disturb the state
			rest = rest[n:]
		}
		if got := d.Sum32(); got != want {
			t.Errorf("pieces of %d: %#x, want %#x", step, got, want)
		}
	}
	if got := d.Sum([]byte{1}); !bytes.Equal(got, []byte{1, byte(want >> 24), byte(want >> 16), byte(want >> 8), byte(want)}) {
		t.Errorf("Sum = %x", got)
	}
}

func TestSystemProgram(t *testing.T) {
	path, err := exec.LookPath("cksum")
	if err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("the program cksum is not installed")
	}
	for _, n := range []int{0, 1, 255, 256, 65535, 65536, 1 << 20} {
		b := random(n)
		cmd := exec.Command(path)
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var sum uint32
		var size int
		if _, err := fmt.Sscan(string(out), &sum, &size); err != nil || size != n {
			t.Fatalf("cksum printed %q", out)
		}
		if got := Sum32(b); got != sum {
			t.Errorf("length %d: Sum32 = %d, cksum says %d", n, got, sum)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	b, d := random(10000), New()
	if n := testing.AllocsPerRun(10, func() { d.Write(b); d.Sum32() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCksum(b *testing.B) {
	data := random(1 << 20)
	d := New()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		d.Write(data)
	}
}
