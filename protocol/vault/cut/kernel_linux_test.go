package cut

import (
	"testing"

	"golang.org/x/sys/unix"
)

// fence returns a page of memory between two that crash the test when touched.
func fence(t *testing.T) []byte {
	size := unix.Getpagesize()
	b, err := unix.Mmap(-1, 0, 3*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	for _, page := range [][]byte{b[:size], b[2*size:]} {
		if err := unix.Mprotect(page, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return b[size : 2*size]
}

// TestKernelsStayWithin scans at both ends of a fenced page.
func TestKernelsStayWithin(t *testing.T) {
	page := fence(t)
	copy(page, random(50, len(page)))
	for n := range 400 {
		checkKernels(t, testKey, page[:n:n], 1<<32-1, 1)
		checkKernels(t, testKey, page[len(page)-n:], 1<<32-1, 1)
		checkKernels(t, testKey, page[len(page)-n:], 0x1f, 1)
	}
	checkKernels(t, testKey, page, 1<<32-1, 200)
}
