package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math"
	"time"

	"backstay/protocol/cbor"
)

// Limits of a commit (SPEC.md, "Limits").
const (
	// MaxCommit bounds a signed commit, in bytes.
	MaxCommit = 64 << 10
	// MaxRecords is how many records one commit carries at most.
	MaxRecords = 16_384
)

// Commit is an atomic batch of a device's records (SPEC.md, "Commits"): what the
// device signs of it, and of everything before it.
type Commit struct {
	Device DeviceID
	// Seq counts the device's commits from 1.
	Seq uint64
	// Prev is the hash of the commit before, PrevStamp the stamp it got; both are
	// nil in the first and in no other.
	Prev      *CommitHash
	PrevStamp []byte
	// Root is the [RecordsRoot] of the Count records.
	Root  [sha256.Size]byte
	Count int
	// Digest is the [Digest.Sum] of the state after the commit.
	Digest [sha256.Size]byte
	// Retention is the policy in force.
	Retention Retention
	// Members is the head of the membership log that the device has verified.
	Members EntryHash
	// Heads are the newest commits seen of other devices, ascending by device.
	Heads []DeviceHead
	// Roots are the lines of transfer.info, ascending by path id.
	Roots []RootState
	// Time is the device's clock, in the years 1678 to 2262. What counts is the
	// stamp.
	Time time.Time
	// After is the commit that the server had as the newest if it was not the
	// one before: the server lost commits.
	After *Position
}

// Retention says which restore points are kept: all of the first Hours, then the
// last one of each hour, day and week for so long, and the newest always.
type Retention struct {
	Hours, HourlyDays, DailyDays, WeeklyWeeks uint32
}

// DeviceHead is a commit of another device.
type DeviceHead struct {
	Device DeviceID
	Seq    uint64
	Hash   CommitHash
}

// RootState says how far the first pass over a line of transfer.info is.
type RootState struct {
	Path PathID
	// Complete is the number of the commit with which it was complete, 0 while
	// it is not.
	Complete uint64
}

// Position is a place in a device's chain: after the commit with the number Seq,
// or before the first if that is 0, and then Hash is nil.
type Position struct {
	Seq  uint64
	Hash *CommitHash
}

// Keys of a commit's map.
const (
	commitDevice    = 1
	commitSeq       = 2
	commitPrev      = 3
	commitRoot      = 4
	commitCount     = 5
	commitDigest    = 6
	commitRetention = 7
	commitMembers   = 8
	commitHeads     = 9
	commitRoots     = 10
	commitTime      = 11
	commitPrevStamp = 12
	commitAfter     = 13
)

// Sign returns the signed commit. Errors: [ErrMalformed] if c is not of the form
// that [ParseCommit] accepts or not of the device that signs.
func (c Commit) Sign(vault ID, device *Identity) ([]byte, error) {
	err := c.check()
	if err == nil && c.Device != device.id {
		err = fmt.Errorf("%w: commit of %v signed by %v", ErrMalformed, c.Device, device.id)
	}
	if err != nil {
		return nil, fmt.Errorf("sign commit %d: %w", c.Seq, err)
	}
	raw := sign(device.sign, labelCommit, vault, c.append(nil))
	if len(raw) > MaxCommit {
		return nil, fmt.Errorf("sign commit %d: %w: %d bytes, the limit is %d", c.Seq, ErrMalformed, len(raw), MaxCommit)
	}
	return raw, nil
}

// HashCommit returns the hash by which the next commit refers to a signed one.
func HashCommit(raw []byte) CommitHash { return sha256.Sum256(raw) }

// OpenCommit verifies the signature of a commit by a device's [Public.SignKey] and
// returns what is signed. Whether the key's owner was allowed to is the membership
// log's to say.
//
// Errors: [ErrSignature], [ErrMalformed].
func OpenCommit(vault ID, raw []byte, key ed25519.PublicKey) (Commit, error) {
	if len(raw) <= MaxCommit { // a longer one is not worth a hash, and ParseCommit refuses it
		if _, err := verify(key, labelCommit, vault, raw); err != nil {
			return Commit{}, fmt.Errorf("commit: %w", err)
		}
	}
	return ParseCommit(raw)
}

// ParseCommit reads a signed commit without looking at the signature.
// Errors: [ErrMalformed].
func ParseCommit(raw []byte) (Commit, error) {
	if len(raw) > MaxCommit {
		return Commit{}, fmt.Errorf("commit: %w: %d bytes, the limit is %d", ErrMalformed, len(raw), MaxCommit)
	}
	body, err := bodyOf(raw)
	if err != nil {
		return Commit{}, fmt.Errorf("commit: %w", err)
	}
	d := unpackMap(body, commitAfter)
	var c Commit
	c.decode(d)
	if err = d.err; err == nil {
		err = c.check()
	}
	if err != nil {
		return Commit{}, fmt.Errorf("commit: %w", err)
	}
	return c, nil
}

// append appends the body that decode reads.
func (c *Commit) append(dst []byte) []byte {
	n := 10
	for _, has := range []bool{c.Prev != nil, c.PrevStamp != nil, c.After != nil} {
		if has {
			n++
		}
	}
	dst = cbor.AppendMap(dst, n)
	dst = cbor.AppendBytes(cbor.AppendInt(dst, commitDevice), c.Device[:])
	dst = cbor.AppendUint(cbor.AppendInt(dst, commitSeq), c.Seq)
	if c.Prev != nil {
		dst = cbor.AppendBytes(cbor.AppendInt(dst, commitPrev), c.Prev[:])
	}
	dst = cbor.AppendBytes(cbor.AppendInt(dst, commitRoot), c.Root[:])
	dst = cbor.AppendUint(cbor.AppendInt(dst, commitCount), uint64(c.Count))
	dst = cbor.AppendBytes(cbor.AppendInt(dst, commitDigest), c.Digest[:])
	dst = cbor.AppendArray(cbor.AppendInt(dst, commitRetention), 4)
	for _, n := range []uint32{c.Retention.Hours, c.Retention.HourlyDays, c.Retention.DailyDays, c.Retention.WeeklyWeeks} {
		dst = cbor.AppendUint(dst, uint64(n))
	}
	dst = cbor.AppendBytes(cbor.AppendInt(dst, commitMembers), c.Members[:])
	dst = cbor.AppendArray(cbor.AppendInt(dst, commitHeads), len(c.Heads))
	for _, h := range c.Heads {
		dst = cbor.AppendBytes(cbor.AppendArray(dst, 3), h.Device[:])
		dst = cbor.AppendBytes(cbor.AppendUint(dst, h.Seq), h.Hash[:])
	}
	dst = cbor.AppendArray(cbor.AppendInt(dst, commitRoots), len(c.Roots))
	for _, r := range c.Roots {
		dst = cbor.AppendUint(cbor.AppendBytes(cbor.AppendArray(dst, 2), r.Path[:]), r.Complete)
	}
	dst = cbor.AppendInt(cbor.AppendInt(dst, commitTime), c.Time.UnixNano())
	if c.PrevStamp != nil {
		dst = cbor.AppendBytes(cbor.AppendInt(dst, commitPrevStamp), c.PrevStamp)
	}
	if a := c.After; a != nil {
		dst = cbor.AppendUint(cbor.AppendArray(cbor.AppendInt(dst, commitAfter), 2), a.Seq)
		if a.Hash != nil {
			dst = cbor.AppendBytes(dst, a.Hash[:])
		} else {
			dst = cbor.AppendBytes(dst, []byte(nil))
		}
	}
	return dst
}

func (c *Commit) decode(d *unpacker) {
	c.Device = DeviceID(d.array(d.field(commitDevice), len(c.Device)))
	c.Seq = d.uint(d.field(commitSeq), 1, math.MaxUint64)
	if d.has(commitPrev) {
		c.Prev = new(CommitHash(d.array(d.field(commitPrev), len(CommitHash{}))))
	}
	c.Root = [sha256.Size]byte(d.array(d.field(commitRoot), len(c.Root)))
	c.Count = int(d.uint(d.field(commitCount), 0, MaxRecords))
	c.Digest = [sha256.Size]byte(d.array(d.field(commitDigest), len(c.Digest)))
	r := d.tuple(d.field(commitRetention), 4)
	c.Retention = Retention{d.uint32(r[0]), d.uint32(r[1]), d.uint32(r[2]), d.uint32(r[3])}
	c.Members = EntryHash(d.array(d.field(commitMembers), len(c.Members)))
	for _, v := range d.list(d.field(commitHeads)) {
		p := d.tuple(v, 3)
		c.Heads = append(c.Heads, DeviceHead{
			DeviceID(d.array(p[0], len(DeviceID{}))), d.uint(p[1], 1, math.MaxUint64), CommitHash(d.array(p[2], len(CommitHash{})))})
	}
	for _, v := range d.list(d.field(commitRoots)) {
		p := d.tuple(v, 2)
		c.Roots = append(c.Roots, RootState{PathID(d.array(p[0], len(PathID{}))), d.uint(p[1], 0, math.MaxUint64)})
	}
	c.Time = time.Unix(0, d.int(d.field(commitTime))).UTC()
	if d.has(commitPrevStamp) {
		c.PrevStamp = bytes.Clone(d.array(d.field(commitPrevStamp), StampSize))
	}
	if d.has(commitAfter) {
		p := d.tuple(d.field(commitAfter), 2)
		c.After = &Position{Seq: d.uint(p[0], 0, math.MaxUint64)}
		if hash := d.bytes(p[1]); c.After.Seq > 0 || len(hash) > 0 {
			c.After.Hash = new(CommitHash(d.array(p[1], len(CommitHash{}))))
		}
	}
}

// check says whether the fields fit each other.
func (c *Commit) check() error {
	first := c.Seq == 1
	switch {
	case c.Seq == 0 || c.Count < 0 || c.Count > MaxRecords:
		return fmt.Errorf("%w: number %d with %d records", ErrMalformed, c.Seq, c.Count)
	case first != (c.Prev == nil) || first != (c.PrevStamp == nil) || !first && len(c.PrevStamp) != StampSize:
		return fmt.Errorf("%w: number %d does not fit what it says of the commit before", ErrMalformed, c.Seq)
	case !time.Unix(0, c.Time.UnixNano()).Equal(c.Time):
		return fmt.Errorf("%w: time %v is beyond nanoseconds in 64 bits", ErrMalformed, c.Time)
	case c.After != nil && !c.After.fits(c):
		return fmt.Errorf("%w: the server's newest commit, %d, does not fit number %d", ErrMalformed, c.After.Seq, c.Seq)
	}
	for i, h := range c.Heads {
		if h.Seq == 0 || h.Device == c.Device || i > 0 && bytes.Compare(c.Heads[i-1].Device[:], h.Device[:]) >= 0 {
			return fmt.Errorf("%w: head %d, of device %v", ErrMalformed, i, h.Device)
		}
	}
	for i, r := range c.Roots {
		if r.Complete > c.Seq || i > 0 && bytes.Compare(c.Roots[i-1].Path[:], r.Path[:]) >= 0 {
			return fmt.Errorf("%w: root %d, complete since commit %d", ErrMalformed, i, r.Complete)
		}
	}
	return nil
}

// fits says whether p is a place before a commit, but not the one it would follow
// anyway.
func (p *Position) fits(c *Commit) bool {
	if p.Seq >= c.Seq || (p.Seq == 0) != (p.Hash == nil) {
		return false
	}
	return p.Seq < c.Seq-1 || p.Seq > 0 && *p.Hash != *c.Prev
}
