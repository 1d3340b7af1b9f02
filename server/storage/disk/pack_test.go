package disk

import (
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"testing"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

func TestPackHeader(t *testing.T) {
	m := newMark()
	good := encodePackHeader(7, m)
	if got, err := decodePackHeader(good, 7); err != nil || got != m || len(good) != packHeader {
		t.Fatalf("%x, %v", got, err)
	}
	if _, err := decodePackHeader(good, 8); !errors.Is(err, errDamaged) {
		t.Errorf("another number: %v", err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := decodePackHeader(bad, 7); !errors.Is(err, errDamaged) {
			t.Errorf("bit of byte %d changed: %v", i, err)
		}
	}
}

func TestEntryHeader(t *testing.T) {
	m := newMark()
	e := entry{kind: kindCommit, flags: flagGroup | flagPart, vault: home, sum: [32]byte{9}, off: entryHeader, length: 1234}
	good := e.encode(m)
	if got, ok := decodeEntry(good[:], m, 0); !ok || got != e {
		t.Fatalf("%+v, %v", got, ok)
	}
	for i := range good {
		bad := good
		bad[i] ^= 0x10
		if _, ok := decodeEntry(bad[:], m, 0); ok {
			t.Errorf("bit of byte %d changed and not seen", i)
		}
	}
}

func TestChange(t *testing.T) {
	good := change{
		device: mine, seq: 9, after: 7, time: 5, records: []changed{{id: vault.ObjectID{1}, op: vault.OpPut}},
		stamp: bytes.Repeat([]byte{1}, storage.MaxStamp), body: []byte("body"),
	}
	b := good.encode()
	if got, err := decodeChange(b); err != nil || !reflect.DeepEqual(got, good) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		name string
		bad  func(*change)
	}{
		{"follows itself", func(c *change) { c.after = c.seq }},
		{"follows a later one", func(c *change) { c.after = c.seq + 1 }},
		{"number too large", func(c *change) { c.seq = math.MaxInt64 }},
		{"time negative", func(c *change) { c.time = -1 }},
		{"stamp too long", func(c *change) { c.stamp = make([]byte, storage.MaxStamp+1) }},
		{"body too long", func(c *change) { c.body = make([]byte, storage.MaxBody+1) }},
		{"too many records", func(c *change) { c.records = make([]changed, storage.MaxRecords+1) }},
	} {
		bad := good
		c.bad(&bad)
		if _, err := decodeChange(bad.encode()); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for n := range len(b) - len(good.body) {
		if _, err := decodeChange(b[:n]); !errors.Is(err, errDamaged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func FuzzDecodeChange(f *testing.F) {
	f.Add([]byte{})
	f.Add(change{device: mine, seq: 1, time: 5, stamp: []byte("stamp"), body: []byte("body")}.encode())
	f.Add(change{device: mine, seq: 9, after: 2, time: 6, records: []changed{{op: vault.OpPut}, {op: vault.OpDelete}}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeChange(b); err == nil && !bytes.Equal(c.encode(), b) {
			t.Error("decodes, but not to what was encoded")
		}
	})
}

func FuzzDecodeItem(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeItem(storage.Item{Kind: 3, Key: storage.Key{1}, Rev: 9, Body: []byte("body")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if it, err := decodeItem(b); err == nil && !bytes.Equal(encodeItem(it), b) {
			t.Error("decodes, but not to what was encoded")
		}
	})
}

func FuzzDecodeIDs(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeIDs([]vault.ObjectID{{1}, {2}}))
	f.Add([]byte("not a multiple of 32"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ids, err := decodeIDs(b); err == nil && !bytes.Equal(encodeIDs(ids), b) {
			t.Error("decodes, but not to what was encoded")
		}
	})
}

// memFile is a pack in memory, for reading.
type memFile struct {
	File
	*bytes.Reader
}

func (f memFile) ReadAt(b []byte, off int64) (int, error) { return f.Reader.ReadAt(b, off) }
func (f memFile) Size() (int64, error)                    { return f.Reader.Size(), nil }

// pack builds a pack of groups of bodies.
func pack(m mark, groups ...[]string) []byte {
	b := encodePackHeader(1, m)
	for _, g := range groups {
		for i, body := range g {
			e := entry{kind: kindItem, sum: vault.Identify([]byte(body)), length: int64(len(body))}
			if i == 0 {
				e.flags = flagGroup
			}
			head := e.encode(m)
			b = append(append(b, head[:]...), body...)
		}
	}
	return b
}

// entries reads a pack as recovery does: whole entries, searching after damage.
func entries(f File) (bodies []string, damage int, err error) {
	p, err := openReader(f, 1)
	if err != nil {
		return nil, 0, err
	}
	for off := int64(packHeader); off < p.size; {
		e, body, err := p.entry(off)
		if errors.Is(err, errDamaged) {
			damage++
			next, err := p.find(off + 1)
			if err != nil {
				return nil, 0, err
			}
			if next <= off {
				return nil, 0, io.ErrNoProgress
			}
			off = next
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		bodies = append(bodies, string(body))
		off = e.end()
	}
	return bodies, damage, nil
}

// TestEveryFlippedBitIsSeen changes each byte of a pack in turn: what is read must
// be what was written, less at most the entry concerned.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	m := newMark()
	want := []string{"a", "bb", "", "dddd", "eeeee"}
	good := pack(m, want[:2], want[2:])
	for i := packHeader; i < len(good); i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		got, damage, err := entries(memFile{Reader: bytes.NewReader(bad)})
		if err != nil || damage != 1 || len(got) != len(want)-1 {
			t.Fatalf("byte %d: %q, %d places, %v", i, got, damage, err)
		}
		for _, body := range got {
			if !slices.Contains(want, body) {
				t.Fatalf("byte %d: read %q", i, body)
			}
		}
	}
}

func TestLastGroup(t *testing.T) {
	m := newMark()
	first, second := pack(m, []string{"a", "b"}), pack(m, []string{"a", "b"}, []string{"c"})
	all := pack(m, []string{"a", "b"}, []string{"c"}, []string{"dd", "ee"})
	torn := bytes.Clone(all)
	torn[len(first)+5] ^= 1 // the second group's start is damaged
	for _, c := range []struct {
		name string
		pack []byte
		from int64
		want int
	}{
		{"one group", first, packHeader, packHeader},
		{"three groups", all, packHeader, len(second)},
		{"searched behind damage", torn, packHeader, len(second)},
		{"from the last on", all, int64(len(second)), len(second)},
		{"from within the last", all, int64(len(second)) + entryHeader + 2, len(second) + entryHeader + 2},
		{"cut within the last", all[:len(all)-1], packHeader, len(second)},
		{"cut within the last's start", all[:len(second)+10], packHeader, len(first)},
	} {
		p, err := openReader(memFile{Reader: bytes.NewReader(c.pack)}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.lastGroup(c.from); err != nil || got != int64(c.want) {
			t.Errorf("%s: %d, %v, want %d", c.name, got, err, c.want)
		}
	}
}

func FuzzPack(f *testing.F) {
	m := mark{1, 2, 3, 4, 5, 6, 7, 8}
	good := pack(m, []string{"a", "bb"}, []string{"ccc"})
	f.Add([]byte{})
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add(append(append(bytes.Clone(good[:40]), m[:]...), good...))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := memFile{Reader: bytes.NewReader(b)}
		bodies, _, err := entries(file)
		if err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, errNewer) {
			t.Fatal(err)
		}
		for _, body := range bodies {
			if !bytes.Contains(b, []byte(body)) {
				t.Fatal("read what is not there")
			}
		}
	})
}
