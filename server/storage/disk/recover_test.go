package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/storagetest"
)

var (
	ctx  = context.Background()
	home = vault.ID{1}
	mine = vault.DeviceID{2}
)

// store is Put where the ids do not matter.
func store(ctx context.Context, s *Store, v vault.ID, objects ...[]byte) error {
	_, err := s.Put(ctx, v, objects...)
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chunk returns a chunk of n bytes of content that word makes its own.
func chunk(word string, n int) []byte {
	return storagetest.Chunk(fmt.Appendf(nil, "%s %s", word, bytes.Repeat([]byte("."), n)))
}

// put and commit are groups of their own, so that each is durable before the next.
func put(t testing.TB, s *Store, objects ...[]byte) {
	t.Helper()
	must(t, store(ctx, s, home, objects...))
}

func record(seq uint64, refs ...[]byte) []byte {
	return storagetest.Record(vault.RecordHeader{Device: mine, Seq: seq, Path: vault.PathID{3}, Op: vault.OpPut}, refs...)
}

// The one path they put is the device's whole state, whatever was lost before.
func commit(t testing.TB, s *Store, seq uint64, refs ...[]byte) []byte {
	t.Helper()
	r := record(seq, refs...)
	var state vault.Digest
	state.Add(vault.PathID{3}, vault.PathID{}, vault.Identify(r))
	sum := state.Sum()
	_, _, err := s.Commit(ctx, storage.Commit{
		Vault: home, Device: mine, After: seq - 1, Seq: seq, Objects: append(slices.Clone(refs), r),
		Records: []vault.ObjectID{vault.Identify(r)}, Digest: &sum, Body: fmt.Append(nil, seq),
	})
	must(t, err)
	return r
}

// get returns the error with which an object is yielded.
func get(t testing.TB, s *Store, object []byte) error {
	t.Helper()
	for o, err := range s.Get(ctx, home, []vault.ObjectID{vault.Identify(object)}) {
		if err == nil && !bytes.Equal(o.Data, object) {
			t.Fatal("other bytes")
		}
		return err
	}
	t.Fatal("nothing yielded")
	return nil
}

func packFile(dir string, n int) string {
	return filepath.Join(dir, "packs", fmt.Sprintf("%08d.pack", n))
}

func size(t testing.TB, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.Size()
}

func TestFilesArePrivate(t *testing.T) {
	if os.PathSeparator == '\\' {
		t.Skip("this system keeps rights in access lists")
	}
	dir := filepath.Join(t.TempDir(), "store")
	put(t, open(t, dir, Options{}), chunk("a", 10))
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return err
	}))
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if _, err := Open(dir, Options{Log: quiet}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	put(t, s, chunk("a", 10))
	must(t, s.Close())
	if err := get(t, open(t, dir, Options{}), chunk("a", 10)); err != nil {
		t.Fatal(err)
	}
}

func TestNewerFormatsAreRefusedUntouched(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"pack": func(t *testing.T, dir string) {
			b, err := os.ReadFile(packFile(dir, 1))
			must(t, err)
			binary.LittleEndian.PutUint32(b[8:], packFormat+1)
			binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
			must(t, os.WriteFile(packFile(dir, 1), b, 0o600))
			must(t, forget(dir))
		},
		"index": func(t *testing.T, dir string) {
			d, err := openDB(filepath.Join(dir, "index.db"), 100)
			must(t, err)
			must(t, d.script(fmt.Sprintf("PRAGMA user_version = %d", indexFormat+1)))
			must(t, d.conn.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			put(t, s, chunk("a", 10))
			must(t, s.Close())
			spoil(t, dir)
			before := contents(t, dir)
			if _, err := Open(dir, Options{Log: quiet}); err == nil || !strings.Contains(err.Error(), "newer") {
				t.Fatal(err)
			}
			if after := contents(t, dir); after != before {
				t.Fatalf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// contents lists the files of dir with checksums.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&list, "%s %x\n", path, vault.Identify(b))
		return err
	}))
	return list.String()
}

func TestIndexIsRebuilt(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"missing": forget,
		"empty":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.db"), nil, 0o600) },
		"no database": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "index.db"), bytes.Repeat([]byte("x"), 9999), 0o600)
		},
		"suspect": func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.suspect"), nil, 0o600) },
		"malformed, found after a crash": func(dir string) error {
			name := filepath.Join(dir, "index.db")
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			for i := 4096; i < len(b); i++ {
				b[i] = 0xff
			}
			return errors.Join(os.WriteFile(name, b, 0o600), os.WriteFile(name+"-wal", []byte("x"), 0o600))
		},
		"foreign": func(dir string) error {
			if err := forget(dir); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, "index.db"), nil, 0o600); err != nil {
				return err
			}
			d, err := openDB(filepath.Join(dir, "index.db"), 100)
			if err != nil {
				return err
			}
			return errors.Join(d.script("CREATE TABLE foreign_table(x)"), d.conn.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, Options{PackSize: 10_000})
			a, free := chunk("a", 4000), chunk("free", 9000)
			put(t, s, free)
			commit(t, s, 1, a)
			must(t, s.Set(ctx, storage.Item{Kind: 1, Rev: 1, Body: []byte("item")}))
			must(t, s.Delete(ctx, home, vault.Identify(free)))
			commit(t, s, 2, chunk("b", 4000))
			before, err := s.Stats(ctx)
			must(t, err)
			must(t, s.Close())
			must(t, spoil(dir))

			for range 2 {
				s = open(t, dir, Options{})
				if d := s.Damage(); len(d) != 0 {
					t.Fatalf("damage %+v", d)
				}
				after, err := s.Stats(ctx)
				must(t, err)
				before.BytesStored, after.BytesStored = 0, 0
				if before != after {
					t.Fatalf("before %+v, after %+v", before, after)
				}
				must(t, get(t, s, a))
				if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 2 {
					t.Fatalf("head %+v, %v", h, err)
				}
				must(t, s.Close())
			}
			if exists(filepath.Join(dir, "index.suspect")) {
				t.Error("still suspect")
			}
		})
	}
}

func TestTornTailIsCut(t *testing.T) {
	for _, index := range []string{"kept", "lost"} {
		t.Run("index "+index, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			a := chunk("a", 1000)
			put(t, s, a)
			whole := size(t, packFile(dir, 1))
			must(t, s.Close())
			saved, err := os.ReadFile(filepath.Join(dir, "index.db"))
			must(t, err)
			s = open(t, dir, Options{})
			torn := commit(t, s, 1, chunk("b", 1000), chunk("c", 1000))
			end := size(t, packFile(dir, 1))
			must(t, s.Close())

			for cut := end - 1; cut >= whole; cut -= 97 {
				must(t, os.WriteFile(filepath.Join(dir, "index.db"), saved, 0o600))
				if index == "lost" {
					must(t, forget(dir))
				}
				pack, err := os.ReadFile(packFile(dir, 1))
				must(t, err)
				must(t, os.Truncate(packFile(dir, 1), cut))
				s := open(t, dir, Options{})
				must(t, get(t, s, a))
				for _, o := range [][]byte{torn, chunk("b", 1000), chunk("c", 1000)} {
					if err := get(t, s, o); !errors.Is(err, storage.ErrNotFound) {
						t.Fatalf("cut at %d: half a commit: %v", cut, err)
					}
				}
				if got := size(t, packFile(dir, 1)); got != whole || len(s.Damage()) != 0 {
					t.Fatalf("cut at %d: pack of %d bytes, want %d; damage %+v", cut, got, whole, s.Damage())
				}
				must(t, s.Close())
				must(t, os.WriteFile(packFile(dir, 1), pack, 0o600))
			}
		})
	}
}

// history makes a store of four commits, each a group of its own with a chunk.
func history(t *testing.T, dir string) (chunks, records [][]byte) {
	t.Helper()
	s := open(t, dir, Options{})
	for seq := uint64(1); seq <= 4; seq++ {
		c := chunk(fmt.Sprint("chunk ", seq), 2000)
		chunks = append(chunks, c)
		records = append(records, commit(t, s, seq, c))
	}
	must(t, s.Close())
	return chunks, records
}

func TestDamageIsNamedAndKept(t *testing.T) {
	for _, c := range []struct {
		name string
		spot func(chunks, records [][]byte) []byte
		// errs are the errors of chunk 2 and record 2 afterwards.
		chunk, record error
		versions      int
		reports       int
	}{
		{"a chunk", func(c, _ [][]byte) []byte { return c[1] }, storage.ErrCorrupt, nil, 4, 1},
		{"a record", func(_, r [][]byte) []byte { return r[1] }, nil, storage.ErrCorrupt, 4, 1},
		{"a commit", func(_, r [][]byte) []byte {
			id := vault.Identify(r[1])
			return append([]byte{1, 0, 0, 0, 0, 0}, id[:]...) // the count, no stamp, and the only record
		}, nil, nil, 3, 2}, // the place, and that a commit is missing
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			chunks, records := history(t, dir)
			must(t, flip(dir, c.spot(chunks, records)))
			must(t, forget(dir))
			before, err := os.ReadFile(packFile(dir, 1))
			must(t, err)

			s := open(t, dir, Options{})
			if len(s.Damage()) != c.reports {
				t.Fatalf("damage %+v", s.Damage())
			}
			if err := get(t, s, chunks[1]); !errors.Is(err, c.chunk) {
				t.Errorf("chunk: %v", err)
			}
			if err := get(t, s, records[1]); !errors.Is(err, c.record) {
				t.Errorf("record: %v", err)
			}
			for _, i := range []int{0, 2, 3} {
				must(t, get(t, s, chunks[i]))
				must(t, get(t, s, records[i]))
			}
			n := 0
			for _, err := range s.Versions(ctx, home, mine, vault.PathID{3}) {
				must(t, err)
				n++
			}
			if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 4 || n != c.versions {
				t.Errorf("head %+v, %v; %d versions", h, err, n)
			}
			// The store works on, elsewhere, and takes what was lost again.
			commit(t, s, 5, chunk("after", 100))
			must(t, store(ctx, s, home, chunks[1], records[1]))
			must(t, get(t, s, chunks[1]))
			must(t, get(t, s, records[1]))
			for _, o := range [][]byte{chunks[1], records[0]} {
				if err := s.Delete(ctx, home, vault.Identify(o)); !errors.Is(err, storage.ErrReferenced) {
					t.Errorf("delete of what is referred to: %v", err)
				}
			}
			after, err := os.ReadFile(packFile(dir, 1))
			must(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the damaged pack was changed")
			}
		})
	}
}

func TestDamagedLastGroupIsKeptBeside(t *testing.T) {
	dir := t.TempDir()
	chunks, records := history(t, dir)
	must(t, flip(dir, chunks[3]))
	before, err := os.ReadFile(packFile(dir, 1))
	must(t, err)
	must(t, forget(dir))
	s := open(t, dir, Options{})
	if len(s.Damage()) != 1 {
		t.Fatalf("damage %+v", s.Damage())
	}
	d := s.Damage()[0]
	kept, err := os.ReadFile(filepath.Join(dir, "packs", fmt.Sprintf("00000001-%d.cut", d.Offset)))
	must(t, err)
	if !bytes.Equal(kept, before[d.Offset:]) || int64(len(kept)) != d.Length {
		t.Fatal("what was cut off is not kept")
	}
	if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 3 {
		t.Fatalf("head %+v, %v", h, err)
	}
	if err := get(t, s, records[3]); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	commit(t, s, 4, chunk("again", 10))
}

// TestWholeButSenseless has entries whose bodies are what was written, and nonsense.
func TestWholeButSenseless(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, chunk("before", 10))
	must(t, s.submit(ctx, 0, func(g *group) error {
		for _, k := range []kind{kindObject, kindCommit, kindItem, kindDelete} {
			body := []byte("nonsense")
			g.stage(k, 0, home, vault.Identify(body), body)
		}
		return nil
	}))
	put(t, s, chunk("behind", 10))
	must(t, s.Close())
	must(t, forget(dir))
	s = open(t, dir, Options{})
	if len(s.Damage()) != 4 {
		t.Fatalf("damage %+v", s.Damage())
	}
	must(t, get(t, s, chunk("before", 10)))
	must(t, get(t, s, chunk("behind", 10)))
}

func TestDamagedHeaderIsNoLoss(t *testing.T) {
	dir := t.TempDir()
	chunks, _ := history(t, dir)
	must(t, flip(dir, []byte(packMagic)))
	must(t, forget(dir))
	s := open(t, dir, Options{})
	for _, c := range chunks {
		must(t, get(t, s, c))
	}
}

func TestShortAndMissingPacks(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"cut short": func(dir string) error { return os.Truncate(packFile(dir, 1), 3000) },
		"missing":   func(dir string) error { return os.Remove(packFile(dir, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			chunks, _ := history(t, dir)
			must(t, spoil(dir))
			s := open(t, dir, Options{})
			if len(s.Damage()) != 1 {
				t.Fatalf("damage %+v", s.Damage())
			}
			// What is lost is absent before anybody has asked for it.
			has, err := s.Has(ctx, home, []vault.ObjectID{vault.Identify(chunks[3])})
			if err != nil || has[0] {
				t.Fatalf("said to be there: %v, %v", has, err)
			}
			if err := get(t, s, chunks[3]); !errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound) {
				t.Fatal(err)
			}
			if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 4 {
				t.Fatalf("head %+v, %v", h, err)
			}
			put(t, s, chunks[3])
			must(t, get(t, s, chunks[3]))
			commit(t, s, 5, chunk("elsewhere", 10))
			if n := size(t, packFile(dir, 2)); n <= packHeader {
				t.Fatalf("second pack of %d bytes", n)
			}
		})
	}
}

// TestCommitsAreKeptTwice damages commits in their pack, in the index, and in both.
func TestCommitsAreKeptTwice(t *testing.T) {
	// The start of a commit's entry, the count and the length of the stamp, is in
	// the pack only where it has records.
	inPack := func(dir string, r []byte) error {
		id := vault.Identify(r)
		return flip(dir, append([]byte{1, 0, 0, 0, 0, 0}, id[:]...))
	}
	inIndex := func(dir string) error {
		d, err := openDB(filepath.Join(dir, "index.db"), 100)
		if err != nil {
			return err
		}
		return errors.Join(d.run(`UPDATE commits SET copy = CAST(substr(copy, 1, length(copy) - 1) || x'ff' AS BLOB) WHERE seq = 3`, nil), d.conn.Close())
	}
	for _, c := range []struct {
		name         string
		pack, index  bool
		lost, damage bool // with and without the index
	}{
		{"nowhere", false, false, false, false},
		{"in the pack", true, false, false, true},
		{"in the index", false, true, false, false},
		{"in both", true, true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			_, records := history(t, dir)
			if c.pack {
				must(t, inPack(dir, records[2]))
			}
			if c.index {
				must(t, inIndex(dir))
			}
			s := open(t, dir, Options{})
			var seqs []uint64
			for h, err := range s.Commits(ctx, home, mine, 1, 10) {
				if lost := errors.Is(err, storage.ErrCorrupt); lost != (c.lost && h.Seq == 3) || !lost && err != nil {
					t.Fatalf("commit %d: %v", h.Seq, err)
				}
				if err == nil && string(h.Body) != fmt.Sprint(h.Seq) {
					t.Fatalf("commit %d: body %q", h.Seq, h.Body)
				}
				seqs = append(seqs, h.Seq)
			}
			if !slices.Equal(seqs, []uint64{1, 2, 3, 4}) {
				t.Fatal(seqs)
			}
			commit(t, s, 5, chunk("after", 10))
			must(t, s.Close())
			must(t, forget(dir))
			s = open(t, dir, Options{})
			if damage := len(s.Damage()) > 0; damage != c.damage {
				t.Fatalf("damage %+v", s.Damage())
			}
			if h, err := s.Head(ctx, home, mine); err != nil || h.Seq != 5 {
				t.Fatalf("head %+v, %v", h, err)
			}
		})
	}
}

// TestWholeCopyCounts has an object that was damaged and stored again.
func TestWholeCopyCounts(t *testing.T) {
	for _, rebuilt := range []bool{false, true} {
		t.Run(fmt.Sprint("rebuilt ", rebuilt), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{PackSize: 4000})
			bad := chunk("bad", 4000)
			l := storagetest.List("list", bad)
			put(t, s, bad, l)
			must(t, flip(dir, bad))
			if err := get(t, s, bad); !errors.Is(err, storage.ErrCorrupt) {
				t.Fatal(err)
			}
			put(t, s, chunk("next pack", 4000), bad)
			if rebuilt {
				before, err := s.Stats(ctx)
				must(t, err)
				must(t, s.Close())
				must(t, forget(dir))
				s = open(t, dir, Options{PackSize: 4000})
				after, err := s.Stats(ctx)
				must(t, err)
				if before.BytesStored, after.BytesStored = 0, 0; before != after || len(s.Damage()) != 1 {
					t.Fatalf("before %+v, after %+v, damage %+v", before, after, s.Damage())
				}
			}
			must(t, get(t, s, bad))
			must(t, get(t, s, l))
			if err := s.Delete(ctx, home, vault.Identify(bad)); !errors.Is(err, storage.ErrReferenced) {
				t.Fatal(err)
			}
			// The damaged pack goes when nothing whole is in it any more.
			must(t, s.Delete(ctx, home, vault.Identify(l)))
			if exists(packFile(dir, 1)) {
				t.Error("a pack with nothing live is kept")
			}
			must(t, get(t, s, bad))
		})
	}
}

// TestDamagedReadsAreRight has a reading that fails once: the bytes are given when
// they can be read.
func TestDamagedReadsAreRight(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	a := chunk("a", 4000)
	put(t, s, a)
	must(t, flip(dir, a))
	if err := get(t, s, a); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatal(err)
	}
	pack, err := os.ReadFile(packFile(dir, 1))
	must(t, err)
	pack[bytes.Index(pack, a[:20])+len(a)/2] ^= 1
	must(t, os.WriteFile(packFile(dir, 1), pack, 0o600))
	must(t, get(t, s, a))
	has, err := s.Has(ctx, home, []vault.ObjectID{vault.Identify(a)})
	if err != nil || has[0] {
		t.Fatalf("what was damaged is not asked for again: %v, %v", has, err)
	}
}

func TestInterruptedPackIsForgotten(t *testing.T) {
	dir := t.TempDir()
	chunks, _ := history(t, dir)
	for _, left := range []string{"", "BKSTP"} {
		must(t, os.WriteFile(packFile(dir, 2), []byte(left), 0o600))
		s := open(t, dir, Options{})
		must(t, get(t, s, chunks[3]))
		if exists(packFile(dir, 2)) || len(s.Damage()) != 0 {
			t.Fatalf("%d bytes: damage %+v", len(left), s.Damage())
		}
		must(t, s.Close())
	}
}

// TestForgedEntries shows that entries which a client hides in an object are not
// taken for such when the pack is searched.
func TestForgedEntries(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, chunk("first", 10))
	inner := chunk("forged", 10)
	var forged []byte
	for _, m := range []mark{{}, {'B', 'K', 'S', 'T', 'P', 'A', 'C', 'K'}} {
		head := entry{kind: kindObject, flags: flagGroup, vault: home, sum: vault.Identify(inner), length: int64(len(inner))}.encode(m)
		forged = append(append(forged, head[:]...), inner...)
	}
	outer := storagetest.Chunk(forged)
	put(t, s, outer)
	put(t, s, chunk("last", 10))
	must(t, s.Close())
	must(t, flip(dir, outer[:20]))
	must(t, forget(dir))
	s = open(t, dir, Options{})
	if err := get(t, s, inner); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("forged entry: %v", err)
	}
	must(t, get(t, s, chunk("last", 10)))
}

func TestDeleteFreesPacks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{PackSize: 1000})
	a, b := chunk("a", 2000), chunk("b", 2000)
	put(t, s, a) // alone in pack 1
	put(t, s, b) // alone in pack 2
	commit(t, s, 1)
	must(t, s.Delete(ctx, home, vault.Identify(a)))
	if exists(packFile(dir, 1)) || !exists(packFile(dir, 2)) || !exists(packFile(dir, 3)) {
		t.Fatal(contents(t, dir))
	}
	must(t, s.Close())
	for range 2 {
		s = open(t, dir, Options{PackSize: 1000})
		if d := s.Damage(); len(d) != 0 {
			t.Fatalf("damage %+v", d)
		}
		must(t, get(t, s, b))
		if err := get(t, s, a); !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
		must(t, s.Close())
		must(t, forget(dir))
	}
}

func TestFullIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	limit := func(pages int) {
		t.Helper()
		must(t, s.submit(ctx, 0, func(*group) error { return s.index.script(fmt.Sprintf("PRAGMA max_page_count = %d", pages)) }))
	}
	put(t, s, chunk("first", 10))
	limit(40)
	var acked [][]byte
	var last [][]byte
	for i := range 10_000 {
		last = [][]byte{chunk(fmt.Sprint("one ", i), 1000), chunk(fmt.Sprint("two ", i), 1000)}
		err := store(ctx, s, home, last...)
		if errors.Is(err, storage.ErrFull) {
			break
		}
		must(t, err)
		acked = append(acked, last...)
	}
	whole := size(t, packFile(dir, 1))
	if err := store(ctx, s, home, last...); !errors.Is(err, storage.ErrFull) {
		t.Fatal(err)
	}
	if got := size(t, packFile(dir, 1)); got != whole {
		t.Fatalf("the pack grew from %d to %d bytes", whole, got)
	}
	for _, o := range last {
		if err := get(t, s, o); !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
	}
	// The same when a change of the group stands in the pack already.
	written, _, err := check([][]byte{chunk("written", 2*gatherBytes)})
	must(t, err)
	err = s.submit(ctx, 0, func(g *group) error {
		if err := errors.Join(g.put(1, home, written, 0), g.emit()); err != nil {
			return err
		}
		if got := size(t, packFile(dir, 1)); got < whole+gatherBytes {
			t.Errorf("a pack of %d bytes: nothing was written", got)
		}
		for i := byte(0); ; i++ {
			if _, err := s.index.addObject(1, vault.ObjectID{i, i * 31}, vault.Header{}, location{pack: 1}, checked); err != nil {
				return err
			}
		}
	})
	if got := size(t, packFile(dir, 1)); !errors.Is(err, storage.ErrFull) || got != whole {
		t.Fatalf("%v; a pack of %d bytes, want %d", err, got, whole)
	}
	limit(100_000)
	put(t, s, last...)
	acked = append(acked, last...)
	for range 2 {
		for _, o := range acked {
			must(t, get(t, s, o))
		}
		must(t, s.Close())
		must(t, forget(dir))
		s = open(t, dir, Options{})
	}
}

func TestFailedStoreSaysSo(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  storagetest.CallKind
		fault storagetest.Fault
	}{
		{"write error", storagetest.CallWrite, storagetest.IOError},
		{"short write", storagetest.CallWrite, storagetest.ShortWrite},
		{"flush error", storagetest.CallGrow, storagetest.IOError},
		// After any failed flush nobody knows what is durable.
		{"flush without room", storagetest.CallGrow, storagetest.NoSpace},
	} {
		t.Run(c.name, func(t *testing.T) {
			fail := false
			dir := t.TempDir()
			s := open(t, dir, Options{FS: faultFS{next: func(k storagetest.CallKind) storagetest.Fault {
				if fail && k == c.kind {
					fail = false
					return c.fault
				}
				return storagetest.NoFault
			}}})
			a := chunk("a", 10)
			put(t, s, a)
			fail = true
			if err := store(ctx, s, home, chunk("b", 10)); !errors.Is(err, storage.ErrFailed) {
				t.Fatal(err)
			}
			<-s.Failed()
			if err := store(ctx, s, home, chunk("c", 10)); !errors.Is(err, storage.ErrFailed) {
				t.Fatalf("after a failure: %v", err)
			}
			must(t, get(t, s, a))
		})
	}
}

// TestAdoptedIsDurable lets the process die before a flush and the power go after
// the next start.
func TestAdoptedIsDurable(t *testing.T) {
	sim := newSimFS()
	dir, image := t.TempDir(), t.TempDir()
	s := open(t, dir, Options{FS: sim})
	put(t, s, chunk("first", 10))
	o := chunk("written, not flushed", 10)
	head := entry{kind: kindObject, flags: flagGroup, vault: home, sum: vault.Identify(o), length: int64(len(o))}.encode(s.active.mark)
	must(t, writeAt(s.active.f, append(head[:], o...), s.active.size))
	must(t, s.Close())

	s = open(t, dir, Options{FS: sim})
	must(t, get(t, s, o))
	sim.crash(dir, image, true, func([]simWrite) []simWrite { return nil })
	copyIndex(t, dir, image)
	must(t, get(t, open(t, image, Options{FS: sim}), o))
}

// TestQueue holds the writer and shows that what waits is bounded and can be
// withdrawn.
func TestQueue(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	hold, held := make(chan struct{}), make(chan struct{})
	done := make(chan error, 3)
	go func() {
		done <- s.submit(ctx, 0, func(*group) error { close(held); <-hold; return nil })
	}()
	<-held

	withdrawn, cancel := context.WithCancel(ctx)
	gone := chunk("withdrawn", 10)
	go func() { done <- store(withdrawn, s, home, gone) }()
	waitFor(t, s, func() bool { return len(s.queue.waiting) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	go func() { done <- s.submit(ctx, maxQueue, func(*group) error { return nil }) }()
	waitFor(t, s, func() bool { return s.queue.size >= maxQueue })
	late, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := store(late, s, home, chunk("no room", 10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	go func() { done <- store(ctx, s, home, chunk("waits", 10)) }()
	close(hold)
	for range 3 {
		must(t, <-done)
	}
	must(t, get(t, s, chunk("waits", 10)))
	if err := get(t, s, gone); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
}

// waitFor waits until the queue is as it should be.
func waitFor(t *testing.T, s *Store, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		s.queue.mu.Lock()
		met := ok()
		s.queue.mu.Unlock()
		if met {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("the queue never came to be as it should")
}

// TestRefusalIsAlone has changes that are refused and ones that are not in one
// group.
func TestRefusalIsAlone(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, chunk("first", 10))
	before, err := s.Stats(ctx)
	must(t, err)
	hold, held := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- s.submit(ctx, 0, func(*group) error { close(held); <-hold; return nil })
	}()
	<-held
	good := chunk("good", 10)
	refused := make(chan error)
	for i := range 6 {
		go func() {
			refused <- store(ctx, s, vault.ID{9}, chunk(fmt.Sprint(i), 10), storagetest.List("l", chunk("missing", 10)))
		}()
		if i == 2 {
			go func() { done <- store(ctx, s, home, good) }()
		}
	}
	waitFor(t, s, func() bool { return len(s.queue.waiting) == 7 })
	close(hold)
	for range 6 {
		if err := <-refused; !errors.Is(err, storage.ErrMissingRef) {
			t.Error(err)
		}
	}
	must(t, errors.Join(<-done, <-done))
	after, err := s.Stats(ctx)
	must(t, err)
	before.Objects++
	before.BytesObjects += int64(len(good))
	before.BytesStored, after.BytesStored = 0, 0
	if after != before {
		t.Fatalf("got %+v, want %+v", after, before)
	}
	must(t, get(t, s, good))
}

func TestGroupSharesFlush(t *testing.T) {
	var flushes int
	fsys := faultFS{next: func(k storagetest.CallKind) storagetest.Fault {
		if k == storagetest.CallGrow {
			flushes++
		}
		return storagetest.NoFault
	}}
	s := open(t, t.TempDir(), Options{FS: fsys})
	put(t, s, chunk("first", 10))
	hold, held := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- s.submit(ctx, 0, func(*group) error { close(held); <-hold; return nil })
	}()
	<-held
	before := flushes
	const n = 50
	for i := range n {
		go func() { done <- store(ctx, s, home, chunk(fmt.Sprint(i), 10)) }()
	}
	waitFor(t, s, func() bool { return len(s.queue.waiting) == n })
	close(hold)
	for range n + 1 {
		must(t, <-done)
	}
	// More than one only if the machine was slow enough for a group to close by time.
	if got := flushes - before; got > n/2 {
		t.Fatalf("%d flushes for %d puts", got, n)
	}
}
