package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// A Query says whose history is wanted and what is known of it beforehand.
type Query struct {
	Device vault.DeviceID
	// Members is the vault's membership log, verified from a genesis that the
	// caller trusts.
	Members *vault.Members
	// Pin is the key of the server that is asked.
	Pin wire.Pin
	// Now is the clock by which kept points are judged; default time.Now().
	Now time.Time
}

// A Moment is a commit of a device that is known to be genuine (SPEC.md,
// "Commits"): the state a restore gives back.
type Moment struct {
	Commit vault.Commit
	Hash   vault.CommitHash
	// Time is that of the stamp.
	Time time.Time
	// Newest says that no commit follows: this is all the server has.
	Newest bool
	// Bound says that a later commit signs the time. Else, as for the newest
	// commit, it rests on the server's word.
	Bound bool
	// Passed is how many later commits, up to the time asked for, the server does
	// not give any more: the moment is the nearest that is kept.
	Passed int
	// Complete says that the first pass over every line of transfer.info was
	// complete by then. Else paths may be missing because they had not been sent.
	Complete bool
}

// Open finds the newest commit at or before a time, or of all if at is zero, and
// verifies it: signature, membership, stamp, and that the commits after it continue
// it, sign its stamp and came later than at.
//
// Errors: [ErrNoCommit], one of the class [ErrIntegrity], or the source's.
func (q Query) Open(ctx context.Context, src Source, at time.Time) (*Moment, error) {
	head, err := src.Head(ctx, q.Device, at)
	if err != nil {
		return nil, fmt.Errorf("find commit: %w", err)
	}
	if len(head.Commit) == 0 {
		return nil, fmt.Errorf("find commit: %w", ErrNoCommit)
	}
	here, err := q.link(head)
	if err != nil {
		return nil, err
	}
	if !at.IsZero() && here.stamp.Time.After(at) {
		return nil, here.wrap(ErrLater)
	}
	// The next commit signs this one's stamp, and says by its own that it came
	// after at. The one after that signs that stamp in turn.
	last, passed, beyond := here, 0, 0
	var next *link
	for head, err := range src.Log(ctx, q.Device, here.commit.Seq+1, 0) {
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		c, err := q.link(head)
		if err == nil {
			err = c.follows(last)
		}
		if err != nil {
			return nil, err
		}
		if at.IsZero() { // committed while we asked
			here, last = c, c
			continue
		}
		if passed > 0 && beyond == 0 && q.kept(last, c) {
			return nil, last.wrap(ErrOmitted)
		}
		if next == nil {
			next = c
		}
		if !c.stamp.Time.After(at) {
			passed++
		} else if beyond++; beyond == 2 {
			break
		}
		last = c
	}
	if beyond < 2 {
		if err := q.pinned(last); err != nil {
			return nil, err
		}
	}
	if passed > 0 && beyond == 0 { // the newest of all is always kept
		return nil, last.wrap(ErrOmitted)
	}
	m := &Moment{
		Commit: here.commit, Hash: here.hash, Time: here.stamp.Time, Passed: passed,
		Newest: next == nil, Bound: next != nil && next.commit.After == nil, Complete: true,
	}
	for _, r := range here.commit.Roots {
		m.Complete = m.Complete && r.Complete != 0
	}
	return m, nil
}

// kept reports whether the policy that both commits signed keeps the first one
// however hours, days and weeks are counted.
func (q Query) kept(c, next *link) bool {
	now := q.Now
	if now.IsZero() {
		now = time.Now()
	}
	const day = 24 * time.Hour
	age, lasted := now.Sub(c.stamp.Time), next.stamp.Time.Sub(c.stamp.Time)
	by := func(r vault.Retention) bool {
		return age < time.Duration(r.Hours)*time.Hour ||
			lasted >= time.Hour && age < time.Duration(r.HourlyDays)*day ||
			lasted >= day && age < time.Duration(r.DailyDays)*day ||
			lasted >= 7*day && age < time.Duration(r.WeeklyWeeks)*7*day
	}
	return by(c.commit.Retention) && by(next.commit.Retention)
}

// A Chain is what [Query.Chain] found.
type Chain struct {
	// Commits counts those that are right.
	Commits int
	// Damaged are those that the server says are damaged, ascending.
	Damaged []Gap
}

// A Gap is commits that a server has, and cannot give.
type Gap struct {
	First, Last uint64
	// After and Before are the times of the commits around them; After is zero
	// before the first.
	After, Before time.Time
}

// Chain verifies the log of a device from one commit to another, or to the newest
// if last is 0: every signature, membership and stamp, and that each commit
// continues the one before. It goes on behind commits that the source says are
// damaged, except for the last.
//
// Errors: one of the class [ErrIntegrity], or the source's.
func (q Query) Chain(ctx context.Context, src Source, first, last uint64) (Chain, error) {
	c := chain{q: q, src: src, first: max(first, 1)}
	c.next = c.first
	for end := last; ; {
		err := c.read(ctx, last)
		if err == nil {
			break
		}
		if !errors.Is(err, wire.ErrCorrupt) {
			return c.Chain, err
		}
		if end == 0 {
			newest, err := src.Head(ctx, q.Device, time.Time{})
			if err != nil {
				return c.Chain, fmt.Errorf("find commit: %w", err)
			}
			l, err := q.link(newest)
			if err != nil {
				return c.Chain, err
			}
			end = l.commit.Seq
		}
		// Which one is damaged the source does not say.
		for damaged := false; !damaged; {
			number := c.next
			if number >= end {
				return c.Chain, err
			}
			one := c.read(ctx, number)
			if damaged = errors.Is(one, wire.ErrCorrupt); one != nil && !damaged {
				return c.Chain, one
			}
			c.damaged = c.damaged || damaged
			c.next = number + 1
		}
	}
	switch {
	case last == 0 && c.before != nil:
		return c.Chain, q.pinned(c.before)
	case last != 0 && (c.before == nil || c.before.commit.Seq < last):
		return c.Chain, fmt.Errorf("commit %d: %w", last, ErrOmitted)
	}
	return c.Chain, nil
}

// chain is one call of Chain.
type chain struct {
	Chain
	q     Query
	src   Source
	first uint64
	// before is the last commit that was right, nil before the first; next is the
	// number to go on with; damaged: there are damaged ones between.
	before  *link
	next    uint64
	damaged bool
}

// read reads and verifies the log from next to last, or to the newest if that is 0.
func (c *chain) read(ctx context.Context, last uint64) error {
	for head, err := range c.src.Log(ctx, c.q.Device, c.next, last) {
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		l, err := c.q.link(head)
		switch {
		case err != nil:
			return err
		case l.commit.Seq < c.next:
			err = l.wrap(ErrOrder)
		case c.damaged:
			err = c.pass(l)
		case c.before != nil:
			err = l.follows(c.before)
		case l.commit.Seq > c.first && (l.commit.After == nil || l.commit.After.Seq >= c.first):
			err = l.wrap(ErrOmitted)
		}
		if err != nil {
			return err
		}
		c.before, c.next = l, l.commit.Seq+1
		c.Commits++
	}
	return nil
}

// pass verifies that l is the commit after those that are damaged, as far as it can be
// known: l signs the hash and the stamp of the last of them.
func (c *chain) pass(l *link) error {
	g := Gap{First: c.first, Last: c.next - 1, Before: l.stamp.Time}
	if c.before != nil {
		g.First, g.After = c.before.commit.Seq+1, c.before.stamp.Time
	}
	after := l.commit.After
	switch {
	case !g.After.Before(g.Before), c.before != nil && l.members < c.before.members:
		return l.wrap(ErrOrder)
	case after == nil && l.commit.Seq != c.next, after != nil && (after.Seq < g.First || after.Seq > g.Last), l.commit.Prev == nil:
		return l.wrap(ErrOmitted)
	}
	last, err := vault.OpenStamp(l.vault, *l.commit.Prev, l.commit.PrevStamp)
	if err != nil {
		return l.wrap(because(ErrStamp, err))
	}
	if !last.Time.Before(g.Before) || !last.Time.After(g.After) {
		return l.wrap(ErrOrder)
	}
	c.Damaged, c.damaged = append(c.Damaged, g), false
	return nil
}

// A link is a commit that is genuine by itself.
type link struct {
	commit  vault.Commit
	hash    vault.CommitHash
	raw     []byte // its stamp
	stamp   vault.Stamp
	members uint64 // number of the membership entry it names
	vault   vault.ID
}

func (l *link) wrap(err error) error { return fmt.Errorf("commit %d: %w", l.commit.Seq, err) }

// link verifies what can be verified of one commit.
func (q Query) link(head wire.Head) (*link, error) {
	c, err := vault.ParseCommit(head.Commit)
	if err != nil {
		return nil, because(ErrForged, err)
	}
	l := &link{commit: c, hash: vault.HashCommit(head.Commit), raw: head.Stamp, vault: q.Members.Vault()}
	if c.Device != q.Device {
		return nil, l.wrap(ErrForeign)
	}
	then, known := q.Members.At(c.Members)
	device, live := then.Device(c.Device)
	if _, status := q.Members.Member(c.Device); !known || !live || status == vault.StatusVoided {
		return nil, l.wrap(ErrNotMember)
	}
	l.members = then.Number
	if _, err := vault.OpenCommit(l.vault, head.Commit, device.Public.SignKey()); err != nil {
		return nil, l.wrap(because(ErrForged, err))
	}
	if l.stamp, err = vault.OpenStamp(l.vault, l.hash, head.Stamp); err != nil {
		return nil, l.wrap(because(ErrStamp, err))
	}
	return l, nil
}

// pinned verifies that a stamp is the word of the server that is asked. That is for
// a commit that none follows: an earlier stamp is vouched for by the device, which
// signed it when it was made, maybe by a server that has moved since.
func (q Query) pinned(l *link) error {
	if wire.PinOf(l.stamp.Server) != q.Pin {
		return l.wrap(fmt.Errorf("%w: it is another server's", ErrStamp))
	}
	return nil
}

// follows verifies that l is the commit after before.
func (l *link) follows(before *link) error {
	c := &l.commit
	switch {
	case c.Seq <= before.commit.Seq, !l.stamp.Time.After(before.stamp.Time), l.members < before.members:
		return l.wrap(ErrOrder)
	case c.After != nil:
		return l.followsGap(before)
	case c.Seq != before.commit.Seq+1:
		return l.wrap(ErrOmitted)
	case *c.Prev != before.hash:
		return l.wrap(ErrFork)
	case !bytes.Equal(c.PrevStamp, before.raw):
		return before.wrap(ErrRetimed)
	}
	return nil
}

// followsGap verifies that l is the commit with which the device went on after the
// server had lost what came between it and before.
func (l *link) followsGap(before *link) error {
	c := &l.commit
	switch {
	case c.After.Seq > before.commit.Seq:
		return l.wrap(ErrOmitted)
	case c.After.Seq < before.commit.Seq || *c.After.Hash != before.hash:
		return l.wrap(ErrFork)
	case c.Prev == nil:
		return nil
	}
	lost, err := vault.OpenStamp(l.vault, *c.Prev, c.PrevStamp)
	if err != nil {
		return l.wrap(because(ErrStamp, err))
	}
	if !lost.Time.Before(l.stamp.Time) {
		return l.wrap(ErrOrder)
	}
	return nil
}
