package v4

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// What answers hold in memory, in bytes.
const (
	pageBytes   = 512 << 10 // a page of rows, or an entry, and its encoding
	commitBytes = 4 << 20   // the records of one commit
	objectBytes = vault.MaxObject + 64<<10
)

// enroll makes the client's key a device.
func (q *request) enroll(ctx context.Context) error {
	m, err := wire.ParseEnrollRequest(q.Body)
	if err != nil {
		return err
	}
	if !q.s.enrols.allow(q.address, time.Now()) {
		return fmt.Errorf("%w to enrol from this address: wait a minute", wire.ErrBusy)
	}
	state := q.conn.ConnectionState()
	e, err := wire.ExportEnroll(state)
	if err != nil {
		return err
	}
	key, err := wire.PeerKey(state)
	if err != nil {
		return err
	}
	if err := m.Verify(e, key); err != nil {
		return err
	}
	client, err := q.s.o.Accounts.Redeem(ctx, m)
	if err != nil {
		return err
	}
	q.s.counters.enrolled.Add(1)
	return q.Answer(wire.EnrollAnswer{Account: client.Account, Vault: client.Vault}.Append(nil))
}

func (q *request) have(ctx context.Context) error {
	m, err := wire.ParseIDsRequest(q.Body)
	if err != nil {
		return err
	}
	has, err := q.s.o.Store.Has(ctx, q.vault, m.IDs)
	if err != nil {
		return err
	}
	return q.Answer(wire.HaveAnswer{Have: has}.Append(nil))
}

func (q *request) head(ctx context.Context) error {
	m, err := wire.ParseHeadRequest(q.Body)
	if err != nil {
		return err
	}
	device := q.id
	if m.Device != nil {
		device = *m.Device
	} else if q.client.Root {
		return fmt.Errorf("%w: HEAD of no device", wire.ErrMalformed)
	}
	var h storage.Head
	switch {
	case m.Seq == 0:
		h, err = q.s.o.Store.CommitAt(ctx, q.vault, device, m.At)
	default:
		for h, err = range q.s.o.Store.Commits(ctx, q.vault, device, m.Seq, m.Seq) {
			break
		}
	}
	if err != nil {
		return err
	}
	return q.Answer(wire.Head{Commit: h.Body, Stamp: h.Stamp}.Append(nil))
}

// commits answers LOG.
func (q *request) commits(ctx context.Context) error {
	m, err := wire.ParseLogRequest(q.Body)
	if err != nil {
		return err
	}
	if err := q.knows(ctx, m.Device); err != nil {
		return err
	}
	if m.Last == 0 {
		m.Last = math.MaxUint64
	}
	return q.holding(ctx, pageBytes, func(say func([]byte) error) error {
		for h, err := range q.s.o.Store.Commits(ctx, q.vault, m.Device, m.First, m.Last) {
			if err == nil {
				err = say(wire.Head{Commit: h.Body, Stamp: h.Stamp}.Append(nil))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (q *request) list(ctx context.Context) error {
	m, err := wire.ParseListRequest(q.Body)
	if err != nil {
		return err
	}
	if err := q.knows(ctx, m.Device); err != nil {
		return err
	}
	holds := pageBytes
	var rows iter.Seq2[storage.Version, error]
	switch store := q.s.o.Store; {
	case m.Seq != 0:
		rows, holds = store.Records(ctx, q.vault, m.Device, m.Seq), commitBytes
	case m.Parent != nil:
		rows = store.Children(ctx, q.vault, m.Device, *m.Parent, m.At)
	default:
		rows = store.State(ctx, q.vault, m.Device, m.At)
	}
	return q.holding(ctx, holds, func(say func([]byte) error) error {
		_, err := sayRows(rows, say)
		return err
	})
}

func (q *request) history(ctx context.Context) error {
	m, err := wire.ParseHistoryRequest(q.Body)
	if err != nil {
		return err
	}
	if err := q.knows(ctx, m.Device); err != nil {
		return err
	}
	return q.holding(ctx, pageBytes, func(say func([]byte) error) error {
		n, err := sayRows(q.s.o.Store.Versions(ctx, q.vault, m.Device, m.Path), say)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: path %v", wire.ErrNotFound, m.Path)
		}
		return err
	})
}

// knows says whether a device is one of the account or of the vault. One of another
// account is as unknown as one of none.
func (q *request) knows(ctx context.Context, id vault.DeviceID) error {
	if _, status := q.members.Now().Member(id); status != vault.StatusUnknown {
		return nil
	}
	if d := q.s.o.Accounts.Device(id); d != nil && d.Account == q.client.Account {
		return nil
	}
	return fmt.Errorf("%w: device %v", wire.ErrNotFound, id)
}

// sayRows sends rows in bodies and returns how many there were.
func sayRows(all iter.Seq2[storage.Version, error], say func([]byte) error) (n int, err error) {
	var body []byte
	page := make([]wire.Row, 0, wire.MaxRows)
	flush := func() error {
		n += len(page)
		body = wire.AppendRows(body[:0], page)
		page = page[:0]
		return say(body)
	}
	for v, err := range all {
		if err != nil {
			return n, err
		}
		page = append(page, wire.Row{Path: v.Path, Parent: v.Parent, Op: v.Op, Seq: v.Seq, Time: v.Time, Record: v.Record})
		if len(page) == cap(page) {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	if len(page) > 0 {
		return n, flush()
	}
	return n, nil
}

// get sends objects. Its turn ends with an object if others want one: they are asked
// for again, in the order of storage, when it is this request's turn again.
func (q *request) get(ctx context.Context) error {
	m, err := wire.ParseIDsRequest(q.Body)
	if err != nil {
		return err
	}
	if err := q.Answer(wire.AppendEmpty(nil)); err != nil {
		return err
	}
	sent := make(map[vault.ObjectID]bool)
	for left := m.IDs; ; {
		done, err := q.turn(ctx, left, sent)
		if done || err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(id vault.ObjectID) bool { return sent[id] })
	}
}

// turnBytes is how much a turn sends before others get theirs: each begins with
// looking up where all the objects that are left lie, which is as dear as sending
// some hundreds of small ones.
const turnBytes = 256 << 10

// turn sends objects as long as there is memory for the largest there may be, and
// says in sent which.
func (q *request) turn(ctx context.Context, ids []vault.ObjectID, sent map[vault.ObjectID]bool) (done bool, err error) {
	c, err := q.s.downloads.enter(ctx, q.id, objectBytes, objectBytes, q.tooSlow)
	if err != nil {
		return false, err
	}
	defer c.leave()
	largest, out := 0, 0
	var head []byte
	for o, err := range q.s.o.Store.Get(ctx, q.vault, ids) {
		switch {
		case errors.Is(err, storage.ErrCorrupt) && o.ID != (vault.ObjectID{}):
			q.s.o.Log.Error("object is damaged", "vault", q.vault, "object", o.ID)
			head = wire.AppendDamaged(head[:0], o.ID)
		case errors.Is(err, storage.ErrNotFound) && o.ID != (vault.ObjectID{}):
			head = wire.AppendMissing(head[:0], o.ID)
		case err != nil:
			return false, err
		default:
			head = wire.AppendGotHead(head[:0], o.ID, len(o.Data))
		}
		// The store reads into one buffer, which has the size of the largest.
		largest = max(largest, len(o.Data))
		out += len(head) + len(o.Data)
		full := out >= turnBytes
		if full {
			c.shrink(c.held - largest)
		}
		if _, err := q.Write(head); err != nil {
			return false, err
		}
		if _, err := q.Write(o.Data); err != nil {
			return false, err
		}
		q.s.counters.bytesOut.Add(int64(len(o.Data)))
		sent[o.ID] = true
		if !full {
			continue
		}
		if out = 0; !c.try(objectBytes - c.held) {
			return false, nil
		}
	}
	return true, nil
}

func (q *request) prove(ctx context.Context) error {
	m, err := wire.ParseProveRequest(q.Body)
	if err != nil {
		return err
	}
	if err := q.knows(ctx, m.Device); err != nil {
		return err
	}
	return q.holding(ctx, commitBytes, func(say func([]byte) error) error {
		var ids []vault.ObjectID
		for v, err := range q.s.o.Store.Records(ctx, q.vault, m.Device, m.Seq) {
			if err != nil {
				return err
			}
			ids = append(ids, v.Record)
		}
		index := slices.Index(ids, m.Record)
		if index < 0 {
			return fmt.Errorf("%w: record %v in commit %d", wire.ErrNotFound, m.Record, m.Seq)
		}
		p := wire.Proof{Index: index, Path: vault.AuditPath(ids, index)}
		for h, err := range q.s.o.Store.Commits(ctx, q.vault, m.Device, m.Seq, m.Seq) {
			if err != nil {
				return err
			}
			p.Head = wire.Head{Commit: h.Body, Stamp: h.Stamp}
		}
		return say(p.Append(nil))
	})
}

// membership answers MEMBERS.
func (q *request) membership(ctx context.Context) error {
	m, err := wire.ParseMembersRequest(q.Body)
	if err != nil {
		return err
	}
	if m.Entry != nil {
		return q.append(ctx, m.Entry)
	}
	if q.members == nil {
		return nil
	}
	return q.holding(ctx, pageBytes, func(say func([]byte) error) error {
		for entry := range q.members.Now().Entries(m.From) {
			if err := say(wire.AppendEntry(nil, entry)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (q *request) append(ctx context.Context, entry []byte) error {
	if !q.s.entries.allow(q.id.String(), time.Now()) {
		return fmt.Errorf("%w: member entries come too often", wire.ErrBusy)
	}
	m, err := q.s.o.Accounts.Append(ctx, q.client.Account, entry)
	if err != nil {
		return err
	}
	q.s.cutRevoked(m.Now(), q.session)
	return q.Answer(wire.AppendEmpty(nil))
}

func (q *request) mail(ctx context.Context) error {
	m, err := wire.ParseMailboxRequest(q.Body)
	if err != nil {
		return err
	}
	if m.Message != nil {
		if err := q.s.mailbox.put(q.client.Account, m.Slot, m.Message); err != nil {
			return err
		}
		return q.Answer(wire.AppendEmpty(nil))
	}
	// Nobody waits for a message longer than the server goes on.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(q.serving, func() { cancel(wire.ErrClosing) })()
	message, err := q.s.mailbox.get(ctx, q.client.Account, m.Slot)
	if err != nil {
		return err
	}
	return q.Answer(wire.MailboxAnswer{Message: message}.Append(nil))
}

func (q *request) devices(ctx context.Context) error {
	if err := wire.ParseEmpty(q.Body); err != nil {
		return err
	}
	heads := make(map[vault.DeviceID]storage.DeviceHead)
	if q.members != nil {
		for h, err := range q.s.o.Store.Devices(ctx, q.vault) {
			if err != nil {
				return err
			}
			heads[h.Device] = h
		}
	}
	for page := range slices.Chunk(q.s.o.Accounts.Devices(q.client.Account), wire.MaxDevices) {
		devices := make([]wire.Device, len(page))
		for i, d := range page {
			h := heads[d.ID]
			devices[i] = wire.Device{
				ID: d.ID, Name: d.Name, Enrolled: d.Enrolled, LastSeen: d.LastSeen(), LastSafe: h.Time, Seq: h.Seq,
			}
			if q.members != nil {
				what, err := standingIn(q.members.Now(), d.ID)
				devices[i].Member, devices[i].Revoked = what == member, err != nil
			}
		}
		if err := q.Answer(wire.AppendDevices(nil, devices)); err != nil {
			return err
		}
	}
	return nil
}

func (q *request) ping(context.Context) error {
	if err := wire.ParseEmpty(q.Body); err != nil {
		return err
	}
	return q.Answer(wire.PingAnswer{Clock: time.Now()}.Append(nil))
}

// holding runs f while it may hold n bytes. f answers by say.
func (q *request) holding(ctx context.Context, n int, f func(say func([]byte) error) error) error {
	c, err := q.s.downloads.enter(ctx, q.id, n, n, q.tooSlow)
	if err != nil {
		return err
	}
	defer c.leave()
	return f(func(message []byte) error {
		defer c.shrink(0) // it has got on
		return q.Answer(message)
	})
}
