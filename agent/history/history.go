// Package history reads what a server holds of this device: folders as they were at
// a moment, and the versions of a path.
//
// Everything is opened and checked here: a record counts only if it opens under the
// vault's keys and is the one that its row says. Whether a listing is complete is
// package restore's question, which compares it with what the device has signed.
package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	client "backstay/agent/v4"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Reader is a session for reading, with what it takes to open what it yields. It
// is safe for concurrent use.
type Reader struct {
	Session *client.Session
	Members *vault.Members
	Keys    *vault.Keyring
	Device  device.Device
	Config  config.Config
}

// Open begins a session with the server of a config folder. Errors:
// device.ErrNotEnrolled, config.ErrNotSetUp, the session's.
func Open(ctx context.Context, folder string, log *slog.Logger) (_ *Reader, err error) {
	r := &Reader{}
	if r.Config, err = config.Load(folder); err != nil {
		return nil, err
	}
	if r.Device, err = device.Load(folder); err != nil {
		return nil, err
	}
	if r.Device.Vault == (vault.ID{}) {
		return nil, enrol.ErrNeedsMember
	}
	r.Session, err = client.Dial(ctx, client.Options{Address: r.Config.Address, Pin: r.Device.Pin, Key: r.Device.Identity.TLS(), Log: log})
	if err != nil {
		return nil, err
	}
	if r.Members, err = enrol.Members(ctx, r.Session, r.Device.Vault); err == nil {
		r.Keys, err = r.Members.Unlock(r.Device.Identity, r.Device.Genesis)
	}
	if err != nil {
		r.Session.Close()
		return nil, err
	}
	return r, nil
}

// Close ends the session.
func (r *Reader) Close() error { return r.Session.Close() }

// Version is what a path was from one moment on.
type Version struct {
	vault.Record
	// Time is when the server took it, Op what was said of the path.
	Time time.Time
	Op   vault.Op
	// Seq is the number of the commit.
	Seq uint64
}

// Children yields what was in a folder at a moment, the zero time for now, by name;
// what was deleted by then is yielded as such.
func (r *Reader) Children(ctx context.Context, folder string, at time.Time) ([]Version, error) {
	me := r.Device.Identity.ID()
	rows, err := collect(r.Session.Children(ctx, me, r.Keys.Path(me, []byte(folder)), at))
	if err != nil {
		return nil, err
	}
	versions, err := r.versions(ctx, rows)
	slices.SortFunc(versions, func(a, b Version) int { return slices.Compare(a.Name, b.Name) })
	return versions, err
}

// Of returns the versions of a path, the newest first.
func (r *Reader) Of(ctx context.Context, path string) ([]Version, error) {
	me := r.Device.Identity.ID()
	rows, err := collect(r.Session.History(ctx, me, r.Keys.Path(me, []byte(path))))
	if errors.Is(err, v4.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.versions(ctx, rows)
}

func collect(rows iter.Seq2[v4.Row, error]) ([]v4.Row, error) {
	var all []v4.Row
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}

// versions opens the records of rows, in their order. What is damaged is left out,
// and told in the error.
func (r *Reader) versions(ctx context.Context, rows []v4.Row) ([]Version, error) {
	ids := make([]vault.ObjectID, len(rows))
	at := make(map[vault.ObjectID]int, len(rows))
	for i, row := range rows {
		ids[i], at[row.Record] = row.Record, i
	}
	versions := make([]Version, len(rows))
	opened := make([]bool, len(rows))
	var damaged []error
	for object, err := range r.Session.Get(ctx, ids) {
		if err != nil && object.ID == (vault.ObjectID{}) {
			return nil, err
		}
		i := at[object.ID]
		if err == nil {
			versions[i], err = r.open(rows[i], object.Data)
		}
		if err != nil {
			damaged = append(damaged, fmt.Errorf("record of %s: %w", rows[i].Time.Format(time.RFC3339), err))
			continue
		}
		opened[i] = true
	}
	kept := versions[:0]
	for i, v := range versions {
		if opened[i] {
			kept = append(kept, v)
		}
	}
	return kept, errors.Join(damaged...)
}

// open opens the record of a row and compares the two.
func (r *Reader) open(row v4.Row, object []byte) (Version, error) {
	plain, h, err := r.Keys.Open(nil, object)
	if err != nil {
		return Version{}, err
	}
	me := r.Device.Identity.ID()
	if h.Record == nil || *h.Record != (vault.RecordHeader{Device: me, Seq: row.Seq, Path: row.Path, Parent: row.Parent, Op: row.Op}) {
		return Version{}, fmt.Errorf("%w: it is not the record that the server lists", vault.ErrContent)
	}
	rec, err := vault.DecodeRecord(plain, h.Refs)
	if err != nil {
		return Version{}, err
	}
	if r.Keys.Path(me, rec.Name) != row.Path {
		return Version{}, fmt.Errorf("%w: it names another path", vault.ErrContent)
	}
	return Version{Record: rec, Time: row.Time, Op: row.Op, Seq: row.Seq}, nil
}
