package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"

	"backstay/protocol/vault"
	"backstay/server/storage"
)

// applicationID marks our databases ("BkSt"); indexFormat counts the changes of
// the schema. The index can always be rebuilt, so a new format needs no
// migration.
const (
	applicationID = 0x426b5374
	indexFormat   = 3
)

// schema. Vaults and devices are numbered to keep rows small. An object's refs
// counts the objects and commits that refer to it. Its pack is 0 when something
// refers to it but its own entry was damaged when the index was rebuilt, and
// negative when the bytes in that pack were found damaged: then it is absent until
// it is stored again. A commit's copy is what the log shows of it, for when its
// entry is damaged.
// A device's digest is that of its state, which follows from its versions. children
// holds every (parent, path) pair once, so that the versions of a folder are one
// seek per child, however many versions a child has.
const schema = `
CREATE TABLE counts(vaults INTEGER NOT NULL, devices INTEGER NOT NULL, paths INTEGER NOT NULL,
	versions INTEGER NOT NULL, objects INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO counts VALUES(0, 0, 0, 0, 0, 0);
CREATE TABLE packs(n INTEGER PRIMARY KEY, indexed INTEGER NOT NULL, live INTEGER NOT NULL DEFAULT 0,
	pinned INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE vaults(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE devices(n INTEGER PRIMARY KEY, vault INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL,
	time INTEGER NOT NULL, digest BLOB NOT NULL, UNIQUE(vault, id)) STRICT;
CREATE TABLE commits(device INTEGER NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL, pack INTEGER NOT NULL,
	off INTEGER NOT NULL, len INTEGER NOT NULL, copy BLOB NOT NULL,
	PRIMARY KEY(device, seq), UNIQUE(device, time)) STRICT, WITHOUT ROWID;
CREATE TABLE objects(vault INTEGER NOT NULL, id BLOB NOT NULL, pack INTEGER NOT NULL, off INTEGER NOT NULL,
	len INTEGER NOT NULL, type INTEGER NOT NULL, refs INTEGER NOT NULL,
	PRIMARY KEY(vault, id)) STRICT, WITHOUT ROWID;
CREATE TABLE versions(device INTEGER NOT NULL, path BLOB NOT NULL, time INTEGER NOT NULL, seq INTEGER NOT NULL,
	op INTEGER NOT NULL, parent BLOB NOT NULL, record BLOB NOT NULL,
	PRIMARY KEY(device, path, time)) STRICT, WITHOUT ROWID;
CREATE TABLE children(device INTEGER NOT NULL, parent BLOB NOT NULL, path BLOB NOT NULL,
	PRIMARY KEY(device, parent, path)) STRICT, WITHOUT ROWID;
CREATE TABLE items(kind INTEGER NOT NULL, key BLOB NOT NULL, rev INTEGER NOT NULL, pack INTEGER NOT NULL,
	off INTEGER NOT NULL, len INTEGER NOT NULL, PRIMARY KEY(kind, key)) STRICT, WITHOUT ROWID;
PRAGMA application_id = %d;
PRAGMA user_version = %d;
`

// db is a connection to the index. One goroutine uses it at a time.
type db struct{ conn *sqlite.Conn }

// indexError is an error of SQLite, as against a refusal of the caller's data.
type indexError struct{ err error }

func (e indexError) Error() string { return "index: " + e.err.Error() }
func (e indexError) Unwrap() error { return e.err }

// isBroken says that the index's own bytes are not those of a database.
func isBroken(err error) bool {
	code := sqlite.ErrCode(err).ToPrimary()
	return code == sqlite.ResultCorrupt || code == sqlite.ResultNotADB
}

// errNotIndex: index.db is a database, but not one of ours.
var errNotIndex = errors.New("not an index of this store")

// openDB opens a connection with a page cache of cacheKiB.
func openDB(path string, cacheKiB int) (db, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return db{}, indexError{err}
	}
	d := db{conn}
	err = d.script(fmt.Sprintf(`PRAGMA cache_size = -%d; PRAGMA synchronous = FULL;
		PRAGMA wal_autocheckpoint = 16384; PRAGMA temp_store = MEMORY;`, cacheKiB))
	if err != nil {
		return db{}, errors.Join(err, conn.Close())
	}
	return d, nil
}

// script executes statements one after another.
func (d db) script(q string) error {
	for q = strings.TrimSpace(q); q != ""; {
		stmt, rest, err := d.conn.PrepareTransient(q)
		if err != nil {
			return indexError{err}
		}
		_, err = stmt.Step()
		if err = errors.Join(err, stmt.Finalize()); err != nil {
			return indexError{err}
		}
		q = strings.TrimSpace(q[len(q)-rest:])
	}
	return nil
}

// run executes a cached statement and hands each row to row, which may be nil.
// Arguments are int64, int, []byte, or an array of bytes as a slice.
func (d db) run(query string, row func(*sqlite.Stmt), args ...any) error {
	stmt, err := d.conn.Prepare(query)
	if err != nil {
		return indexError{err}
	}
	for i, a := range args {
		switch a := a.(type) {
		case int64:
			stmt.BindInt64(i+1, a)
		case []byte:
			stmt.BindBytes(i+1, a)
		default:
			panic(fmt.Sprintf("argument %d of %q is a %T", i+1, query, a))
		}
	}
	for {
		more, err := stmt.Step()
		if err != nil {
			return errors.Join(indexError{err}, stmt.Reset())
		}
		if !more {
			return nil
		}
		if row != nil {
			row(stmt)
		}
	}
}

// number returns the only column of the only row, or 0.
func (d db) number(query string, args ...any) (n int64, err error) {
	err = d.run(query, func(st *sqlite.Stmt) { n = st.ColumnInt64(0) }, args...)
	return n, err
}

// location places a body in a pack. The zero location is nowhere.
type location struct {
	pack     uint32
	off, len int64
}

func columnLocation(st *sqlite.Stmt, col int) location {
	return location{uint32(st.ColumnInt64(col)), st.ColumnInt64(col + 1), st.ColumnInt64(col + 2)}
}

// stored is what the index knows of an object that lies in a pack.
type stored struct {
	location
	typ  vault.Type
	refs int64
	// damaged: its bytes were found to be others.
	damaged bool
}

// live says that the object can be referred to.
func (o stored) live() bool { return o.location != location{} && !o.damaged }

// number of a vault; 0 when there is none.
func (d db) vault(v vault.ID) (int64, error) {
	return d.number(`SELECT n FROM vaults WHERE id = ?`, v[:])
}

// object looks an object of a numbered vault up; the zero stored when it lies in no
// pack.
func (d db) object(v int64, id vault.ObjectID) (o stored, err error) {
	err = d.run(`SELECT abs(pack), off, len, type, refs, pack < 0 FROM objects WHERE vault = ? AND id = ? AND pack <> 0`,
		func(st *sqlite.Stmt) {
			o = stored{columnLocation(st, 0), vault.Type(st.ColumnInt64(3)), st.ColumnInt64(4), st.ColumnInt64(5) != 0}
		}, v, id[:])
	return o, err
}

// device is a row of the table devices; the zero one is that of no device.
type device struct {
	n    int64
	seq  uint64 // of the newest commit
	time int64
	// digest is that of the state; only addChange fills it.
	digest vault.Digest
}

func (d db) device(v vault.ID, id vault.DeviceID) (dev device, err error) {
	err = d.run(`SELECT n, seq, time FROM devices WHERE vault = (SELECT n FROM vaults WHERE id = ?) AND id = ?`,
		func(st *sqlite.Stmt) {
			dev.n, dev.seq, dev.time = st.ColumnInt64(0), uint64(st.ColumnInt64(1)), st.ColumnInt64(2)
		}, v[:], id[:])
	return dev, err
}

// committed is a row of the table commits; the zero one is that of no commit.
type committed struct {
	seq  uint64
	time int64
	location
}

// commits hands the commits that where chooses to row.
func (d db) commits(where string, row func(committed), args ...any) error {
	return d.run(`SELECT seq, time, pack, off, len FROM commits WHERE `+where, func(st *sqlite.Stmt) {
		row(committed{uint64(st.ColumnInt64(0)), st.ColumnInt64(1), columnLocation(st, 2)})
	}, args...)
}

// placed is a row of the table items.
type placed struct {
	key storage.Key
	rev uint64
	location
}

const itemColumns = `SELECT key, rev, pack, off, len FROM items `

func columnItem(st *sqlite.Stmt) (p placed) {
	st.ColumnBytes(0, p.key[:])
	p.rev, p.location = uint64(st.ColumnInt64(1)), columnLocation(st, 2)
	return p
}

func (d db) item(k storage.Kind, key storage.Key) (p placed, ok bool, err error) {
	err = d.run(itemColumns+`WHERE kind = ? AND key = ?`,
		func(st *sqlite.Stmt) { p, ok = columnItem(st), true }, int64(k), key[:])
	return p, ok, err
}

// index is the writer's connection, with what a transaction changes in memory.
type index struct {
	db
	tally
	began tally // as of the transaction's start
	saved tally // as of the last savepoint
	// lastTime is the newest stamp, Unix nanoseconds. It never goes back.
	lastTime int64
}

// tally counts what is stored, and what the transaction adds to the pack that is
// being written or adopted.
type tally struct {
	counts       storage.Stats
	live, pinned int64
}

func (x *index) begin() error {
	x.live, x.pinned = 0, 0
	x.began = x.tally
	return x.run("BEGIN IMMEDIATE", nil)
}

// commit ends the transaction; pack is indexed up to length. After an error the
// transaction may still be open: rollback.
func (x *index) commit(pack uint32, length int64) error {
	c := x.counts
	err := x.run(`INSERT INTO packs(n, indexed, live, pinned) VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
		indexed = excluded.indexed, live = live + excluded.live, pinned = pinned + excluded.pinned`,
		nil, int64(pack), length, x.live, x.pinned)
	if err == nil {
		err = x.run(`UPDATE counts SET vaults = ?, devices = ?, paths = ?, versions = ?, objects = ?, bytes = ?`,
			nil, c.Vaults, c.Devices, c.Paths, c.Versions, c.Objects, c.BytesObjects)
	}
	if err == nil {
		err = x.run("COMMIT", nil)
	}
	return err
}

func (x *index) rollback() error {
	x.tally = x.began
	if x.conn.AutocommitEnabled() {
		return nil // SQLite has rolled back by itself
	}
	return x.run("ROLLBACK", nil)
}

func (x *index) savepoint() error {
	x.saved = x.tally
	return x.run("SAVEPOINT op", nil)
}

func (x *index) release() error { return x.run("RELEASE op", nil) }

func (x *index) undo() error {
	x.tally = x.saved
	if err := x.run("ROLLBACK TO op", nil); err != nil {
		return err
	}
	return x.release()
}

// addVault returns the number of a vault, adding it if it is new.
func (x *index) addVault(v vault.ID) (int64, error) {
	n, err := x.vault(v)
	if n != 0 || err != nil {
		return n, err
	}
	x.counts.Vaults++
	return x.number(`INSERT INTO vaults(id) VALUES(?) RETURNING n`, v[:])
}

// trust says how far an entry is believed without what it refers to.
type trust int

const (
	// checked: what an entry refers to must be live.
	checked trust = iota
	// stating: what an entry refers to must have been stored: it says something of
	// it and does not rest on it.
	stating
	// vouched: the entry is known to have been acknowledged; what it refers to
	// may have been damaged since, and is then listed as lost.
	vouched
)

// refer counts one more reference to an object.
func (x *index) refer(v int64, id vault.ObjectID, t trust) error {
	query := `UPDATE objects SET refs = refs + 1 WHERE vault = ? AND id = ? AND pack > 0`
	switch t {
	case vouched:
		return x.run(`INSERT INTO objects VALUES(?1, ?2, 0, 0, 0, 0, 1)
			ON CONFLICT DO UPDATE SET refs = refs + 1`, nil, v, id[:])
	case stating:
		query = `UPDATE objects SET refs = refs + 1 WHERE vault = ? AND id = ?`
	}
	if err := x.run(query, nil, v, id[:]); err != nil {
		return err
	}
	if x.conn.Changes() == 0 {
		return fmt.Errorf("object %v: %w", id, storage.ErrMissingRef)
	}
	return nil
}

// unrefer counts one reference less.
func (x *index) unrefer(v int64, id vault.ObjectID) error {
	return x.run(`UPDATE objects SET refs = refs - 1 WHERE vault = ? AND id = ?`, nil, v, id[:])
}

// addObject adds a row; false when the object is live already.
func (x *index) addObject(v int64, id vault.ObjectID, h vault.Header, at location, t trust) (bool, error) {
	err := x.run(`INSERT INTO objects VALUES(?1, ?2, ?3, ?4, ?5, ?6, 0) ON CONFLICT DO UPDATE SET
		pack = excluded.pack, off = excluded.off, len = excluded.len, type = excluded.type WHERE pack = 0`,
		nil, v, id[:], int64(at.pack), at.off, at.len, int64(h.Type))
	if err != nil {
		return false, err
	}
	renewed := x.conn.Changes() == 0
	if renewed {
		if ok, err := x.renew(v, id, at); !ok || err != nil {
			return false, err
		}
	} else {
		x.counts.Objects++
		x.counts.BytesObjects += at.len
	}
	x.live++
	if t == checked && h.Record != nil && h.Record.Op != vault.OpPut {
		t = stating
	}
	for _, r := range h.Refs {
		err := x.refer(v, r, t)
		if err == nil && renewed {
			err = x.unrefer(v, r) // it was counted when the object was stored first
		}
		if err != nil {
			return false, fmt.Errorf("object %v: %w", id, err)
		}
	}
	return true, nil
}

// renew gives an object that was found damaged another place; false when it was not.
func (x *index) renew(v int64, id vault.ObjectID, at location) (bool, error) {
	o, err := x.object(v, id)
	if !o.damaged || err != nil {
		return false, err
	}
	if err := x.run(`UPDATE packs SET live = live - 1 WHERE n = ?`, nil, int64(o.pack)); err != nil {
		return false, err
	}
	return true, x.run(`UPDATE objects SET pack = ?, off = ? WHERE vault = ? AND id = ?`,
		nil, int64(at.pack), at.off, v, id[:])
}

// spoil notes that an object's bytes at a place were found damaged; false when it is
// not there any more, or was noted before. The place stays known: it may have been
// the reading that was wrong.
func (x *index) spoil(v vault.ID, w wanted) (bool, error) {
	err := x.run(`UPDATE objects SET pack = -pack
		WHERE vault = (SELECT n FROM vaults WHERE id = ?) AND id = ? AND pack = ? AND off = ?`,
		nil, v[:], w.id[:], int64(w.at.pack), w.at.off)
	return err == nil && x.conn.Changes() > 0, err
}

// spoilPack notes that a pack holds nothing from offset end on.
func (x *index) spoilPack(pack uint32, end int64) error {
	return x.run(`UPDATE objects SET pack = -pack WHERE pack = ? AND off + len > ?`, nil, int64(pack), end)
}

// addChange makes c the newest change of its device, but for its place, which
// addCommit enters, and returns the device as it is then. A vouched change may
// leave a gap behind the newest one; gap then says so.
func (x *index) addChange(v vault.ID, c change, t trust) (dev device, gap bool, err error) {
	n, err := x.addVault(v)
	if err != nil {
		return dev, false, err
	}
	if dev, err = x.device(v, c.device); err != nil {
		return dev, false, err
	}
	gap = c.after != dev.seq
	if gap && t == checked || c.seq <= dev.seq || c.time <= dev.time {
		return dev, gap, fmt.Errorf("commit %d after %d, the head is %d: %w", c.seq, c.after, dev.seq, storage.ErrConflict)
	}
	if dev.n == 0 {
		x.counts.Devices++
		dev.n, err = x.number(`INSERT INTO devices(vault, id, seq, time, digest) VALUES(?, ?, 0, 0, ?) RETURNING n`,
			n, c.device[:], dev.digest.Bytes())
	} else {
		dev.digest, err = x.digest(dev.n)
	}
	if err != nil {
		return dev, gap, err
	}
	for i, r := range c.records {
		if err := x.refer(n, r.id, t); err != nil {
			return dev, gap, fmt.Errorf("commit %d: %w", c.seq, err)
		}
		if err := x.addVersion(dev.n, c, i, &dev.digest); err != nil {
			return dev, gap, err
		}
	}
	dev.seq, dev.time = c.seq, c.time
	x.lastTime = max(x.lastTime, c.time)
	return dev, gap, x.run(`UPDATE devices SET seq = ?, time = ?, digest = ? WHERE n = ?`,
		nil, int64(c.seq), c.time, dev.digest.Bytes(), dev.n)
}

func (x *index) digest(dev int64) (digest vault.Digest, err error) {
	var b []byte
	err = x.run(`SELECT digest FROM devices WHERE n = ?`, func(st *sqlite.Stmt) {
		b = make([]byte, st.ColumnLen(0))
		st.ColumnBytes(0, b)
	}, dev)
	if err != nil {
		return digest, err
	}
	if digest, err = vault.ParseDigest(b); err != nil {
		return digest, indexError{err}
	}
	return digest, nil
}

// addVersion adds record i of c to its path and to the digest.
func (x *index) addVersion(dev int64, c change, i int, digest *vault.Digest) error {
	r := c.records[i]
	known, err := x.replace(dev, r, digest)
	if err != nil {
		return err
	}
	if !known {
		x.counts.Paths++
	}
	if r.op == vault.OpPut {
		x.counts.Versions++
	}
	err = x.run(`INSERT INTO versions VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, nil,
		dev, r.path[:], c.time, int64(c.seq), int64(r.op), r.parent[:], r.id[:])
	if err != nil {
		return err
	}
	if x.conn.Changes() == 0 {
		return fmt.Errorf("commit %d: path %v twice: %w", c.seq, r.path, storage.ErrInvalid)
	}
	return x.run(`INSERT INTO children VALUES(?, ?, ?) ON CONFLICT DO NOTHING`, nil, dev, r.parent[:], r.path[:])
}

// replace makes r, in the digest, the newest record of its path; known says that
// the path has others. Records that judge are passed over: there are few, and only
// in the legacy area.
//
// The plus before an argument keeps SQLite from planning the statement anew for
// every value because an order is asked for, which takes ten times as long.
func (x *index) replace(dev int64, r changed, digest *vault.Digest) (known bool, err error) {
	var op vault.Op
	var old vault.ObjectID
	var parent vault.PathID
	newest := func(st *sqlite.Stmt) {
		known, op = true, vault.Op(st.ColumnInt64(0))
		st.ColumnBytes(1, old[:])
		st.ColumnBytes(2, parent[:])
	}
	err = x.run(`SELECT op, record, parent FROM versions WHERE device = +? AND path = +? ORDER BY time DESC LIMIT 1`,
		newest, dev, r.path[:])
	if storage.Judges(r.op) || err != nil {
		return known, err
	}
	if storage.Judges(op) {
		err = x.run(unjudgedQuery, newest, dev, r.path[:])
	}
	if storage.InState(op) {
		digest.Remove(r.path, parent, old)
	}
	if storage.InState(r.op) {
		digest.Add(r.path, r.parent, r.id)
	}
	return known, err
}

var unjudgedQuery = fmt.Sprintf(`SELECT op, record, parent FROM versions WHERE device = +? AND path = +?
	AND op NOT IN (%d, %d) ORDER BY time DESC LIMIT 1`, vault.OpValid, vault.OpVoid)

// addCommit enters where a change of a device lies, and a copy of what the log shows
// of it.
func (x *index) addCommit(dev int64, c change, at location) error {
	x.pinned++
	return x.run(`INSERT INTO commits VALUES(?, ?, ?, ?, ?, ?, ?)`,
		nil, dev, int64(c.seq), c.time, int64(at.pack), at.off, at.len, c.copy())
}

// setItem makes it the current item of its key.
func (x *index) setItem(it storage.Item, at location, t trust) error {
	cur, _, err := x.item(it.Kind, it.Key)
	if err != nil {
		return err
	}
	if it.Rev <= cur.rev || t == checked && it.Rev != cur.rev+1 {
		return fmt.Errorf("item of kind %d at revision %d, not %d: %w", it.Kind, cur.rev, int64(it.Rev)-1, storage.ErrConflict)
	}
	x.pinned++
	return x.run(`INSERT INTO items VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
		rev = excluded.rev, pack = excluded.pack, off = excluded.off, len = excluded.len`,
		nil, int64(it.Kind), it.Key[:], int64(it.Rev), int64(at.pack), at.off, at.len)
}

// remove deletes rows of objects that nothing outside ids refers to, and returns
// the ids that were live. refs reads the refs of a live object; when it cannot,
// because the object is damaged, what that object referred to stays for ever
// rather than going too early.
func (x *index) remove(v vault.ID, ids []vault.ObjectID, refs func(vault.ObjectID, stored) ([]vault.ObjectID, error)) ([]vault.ObjectID, error) {
	n, err := x.vault(v)
	if n == 0 || err != nil {
		return nil, err
	}
	going := make(map[vault.ObjectID]stored, len(ids))
	var live, lose []vault.ObjectID
	for _, id := range ids {
		o, err := x.object(n, id)
		if err != nil {
			return nil, err
		}
		if _, again := going[id]; o.location == (location{}) || again {
			continue
		}
		going[id] = o
		live = append(live, id)
		if o.typ != vault.TypeList && o.typ != vault.TypeRecord {
			continue
		}
		held, err := refs(id, o)
		if err != nil && !errors.Is(err, storage.ErrCorrupt) {
			return nil, err
		}
		lose = append(lose, held...)
	}
	for _, id := range lose {
		if o, ok := going[id]; ok {
			o.refs--
			going[id] = o
		}
		if err := x.unrefer(n, id); err != nil {
			return nil, err
		}
	}
	for _, id := range live {
		o := going[id]
		if o.refs > 0 {
			return nil, fmt.Errorf("object %v: %w", id, storage.ErrReferenced)
		}
		if err := x.run(`DELETE FROM objects WHERE vault = ? AND id = ?`, nil, n, id[:]); err != nil {
			return nil, err
		}
		if err := x.run(`UPDATE packs SET live = live - 1 WHERE n = ?`, nil, int64(o.pack)); err != nil {
			return nil, err
		}
		x.counts.Objects--
		x.counts.BytesObjects -= o.len
	}
	if len(live) > 0 {
		x.pinned++
	}
	return live, nil
}

// retire marks the packs that hold nothing any more, except the active one, and
// returns all that are so marked.
func (x *index) retire(active uint32) (dead []uint32, err error) {
	err = x.run(`UPDATE packs SET dead = 1 WHERE live = 0 AND pinned = 0 AND dead = 0 AND n <> ?`, nil, int64(active))
	if err == nil {
		err = x.run(`SELECT n FROM packs WHERE dead = 1`, func(st *sqlite.Stmt) { dead = append(dead, uint32(st.ColumnInt64(0))) })
	}
	return dead, err
}

// load reads what is kept in memory.
func (x *index) load() error {
	err := x.run(`SELECT vaults, devices, paths, versions, objects, bytes FROM counts`, func(st *sqlite.Stmt) {
		x.counts = storage.Stats{
			Vaults: st.ColumnInt64(0), Devices: st.ColumnInt64(1), Paths: st.ColumnInt64(2),
			Versions: st.ColumnInt64(3), Objects: st.ColumnInt64(4), BytesObjects: st.ColumnInt64(5),
		}
	})
	if err != nil {
		return err
	}
	x.lastTime, err = x.number(`SELECT max(time) FROM devices`)
	return err
}

// pool lends connections to readers. They are opened when first lent.
type pool struct {
	path  string
	conns chan db
}

func newPool(path string) pool {
	p := pool{path, make(chan db, readers)}
	for range readers {
		p.conns <- db{}
	}
	return p
}

// use lends a connection to f, within one transaction: each statement outside of
// one would cost several system calls for its locks.
func (p pool) use(ctx context.Context, f func(db) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var d db
	select {
	case d = <-p.conns:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.conns <- d }()
	if d.conn == nil {
		fresh, err := openDB(p.path, readerCacheKiB)
		if err != nil {
			return err
		}
		d = fresh
	}
	if err := d.run("BEGIN", nil); err != nil {
		return err
	}
	return errors.Join(f(d), d.run("COMMIT", nil))
}

// close closes the connections; none may be lent.
func (p pool) close() (err error) {
	for range len(p.conns) {
		if d := <-p.conns; d.conn != nil {
			err = errors.Join(err, d.conn.Close())
		}
	}
	return err
}
