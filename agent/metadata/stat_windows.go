package metadata

import (
	"errors"
	"math"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// A Handle is an open file, folder, or reparse point opened as itself.
type Handle = *os.File

// basicInfo is FILE_BASIC_INFO. A time of 0 leaves the one there is.
type basicInfo struct {
	creation, access, write, change int64
	attributes, _                   uint32
}

// standardInfo is FILE_STANDARD_INFO.
type standardInfo struct {
	allocation, _ int64
	links         uint32
	_             [4]byte
}

const fileStandardInfo = 1

// inform fills *info, one of the system's information structures.
func inform[T any](h windows.Handle, class uint32, info *T) error {
	return windows.GetFileInformationByHandleEx(h, class, (*byte)(unsafe.Pointer(info)), uint32(unsafe.Sizeof(*info)))
}

// epoch is 1970 in seconds since 1601, from when Windows counts 100 ns.
const epoch = 11_644_473_600

func fromFiletime(t int64) time.Time {
	return time.Unix(t/1e7-epoch, t%1e7*100).UTC()
}

// toFiletime returns 0, which leaves a time as it is, for what Windows cannot count.
func toFiletime(t time.Time) int64 {
	s := t.Unix() + epoch
	if t.IsZero() || s < 0 || s > math.MaxInt64/10_000_000-1 {
		return 0
	}
	return s*1e7 + int64(t.Nanosecond()/100)
}

// Stat asks what the system tells of h but for its permissions.
func Stat(h Handle) (Node, error) {
	info, err := h.Stat()
	if err != nil {
		return Node{}, err
	}
	n := Node{Facts: facts.FromInfo(info), Links: 1}
	n.Type = vault.FileType(n.Facts.Type)
	raw := windows.Handle(h.Fd())
	var basic basicInfo
	if err := inform(raw, windows.FileBasicInfo, &basic); err != nil {
		return Node{}, err
	}
	n.Changed = fromFiletime(basic.change).UnixNano()
	n.meta = vault.Metadata{
		ModTime: fromFiletime(basic.write), Created: fromFiletime(basic.creation), Attributes: &basic.attributes,
	}
	if basic.attributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		if tag, err := reparseTag(raw); err == nil && tag == windows.IO_REPARSE_TAG_MOUNT_POINT {
			n.Type = vault.TypeSymlink
		}
	}
	var standard standardInfo
	if err := inform(raw, fileStandardInfo, &standard); err != nil {
		return Node{}, err
	}
	n.Allocated, n.Links = standard.allocation, uint64(standard.links)
	if n.Links > 1 {
		// FILE_ID_INFO; file systems without it have no second names either.
		if err := inform(raw, windows.FileIdInfo, &n.Key); err != nil {
			n.Links = 1
		}
	}
	return n, nil
}

func reparseTag(h windows.Handle) (uint32, error) {
	var info struct{ attributes, tag uint32 } // FILE_ATTRIBUTE_TAG_INFO
	err := inform(h, windows.FileAttributeTagInfo, &info)
	return info.tag, err
}

const securityParts = windows.OWNER_SECURITY_INFORMATION | windows.GROUP_SECURITY_INFORMATION | windows.DACL_SECURITY_INFORMATION

// Read completes what [Stat] told of h with its permissions. path is what a
// problem shows.
//
// The metadata is valid with an error, too, which is a *[facts.Problem] and says
// what of it could not be read.
func Read(h Handle, n Node, path string) (vault.Metadata, error) {
	m := n.meta
	sd, err := windows.GetSecurityInfo(windows.Handle(h.Fd()), windows.SE_FILE_OBJECT, securityParts)
	switch {
	case errors.Is(err, windows.ERROR_NOT_SUPPORTED), errors.Is(err, windows.ERROR_INVALID_FUNCTION): // a file system without
	case err != nil:
		return m, partial(path, "its permissions cannot be read", err)
	default:
		// A descriptor has at most a few ACLs of 64 KiB; the copy is no longer tied
		// to the one that the collector may take.
		m.Security = append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(sd)), sd.Length())...)
	}
	return m, nil
}
