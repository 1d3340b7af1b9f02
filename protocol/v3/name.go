package v3

import (
	"bytes"
	"fmt"
	"strings"
)

// MaxName is the longest name a name field holds, in bytes.
const MaxName = NameSize - 1

// AppendName appends the 255-byte field of name to b. It refuses with
// [ErrName] what [ParseName] would not give back: an empty name, one over 254
// bytes, and characters other than printable ASCII; b is unchanged then.
func AppendName(b []byte, name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return b, err
	}
	b = append(b, name...)
	return append(b, make([]byte, NameSize-len(name))...), nil
}

// ParseName returns the name in a 255-byte field: what precedes the first NUL.
// What follows the NUL is ignored, as not every program clears its buffers. It
// refuses with [ErrName] a field without NUL, an empty name, and characters
// other than printable ASCII.
func ParseName(field []byte) (string, error) {
	if len(field) != NameSize {
		return "", fmt.Errorf("name field of %d bytes: %w", len(field), ErrSize)
	}
	n := bytes.IndexByte(field, 0)
	if n < 0 {
		return "", fmt.Errorf("%w: no terminating NUL", ErrName)
	}
	name := string(field[:n])
	return name, checkName(name)
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty", ErrName)
	case len(name) > MaxName:
		return fmt.Errorf("%w: %d bytes, at most %d fit", ErrName, len(name), MaxName)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' {
			return fmt.Errorf("%w: byte %#02x at %d is not printable ASCII", ErrName, c, i)
		}
	}
	return nil
}

// CheckFileName refuses with [ErrName] a received file name that could lead
// out of the folder it is written to on some system: one that is `.` or `..`
// or contains a slash, backslash or colon.
func CheckFileName(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if name == "." || name == ".." {
		return fmt.Errorf("%w: %q names a folder", ErrName, name)
	}
	if i := strings.IndexAny(name, `/\:`); i >= 0 {
		return fmt.Errorf("%w: %q in a file name", ErrName, name[i])
	}
	return nil
}
