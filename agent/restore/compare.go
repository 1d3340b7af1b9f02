package restore

import (
	"context"
	"slices"
	"strings"

	"backstay/protocol/vault"
)

// A Comparison is how what is in a folder differs between two moments.
type Comparison struct {
	// Added, Removed and Changed are paths that only the later state has, only the
	// earlier one, or both with another record; each ascending and at most as many
	// as were asked for. A folder that merely has another time is not among them.
	Added, Removed, Changed []Difference
	// The counts are of all, with the folders among those that were not looked at.
	AddedCount, RemovedCount, ChangedCount int
}

// A Difference is one path.
type Difference struct {
	Path   string
	Folder bool
	// Before and After are the sizes, 0 where the path was not there.
	Before, After uint64
}

// Compare says what happened to a folder, or a file, between two states of a device.
// It opens no more than limit records of each kind. Errors: the source's; what cannot
// be opened is left out.
func Compare(ctx context.Context, src Getter, keys *vault.Keyring, earlier, later *State, path vault.PathID, limit int) (Comparison, error) {
	var c Comparison
	var added, removed, before, after []int32
	folders := map[vault.PathID]bool{}
	each := func(s *State, f func(int32)) {
		sel, err := s.Select(path)
		if err != nil {
			return // there was nothing
		}
		for _, level := range sel.folders {
			for _, i := range level {
				folders[s.rows.at(i).path] = true
				f(i)
			}
		}
		for _, i := range sel.leaves {
			f(i)
		}
	}
	each(earlier, func(i int32) {
		if _, there := later.find(earlier.rows.at(i).path); !there {
			removed = append(removed, i)
		}
	})
	each(later, func(i int32) {
		r := later.rows.at(i)
		k, there := earlier.find(r.path)
		switch {
		case !there:
			added = append(added, i)
		case earlier.rows.at(k).record != r.record && !folders[r.path]:
			before, after = append(before, k), append(after, i)
		}
	})
	c.AddedCount, c.RemovedCount, c.ChangedCount = len(added), len(removed), len(after)

	open := func(s *State, rows []int32) (map[vault.PathID]*vault.Record, error) {
		records := map[vault.PathID]*vault.Record{}
		give := func(group []sealed) {
			for _, one := range group {
				if rec, _, err := openRecord(keys, s, one); err == nil {
					records[s.rows.at(one.row).path] = rec
				}
			}
		}
		err := getRecords(ctx, src, s, s.wants(rows[:min(limit, len(rows))]), give, func(want, error) {})
		return records, err
	}
	list := func(s *State, rows []int32, difference func(*vault.Record) Difference) ([]Difference, error) {
		var all []Difference
		records, err := open(s, rows)
		for _, rec := range records {
			all = append(all, difference(rec))
		}
		slices.SortFunc(all, byName)
		return all, err
	}
	var err error
	if c.Added, err = list(later, added, func(r *vault.Record) Difference {
		return Difference{Path: string(r.Name), Folder: r.Type == vault.TypeFolder, After: r.Size()}
	}); err != nil {
		return c, err
	}
	if c.Removed, err = list(earlier, removed, func(r *vault.Record) Difference {
		return Difference{Path: string(r.Name), Folder: r.Type == vault.TypeFolder, Before: r.Size()}
	}); err != nil {
		return c, err
	}
	was, err := open(earlier, before)
	if err != nil {
		return c, err
	}
	is, err := open(later, after)
	if err != nil {
		return c, err
	}
	for id, r := range is {
		old := was[id]
		if old != nil && r.Type == vault.TypeFolder && old.Type == vault.TypeFolder {
			c.ChangedCount--
			continue
		}
		d := Difference{Path: string(r.Name), After: r.Size()}
		if old != nil {
			d.Before = old.Size()
		}
		c.Changed = append(c.Changed, d)
	}
	slices.SortFunc(c.Changed, byName)
	return c, nil
}

func byName(a, b Difference) int { return strings.Compare(a.Path, b.Path) }
