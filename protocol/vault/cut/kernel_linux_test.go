package cut

import (
	"testing"

	"backstay/internal/guardpage"
)

// TestKernelsStayWithin scans at both ends of a fenced page.
func TestKernelsStayWithin(t *testing.T) {
	page := guardpage.New(t)
	copy(page, random(50, len(page)))
	for n := range 400 {
		checkKernels(t, testKey, page[:n:n], 1<<32-1, 1)
		checkKernels(t, testKey, page[len(page)-n:], 1<<32-1, 1)
		checkKernels(t, testKey, page[len(page)-n:], 0x1f, 1)
	}
	checkKernels(t, testKey, page, 1<<32-1, 200)
}
