package dashboard

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"backstay/agent/localapi"
	"backstay/agent/restore"
	"backstay/protocol/vault"
)

// momentsView are the moments to which a folder can be moved back.
type momentsView struct {
	// Times are those of the newest commits, ascending.
	Times []time.Time `json:"times"`
	// Earlier: there are more before them, which a time that is typed reaches.
	Earlier bool `json:"earlier"`
}

// maxMoments bounds a slider: finer than its pixels helps nobody.
const maxMoments = 2000

// moments lists when something became safe. The times are as the server says them;
// what is restored or compared is verified then.
func (d *dashboard) moments(r *http.Request) (momentsView, error) {
	v := momentsView{Times: []time.Time{}}
	reader, done, err := d.readers.use(r.Context())
	if err != nil {
		return v, err
	}
	defer done()
	me := reader.Device.Identity.ID()
	head, err := reader.Session.Head(r.Context(), me, time.Time{})
	if err != nil || len(head.Commit) == 0 {
		return v, err
	}
	newest, err := vault.ParseCommit(head.Commit)
	if err != nil {
		return v, err
	}
	first := uint64(1)
	if newest.Seq > maxMoments {
		first, v.Earlier = newest.Seq-maxMoments+1, true
	}
	for head, err := range reader.Session.Log(r.Context(), me, first, 0) {
		if err != nil {
			return v, err
		}
		stamp, err := vault.OpenStamp(reader.Device.Vault, vault.HashCommit(head.Commit), head.Stamp)
		if err != nil {
			return v, err
		}
		v.Times = append(v.Times, stamp.Time.UTC())
	}
	slices.SortFunc(v.Times, time.Time.Compare)
	return v, nil
}

// compared is what has happened to a folder since a moment.
type compared struct {
	At    time.Time `json:"at"`
	There bool      `json:"there"`
	// Added, Removed and Changed happened since; the lists are the first of each.
	Added        []difference `json:"added"`
	Removed      []difference `json:"removed"`
	Changed      []difference `json:"changed"`
	AddedCount   int          `json:"added_count"`
	RemovedCount int          `json:"removed_count"`
	ChangedCount int          `json:"changed_count"`
}

type difference struct {
	place
	Folder bool   `json:"folder"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
}

// inside returns what of a path lies below a folder.
func inside(folder, path string) (string, bool) {
	return strings.CutPrefix(path, strings.TrimSuffix(folder, string(filepath.Separator))+string(filepath.Separator))
}

// maxDifferences bounds each list.
const maxDifferences = 200

// compare says how a folder differs now from what it was at a moment.
func (d *dashboard) compare(r *http.Request) (compared, error) {
	var c compared
	path, err := refOf(r, "path")
	if err != nil {
		return c, err
	}
	at, err := timeOf(r, "at")
	if err != nil {
		return c, err
	}
	reader, done, err := d.readers.use(r.Context())
	if err != nil {
		return c, err
	}
	defer done()
	then, err := d.stateAt(r.Context(), reader, at)
	if err != nil {
		return c, err
	}
	now, err := d.stateAt(r.Context(), reader, time.Time{})
	if err != nil {
		return c, err
	}
	id := reader.Keys.Path(reader.Device.Identity.ID(), []byte(path))
	_, missing := then.Select(id)
	diff, err := restore.Compare(r.Context(), reader.Session, reader.Keys, then, now, id, maxDifferences)
	if err != nil {
		return c, err
	}
	list := func(of []restore.Difference) []difference {
		all := []difference{}
		for _, one := range of {
			p := placeOf(one.Path)
			if rest, ok := inside(path, one.Path); ok {
				p.Name, _ = localapi.Text(rest)
			}
			all = append(all, difference{p, one.Folder, one.Before, one.After})
		}
		return all
	}
	return compared{
		At: then.Moment.Time.UTC(), There: missing == nil,
		Added: list(diff.Added), Removed: list(diff.Removed), Changed: list(diff.Changed),
		AddedCount: diff.AddedCount, RemovedCount: diff.RemovedCount, ChangedCount: diff.ChangedCount,
	}, nil
}
