package catalog

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math/bits"
	"sync/atomic"

	"zombiezen.com/go/sqlite"

	"backstay/agent/scan/facts"
)

// Known is what a destination has of one path and everything below it, at one
// moment, condensed to 20 bytes a path: a hash of the path and a fingerprint of
// its facts, both keyed with a secret of this process. A scan asks it for every
// path it meets, and it remembers which ones. It is safe for concurrent use.
//
// That two paths share a hash happens once in a billion catalogs of 300,000. Then
// both count as unknown and are captured again; nothing is taken for protected
// that is not.
type Known struct {
	d     *Destination
	path  string
	seed  maphash.Seed
	slots []slot          // open addressing, at most four fifths full
	seen  []atomic.Uint64 // a bit for each slot
	n     int
}

type slot struct{ key, fingerprint uint64 }

// The fingerprints that mean something else. A true one that happens to be among
// them is moved out of the way.
const (
	vacant   = 0 // nothing in this slot
	mismatch = 1 // in the catalog, but equal to nothing: must be captured again
	smallest = 2
)

func fingerprint(f facts.Facts, seed maphash.Seed) uint64 {
	return max(f.Fingerprint(seed), smallest)
}

// Known reads what the destination has of path and below: one sequential read.
// Versions captured while they were changing match nothing.
func (d *Destination) Known(ctx context.Context, path string) (*Known, error) {
	k := &Known{d: d, path: path, seed: maphash.MakeSeed()}
	var found []slot
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		return d.below(conn, "path, fuzzy, type, mode, dev, inode, size, mtime, ctime", present, path, func(s *sqlite.Stmt) error {
			f := slot{maphash.String(k.seed, s.ColumnText(0)), mismatch}
			if !s.ColumnBool(1) {
				f.fingerprint = fingerprint(scanFacts(s, 2), k.seed)
			}
			found = append(found, f)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read what is known of %q: %w", path, err)
	}
	k.slots = make([]slot, len(found)*5/4+1)
	k.seen = make([]atomic.Uint64, (len(k.slots)+63)/64)
	for _, f := range found {
		i := k.find(f.key)
		if k.slots[i].fingerprint != vacant {
			f.fingerprint = mismatch // two paths, one hash
		} else {
			k.n++
		}
		k.slots[i] = f
	}
	return k, nil
}

const present = " AND state = 1"

// find returns the slot that holds key, or the vacant one where it belongs.
func (k *Known) find(key uint64) int {
	at, _ := bits.Mul64(key, uint64(len(k.slots)))
	i := int(at)
	for k.slots[i].key != key && k.slots[i].fingerprint != vacant {
		if i++; i == len(k.slots) {
			i = 0
		}
	}
	return i
}

// Match notes that path exists and reports whether f is what the destination has
// of it. It does not keep path.
func (k *Known) Match(path []byte, f facts.Facts) bool {
	i := k.find(maphash.Bytes(k.seed, path))
	known := k.slots[i].fingerprint
	if known == vacant {
		return false
	}
	k.seen[i/64].Or(1 << (i % 64))
	return known == fingerprint(f, k.seed)
}

// Len returns how many paths are known.
func (k *Known) Len() int { return k.n }

// Seen returns of how many of them Match was asked.
func (k *Known) Seen() int {
	n := 0
	for i := range k.seen {
		n += bits.OnesCount64(k.seen[i].Load())
	}
	return n
}

// Unseen yields the known paths that Match was not asked for, ordered by bytes,
// by reading the catalog again. It holds one of few read connections meanwhile.
// An error ends it.
func (k *Known) Unseen(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := k.d.c.view(ctx, func(conn *sqlite.Conn) error {
			return k.d.below(conn, "path", present, k.path, func(s *sqlite.Stmt) error {
				path := s.ColumnText(0)
				i := k.find(maphash.String(k.seed, path))
				fp := k.slots[i].fingerprint
				// With a mismatch the seen bit may be another path's.
				if fp == vacant || fp != mismatch && k.seen[i/64].Load()&(1<<(i%64)) != 0 {
					return nil
				}
				if !yield(path, nil) {
					return errStop
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errStop) {
			yield("", fmt.Errorf("read what is known of %q: %w", k.path, err))
		}
	}
}
