package dashboard

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"backstay/agent/history"
	"backstay/protocol/vault"
)

// item is a path that the server holds.
type item struct {
	place
	Type string `json:"type"` // folder, file, link or other
	Size uint64 `json:"size"`
	// MTime is when it was changed here, Time when the server took it.
	MTime *time.Time `json:"mtime"`
	Time  time.Time  `json:"time"`
	// State is there, deleted or unprotected: excluded since, or its folder removed.
	State string `json:"state"`
	Fuzzy bool   `json:"fuzzy"`
	// Seq names a version of a path.
	Seq string `json:"seq"`
}

func itemOf(v history.Version) item {
	i := item{place: placeOf(string(v.Name)), Size: v.Size(), Time: v.Time.UTC(), State: "there", Fuzzy: v.Fuzzy, Seq: strconv.FormatUint(v.Seq, 10), Type: "other"}
	switch v.Type {
	case vault.TypeFolder:
		i.Type = "folder"
	case vault.TypeFile:
		i.Type = "file"
	case vault.TypeSymlink:
		i.Type = "link"
	}
	switch v.Op {
	case vault.OpDelete:
		i.State = "deleted"
	case vault.OpOutOfScope:
		i.State = "unprotected"
	}
	if !v.ModTime.IsZero() {
		t := v.ModTime.UTC()
		i.MTime = &t
	}
	return i
}

// listing is what is in a folder.
type listing struct {
	place
	// Up is the folder above; nil for that of all folders that are protected.
	Up      *place `json:"up"`
	Entries []item `json:"entries"`
	// Damage says what could not be read.
	Damage string `json:"damage,omitempty"`
}

// list lists a folder as it was at a time, now if none is given, the deleted included;
// without a path, what transfer.info named then.
func (d *dashboard) list(r *http.Request) (listing, error) {
	path, err := refOf(r, "path")
	if err != nil {
		return listing{}, err
	}
	at, err := timeOf(r, "at")
	if err != nil {
		return listing{}, err
	}
	reader, done, err := d.readers.use(r.Context())
	if err != nil {
		return listing{}, err
	}
	defer done()
	l := listing{Entries: []item{}}
	roots, err := reader.Roots(r.Context(), at)
	if reader.Session.Err() != nil {
		return l, err
	}
	versions := roots
	if path != "" {
		l.place = placeOf(path)
		if !slices.ContainsFunc(roots, func(v history.Version) bool { return string(v.Name) == path }) {
			up := placeOf(filepath.Dir(path))
			l.Up = &up
		}
		versions, err = reader.Children(r.Context(), path, at)
	}
	if err != nil && len(versions) == 0 {
		return l, err
	}
	if err != nil {
		l.Damage = d.explain(err)
	}
	for _, v := range versions {
		i := itemOf(v)
		if v.Op != vault.OpPut {
			// Neither says what it was.
			if before, ok, err := was(r.Context(), reader, v); err == nil && ok {
				i.Type, i.Size, i.MTime = before.Type, before.Size, before.MTime
			}
		}
		l.Entries = append(l.Entries, i)
	}
	slices.SortStableFunc(l.Entries, func(a, b item) int {
		rank := func(i item) int {
			if i.Type == "folder" {
				return 0
			}
			return 1
		}
		if n := rank(a) - rank(b); n != 0 && path != "" {
			return n
		}
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return l, nil
}

// was returns what a path was before it was deleted or fell out of scope.
func was(ctx context.Context, r *history.Reader, v history.Version) (item, bool, error) {
	all, err := r.Of(ctx, string(v.Name))
	if i := slices.IndexFunc(all, func(before history.Version) bool { return before.Op == vault.OpPut && before.Time.Before(v.Time) }); i >= 0 {
		return itemOf(all[i]), true, err
	}
	return item{}, false, err
}

// versions lists the versions of a path, the newest first.
func (d *dashboard) versions(r *http.Request) (listing, error) {
	path, err := refOf(r, "path")
	if err != nil {
		return listing{}, err
	}
	reader, done, err := d.readers.use(r.Context())
	if err != nil {
		return listing{}, err
	}
	defer done()
	up := placeOf(filepath.Dir(path))
	l := listing{place: placeOf(path), Up: &up, Entries: []item{}}
	all, err := reader.Of(r.Context(), path)
	if len(all) == 0 {
		return l, fault{http.StatusNotFound, errors.Join(err, errors.New("the server holds no version of it"))}
	}
	if err != nil {
		l.Damage = d.explain(err)
	}
	for _, v := range all {
		l.Entries = append(l.Entries, itemOf(v))
	}
	return l, nil
}

// found is what was found by name.
type found struct {
	Entries []item `json:"entries"`
	// More counts those that are not listed.
	More int `json:"more"`
}

// maxFound bounds a list of what was found.
const maxFound = 300

func (d *dashboard) find(r *http.Request) (found, error) {
	f := found{Entries: []item{}}
	pattern := strings.TrimSpace(r.URL.Query().Get("q"))
	if pattern == "" {
		return f, nil
	}
	err := d.o.Tools.Find(pattern, func(one Found) {
		if len(f.Entries) == maxFound {
			f.More++
			return
		}
		i := item{place: placeOf(one.Path), Type: "file", Size: uint64(max(one.Size, 0)), Time: one.Time, State: "there"}
		if one.Deleted {
			i.State = "deleted"
		}
		f.Entries = append(f.Entries, i)
	})
	return f, err
}

const (
	// maxText and maxPicture bound what is shown of a file before it is restored.
	maxText    = 256 << 10
	maxPicture = 16 << 20
)

// pictureTypes are what a browser shows and cannot be made to run.
var pictureTypes = []string{"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"}

// shown is what can be shown of a version of a file.
type shown struct {
	// Kind is text, picture or none; Text is the beginning of a text, Cut says that
	// there is more, Address is where the picture is.
	Kind    string `json:"kind"`
	Text    string `json:"text,omitempty"`
	Cut     bool   `json:"cut,omitempty"`
	Address string `json:"address,omitempty"`
}

// preview shows a version of a file: text as text, and pictures.
func (d *dashboard) preview(r *http.Request) (shown, error) {
	none := shown{Kind: "none"}
	path, err := refOf(r, "path")
	if err != nil {
		return none, err
	}
	seq, err := strconv.ParseUint(r.URL.Query().Get("seq"), 10, 64)
	if err != nil {
		return none, wrong("%v", err)
	}
	reader, done, err := d.readers.use(r.Context())
	if err != nil {
		return none, err
	}
	defer done()
	all, err := reader.Of(r.Context(), path)
	i := slices.IndexFunc(all, func(v history.Version) bool { return v.Seq == seq && v.Op == vault.OpPut })
	if i < 0 {
		return none, fault{http.StatusNotFound, errors.Join(err, errors.New("the server holds no such version"))}
	}
	v := all[i]
	// Holes are no part of the content, and a file that has some is neither.
	if v.Type != vault.TypeFile || len(v.Holes) > 0 {
		return none, nil
	}
	limit := maxText
	if v.Content.Size <= maxPicture {
		limit = maxPicture
	}
	var head bounded
	head.most = limit
	if err := reader.Keys.ReadContent(r.Context(), &head, v.Content, reader.Session.Get); err != nil && !errors.Is(err, errEnough) {
		return none, err
	}
	data := head.Bytes()
	if kind := http.DetectContentType(data); slices.Contains(pictureTypes, kind) {
		if uint64(len(data)) < v.Content.Size {
			return none, nil
		}
		return shown{Kind: "picture", Address: "/raw/" + d.tickets.add(kind, data)}, nil
	}
	text := data[:min(len(data), maxText)]
	cut := uint64(len(text)) < v.Content.Size
	for n := 0; cut && n < utf8.UTFMax && !utf8.Valid(text); n++ {
		text = text[:len(text)-1] // a character that was cut
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return none, nil
	}
	return shown{Kind: "text", Text: string(text), Cut: cut}, nil
}

// errEnough ends reading what is longer than can be shown.
var errEnough = errors.New("enough")

// bounded keeps the first bytes.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.most - b.Len()
	b.Buffer.Write(p[:min(room, len(p))])
	if len(p) > room {
		return room, errEnough
	}
	return len(p), nil
}

// tickets are pictures on their way to a page: an <img> cannot show the key, so each
// has an address that nobody guesses. The last few are kept.
type tickets struct {
	mu   sync.Mutex // guards list
	list []ticket
}

type ticket struct {
	hash [32]byte
	kind string
	data []byte
}

// maxTickets bounds them: a picture is fetched at once.
const maxTickets = 4

func (t *tickets) add(kind string, data []byte) string {
	name := rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, ticket{hashOf(name), kind, data})
	if n := len(t.list) - maxTickets; n > 0 {
		t.list = slices.Delete(t.list, 0, n)
	}
	return name
}

func (t *tickets) find(name string) (ticket, bool) {
	hash := hashOf(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.list, func(one ticket) bool { return one.hash == hash })
	if i < 0 {
		return ticket{}, false
	}
	return t.list[i], true
}

// raw gives a picture, as something that can do nothing.
func (d *dashboard) raw(w http.ResponseWriter, r *http.Request) {
	t, ok := d.tickets.find(r.PathValue("ticket"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", t.kind)
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Content-Disposition", "inline")
	w.Write(t.data)
}
