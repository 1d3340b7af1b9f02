package vault

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"lukechampine.com/blake3"
	"pgregory.net/rapid"
)

func testIDs(n int) []ObjectID {
	ids := make([]ObjectID, n)
	for i := range ids {
		ids[i] = sha256.Sum256([]byte{byte(i), byte(i >> 8)})
	}
	return ids
}

// naiveRoot is the definition of RFC 6962, section 2.1, word for word.
func naiveRoot(ids []ObjectID) [32]byte {
	switch n := len(ids); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, ids[0][:]...))
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		left, right := naiveRoot(ids[:k]), naiveRoot(ids[k:])
		return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
	}
}

func TestMerkle(t *testing.T) {
	for n := range 40 {
		ids := testIDs(n)
		root := RecordsRoot(ids)
		if root != naiveRoot(ids) {
			t.Errorf("%d records have another root", n)
		}
		for i, id := range ids {
			path := AuditPath(ids, i)
			if err := VerifyAudit(root, n, i, id, path); err != nil {
				t.Errorf("record %d of %d: %v", i, n, err)
			}
			bad := map[string]error{
				"another record":  VerifyAudit(root, n, i, ObjectID{1}, path),
				"another root":    VerifyAudit([32]byte{1}, n, i, id, path),
				"a hash too many": VerifyAudit(root, n, i, id, append(slices.Clone(path), [32]byte{})),
				"the index -1":    VerifyAudit(root, n, -1, id, path),
				"the index n":     VerifyAudit(root, n, n, id, path),
			}
			for j := range n {
				if j != i {
					bad["another index"] = VerifyAudit(root, n, j, id, path)
				}
			}
			for j := range path {
				altered := slices.Clone(path)
				altered[j][5] ^= 1
				bad["an altered hash"] = VerifyAudit(root, n, i, id, altered)
				bad["a hash too few"] = VerifyAudit(root, n, i, id, slices.Delete(slices.Clone(path), j, j+1))
			}
			for name, err := range bad {
				if !errors.Is(err, ErrContent) {
					t.Errorf("%s of record %d of %d: %v", name, i, n, err)
				}
			}
		}
	}
}

// TestVerifyAuditCount checks that a path does not prove more levels than the
// number of records has.
func TestVerifyAuditCount(t *testing.T) {
	ids := testIDs(2)
	if err := VerifyAudit(RecordsRoot(ids), 1, 0, ids[1], AuditPath(ids, 1)); !errors.Is(err, ErrContent) {
		t.Errorf("the second of two as the only one: %v", err)
	}
}

func TestDigest(t *testing.T) {
	type pair struct {
		path, parent PathID
		record       ObjectID
	}
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pair {
			return pair{PathID{rapid.Byte().Draw(t, "path")}, PathID{rapid.Byte().Draw(t, "parent")}, ObjectID{rapid.Byte().Draw(t, "record")}}
		}), 0, 8).Draw(t, "pairs")
		var want [1024]uint16
		var d Digest
		for _, p := range pairs {
			d.Add(p.path, p.parent, p.record)
			var out [2048]byte
			h := blake3.New(32, nil)
			h.Write(p.path[:])
			h.Write(p.parent[:])
			h.Write(p.record[:])
			h.XOF().Read(out[:])
			for i := range want {
				want[i] += binary.LittleEndian.Uint16(out[2*i:])
			}
		}
		for i, b := 0, d.Bytes(); i < len(want); i++ {
			if got := binary.LittleEndian.Uint16(b[2*i:]); got != want[i] {
				t.Fatalf("lane %d is %d, want %d", i, got, want[i])
			}
		}
		again, err := ParseDigest(d.Bytes())
		if err != nil || again != d || d.Sum() != sha256.Sum256(d.Bytes()) {
			t.Fatalf("kept and read again as something else: %v", err)
		}
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7}).Draw(t, "order") {
			if i < len(pairs) {
				d.Remove(pairs[i].path, pairs[i].parent, pairs[i].record)
			}
		}
		if d != (Digest{}) {
			t.Fatal("what was added and removed in another order leaves something")
		}
	})
	var a, b Digest
	a.Add(PathID{1}, PathID{3}, ObjectID{2})
	b.Add(PathID{2}, PathID{3}, ObjectID{1})
	if a == b || a.Sum() == b.Sum() {
		t.Error("two states have one digest")
	}
	a, b = Digest{}, Digest{}
	a.Add(PathID{1}, PathID{2}, ObjectID{3})
	b.Add(PathID{1}, PathID{4}, ObjectID{3})
	if a == b || a.Sum() == b.Sum() {
		t.Error("two states have one digest")
	}
	for _, n := range []int{0, DigestSize - 1, DigestSize + 1} {
		if _, err := ParseDigest(make([]byte, n)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestStamp(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	vault, commit := ID{1}, CommitHash{2}
	stamp := SignStamp(vault, commit, testTime, key)
	want := Stamp{Time: testTime, Server: key.Public().(ed25519.PublicKey)}
	if got, err := OpenStamp(vault, commit, stamp); err != nil || !got.Time.Equal(want.Time) || !got.Server.Equal(want.Server) || len(stamp) != StampSize {
		t.Fatalf("%+v of %d bytes, %v", got, len(stamp), err)
	}
	for i := range stamp {
		stamp[i] ^= 1
		if _, err := OpenStamp(vault, commit, stamp); !errors.Is(err, ErrSignature) {
			t.Errorf("byte %d altered: %v", i, err)
		}
		stamp[i] ^= 1
	}
	late := slices.Clone(stamp)
	late[7] |= 0x80
	for _, test := range []struct {
		name   string
		vault  ID
		commit CommitHash
		stamp  []byte
		want   error
	}{
		{"another vault", ID{2}, commit, stamp, ErrSignature},
		{"another commit", vault, CommitHash{1}, stamp, ErrSignature},
		{"another's key and signature", vault, commit, append(stamp[:8:8], SignStamp(vault, commit, time.Unix(1, 0), key)[8:]...), ErrSignature},
		{"time beyond 63 bits", vault, commit, late, ErrMalformed},
		{"a byte short", vault, commit, stamp[1:], ErrMalformed},
		{"a byte long", vault, commit, append(slices.Clone(stamp), 0), ErrMalformed},
		{"nothing", vault, commit, nil, ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := OpenStamp(test.vault, test.commit, test.stamp); !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
		})
	}
}
