package catalog

import (
	"context"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"backstay/agent/scan/facts"
)

const (
	// keptDays and keptRecent bound what is kept for a person to look at.
	keptDays   = 400
	keptRecent = 50
)

// A Day is what happened on one local date.
type Day struct {
	// Date is the start of the day, local time.
	Date time.Time
	// Changes counts what was acknowledged, Bytes is the size of its files.
	Changes, Bytes int64
	// Gap is how long changes waited while nothing could be sent.
	Gap time.Duration
}

// A Batch is what was acknowledged together.
type Batch struct {
	At time.Time
	// Path is one of the paths, a file if there is one.
	Path           string
	Changes, Bytes int64
}

// Days returns the days since a time of which there is anything to say, ascending.
func (d *Destination) Days(ctx context.Context, since time.Time) ([]Day, error) {
	var days []Day
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT day, changes, bytes, gap FROM day WHERE destination = ? AND day >= ? ORDER BY day")
		s.BindInt64(1, d.id)
		s.BindInt64(2, dayOf(since))
		return rows(s, func() error {
			n := int(s.ColumnInt64(0))
			days = append(days, Day{
				Date:    time.Date(n/10000, time.Month(n/100%100), n%100, 0, 0, 0, 0, time.Local),
				Changes: s.ColumnInt64(1), Bytes: s.ColumnInt64(2), Gap: time.Duration(s.ColumnInt64(3)) * time.Second,
			})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("days in the catalog: %w", err)
	}
	return days, nil
}

// Recent returns what was acknowledged lately, the newest first.
func (d *Destination) Recent(ctx context.Context) ([]Batch, error) {
	var list []Batch
	err := d.c.view(ctx, func(conn *sqlite.Conn) error {
		s := conn.Prep("SELECT at, path, changes, bytes FROM recent WHERE destination = ? ORDER BY at DESC")
		s.BindInt64(1, d.id)
		return rows(s, func() error {
			list = append(list, Batch{time.Unix(0, s.ColumnInt64(0)), s.ColumnText(1), s.ColumnInt64(2), s.ColumnInt64(3)})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("recent changes in the catalog: %w", err)
	}
	return list, nil
}

// AddGap adds to how long changes waited on the day of a time.
func (d *Destination) AddGap(ctx context.Context, at time.Time, gap time.Duration) error {
	err := d.c.update(ctx, func(conn *sqlite.Conn) error {
		return d.addDay(conn, at, 0, 0, int64(gap/time.Second))
	})
	if err != nil {
		return fmt.Errorf("record a gap: %w", err)
	}
	return nil
}

// tally counts versions that were acknowledged, within their transaction.
func (d *Destination) tally(conn *sqlite.Conn, at time.Time, versions []Version) error {
	if len(versions) == 0 {
		return nil
	}
	bytes, path, found := int64(0), versions[0].Path, false
	for _, v := range versions {
		if v.State > Present || v.Facts.Type != facts.Regular {
			continue
		}
		bytes += v.Facts.Size
		if !found {
			path, found = v.Path, true
		}
	}
	if err := d.addDay(conn, at, int64(len(versions)), bytes, 0); err != nil {
		return err
	}
	s := conn.Prep("INSERT INTO recent (destination, at, path, changes, bytes) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
	s.BindInt64(1, d.id)
	s.BindInt64(2, at.UnixNano())
	s.BindBytes(3, []byte(path))
	s.BindInt64(4, int64(len(versions)))
	s.BindInt64(5, bytes)
	if err := exec(s); err != nil {
		return err
	}
	s = conn.Prep("DELETE FROM recent WHERE destination = ?1 AND at < (SELECT at FROM recent WHERE destination = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)")
	s.BindInt64(1, d.id)
	s.BindInt64(2, keptRecent-1)
	return exec(s)
}

func (d *Destination) addDay(conn *sqlite.Conn, at time.Time, changes, bytes, gap int64) error {
	s := conn.Prep(`INSERT INTO day (destination, day, changes, bytes, gap) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET changes = changes + excluded.changes, bytes = bytes + excluded.bytes, gap = gap + excluded.gap`)
	s.BindInt64(1, d.id)
	s.BindInt64(2, dayOf(at))
	s.BindInt64(3, changes)
	s.BindInt64(4, bytes)
	s.BindInt64(5, gap)
	if err := exec(s); err != nil {
		return err
	}
	s = conn.Prep("DELETE FROM day WHERE destination = ? AND day < ?")
	s.BindInt64(1, d.id)
	s.BindInt64(2, dayOf(at.AddDate(0, 0, -keptDays)))
	return exec(s)
}

// dayOf is a time's local date as yyyymmdd.
func dayOf(t time.Time) int64 {
	y, m, d := t.Local().Date()
	return int64(y*10000 + int(m)*100 + d)
}
