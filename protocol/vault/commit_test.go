package vault

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func testCommit(device *Identity) Commit {
	return Commit{
		Device: device.ID(), Seq: 9, Prev: &CommitHash{1}, PrevStamp: bytes.Repeat([]byte{2}, StampSize), Root: [32]byte{3}, Count: MaxRecords, Digest: [32]byte{4},
		Retention: Retention{48, 14, 90, 104}, Members: EntryHash{5},
		Heads: []DeviceHead{{DeviceID{1}, 7, CommitHash{6}}, {DeviceID{2}, 1 << 40, CommitHash{7}}},
		Roots: []RootState{{PathID{1}, 0}, {PathID{2}, 9}}, Time: testTime, After: &Position{3, &CommitHash{8}},
	}
}

func TestCommit(t *testing.T) {
	me := testIdentity(t, RoleDevice, 1)
	rapid.Check(t, func(t *rapid.T) {
		hash := func(name string) [32]byte { return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name)) }
		c := Commit{
			Device: me.ID(), Seq: rapid.Uint64Range(1, 4).Draw(t, "seq"), Root: hash("root"), Count: rapid.IntRange(0, MaxRecords).Draw(t, "count"),
			Digest: hash("digest"), Members: hash("members"), Time: time.Unix(0, rapid.Int64().Draw(t, "time")).UTC(),
			Retention: Retention{rapid.Uint32().Draw(t, "hours"), rapid.Uint32().Draw(t, "hourly"), rapid.Uint32().Draw(t, "daily"), rapid.Uint32().Draw(t, "weekly")},
		}
		if c.Seq > 1 {
			c.Prev = new(CommitHash(hash("prev")))
			c.PrevStamp = rapid.SliceOfN(rapid.Byte(), StampSize, StampSize).Draw(t, "stamp")
			if rapid.Bool().Draw(t, "after") {
				c.After = &Position{Seq: rapid.Uint64Range(0, c.Seq-1).Draw(t, "after number")}
				if c.After.Seq > 0 {
					c.After.Hash = new(CommitHash(hash("after hash")))
				}
				if c.After.Seq == c.Seq-1 && c.After.Seq > 0 && *c.After.Hash == *c.Prev {
					c.After = nil
				}
			}
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "heads") {
			c.Heads = append(c.Heads, DeviceHead{DeviceID{byte(i)}, uint64(i + 1), hash("head")})
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "roots") {
			c.Roots = append(c.Roots, RootState{PathID{byte(i)}, rapid.Uint64Range(0, c.Seq).Draw(t, "complete")})
		}
		raw, err := c.Sign(ID{1}, me)
		if err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func() (Commit, error){
			"ParseCommit": func() (Commit, error) { return ParseCommit(raw) },
			"OpenCommit":  func() (Commit, error) { return OpenCommit(ID{1}, raw, me.public.SignKey()) },
		} {
			if got, err := open(); err != nil || !reflect.DeepEqual(got, c) {
				t.Fatalf("%s: %+v, %v; want %+v", name, got, err, c)
			}
		}
	})
}

func TestOpenCommitRefuses(t *testing.T) {
	me, other := testIdentity(t, RoleDevice, 1), testIdentity(t, RoleDevice, 2)
	raw, err := testCommit(me).Sign(ID{1}, me)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] ^= 1
		if _, err := OpenCommit(ID{1}, raw, me.public.SignKey()); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
		raw[i] ^= 1
	}
	for _, test := range []struct {
		name  string
		vault ID
		raw   []byte
		key   []byte
		want  error
	}{
		{"another vault", ID{2}, raw, me.public.SignKey(), ErrSignature},
		{"another device's key", ID{1}, raw, other.public.SignKey(), ErrSignature},
		{"the device's other key", ID{1}, raw, me.public.TLS(), ErrSignature},
		{"no key", ID{1}, raw, nil, ErrSignature},
		{"signed as an entry", ID{1}, sign(me.sign, labelEntry, ID{1}, raw[64:]), me.public.SignKey(), ErrSignature},
		{"a byte more", ID{1}, append(slices.Clone(raw), 0), me.public.SignKey(), ErrSignature},
		{"a byte more, signed", ID{1}, sign(me.sign, labelCommit, ID{1}, append(raw[64:len(raw):len(raw)], 0)), me.public.SignKey(), ErrMalformed},
		{"a signature alone", ID{1}, raw[:64], me.public.SignKey(), ErrMalformed},
		{"nothing", ID{1}, nil, me.public.SignKey(), ErrMalformed},
		{"too long", ID{1}, make([]byte, MaxCommit+1), me.public.SignKey(), ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := OpenCommit(test.vault, test.raw, test.key); !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
		})
	}
}

// TestCommitForm checks that what does not fit is neither signed nor read.
func TestCommitForm(t *testing.T) {
	me := testIdentity(t, RoleDevice, 1)
	first := func(c *Commit) {
		c.Seq, c.Prev, c.PrevStamp, c.After = 1, nil, nil, nil
		c.Roots[1].Complete = 1
	}
	for _, test := range []struct {
		name string
		edit func(c *Commit)
		ok   bool
	}{
		{"as it is", func(*Commit) {}, true},
		{"the first", first, true},
		{"number 0", func(c *Commit) { first(c); c.Seq = 0 }, false},
		{"the first after another", func(c *Commit) { first(c); c.Prev = &CommitHash{} }, false},
		{"the first with a stamp", func(c *Commit) { first(c); c.PrevStamp = make([]byte, StampSize) }, false},
		{"the first after nothing", func(c *Commit) { first(c); c.After = &Position{} }, false},
		{"a later one after nothing", func(c *Commit) { c.Prev = nil }, false},
		{"a later one without a stamp", func(c *Commit) { c.PrevStamp = nil }, false},
		{"short stamp", func(c *Commit) { c.PrevStamp = c.PrevStamp[1:] }, false},
		{"no records", func(c *Commit) { c.Count = 0 }, true},
		{"a record too many", func(c *Commit) { c.Count++ }, false},
		{"server without commits", func(c *Commit) { c.After = &Position{} }, true},
		{"server with commits but number 0", func(c *Commit) { c.After.Seq = 0 }, false},
		{"server with a number but no hash", func(c *Commit) { c.After.Hash = nil }, false},
		{"server ahead", func(c *Commit) { c.After.Seq = 9 }, false},
		{"server with another commit before", func(c *Commit) { c.After.Seq = 8 }, true},
		{"server with the commit before", func(c *Commit) { c.After = &Position{8, c.Prev} }, false},
		{"no heads", func(c *Commit) { c.Heads = nil }, true},
		{"head of its own", func(c *Commit) { c.Heads = []DeviceHead{{c.Device, 1, CommitHash{}}} }, false},
		{"head with number 0", func(c *Commit) { c.Heads[0].Seq = 0 }, false},
		{"heads not ascending", func(c *Commit) { slices.Reverse(c.Heads) }, false},
		{"a head twice", func(c *Commit) { c.Heads[1].Device = c.Heads[0].Device }, false},
		{"no roots", func(c *Commit) { c.Roots = nil }, true},
		{"root complete later", func(c *Commit) { c.Roots[0].Complete = 10 }, false},
		{"roots not ascending", func(c *Commit) { slices.Reverse(c.Roots) }, false},
		{"a root twice", func(c *Commit) { c.Roots[1].Path = c.Roots[0].Path }, false},
		{"too many roots", func(c *Commit) {
			c.Roots = nil
			for i := range 3500 {
				c.Roots = append(c.Roots, RootState{PathID{byte(i >> 8), byte(i)}, 0})
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testCommit(me)
			test.edit(&c)
			if _, err := c.Sign(ID{1}, me); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("Sign: %v", err)
			}
			raw := sign(me.sign, labelCommit, ID{1}, c.append(nil))
			if got, err := ParseCommit(raw); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("ParseCommit: %v", err)
			} else if test.ok && !reflect.DeepEqual(got, c) {
				t.Errorf("read as %+v", got)
			}
		})
	}
	for _, test := range []struct {
		name string
		edit func(c *Commit)
	}{
		{"of another device", func(c *Commit) { c.Device[0] ^= 1 }},
		{"at no time", func(c *Commit) { c.Time = time.Time{} }},
		{"with a negative number of records", func(c *Commit) { c.Count = -1 }},
	} {
		c := testCommit(me)
		test.edit(&c)
		if _, err := c.Sign(ID{1}, me); !errors.Is(err, ErrMalformed) {
			t.Errorf("signed %s: %v", test.name, err)
		}
	}
	c := testCommit(me)
	body := c.append(nil)
	for _, test := range []struct{ name, old, new string }{
		{"field 14", "ad01", "ae01"},
		{"retention of three", "0784" + "1830", "0783"},
		{"head of two", "83" + "50" + "01", "82" + "50" + "01"},
		{"device of 15 bytes", "0150", "014f"},
		{"number as text", "0209", "0260"},
	} {
		text := strings.Replace(hex.EncodeToString(body), test.old, test.new, 1)
		if test.name == "field 14" {
			text += "0e00"
		}
		data, err := hex.DecodeString(text)
		if err != nil || bytes.Equal(data, body) {
			t.Fatalf("%s: %v", test.name, err)
		}
		if _, err := ParseCommit(append(make([]byte, 64), data...)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func FuzzParseCommit(f *testing.F) {
	me := testIdentity(f, RoleDevice, 1)
	for _, edit := range []func(c *Commit){
		func(*Commit) {},
		func(c *Commit) { *c = Commit{Device: c.Device, Seq: 1, Time: testTime} },
		func(c *Commit) { c.After = &Position{} },
	} {
		c := testCommit(me)
		edit(&c)
		f.Add(c.append(nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := ParseCommit(append(make([]byte, 64), body...))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again := c.append(nil); !bytes.Equal(again, body) {
			t.Fatalf("%x was encoded again as %x", body, again)
		}
	})
}
