package v4

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"testing"

	"backstay/protocol/vault"
)

// FuzzMessage gives bytes to every parser. What one takes it must write, in bytes
// that read the same: all of them unless there were keys of a later revision.
func FuzzMessage(f *testing.F) {
	names := slices.Sorted(maps.Keys(kinds))
	v := loadVectors(f)
	for _, m := range slices.Concat(v.Messages, v.Tolerated) {
		f.Add(uint8(slices.Index(names, m.Kind)), unhex(f, m.Hex))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		name := names[int(kind)%len(names)]
		m, err := kinds[name](bytes.Clone(data))
		if err != nil {
			if code := CodeOf(err); code != CodeMalformed && code != CodeUnsupported {
				t.Fatalf("%s: %v has code %d", name, err, code)
			}
			return
		}
		if e, ok := m.(*Error); ok && (len(e.Text) > maxText || len(e.IDs) > MaxIDs) {
			return // taken, and written shorter
		}
		again := m.Append(nil)
		if len(again) > len(data) {
			t.Fatalf("%s: %d bytes of %d", name, len(again), len(data))
		}
		m2, err := kinds[name](again)
		if err != nil {
			t.Fatalf("%s: what was written is refused: %v", name, err)
		}
		if third := m2.Append(nil); !bytes.Equal(third, again) {
			t.Fatalf("%s: %x is written as %x", name, again, third)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, v := range loadVectors(f).Frames {
		f.Add(unhex(f, v.Hex))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) != HeaderSize {
			return
		}
		h, err := ParseHeader([HeaderSize]byte(data), MaxBody)
		if err == nil && (!bytes.Equal(h.Append(nil), data) || h.Length > MaxBody) {
			t.Fatalf("%x reads as %+v", data, h)
		}
	})
}

// FuzzObjects takes data apart and puts it together again.
func FuzzObjects(f *testing.F) {
	for _, v := range loadVectors(f).Objects {
		f.Add(v.Get, unhex(f, v.Hex))
	}
	f.Fuzz(func(t *testing.T, get bool, data []byte) {
		r := bytes.NewReader(data)
		put, got := NewObjectReader(r, 100, 1<<30), NewGotReader(r)
		var again, buf []byte
		for {
			var object []byte
			var err error
			if get {
				var o vault.Object
				var state State
				o, state, err = got.Next(buf[:0])
				object = o.Data
				switch {
				case err != nil:
				case state == Missing:
					again = AppendMissing(again, o.ID)
				case state == Damaged:
					again = AppendDamaged(again, o.ID)
				default:
					again = append(AppendGotHead(again, o.ID, len(object)), object...)
				}
			} else if object, err = put.Next(buf[:0]); err == nil {
				again = append(AppendObjectHead(again, len(object)), object...)
			}
			if cap(object) > 2*len(data)+2*step {
				t.Fatalf("%d bytes held for %d", cap(object), len(data))
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			buf = object
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x reads as %x", data, again)
		}
	})
}

func FuzzInvitation(f *testing.F) {
	for _, v := range loadVectors(f).Invitations {
		f.Add(v.Text)
	}
	f.Add("backstay:AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := ParseInvitation(text)
		if err != nil {
			return
		}
		again, err := i.Text()
		if err != nil {
			t.Fatal(err)
		}
		if j, err := ParseInvitation(again); err != nil || len(j.Addresses) != len(i.Addresses) {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func FuzzPairing(f *testing.F) {
	for _, v := range loadVectors(f).Pairing {
		f.Add(v.Code, unhex(f, v.Message))
	}
	f.Fuzz(func(t *testing.T, text string, message []byte) {
		c, err := ParsePairingCode(text)
		if err != nil {
			return
		}
		if again, err := ParsePairingCode(c.Text()); err != nil || again != c {
			t.Fatalf("%s reads as %x, %v", c.Text(), again[:], err)
		}
		if body, err := c.Open(SideJoiner, message); err == nil && !bytes.Equal(c.Seal(SideJoiner, body), message) {
			t.Fatalf("%x", message)
		}
	})
}
