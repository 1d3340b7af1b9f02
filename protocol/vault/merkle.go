package vault

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"
)

// RecordsRoot returns the Merkle tree hash (RFC 6962, section 2.1) of a commit's
// record ids in their order.
func RecordsRoot(ids []ObjectID) [sha256.Size]byte {
	switch len(ids) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leafHash(ids[0])
	}
	k := split(len(ids))
	return nodeHash(RecordsRoot(ids[:k]), RecordsRoot(ids[k:]))
}

// AuditPath returns the hashes that prove, with [VerifyAudit], that ids[i] is one
// of ids (RFC 6962, section 2.1.1).
func AuditPath(ids []ObjectID, i int) [][sha256.Size]byte {
	var path [][sha256.Size]byte
	for len(ids) > 1 {
		k := split(len(ids))
		if i < k {
			path, ids = append(path, RecordsRoot(ids[k:])), ids[:k]
		} else {
			path, ids, i = append(path, RecordsRoot(ids[:k])), ids[k:], i-k
		}
	}
	slices.Reverse(path)
	return path
}

// VerifyAudit checks that the record with an id is the one with an index, from 0,
// of the count records under root (RFC 9162, section 2.1.3.2). The error is of the
// class [ErrContent].
func VerifyAudit(root [sha256.Size]byte, count, index int, id ObjectID, path [][sha256.Size]byte) error {
	if index < 0 || index >= count {
		return fmt.Errorf("audit path: %w: record %d of %d", ErrContent, index, count)
	}
	// node is the number of the current node in its level, last that of the
	// level's last.
	node, last := uint(index), uint(count-1)
	hash := leafHash(id)
	for _, p := range path {
		if last == 0 {
			return fmt.Errorf("audit path: %w: %d hashes are too many", ErrContent, len(path))
		}
		if node&1 == 1 || node == last {
			hash = nodeHash(p, hash)
			// A last node without a brother moves up until it has one.
			up := bits.TrailingZeros(node)
			node, last = node>>up, last>>up
		} else {
			hash = nodeHash(hash, p)
		}
		node, last = node>>1, last>>1
	}
	if last != 0 || hash != root {
		return fmt.Errorf("audit path: %w: record %v is not in the commit", ErrContent, id)
	}
	return nil
}

// split returns the greatest power of two below n, which is at least 2.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func leafHash(id ObjectID) [sha256.Size]byte {
	b := [1 + len(id)]byte{0: 0}
	copy(b[1:], id[:])
	return sha256.Sum256(b[:])
}

func nodeHash(left, right [sha256.Size]byte) [sha256.Size]byte {
	b := [1 + 2*sha256.Size]byte{0: 1}
	copy(b[1:], left[:])
	copy(b[1+len(left):], right[:])
	return sha256.Sum256(b[:])
}
