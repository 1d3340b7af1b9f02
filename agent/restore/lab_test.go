package restore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"backstay/agent/capture"
	session "backstay/agent/v4"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/protocol/vault/cut"
)

var _ Source = (*session.Session)(nil)

// A lab is a vault with two devices and a server that holds it in maps. What the
// server answers can be changed by wrapping it.
type lab struct {
	t       testing.TB
	id      vault.ID
	root    *vault.Identity
	device  *vault.Identity
	other   *vault.Identity
	members *vault.Members
	keys    *vault.Keyring
	server  ed25519.PrivateKey
	clock   time.Time

	mu      sync.Mutex // guards objects
	objects map[vault.ObjectID][]byte
	log     []entry
}

// entry is a commit of the lab's device and what it did.
type entry struct {
	wire.Head
	commit vault.Commit
	time   time.Time
	rows   []wire.Row
}

func newLab(t testing.TB) *lab {
	identity := func(role vault.Role) *vault.Identity {
		i, err := vault.NewIdentity(role, vault.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	_, server, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		t: t, id: vault.NewID(), root: identity(vault.RoleRoot), device: identity(vault.RoleDevice), other: identity(vault.RoleDevice),
		server: server, clock: time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC), objects: make(map[vault.ObjectID][]byte),
	}
	l.members = vault.NewMembers(l.id)
	l.append(l.members.SignGenesis(l.root, l.clock))
	if l.keys, err = l.members.Unlock(l.root, l.members.Genesis()); err != nil {
		t.Fatal(err)
	}
	l.append(l.members.SignAdd(l.root, l.keys, l.device.Public(), "laptop", l.clock))
	l.append(l.members.SignAdd(l.root, l.keys, l.other.Public(), "desktop", l.clock))
	return l
}

func (l *lab) append(entry []byte, err error) {
	l.t.Helper()
	if err == nil {
		err = l.members.Append(entry)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) query() Query {
	return Query{Device: l.device.ID(), Members: l.members, Pin: wire.PinOf(l.server.Public().(ed25519.PublicKey)), Now: l.clock}
}

func (l *lab) path(name string) vault.PathID { return l.keys.Path(l.device.ID(), []byte(name)) }

// change is what a commit says of a path.
type change struct {
	op   vault.Op
	name string
	rec  vault.Record
	refs []vault.ObjectID
}

func put(name string, rec vault.Record) change {
	rec.Name = []byte(name)
	return change{vault.OpPut, name, rec, rec.Content.Refs()}
}

func removed(op vault.Op, name string, refs ...vault.ObjectID) change {
	return change{op, name, vault.Record{Name: []byte(name)}, refs}
}

func inline(content string) vault.Record {
	return vault.Record{Type: vault.TypeFile, Content: vault.Content{Size: uint64(len(content)), Inline: []byte(content)}}
}

func folderRecord() vault.Record { return vault.Record{Type: vault.TypeFolder} }

// seal returns the row of a change in a commit, whose record is stored.
func (l *lab) seal(c change, seq uint64, at time.Time) wire.Row {
	h := vault.Header{Type: vault.TypeRecord, Refs: c.refs, Record: &vault.RecordHeader{
		Device: l.device.ID(), Seq: seq, Path: l.path(c.name), Parent: l.path(path.Dir(c.name)), Op: c.op,
	}}
	object, id, err := l.keys.Seal(nil, h, c.rec.Append(nil))
	if err != nil {
		l.t.Fatal(err)
	}
	l.store(object)
	return wire.Row{Path: h.Record.Path, Parent: h.Record.Parent, Op: c.op, Seq: seq, Time: at, Record: id}
}

func (l *lab) store(object []byte) vault.ObjectID {
	id := vault.Identify(object)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.objects[id] = bytes.Clone(object)
	return id
}

// commit makes the device's next commit, a minute after the last one.
func (l *lab) commit(changes ...change) entry {
	return l.commitBy(func(*vault.Commit) {}, changes...)
}

// commitBy lets edit change the commit before it is signed.
func (l *lab) commitBy(edit func(*vault.Commit), changes ...change) entry {
	l.t.Helper()
	l.clock = l.clock.Add(time.Minute)
	c := vault.Commit{
		Device: l.device.ID(), Seq: 1, Members: l.members.Head(), Time: l.clock, Count: len(changes),
		Retention: vault.Retention{Hours: 48, HourlyDays: 14, DailyDays: 90, WeeklyWeeks: 104},
		Roots:     []vault.RootState{{Path: l.path("/home"), Complete: 1}},
	}
	if n := len(l.log); n > 0 {
		last := l.log[n-1]
		c.Seq, c.Prev, c.PrevStamp = last.commit.Seq+1, new(vault.HashCommit(last.Commit)), last.Stamp
	}
	var rows []wire.Row
	var ids []vault.ObjectID
	for _, ch := range changes {
		row := l.seal(ch, c.Seq, l.clock)
		rows, ids = append(rows, row), append(ids, row.Record)
	}
	c.Root = vault.RecordsRoot(ids)
	e := entry{rows: rows, time: l.clock}
	c.Digest = l.digest(append(slices.Clone(l.log), e))
	edit(&c)
	e.commit = c
	e.Head = l.sign(c, l.device, l.clock)
	l.log = append(l.log, e)
	return e
}

func (l *lab) sign(c vault.Commit, by *vault.Identity, at time.Time) wire.Head {
	l.t.Helper()
	raw, err := c.Sign(l.id, by)
	if err != nil {
		l.t.Fatal(err)
	}
	return wire.Head{Commit: raw, Stamp: vault.SignStamp(l.id, vault.HashCommit(raw), at, l.server)}
}

func state(log []entry, at time.Time) []wire.Row {
	newest := make(map[vault.PathID]wire.Row)
	for _, e := range log {
		if !at.IsZero() && e.time.After(at) {
			break
		}
		for _, r := range e.rows {
			newest[r.Path] = r
		}
	}
	maps.DeleteFunc(newest, func(_ vault.PathID, r wire.Row) bool { return r.Op == vault.OpDelete })
	return slices.SortedFunc(maps.Values(newest), func(a, b wire.Row) int { return bytes.Compare(a.Path[:], b.Path[:]) })
}

func (l *lab) digest(log []entry) [32]byte {
	var d vault.Digest
	for _, r := range state(log, time.Time{}) {
		d.Add(r.Path, r.Parent, r.Record)
	}
	return d.Sum()
}

func (l *lab) Head(_ context.Context, _ vault.DeviceID, at time.Time) (head wire.Head, _ error) {
	for _, e := range l.log {
		if at.IsZero() || !e.time.After(at) {
			head = e.Head
		}
	}
	return head, nil
}

func (l *lab) Log(_ context.Context, _ vault.DeviceID, first, last uint64) iter.Seq2[wire.Head, error] {
	return func(yield func(wire.Head, error) bool) {
		for _, e := range l.log {
			if e.commit.Seq >= first && (last == 0 || e.commit.Seq <= last) && !yield(e.Head, nil) {
				return
			}
		}
	}
}

func (l *lab) State(_ context.Context, _ vault.DeviceID, at time.Time) iter.Seq2[wire.Row, error] {
	return func(yield func(wire.Row, error) bool) {
		for _, r := range state(l.log, at) {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Get yields objects in the order of their ids, which is no order that anybody
// could have asked for, in one buffer.
func (l *lab) Get(ctx context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error] {
	return func(yield func(vault.Object, error) bool) {
		if len(ids) == 0 || len(ids) > wire.MaxIDs {
			l.t.Errorf("%d ids asked for", len(ids))
		}
		sorted := slices.SortedFunc(slices.Values(ids), func(a, b vault.ObjectID) int { return bytes.Compare(a[:], b[:]) })
		if len(slices.Compact(slices.Clone(sorted))) != len(ids) {
			l.t.Error("an object was asked for twice")
		}
		var buf []byte
		for _, id := range sorted {
			l.mu.Lock()
			object, ok := l.objects[id]
			l.mu.Unlock()
			o, err := vault.Object{ID: id}, context.Cause(ctx)
			if err == nil && !ok {
				err = fmt.Errorf("object %v: %w", id, vault.ErrMissing)
			}
			if err == nil {
				buf = append(buf[:0], object...)
				o.Data = buf
			}
			if !yield(o, err) {
				return
			}
			clear(buf)
		}
	}
}

// file returns the record of a file with this content, whose chunks are stored.
func (l *lab) file(content []byte) vault.Record {
	return vault.Record{Type: vault.TypeFile, Content: l.content(content, cut.New(l.keys.ChunkerKey()))}
}

func (l *lab) content(content []byte, cutter vault.Cutter) vault.Content {
	l.t.Helper()
	c, err := l.keys.WriteContent(context.Background(), bytes.NewReader(content),
		func(_ context.Context, object []byte) (vault.ObjectID, error) { return l.store(object), nil },
		vault.WriteOptions{Cutter: cutter, Sum: true})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// capture commits everything below dir, as it is, under the names it has there.
func (l *lab) capture(dir string) []change {
	l.t.Helper()
	var changes []change
	cutter := cut.New(l.keys.ChunkerKey())
	var walk func(path string)
	walk = func(path string) {
		f, err := capture.Open(dir, path)
		if errors.Is(err, capture.ErrNotRegular) {
			d, err := capture.Entry(dir, path)
			if err != nil && d.Type == 0 {
				l.t.Fatal(err)
			}
			changes = append(changes, put(path, vault.Record{Type: d.Type, Metadata: d.Metadata, Target: d.Target, Device: d.Device}))
			if d.Type == vault.TypeFolder {
				for _, name := range l.names(path) {
					walk(path + "/" + name)
				}
			}
			return
		}
		if err != nil {
			l.t.Fatal(err)
		}
		defer f.Close()
		rec := vault.Record{Type: vault.TypeFile}
		if rec.Metadata, err = f.Metadata(); err == nil {
			rec.Holes, err = f.SkipHoles()
		}
		if err != nil {
			l.t.Fatal(err)
		}
		if links, key := f.Link(); links > 1 {
			rec.Link = new(vault.LinkGroup(l.keys.Hash(fmt.Append(nil, key))))
		}
		rec.Content, err = l.keys.WriteContent(context.Background(), f,
			func(_ context.Context, object []byte) (vault.ObjectID, error) { return l.store(object), nil },
			vault.WriteOptions{Cutter: cutter, Sum: true})
		if err != nil {
			l.t.Fatal(err)
		}
		changes = append(changes, put(path, rec))
	}
	walk(dir)
	return changes
}

// names lists a folder however long its path is.
func (l *lab) names(path string) []string {
	root, err := os.OpenRoot("/")
	if err != nil {
		l.t.Fatal(err)
	}
	defer root.Close()
	f, err := root.Open(path[1:])
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		l.t.Fatal(err)
	}
	return names
}

// moment opens the newest commit and reads its state.
func (l *lab) moment(src Source) *State {
	l.t.Helper()
	m, err := l.query().Open(context.Background(), src, time.Time{})
	if err != nil {
		l.t.Fatal(err)
	}
	s, err := ReadState(context.Background(), src, m)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// all selects everything of the newest commit.
func (l *lab) all() *Selection {
	l.t.Helper()
	sel, err := l.moment(l).All()
	if err != nil {
		l.t.Fatal(err)
	}
	return sel
}

// restore restores everything below root into to, and fails the test if anything
// is wrong.
func (l *lab) restore(root, to string) Report {
	l.t.Helper()
	report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to, Root: []byte(root)})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range report.Failed {
		l.t.Errorf("%q: %v", f.Path, f.Err)
	}
	return report
}

// contents returns the content of every file below dir by its path, and "folder" or the
// target for others.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		rel = filepath.ToSlash(rel)
		switch d.Type() {
		case fs.ModeDir:
			got[rel] = "folder"
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			got[rel] = "-> " + target
			return err
		case 0:
			content, err := os.ReadFile(path)
			got[rel] = "= " + string(content)
			return err
		default:
			got[rel] = d.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func equalTrees(t interface{ Errorf(string, ...any) }, got, want map[string]string) {
	names := slices.SortedFunc(maps.Keys(got), cmp.Compare[string])
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%q is missing", name)
		}
	}
	for _, name := range names {
		if w, ok := want[name]; !ok {
			t.Errorf("%q should not be there", name)
		} else if got[name] != w {
			t.Errorf("%q is %.40q, want %.40q", name, got[name], w)
		}
	}
}
