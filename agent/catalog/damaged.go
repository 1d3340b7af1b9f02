package catalog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"zombiezen.com/go/sqlite"
)

// damagedMark is appended to the name of the catalog for an empty file that says
// that it was found damaged in use, where the next Open would not look.
const damagedMark = ".damaged"

type pathName struct{ path, name string }

// moveAside renames a damaged catalog and returns its new place and the names
// that can still be read from it.
func moveAside(ctx context.Context, file string) (aside string, names []pathName, err error) {
	aside = file + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	for _, suffix := range []string{"-wal", "-shm", "", damagedMark} {
		if err := os.Rename(file+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
	}
	return aside, readNames(ctx, aside), nil
}

// readNames reads as many names as it can. What stops it is no error: the file
// is damaged.
func readNames(ctx context.Context, file string) (names []pathName) {
	conn, err := sqlite.OpenConn(file, sqlite.OpenReadWrite)
	if err != nil {
		return nil
	}
	defer conn.Close()
	conn.SetInterrupt(ctx.Done())
	s, err := conn.Prepare("SELECT path, name FROM v3_name")
	if err != nil {
		return nil
	}
	_ = rows(s, func() error {
		names = append(names, pathName{s.ColumnText(0), s.ColumnText(1)})
		return nil
	})
	return names
}

// restoreNames puts saved names into an empty catalog, except those that damage
// made impossible.
func (c *Catalog) restoreNames(ctx context.Context, names []pathName) error {
	return c.update(ctx, func(conn *sqlite.Conn) error {
		for _, n := range names {
			if n.path == "" || n.name == "" || len(n.name) > maxNameV3 || cleanV3(n.name) != n.name {
				continue
			}
			if _, err := takeName(conn, n.path, n.name); err != nil {
				return err
			}
		}
		return nil
	})
}
