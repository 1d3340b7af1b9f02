package catalog

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"backstay/agent/scan/facts"
)

func TestDaysAndRecentSurviveAndAreBounded(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	log := slog.New(slog.DiscardHandler)
	c, err := Open(ctx, dir, log)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Destination(ctx, "v4:x")
	if err != nil {
		t.Fatal(err)
	}
	for n := range keptRecent + 10 {
		versions := []Version{
			{Path: "/d", State: Present, Facts: facts.Facts{Type: facts.Directory}},
			{Path: fmt.Sprintf("/d/%d", n), State: Present, Facts: facts.Facts{Type: facts.Regular, Size: 10}},
			{Path: "/d/gone", State: Gone, Facts: facts.Facts{Type: facts.Regular, Size: 99}},
		}
		if err := d.Advance(ctx, History{Seq: uint64(n + 1)}, versions); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	old := now.AddDate(0, 0, -keptDays-1)
	for at, gap := range map[time.Time]time.Duration{now: 90 * time.Second, old: time.Minute} {
		if err := d.AddGap(ctx, at, gap); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.AddGap(ctx, now, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = Open(ctx, dir, log); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d, err = c.Destination(ctx, "v4:x"); err != nil {
		t.Fatal(err)
	}
	days, err := d.Days(ctx, old.AddDate(0, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	var sum Day
	for _, day := range days {
		sum.Changes, sum.Bytes, sum.Gap = sum.Changes+day.Changes, sum.Bytes+day.Bytes, sum.Gap+day.Gap
	}
	// The test may run over midnight: then there are two.
	if len(days) > 2 || sum.Changes != 3*(keptRecent+10) || sum.Bytes != 10*(keptRecent+10) || sum.Gap != 2*time.Minute {
		t.Errorf("days %+v", days)
	}
	recent, err := d.Recent(ctx)
	if err != nil || len(recent) != keptRecent {
		t.Fatalf("%d recent, %v", len(recent), err)
	}
	if first := recent[0]; first.Path != fmt.Sprintf("/d/%d", keptRecent+9) || first.Changes != 3 || first.Bytes != 10 {
		t.Errorf("the newest is %+v", first)
	}
}
