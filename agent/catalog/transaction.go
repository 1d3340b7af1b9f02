package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// update runs f in a transaction, which is on disk when update returns nil.
func (c *Catalog) update(ctx context.Context, f func(*sqlite.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.write == nil {
		return errors.New("the catalog was opened to be read")
	}
	c.write.SetInterrupt(ctx.Done())
	defer c.write.SetInterrupt(nil)
	end, err := sqlitex.ImmediateTransaction(c.write)
	if err == nil {
		err = f(c.write)
		end(&err)
	}
	if err == nil && c.updated != nil {
		c.updated()
	}
	return c.classify(ctx, err)
}

// view runs f on the state of one moment.
func (c *Catalog) view(ctx context.Context, f func(*sqlite.Conn) error) (err error) {
	conn, err := c.read.Take(ctx)
	if err != nil {
		return c.classify(ctx, err)
	}
	defer c.read.Put(conn)
	end := sqlitex.Transaction(conn)
	err = f(conn)
	end(&err)
	return c.classify(ctx, err)
}

// classify gives the errors of SQLite the meaning that callers know.
func (c *Catalog) classify(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case sqlite.ErrCode(err).ToPrimary() == sqlite.ResultInterrupt && ctx.Err() != nil:
		return context.Cause(ctx)
	case damaged(err):
		err = errors.Join(err, os.WriteFile(c.file+damagedMark, nil, 0o600))
		if !errors.Is(err, ErrCorrupt) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return err
}

// damaged reports whether err says that the file is not what SQLite wrote.
func damaged(err error) bool {
	code := sqlite.ErrCode(err).ToPrimary()
	return code == sqlite.ResultCorrupt || code == sqlite.ResultNotADB || errors.Is(err, ErrCorrupt)
}

// errStop ends rows early without being an error.
var errStop = errors.New("stop")

// rows calls f for every row and leaves the statement ready for its next use.
func rows(s *sqlite.Stmt, f func() error) error {
	for {
		more, err := s.Step()
		if err != nil {
			return err
		}
		if !more {
			return s.Reset()
		}
		if err := f(); err != nil {
			return errors.Join(err, s.Reset())
		}
	}
}

// exec runs a statement that returns no rows.
func exec(s *sqlite.Stmt) error {
	return rows(s, func() error { return nil })
}
