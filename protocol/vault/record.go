package vault

import (
	"time"

	"backstay/protocol/cbor"
)

// FileType says what a record's path is.
type FileType uint8

// The types of paths. Values are written out because they are stored.
const (
	TypeFile        FileType = 1
	TypeFolder      FileType = 2
	TypeSymlink     FileType = 3
	TypeFIFO        FileType = 4
	TypeSocket      FileType = 5
	TypeCharDevice  FileType = 6
	TypeBlockDevice FileType = 7
	// TypeOther is what none of the others is, such as a reparse point of
	// Windows that is no link.
	TypeOther FileType = 8
)

// Record is the sealed part of a record: what a path was at one moment. The zero
// value states nothing. A record of a file states its content, too.
type Record struct {
	// Name is the path as the bytes the system uses; nil states none.
	Name []byte
	// Type is 0 in a record that does not describe what stands at the path.
	Type FileType
	// Content is set for TypeFile; its chunk references stand in the header of
	// the record's object, see [Content.Refs].
	Content Content
	Metadata
	// Target is where a TypeSymlink points, as the system gives it.
	Target []byte
	// Link groups the paths of one device that are names of one file; nil for
	// a file with one name.
	Link *LinkGroup
	// Holes are the parts of a file that take no room, ascending and not
	// touching. They are no part of Content, whose Size is less by their sum
	// than the file's, see [Record.Size].
	Holes []Hole
	// Fuzzy says that the file changed while it was read.
	Fuzzy bool
	// Device is set for TypeCharDevice and TypeBlockDevice.
	Device *DeviceNumber
	// CKSum is the POSIX cksum of the content that protocol version 3 uses; nil
	// states none.
	CKSum *uint32
	// Unknown holds, in ascending order, the fields that this version does not
	// know, so that what a newer one wrote survives a decode and an Append.
	Unknown []Field
}

// Metadata is what a system keeps about a path beside its content. What a system
// does not know is left at its zero value or nil, and not restored.
type Metadata struct {
	// ModTime is when the content was last changed, Created when the file was
	// made; the zero time states none.
	ModTime, Created time.Time
	// Mode holds the POSIX bits 07777.
	Mode  *uint32
	Owner *Owner
	// Xattrs ascend by name. On Linux POSIX ACLs are among them.
	Xattrs []Xattr
	// Attributes are those of Windows, Security a self-relative security
	// descriptor.
	Attributes *uint32
	Security   []byte
}

// Owner is who a path belongs to: by number, and by name where that is known.
type Owner struct {
	UID, GID    uint32
	User, Group string
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value []byte }

// LinkGroup names a file with several names; it means nothing beyond being equal.
type LinkGroup [16]byte

// Hole is a part of a file that reads as zeros and takes no room, in bytes.
type Hole struct{ Offset, Length uint64 }

// DeviceNumber is what a device file stands for.
type DeviceNumber struct{ Major, Minor uint32 }

// Field is a field of a record that this version does not know.
type Field struct {
	Key   int64
	Value cbor.Value
}

// Size returns the size of a file in bytes, its holes included.
func (r *Record) Size() uint64 {
	size := r.Content.Size
	for _, h := range r.Holes {
		size += h.Length
	}
	return size
}
