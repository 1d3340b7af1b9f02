package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// Limits of file content (SPEC.md, "Content").
const (
	// InlineMax is the size up to which content stands in its record.
	InlineMax = 4 << 10
	// MaxLevel is how deep lists nest. Five levels of the shortest lists and
	// chunks that WriteContent makes hold 2^60 bytes.
	MaxLevel = 4

	// listMin is how many entries a list has before its end is looked for.
	listMin = 256

	entrySize = 8 + len(Hash{})
)

// Content describes the bytes of a file: inline, or as the chunks or lists of
// chunks that hold them in order.
type Content struct {
	// Size is the number of bytes.
	Size uint64
	// Inline is the content itself if Entries is empty.
	Inline []byte
	// Level is 0 if Entries are chunks, else one more than the level of the
	// lists they are.
	Level uint8
	// Entries is never longer than MaxRefs.
	Entries []Entry
	// Sum is the SHA-256 of all bytes, that whoever reads them compares. It is
	// nil unless there is more than one entry, and in the legacy area always.
	Sum *[sha256.Size]byte
}

// Entry refers to one chunk or list.
type Entry struct {
	Ref ObjectID
	// Size is how many bytes of the file the object stands for.
	Size uint64
	// Hash is the keyed hash of the object's plaintext.
	Hash Hash
}

// Refs returns the references of the entries in order, as the header of the
// record or list carries them.
func (c Content) Refs() []ObjectID {
	var refs []ObjectID
	for i := range c.Entries {
		refs = append(refs, c.Entries[i].Ref)
	}
	return refs
}

// check says whether the description can be one: of the file it came from, only
// the objects can tell.
func (c *Content) check() error {
	if c.Sum != nil && len(c.Entries) <= 1 {
		return fmt.Errorf("%w: hash of a content of %d entries", ErrMalformed, len(c.Entries))
	}
	if len(c.Entries) == 0 {
		if c.Level != 0 || len(c.Inline) > InlineMax || uint64(len(c.Inline)) != c.Size {
			return fmt.Errorf("%w: inline content of %d bytes, %d are stated", ErrMalformed, len(c.Inline), c.Size)
		}
		return nil
	}
	if len(c.Inline) > 0 || c.Level > MaxLevel || len(c.Entries) > MaxRefs {
		return fmt.Errorf("%w: %d entries of level %d", ErrMalformed, len(c.Entries), c.Level)
	}
	left := min(c.Size, math.MaxInt64)
	for _, e := range c.Entries {
		if e.Size == 0 || e.Size > left || c.Level == 0 && e.Size > MaxPlaintext {
			return fmt.Errorf("%w: piece of %d bytes", ErrMalformed, e.Size)
		}
		left -= e.Size
	}
	if left != 0 || c.Size > math.MaxInt64 {
		return fmt.Errorf("%w: the pieces are not the %d bytes stated", ErrMalformed, c.Size)
	}
	return nil
}

// appendList appends the encoding of a chunk list: the plaintext of a TypeList
// object, and a field of a record. The refs are not part of it.
func appendList(dst []byte, level uint8, entries []Entry) []byte {
	dst = append(dst, level)
	for i := range entries {
		dst = binary.LittleEndian.AppendUint64(dst, entries[i].Size)
		dst = append(dst, entries[i].Hash[:]...)
	}
	return dst
}

// parseList decodes a chunk list for size bytes of content, whose refs stand in
// the header of its object.
func parseList(list []byte, refs []ObjectID, size uint64) (Content, error) {
	if len(refs) == 0 || len(list) != 1+len(refs)*entrySize {
		return Content{}, fmt.Errorf("%w: list of %d bytes for %d refs", ErrMalformed, len(list), len(refs))
	}
	c := Content{Size: size, Level: list[0], Entries: make([]Entry, len(refs))}
	for i, ref := range refs {
		p := list[1+i*entrySize:]
		c.Entries[i] = Entry{Ref: ref, Size: binary.LittleEndian.Uint64(p), Hash: Hash(p[8:entrySize])}
	}
	return c, c.check()
}

// listEnd returns how many of the entries the first list takes. Where a list ends
// depends on the hashes, so that a change in a long file leaves the lists after
// it as they are; and the hashes are keyed, so that the lengths of lists tell
// nothing.
func listEnd(entries []Entry) int {
	for i := listMin - 1; i < min(len(entries), MaxRefs); i++ {
		if entries[i].Hash[0] == 0 {
			return i + 1
		}
	}
	return min(len(entries), MaxRefs)
}
