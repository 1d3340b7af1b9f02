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
	"backstay/agent/line"
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
	var wire line.Dialer
	wire.Limit(0, int64(r.Config.Settings.DownloadLimit))
	r.Session, err = client.Dial(ctx, client.Options{Address: r.Config.Address, Pin: r.Device.Pin, Key: r.Device.Identity.TLS(), Dial: wire.Dial, Log: log})
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
	return r.path(ctx, r.Keys.Path(r.Device.Identity.ID(), []byte(path)))
}

func (r *Reader) path(ctx context.Context, id vault.PathID) ([]Version, error) {
	rows, err := collect(r.Session.History(ctx, r.Device.Identity.ID(), id))
	if errors.Is(err, v4.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.versions(ctx, rows)
}

// Roots returns the lines of transfer.info as they were at a moment, the zero time
// for now, as far as anything of them was backed up.
func (r *Reader) Roots(ctx context.Context, at time.Time) ([]Version, error) {
	head, err := r.Session.Head(ctx, r.Device.Identity.ID(), at)
	if err != nil || len(head.Commit) == 0 {
		return nil, err
	}
	c, err := vault.ParseCommit(head.Commit)
	if err != nil {
		return nil, err
	}
	var roots []Version
	var damaged []error
	for _, root := range c.Roots {
		versions, err := r.path(ctx, root.Path)
		if errors.Is(err, client.ErrLost) || ctx.Err() != nil {
			return nil, err
		}
		damaged = append(damaged, err)
		if v, ok := At(versions, at); ok {
			roots = append(roots, v)
		}
	}
	slices.SortFunc(roots, func(a, b Version) int { return slices.Compare(a.Name, b.Name) })
	return roots, errors.Join(damaged...)
}

// At returns the newest of a path's versions at a moment, the zero time for now.
func At(versions []Version, at time.Time) (Version, bool) {
	for _, v := range versions {
		if at.IsZero() || !v.Time.After(at) {
			return v, true
		}
	}
	return Version{}, false
}

// All yields the newest version of everything that was ever backed up, the deleted
// included, folder after folder. It asks the server for each folder, so it is slow.
// After an error nothing follows, except that what is damaged is left out and told
// at the end.
func (r *Reader) All(ctx context.Context) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		rows, err := collect(r.Session.State(ctx, r.Device.Identity.ID(), time.Time{}))
		if err != nil {
			yield(Version{}, err)
			return
		}
		there := make(map[vault.PathID]bool, len(rows))
		for _, row := range rows {
			there[row.Path] = true
		}
		tops := slices.DeleteFunc(rows, func(row v4.Row) bool { return row.Parent != row.Path && there[row.Parent] })
		level, damaged := r.versions(ctx, tops)
		seen := map[string]bool{}
		for len(level) > 0 && ctx.Err() == nil {
			var below []Version
			for _, v := range level {
				if seen[string(v.Name)] {
					continue
				}
				seen[string(v.Name)] = true
				if !yield(v, nil) {
					return
				}
				// What is deleted or out of scope does not say what it was.
				if v.Op == vault.OpPut && v.Type != vault.TypeFolder {
					continue
				}
				children, err := r.Children(ctx, string(v.Name), time.Time{})
				damaged = errors.Join(damaged, err)
				below = append(below, children...)
			}
			level = below
		}
		if damaged = errors.Join(damaged, context.Cause(ctx)); damaged != nil {
			yield(Version{}, damaged)
		}
	}
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
