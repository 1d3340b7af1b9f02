// Package private reads files that hold keys, and refuses those that anybody else
// could have read or written.
package private

import (
	"io"
	"os"
)

// ReadFile reads a key file. It is an error if others may read or write it, or if
// it belongs to somebody other than the user who runs this program or the
// administrator. What it returns must not be printed or logged.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := check(f); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
