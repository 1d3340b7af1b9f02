package disk

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

// The bytes of this file are normative in SPEC.md, "Packs".

const (
	packMagic  = "BKSTPACK"
	packFormat = 1
	// packHeader and entryHeader are sizes in bytes.
	packHeader  = 32
	entryHeader = 68
	// maxEntry bounds an entry's body: no object, commit, item or deletion is
	// larger.
	maxEntry = vault.MaxObject
)

// kind says what an entry's body is.
type kind uint8

const (
	kindObject kind = 1
	kindCommit kind = 2
	kindItem   kind = 3
	kindDelete kind = 4
)

const (
	// flagGroup marks the first entry of a group: everything that stands before
	// it in this pack, and every earlier pack, was durable when it was written.
	flagGroup = 1 << 0
	// flagPart ties an entry to the next one: both count or neither.
	flagPart = 1 << 1
)

// mark starts every entry of a pack. It is random, so that bytes a client sends
// can never be taken for an entry when a damaged pack is searched.
type mark [8]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged: no whole entry stands at an offset.
var errDamaged = errors.New("no whole entry here")

// errNewer: the pack is of a format this program does not know.
var errNewer = errors.New("made by a newer program")

func newMark() (m mark) {
	rand.Read(m[:])
	return m
}

func encodePackHeader(number uint32, m mark) []byte {
	b := make([]byte, 0, packHeader)
	b = append(b, packMagic...)
	b = binary.LittleEndian.AppendUint32(b, packFormat)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = append(b, m[:]...)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodePackHeader returns errNewer or errDamaged for what it cannot use.
func decodePackHeader(b []byte, number uint32) (mark, error) {
	var m mark
	switch {
	case len(b) < packHeader || string(b[:8]) != packMagic ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli):
		return m, errDamaged
	case binary.LittleEndian.Uint32(b[8:]) > packFormat:
		return m, errNewer
	case binary.LittleEndian.Uint32(b[8:]) != packFormat || binary.LittleEndian.Uint32(b[12:]) != number ||
		binary.LittleEndian.Uint32(b[24:]) != 0:
		return m, errDamaged
	}
	copy(m[:], b[16:])
	return m, nil
}

// entry is the header of an entry; off and length place its body in the pack.
type entry struct {
	kind   kind
	flags  uint8
	vault  vault.ID
	sum    [sha256.Size]byte
	off    int64
	length int64
}

func (e entry) end() int64 { return e.off + e.length }

func (e entry) encode(m mark) (b [entryHeader]byte) {
	copy(b[:], m[:])
	b[8], b[9] = byte(e.kind), e.flags
	binary.LittleEndian.PutUint32(b[12:], uint32(e.length))
	copy(b[16:], e.vault[:])
	copy(b[32:], e.sum[:])
	binary.LittleEndian.PutUint32(b[64:], crc32.Checksum(b[:64], castagnoli))
	return b
}

// decodeEntry reads an entry header that stands at offset at.
func decodeEntry(b []byte, m mark, at int64) (entry, bool) {
	if len(b) < entryHeader || !bytes.Equal(b[:8], m[:]) ||
		binary.LittleEndian.Uint32(b[64:]) != crc32.Checksum(b[:64], castagnoli) {
		return entry{}, false
	}
	e := entry{
		kind: kind(b[8]), flags: b[9], off: at + entryHeader,
		length: int64(binary.LittleEndian.Uint32(b[12:])),
	}
	copy(e.vault[:], b[16:])
	copy(e.sum[:], b[32:])
	ok := e.kind >= kindObject && e.kind <= kindDelete && e.flags&^(flagGroup|flagPart) == 0 &&
		b[10] == 0 && b[11] == 0 && e.length <= int64(maxEntry)
	return e, ok
}

// change is the body of a commit entry. It repeats the clear header of each
// record, so that history stays whole when a record is damaged.
type change struct {
	device  vault.DeviceID
	seq     uint64
	after   uint64 // the commit it follows
	time    int64  // of the stamp, Unix nanoseconds
	records []changed
	stamp   []byte
	body    []byte
}

type changed struct {
	id     vault.ObjectID
	path   vault.PathID
	parent vault.PathID
	op     vault.Op
}

const (
	changeHeader = 16 + 8 + 8 + 8 + 4 + 2
	changedSize  = 32 + 16 + 16 + 1
)

func (c change) encode() []byte {
	b := make([]byte, 0, changeHeader+len(c.records)*changedSize+len(c.stamp)+len(c.body))
	b = append(b, c.device[:]...)
	b = binary.LittleEndian.AppendUint64(b, c.seq)
	b = binary.LittleEndian.AppendUint64(b, c.after)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.time))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.records)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(c.stamp)))
	for _, r := range c.records {
		b = append(b, r.id[:]...)
		b = append(b, r.path[:]...)
		b = append(b, r.parent[:]...)
		b = append(b, byte(r.op))
	}
	b = append(b, c.stamp...)
	return append(b, c.body...)
}

// decodeChange returns a change whose stamp and body alias b.
func decodeChange(b []byte) (change, error) {
	var c change
	if len(b) < changeHeader {
		return c, errDamaged
	}
	copy(c.device[:], b)
	c.seq = binary.LittleEndian.Uint64(b[16:])
	c.after = binary.LittleEndian.Uint64(b[24:])
	c.time = int64(binary.LittleEndian.Uint64(b[32:]))
	n := int64(binary.LittleEndian.Uint32(b[40:]))
	stamp := int64(binary.LittleEndian.Uint16(b[44:]))
	b = b[changeHeader:]
	body := int64(len(b)) - n*changedSize - stamp
	if n > storage.MaxRecords || stamp > storage.MaxStamp || body < 0 || body > storage.MaxBody ||
		c.time < 0 || c.seq <= c.after || c.seq >= math.MaxInt64 {
		return c, errDamaged
	}
	c.records = make([]changed, n)
	for i := range c.records {
		r := &c.records[i]
		copy(r.id[:], b)
		copy(r.path[:], b[32:])
		copy(r.parent[:], b[48:])
		r.op = vault.Op(b[64])
		b = b[changedSize:]
	}
	c.stamp, c.body = b[:stamp:stamp], b[stamp:]
	return c, nil
}

// copy is the change without its records, behind its SHA-256, as the index keeps it.
func (c change) copy() []byte {
	c.records = nil
	b := c.encode()
	sum := sha256.Sum256(b)
	return append(sum[:], b...)
}

// decodeCopy returns a change without records whose stamp and body alias b.
func decodeCopy(b []byte) (change, error) {
	if len(b) < sha256.Size || sha256.Sum256(b[sha256.Size:]) != [sha256.Size]byte(b) {
		return change{}, errDamaged
	}
	return decodeChange(b[sha256.Size:])
}

// stampTime returns the time of n Unix nanoseconds.
func stampTime(n int64) time.Time { return time.Unix(0, n).UTC() }

// head is the change as readers of the log see it.
func (c change) head() storage.Head {
	return storage.Head{Seq: c.seq, Time: stampTime(c.time), Body: slices.Clip(c.body), Stamp: c.stamp}
}

// version is record i as history shows it.
func (c change) version(i int) storage.Version {
	r := c.records[i]
	return storage.Version{Path: r.path, Parent: r.parent, Op: r.op, Seq: c.seq, Time: stampTime(c.time), Record: r.id}
}

const itemHeader = 1 + 32 + 8

func encodeItem(it storage.Item) []byte {
	b := make([]byte, 0, itemHeader+len(it.Body))
	b = append(b, byte(it.Kind))
	b = append(b, it.Key[:]...)
	b = binary.LittleEndian.AppendUint64(b, it.Rev)
	return append(b, it.Body...)
}

// decodeItem returns an item whose body aliases b.
func decodeItem(b []byte) (storage.Item, error) {
	if len(b) < itemHeader || len(b) > itemHeader+storage.MaxBody {
		return storage.Item{}, errDamaged
	}
	it := storage.Item{Kind: storage.Kind(b[0]), Rev: binary.LittleEndian.Uint64(b[33:]), Body: b[itemHeader:]}
	copy(it.Key[:], b[1:])
	return it, nil
}

func encodeIDs(ids []vault.ObjectID) []byte {
	b := make([]byte, 0, len(ids)*len(vault.ObjectID{}))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func decodeIDs(b []byte) ([]vault.ObjectID, error) {
	const size = len(vault.ObjectID{})
	if len(b)%size != 0 || len(b)/size > storage.MaxDelete {
		return nil, errDamaged
	}
	ids := make([]vault.ObjectID, len(b)/size)
	for i := range ids {
		copy(ids[i][:], b[i*size:])
	}
	return ids, nil
}

// window is the least that packReader reads at once, in bytes.
const window = 1 << 20

// packReader reads a pack from front to back.
type packReader struct {
	f    File
	size int64
	mark mark
	buf  []byte // bytes of the file from at on
	at   int64
}

// openReader reads the header of pack number in f. When the header is damaged
// but the first entry is whole, that one's mark serves.
func openReader(f File, number uint32) (*packReader, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	p := &packReader{f: f, size: size}
	head, err := p.bytes(0, min(size, packHeader+int64(len(mark{}))))
	if err != nil {
		return nil, err
	}
	p.mark, err = decodePackHeader(head, number)
	if errors.Is(err, errDamaged) && len(head) > packHeader {
		copy(p.mark[:], head[packHeader:])
		if _, ok, herr := p.header(packHeader); ok || herr != nil {
			err = herr
		}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// bytes returns n bytes at off, which lie within the file; valid until the next
// call.
func (p *packReader) bytes(off, n int64) ([]byte, error) {
	if off < p.at || off+n > p.at+int64(len(p.buf)) {
		size := min(max(n, window), p.size-off)
		if int64(cap(p.buf)) < size {
			p.buf = make([]byte, size)
		}
		p.buf = p.buf[:size]
		p.at = off
		if got, err := p.f.ReadAt(p.buf, off); int64(got) < size {
			p.buf = p.buf[:0]
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read at %d: %w", off, err)
		}
	}
	return p.buf[off-p.at:][:n], nil
}

// header reads the entry header at off; false when none is intact there.
func (p *packReader) header(off int64) (entry, bool, error) {
	if off+entryHeader > p.size {
		return entry{}, false, nil
	}
	b, err := p.bytes(off, entryHeader)
	if err != nil {
		return entry{}, false, err
	}
	e, ok := decodeEntry(b, p.mark, off)
	return e, ok, nil
}

// entry reads the entry at off; errDamaged when it is not whole. The body is
// valid until the next call.
func (p *packReader) entry(off int64) (entry, []byte, error) {
	e, ok, err := p.header(off)
	if err != nil {
		return e, nil, err
	}
	if !ok || e.end() > p.size {
		return e, nil, errDamaged
	}
	body, err := p.bytes(e.off, e.length)
	if err != nil {
		return e, nil, err
	}
	if sha256.Sum256(body) != e.sum {
		return e, nil, errDamaged
	}
	return e, body, nil
}

// find returns the offset of the first intact entry header at or after off, or
// the size of the file.
func (p *packReader) find(off int64) (int64, error) {
	for off+entryHeader <= p.size {
		b, err := p.bytes(off, min(window, p.size-off))
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, p.mark[:])
		if i < 0 {
			off += int64(len(b)) - int64(len(p.mark)) + 1
			continue
		}
		off += int64(i)
		if _, ok, err := p.header(off); ok || err != nil {
			return off, err
		}
		off++
	}
	return p.size, nil
}

// lastGroup returns the offset of the last group that starts at or after off, or
// off when there is none.
func (p *packReader) lastGroup(off int64) (int64, error) {
	last := off
	for off < p.size {
		e, ok, err := p.header(off)
		switch {
		case err != nil:
			return 0, err
		case ok:
			if e.flags&flagGroup != 0 {
				last = off
			}
			off = e.end()
		default:
			if off, err = p.find(off + 1); err != nil {
				return 0, err
			}
		}
	}
	return last, nil
}
