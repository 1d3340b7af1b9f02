// Package catalog is the agent's memory of what is protected: per destination
// and path, the stat facts of the version that the destination acknowledged. It
// also keeps the name under which a path goes to servers of protocol 3.
//
// The one invariant: what the catalog says was acknowledged has been. It is
// written only after the acknowledgement, so that losing all of it costs repeated
// work and never protection. The names are the exception (a name once used must
// stay with its path), which is why every transaction is synced before it counts.
//
// The catalog keeps no content and no history beyond the newest version of a
// path, judges nothing, and never looks at the disk it describes. Enter at
// [Open], then [Catalog.Destination].
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitemigration"
	"zombiezen.com/go/sqlite/sqlitex"
)

// FileName is the catalog's file in the state folder.
const FileName = "catalog.db"

var (
	// ErrNewer: the file was written by a newer version of this program. It is left
	// as it is.
	ErrNewer = errors.New("the catalog is of a newer version of Backstay; install that version again")
	// ErrOlder: [Read] met a catalog of an older version of this program. [Open]
	// brings it up to date.
	ErrOlder = errors.New("the catalog is of an older version of Backstay")
	// ErrCorrupt: the file is damaged. Close the catalog and open it again: [Open]
	// moves the damaged file aside.
	ErrCorrupt = errors.New("the catalog is damaged")
	// ErrUnknown: nothing is known of the path.
	ErrUnknown = errors.New("path is not in the catalog")
)

// schema is one counted history: a migration is added, none is changed.
var schema = sqlitemigration.Schema{
	AppID: 0x42534341, // BSCA
	Migrations: []string{`
CREATE TABLE destination (
	id       INTEGER PRIMARY KEY,
	name     TEXT    NOT NULL UNIQUE,
	-- totals of its versions, kept in step by every transaction
	files    INTEGER NOT NULL DEFAULT 0,
	others   INTEGER NOT NULL DEFAULT 0,
	bytes    INTEGER NOT NULL DEFAULT 0,
	fuzzy    INTEGER NOT NULL DEFAULT 0,
	gone     INTEGER NOT NULL DEFAULT 0,
	excluded INTEGER NOT NULL DEFAULT 0,
	newest   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE version (
	destination INTEGER NOT NULL REFERENCES destination,
	path  BLOB    NOT NULL,
	state INTEGER NOT NULL,
	at    INTEGER NOT NULL,
	fuzzy INTEGER NOT NULL,
	type  INTEGER NOT NULL,
	mode  INTEGER NOT NULL,
	dev   INTEGER NOT NULL,
	inode INTEGER NOT NULL,
	size  INTEGER NOT NULL,
	mtime INTEGER NOT NULL,
	ctime INTEGER NOT NULL,
	hash  BLOB,
	PRIMARY KEY (destination, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE root (
	path   BLOB    NOT NULL PRIMARY KEY,
	volume INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE v3_name (
	path BLOB NOT NULL PRIMARY KEY,
	name TEXT NOT NULL UNIQUE COLLATE NOCASE
) STRICT, WITHOUT ROWID;
`, `
ALTER TABLE version RENAME COLUMN hash TO record;
CREATE TABLE history (
	destination INTEGER PRIMARY KEY REFERENCES destination,
	seq    INTEGER NOT NULL,
	head   BLOB    NOT NULL,
	stamp  BLOB    NOT NULL,
	digest BLOB    NOT NULL,
	after_seq  INTEGER,
	after_head BLOB
) STRICT;
CREATE TABLE chunk (
	destination INTEGER NOT NULL REFERENCES destination,
	hash   BLOB    NOT NULL,
	size   INTEGER NOT NULL,
	object BLOB    NOT NULL,
	PRIMARY KEY (destination, hash)
) STRICT, WITHOUT ROWID;
CREATE TABLE member (
	destination INTEGER NOT NULL REFERENCES destination,
	number INTEGER NOT NULL,
	entry  BLOB    NOT NULL,
	PRIMARY KEY (destination, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE pass (
	destination INTEGER NOT NULL REFERENCES destination,
	root BLOB    NOT NULL,
	seq  INTEGER NOT NULL,
	PRIMARY KEY (destination, root)
) STRICT, WITHOUT ROWID;
CREATE TABLE alarm (
	destination INTEGER NOT NULL REFERENCES destination,
	kind TEXT    NOT NULL,
	at   INTEGER NOT NULL,
	text TEXT    NOT NULL,
	PRIMARY KEY (destination, kind)
) STRICT, WITHOUT ROWID;
`, `
ALTER TABLE version ADD COLUMN stated BLOB;
ALTER TABLE history ADD COLUMN partial INTEGER NOT NULL DEFAULT 0;
`},
}

// Catalog is an open catalog. It is safe for concurrent use; writes wait for each
// other, reads do not wait. Methods block for the disk, and while another process
// writes; their error is the context's when it ended them, wraps [ErrCorrupt] when
// the file is damaged, and has no other meaning a caller could act on.
type Catalog struct {
	file string
	read *sqlitex.Pool

	mu    sync.Mutex   // held by the one transaction that writes
	write *sqlite.Conn // nil if it was opened to be read
	// updated is called after each change; nil: nobody listens.
	updated func()
}

// OnUpdate has f called after each change that is on disk. It may not block or use
// the catalog. It is set once, before the catalog is used by several goroutines.
func (c *Catalog) OnUpdate(f func()) { c.updated = f }

// readers is how many reads run at once: two scans that walk through their
// unseen paths, and the status beside them.
const readers = 4

// busyTimeout bounds the wait for another process, such as a backup command
// beside the agent. Its transactions take milliseconds.
const busyTimeout = 10 * time.Second

// Open opens the catalog in the folder state and creates both where they do not
// exist. A damaged catalog is renamed to catalog.db.damaged-TIME, logged, and an
// empty one taken instead, with the names of protocol 3 as far as they can be
// read. [ErrNewer] is returned for a catalog that this version cannot read.
//
// Whoever calls it must hold the lock of the state folder, or it could take the
// file from under an agent that uses it; all others call [Read].
func Open(ctx context.Context, state string, log *slog.Logger) (*Catalog, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	file := filepath.Join(state, FileName)
	c, err := open(ctx, file)
	if !damaged(err) {
		return c, err
	}
	aside, names, merr := moveAside(ctx, file)
	if merr != nil {
		return nil, fmt.Errorf("open catalog: %w", errors.Join(err, merr))
	}
	log.Error("the catalog was damaged and is started anew; everything is compared and sent again as needed",
		"error", err, "damaged", aside, "names_saved", len(names))
	if c, err = open(ctx, file); err != nil {
		return nil, err
	}
	if err := c.restoreNames(ctx, names); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Read opens the catalog in the folder state to be read, also while an agent writes
// it: what would change it is an error. It creates, moves and mends nothing. Errors:
// fs.ErrNotExist where there is none, [ErrCorrupt], [ErrNewer], [ErrOlder].
func Read(ctx context.Context, state string) (_ *Catalog, err error) {
	c := &Catalog{file: filepath.Join(state, FileName)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("read catalog %s: %w", c.file, errors.Join(err, c.Close()))
		}
	}()
	if _, err := os.Stat(c.file); err != nil {
		return nil, err
	}
	if err := c.unmarked(); err != nil {
		return nil, err
	}
	if err := c.openReaders(sqlite.OpenReadWrite); err != nil {
		return nil, err
	}
	return c, c.view(ctx, func(conn *sqlite.Conn) error {
		version, err := sqlitex.ResultInt(conn.Prep("PRAGMA user_version"))
		switch {
		case err != nil:
			return err
		case version > len(schema.Migrations):
			return ErrNewer
		case version < len(schema.Migrations):
			return ErrOlder
		}
		return nil
	})
}

// unmarked returns ErrCorrupt for a catalog that was found damaged in use.
func (c *Catalog) unmarked() error {
	if _, err := os.Stat(c.file + damagedMark); err == nil {
		return fmt.Errorf("%w: found so while it was in use", ErrCorrupt)
	}
	return nil
}

func open(ctx context.Context, file string) (_ *Catalog, err error) {
	c := &Catalog{file: file}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open catalog %s: %w", file, errors.Join(err, c.Close()))
		}
	}()
	if err := c.unmarked(); err != nil {
		return nil, err
	}
	// SQLite creates files with the rights of the first one: nobody else may read names.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// A log is left behind only when the last process did not end as it should.
	_, lerr := os.Stat(file + "-wal")
	unclean := lerr == nil

	if c.write, err = sqlite.OpenConn(file, openFlags); err != nil {
		return nil, err
	}
	if err := prepare(c.write); err != nil {
		return nil, err
	}
	defer c.write.SetInterrupt(c.write.SetInterrupt(ctx.Done()))
	version, err := sqlitex.ResultInt(c.write.Prep("PRAGMA user_version"))
	if err != nil {
		return nil, err
	}
	if version > len(schema.Migrations) {
		return nil, ErrNewer
	}
	if unclean {
		verdict, err := sqlitex.ResultText(c.write.Prep("PRAGMA quick_check(1)"))
		if err != nil {
			return nil, err
		}
		if verdict != "ok" {
			return nil, fmt.Errorf("%w: %s", ErrCorrupt, verdict)
		}
	}
	if err := sqlitemigration.Migrate(ctx, c.write, schema); err != nil {
		return nil, err
	}
	return c, c.openReaders(openFlags)
}

func (c *Catalog) openReaders(flags sqlite.OpenFlags) (err error) {
	c.read, err = sqlitex.NewPool(c.file, sqlitex.PoolOptions{Flags: flags, PoolSize: readers, PrepareConn: func(conn *sqlite.Conn) error {
		return errors.Join(prepare(conn), sqlitex.ExecuteTransient(conn, "PRAGMA query_only = on", nil))
	}})
	return err
}

const openFlags = sqlite.OpenReadWrite | sqlite.OpenCreate | sqlite.OpenWAL // and no URI: a path may hold any character

// prepare sets up a connection. FULL syncs the log with every transaction, for
// the sake of the names; writes come in batches, so it costs little. The larger
// checkpoint interval spares the same pages being written out again and again.
func prepare(conn *sqlite.Conn) error {
	conn.SetBusyTimeout(busyTimeout)
	for _, pragma := range []string{"synchronous = FULL", "foreign_keys = on", "wal_autocheckpoint = 4096", "cache_size = -2048"} {
		if err := sqlitex.ExecuteTransient(conn, "PRAGMA "+pragma, nil); err != nil {
			return err
		}
	}
	return nil
}

// Close interrupts running reads, waits for a running write and closes the file.
func (c *Catalog) Close() error {
	var errs []error
	if c.read != nil {
		errs = append(errs, c.read.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.write != nil {
		errs = append(errs, c.write.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close catalog: %w", err)
	}
	return nil
}
