package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"
)

// ntPrefix starts the names that the kernel uses. The target of a junction keeps
// it, and so is told from a symlink's, which loses it.
const ntPrefix = `\??\`

// Where things stand in a REPARSE_DATA_BUFFER.
const (
	reparseHeader   = 8
	reparseNames    = 16 // of a junction
	reparseSymNames = 20 // of a symlink, after its flags
)

// Target returns where a symlink or a junction that is open as itself points. A
// junction's is a name of the kernel, starting `\??\`.
func Target(h Handle) ([]byte, error) {
	buf := make([]byte, windows.MAXIMUM_REPARSE_DATA_BUFFER_SIZE)
	var n uint32
	if err := windows.DeviceIoControl(windows.Handle(h.Fd()), windows.FSCTL_GET_REPARSE_POINT, nil, 0,
		&buf[0], uint32(len(buf)), &n, nil); err != nil {
		return nil, err
	}
	return parseTarget(buf[:n])
}

var errReparse = errors.New("a link that is not well formed")

// parseTarget reads a REPARSE_DATA_BUFFER.
func parseTarget(b []byte) ([]byte, error) {
	if len(b) < reparseNames {
		return nil, errReparse
	}
	names := reparseNames
	tag := binary.LittleEndian.Uint32(b)
	switch tag {
	case windows.IO_REPARSE_TAG_MOUNT_POINT:
	case windows.IO_REPARSE_TAG_SYMLINK:
		names = reparseSymNames
	default:
		return nil, fmt.Errorf("no link but a reparse point %#x", tag)
	}
	start := names + int(binary.LittleEndian.Uint16(b[reparseHeader:]))
	end := start + int(binary.LittleEndian.Uint16(b[reparseHeader+2:]))
	if end > len(b) || start >= end || (end-start)%2 != 0 {
		return nil, errReparse
	}
	wide := make([]uint16, (end-start)/2)
	for i := range wide {
		wide[i] = binary.LittleEndian.Uint16(b[start+2*i:])
	}
	target := syscall.UTF16ToString(wide)
	if tag == windows.IO_REPARSE_TAG_SYMLINK {
		if rest, ok := strings.CutPrefix(target, ntPrefix); ok {
			switch {
			case strings.HasPrefix(rest, `UNC\`):
				target = `\` + rest[len(`UNC`):]
			case len(rest) >= 2 && rest[1] == ':':
				target = rest
			default:
				target = `\\?\` + rest
			}
		}
	}
	return []byte(target), nil
}

// junction returns the REPARSE_DATA_BUFFER of a junction.
func junction(target string) ([]byte, error) {
	substitute, err := syscall.UTF16FromString(target)
	if err != nil {
		return nil, err
	}
	printed, err := syscall.UTF16FromString(strings.TrimPrefix(target, ntPrefix))
	if err != nil {
		return nil, err
	}
	size := reparseNames + 2*(len(substitute)+len(printed))
	if size > windows.MAXIMUM_REPARSE_DATA_BUFFER_SIZE {
		return nil, errReparse
	}
	b := make([]byte, reparseNames, size)
	binary.LittleEndian.PutUint32(b, windows.IO_REPARSE_TAG_MOUNT_POINT)
	binary.LittleEndian.PutUint16(b[4:], uint16(size-reparseHeader))
	binary.LittleEndian.PutUint16(b[reparseHeader+2:], uint16(2*len(substitute)-2)) // without the zero at the end
	binary.LittleEndian.PutUint16(b[reparseHeader+4:], uint16(2*len(substitute)))
	binary.LittleEndian.PutUint16(b[reparseHeader+6:], uint16(2*len(printed)-2))
	for _, c := range append(substitute, printed...) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b, nil
}
