// Package facts holds what can be known of one path without reading it: its
// stat facts, or the [Problem] that hides them.
//
// The scan compares facts with what the catalog remembers, the capture takes
// them from the descriptor it reads, the catalog stores them. One invariant ties
// the three together: facts of an unchanged path are equal wherever they were
// taken, on every platform, so that equal facts mean "nothing to do".
//
// The package never opens a file for reading and never follows a symlink.
package facts

import (
	"encoding/binary"
	"hash/maphash"
	"strconv"
)

// A Type says what kind of thing a path names. The values are stored in the
// catalog and never change.
type Type uint8

// The types of a path.
const (
	Regular     Type = 1 // regular file
	Directory   Type = 2
	Symlink     Type = 3
	FIFO        Type = 4
	Socket      Type = 5
	CharDevice  Type = 6
	BlockDevice Type = 7
	Irregular   Type = 8 // anything else, on Windows junctions too
)

// Types is one more than the largest [Type], for arrays indexed by it.
const Types = 9

var typeNames = [Types]string{
	Regular: "regular file", Directory: "folder", Symlink: "symbolic link", FIFO: "named pipe",
	Socket: "socket", CharDevice: "character device", BlockDevice: "block device", Irregular: "special file",
}

// String names the type in the words a person reads.
func (t Type) String() string {
	if t > 0 && t < Types {
		return typeNames[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// Facts are the stat facts of one path at one moment. They are comparable with
// ==, which includes the device; [Facts.Same] leaves it out.
type Facts struct {
	Type Type
	// Mode holds the permission, setuid, setgid and sticky bits as POSIX numbers
	// them (07777). On Windows the write bits alone mean something: not read-only.
	Mode uint32
	// Dev is the device the path lies on. Systems number devices anew at every
	// boot, so it takes no part in Same and Fingerprint.
	Dev uint64
	// Inode is 0 on Windows, as Dev and CTime are: a folder listing does not carry
	// them there, and opening every file of a scan to ask costs ten times the scan.
	Inode uint64
	// Size is in bytes, 0 for everything but regular files and symlinks: what a
	// system reports for the others is bookkeeping that changes by itself.
	Size int64
	// MTime and CTime are nanoseconds since 1970. Times outside 1677–2262 wrap
	// around, which still tells a change.
	MTime, CTime int64
}

// Same reports whether f and g describe the same unchanged file.
func (f Facts) Same(g Facts) bool {
	f.Dev, g.Dev = 0, 0
	return f == g
}

// Fingerprint condenses everything Same compares to 64 bits. It is a function of
// the seed, so that nobody can prepare a change that it misses; fingerprints of
// different seeds must not be compared.
func (f Facts) Fingerprint(seed maphash.Seed) uint64 {
	var b [40]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(f.Type)<<32|uint64(f.Mode))
	binary.LittleEndian.PutUint64(b[8:], f.Inode)
	binary.LittleEndian.PutUint64(b[16:], uint64(f.Size))
	binary.LittleEndian.PutUint64(b[24:], uint64(f.MTime))
	binary.LittleEndian.PutUint64(b[32:], uint64(f.CTime))
	return maphash.Bytes(seed, b[:])
}
