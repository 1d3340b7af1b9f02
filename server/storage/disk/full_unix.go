//go:build !windows

package disk

import (
	"errors"
	"syscall"
)

// isFull tells a disk or quota without room from a disk that fails.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
