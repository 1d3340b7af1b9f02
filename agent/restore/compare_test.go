package restore

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"backstay/protocol/vault"
)

func TestCompare(t *testing.T) {
	l := newLab(t)
	l.commit(
		put("/d", folderRecord()), put("/d/same", inline("1")), put("/d/changed", inline("22")), put("/d/gone", inline("333")),
		put("/d/sub", folderRecord()), put("/d/sub/x", inline("x")), put("/other", inline("o")), put("/d/empty", folderRecord()), put("/d/out", inline("4444")),
	)
	before := l.moment(l)
	gone := func(name string) change { return removed(vault.OpDelete, name) }
	l.commit(
		put("/d", folderRecord()), put("/d/changed", inline("55555")), gone("/d/gone"), put("/d/new", inline("666666")),
		put("/d/more", folderRecord()), put("/d/more/y", inline("y")), put("/other", inline("oo")), put("/d/empty", folderRecord()), gone("/d/sub/x"),
	)
	after := l.moment(l)
	texts := func(list []Difference) []string {
		all := []string{}
		for _, d := range list {
			all = append(all, fmt.Sprint(d.Path, " ", d.Folder, " ", d.Before, " ", d.After))
		}
		return all
	}
	for _, tt := range []struct {
		name, path              string
		from, to                *State
		limit                   int
		added, removed, changed []string
		counts                  [3]int
	}{
		{"a folder", "/d", before, after, 10, []string{"/d/more true 0 0", "/d/more/y false 0 1", "/d/new false 0 6"}, []string{"/d/gone false 3 0", "/d/sub/x false 1 0"}, []string{"/d/changed false 2 5"}, [3]int{3, 2, 1}},
		{"the other way", "/d", after, before, 10, []string{"/d/gone false 0 3", "/d/sub/x false 0 1"}, []string{"/d/more true 0 0", "/d/more/y false 1 0", "/d/new false 6 0"}, []string{"/d/changed false 5 2"}, [3]int{2, 3, 1}},
		{"a file", "/other", before, after, 10, nil, nil, []string{"/other false 1 2"}, [3]int{0, 0, 1}},
		{"nothing between", "/d", after, after, 10, nil, nil, nil, [3]int{}},
		{"what never was", "/none", before, after, 10, nil, nil, nil, [3]int{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Compare(context.Background(), l, l.keys, tt.from, tt.to, l.path(tt.path), tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(texts(c.Added), tt.added) || !slices.Equal(texts(c.Removed), tt.removed) || !slices.Equal(texts(c.Changed), tt.changed) ||
				[3]int{c.AddedCount, c.RemovedCount, c.ChangedCount} != tt.counts {
				t.Errorf("got %+v", c)
			}
		})
	}
	// An empty folder is not told from a file without a look.
	if c, err := Compare(context.Background(), l, l.keys, before, after, l.path("/d"), 0); err != nil || c.ChangedCount != 2 || len(c.Changed) != 0 {
		t.Errorf("unopened: %+v, %v", c, err)
	}
	c, err := Compare(context.Background(), l, l.keys, before, after, l.path("/d"), 1)
	if err != nil || len(c.Added) != 1 || c.AddedCount != 3 || len(c.Removed) != 1 || c.RemovedCount != 2 {
		t.Errorf("with a limit: %+v, %v", c, err)
	}
}
