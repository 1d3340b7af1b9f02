package disk

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isFull tells a disk or quota without room from a disk that fails.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
