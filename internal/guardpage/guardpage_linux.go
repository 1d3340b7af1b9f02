// Package guardpage gives tests memory with nothing around it, to show that assembly
// stays within what it was given. Only tests import it.
package guardpage

import (
	"testing"

	"golang.org/x/sys/unix"
)

// New returns a page of memory between two that crash the test when touched. It goes
// with the test.
func New(tb testing.TB) []byte {
	tb.Helper()
	size := unix.Getpagesize()
	b, err := unix.Mmap(-1, 0, 3*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Munmap(b) })
	for _, page := range [][]byte{b[:size], b[2*size:]} {
		if err := unix.Mprotect(page, unix.PROT_NONE); err != nil {
			tb.Fatal(err)
		}
	}
	return b[size : 2*size]
}
