package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/adrg/xdg"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/exclude"
	"backstay/agent/localapi"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	client "backstay/agent/v4"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Place is a path with what a page needs to name it again.
type place struct {
	Ref  ref    `json:"ref"`
	Path string `json:"path"`
	Name string `json:"name"`
}

func placeOf(path string) place {
	text, _ := localapi.Text(path)
	return place{ref(path), text, filepath.Base(text)}
}

// suggestion is a folder that a person may want to protect.
type suggestion struct {
	place
	// Chosen: it is one of those that nearly everybody wants.
	Chosen bool `json:"chosen"`
}

// setupView is what the first page begins with.
type setupView struct {
	Folders []suggestion `json:"folders"`
	Machine string       `json:"machine"`
	Home    place        `json:"home"`
}

// suggestions lists the folders of the person that exist.
func (d *dashboard) suggestions(*http.Request) (setupView, error) {
	v := setupView{Folders: []suggestion{}, Home: placeOf(xdg.Home)}
	v.Machine, _ = os.Hostname() // without one a person says how it is called
	if name, err := enrol.Name(d.o.Folder); err == nil && name != "" {
		v.Machine = name
	}
	seen := map[string]bool{filepath.Clean(xdg.Home): true}
	dirs := xdg.UserDirs
	for i, dir := range []string{dirs.Documents, dirs.Pictures, dirs.Desktop, dirs.Music, dirs.Videos, dirs.Download} {
		dir = filepath.Clean(dir)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() || seen[dir] {
			continue
		}
		seen[dir] = true
		v.Folders = append(v.Folders, suggestion{placeOf(dir), i < 3})
	}
	return v, nil
}

// browsed are the folders in one.
type browsed struct {
	place
	Up      *place  `json:"up"`
	Folders []place `json:"folders"`
}

// maxBrowsed bounds a listing.
const maxBrowsed = 2000

// browse lists the folders in a folder of this machine, to choose one.
func (d *dashboard) browse(r *http.Request) (browsed, error) {
	path, err := refOf(r, "path")
	if err != nil {
		return browsed{}, err
	}
	if path == "" {
		path = xdg.Home
	}
	if !filepath.IsAbs(path) {
		return browsed{}, wrong("%q is no full path", path)
	}
	path = filepath.Clean(path)
	b := browsed{place: placeOf(path), Folders: []place{}}
	if up := filepath.Dir(path); up != path {
		p := placeOf(up)
		b.Up = &p
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return b, fault{http.StatusNotFound, err}
	}
	for _, e := range entries {
		if e.IsDir() && len(b.Folders) < maxBrowsed {
			b.Folders = append(b.Folders, placeOf(filepath.Join(path, e.Name())))
		}
	}
	// What is hidden comes last.
	slices.SortStableFunc(b.Folders, func(x, y place) int {
		hidden := func(p place) int { return strings.Count(p.Name[:min(1, len(p.Name))], ".") }
		return cmp.Or(hidden(x)-hidden(y), strings.Compare(strings.ToLower(x.Name), strings.ToLower(y.Name)))
	})
	return b, nil
}

// measured is what a folder holds, so far.
type measured struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Special counts what is noted without content: pipes, sockets, devices.
	Special int `json:"special"`
	// Unreadable counts what will not be protected, Problems are the first of it.
	Unreadable int                `json:"unreadable"`
	Problems   []localapi.Problem `json:"problems"`
	Done       bool               `json:"done"`
}

const (
	// maxShown bounds the examples that are shown of many.
	maxShown = 50
	// tellEvery is how often a count that goes on is told.
	tellEvery = 150 * time.Millisecond
)

// stream sends values as lines of JSON: what counts for a while says how far it is.
type stream struct {
	mu   sync.Mutex // guards the fields below
	out  *json.Encoder
	ctl  *http.ResponseController
	told time.Time
	err  error
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stream{out: json.NewEncoder(w), ctl: http.NewResponseController(w), told: time.Now()}
}

// tell sends a value, if it is time to, or surely.
func (s *stream) tell(v any, surely bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !surely && time.Since(s.told) < tellEvery {
		return s.err
	}
	s.told = time.Now()
	s.err = errors.Join(s.out.Encode(v), s.ctl.Flush())
	return s.err
}

// measure counts what a folder of this machine holds and what of it cannot be
// protected, and says so as it goes.
func (d *dashboard) measure(w http.ResponseWriter, r *http.Request) {
	path, err := refOf(r, "path")
	if err == nil && !filepath.IsAbs(path) {
		err = wrong("%q is no full path", path)
	}
	var rules *exclude.Rules
	if err == nil {
		rules, err = exclude.Compile(d.excludes())
	}
	if err != nil {
		d.respond(w, r, nil, err)
		return
	}
	out := newStream(w)
	m := measured{Problems: []localapi.Problem{}}
	problem := func(p *facts.Problem) {
		m.Unreadable++
		if len(m.Problems) < maxShown {
			text, raw := localapi.Text(p.Path)
			m.Problems = append(m.Problems, localapi.Problem{Path: text, PathBytes: raw, Reason: p.Reason, Fix: p.Fix})
		}
	}
	_, err = scan.Root(r.Context(), path, scan.Options{
		Exclude: rules.Entry(),
		Found: func(entries []scan.Entry) error {
			for _, e := range entries {
				switch e.Facts.Type {
				case facts.Regular:
					m.Files++
					m.Bytes += e.Facts.Size
				case facts.Directory, facts.Symlink:
				default:
					m.Special++
				}
			}
			return out.tell(m, false)
		},
		Problem: func(p *facts.Problem) error { problem(p); return nil },
	})
	if p, ok := errors.AsType[*facts.Problem](err); ok {
		problem(p)
	} else if err != nil {
		return // nobody listens any more
	}
	m.Done = true
	_ = out.tell(m, true)
}

// excludes are the patterns in force, none where nothing is set up.
func (d *dashboard) excludes() []string {
	c, err := config.Load(d.o.Folder)
	if err != nil {
		return nil
	}
	return c.Excludes
}

// joining is what a person said on the first page.
type joining struct {
	Invitation string `json:"invitation"`
	Name       string `json:"name"`
	Folders    []ref  `json:"folders"`
	// Words is the recovery phrase, or a whole kit, of a vault that exists.
	Words string `json:"words"`
}

// joinedView says what came of it.
type joinedView struct {
	Server string `json:"server"`
	Device string `json:"device"`
	// NeedsMember: a code from another machine is needed, or the recovery phrase.
	NeedsMember bool `json:"needs_member"`
}

// join sets this machine up, as "agent join" does; the kit of a new vault is kept
// until it is confirmed.
func (d *dashboard) join(ctx context.Context, in joining) (joinedView, error) {
	if d.setup() == "done" {
		return joinedView{}, wrong("this machine is set up already; to have it trust another server: agent join INVITATION")
	}
	invitation, err := v4.ParseInvitation(in.Invitation)
	if err != nil {
		return joinedView{}, fault{http.StatusBadRequest, err}
	}
	name, err := enrol.Name(d.o.Folder)
	if err != nil {
		return joinedView{}, err
	}
	if name = cmp.Or(name, strings.TrimSpace(in.Name)); name == "" {
		return joinedView{}, wrong("say what this machine is to be called")
	}
	j := enrol.Joining{
		Folder: d.o.Folder, Invitation: invitation, Name: name, Log: d.o.Log,
		Keep: func(kit vault.Kit) error { return enrol.KeepKit(d.o.Folder, kit) },
	}
	for _, p := range in.Folders {
		path, err := existing(string(p))
		if err != nil {
			return joinedView{}, err
		}
		j.Paths = append(j.Paths, path)
	}
	if strings.TrimSpace(in.Words) != "" {
		kit, err := vault.ParseKit([]byte(in.Words))
		if err != nil {
			return joinedView{}, fault{http.StatusBadRequest, err}
		}
		j.Kit = &kit
	} else if kit, _, err := enrol.PendingKit(d.o.Folder); err == nil {
		// Joining was broken off when the kit had just been kept.
		j.Kit = &kit
	} else if !errors.Is(err, fs.ErrNotExist) {
		return joinedView{}, err
	}
	done, err := enrol.Join(ctx, j)
	if err != nil && !errors.Is(err, enrol.ErrNeedsMember) {
		return joinedView{}, err
	}
	d.readers.forget()
	return joinedView{Server: done.Address, Device: done.Device.Name, NeedsMember: err != nil}, nil
}

// existing is a path of this machine as the server will know it, which is there: what
// lies in a folder that is reached through a link is known where it is.
func existing(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", wrong("%q is no full path", path)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fault{http.StatusNotFound, err}
	}
	path = filepath.Clean(path)
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// pair makes this machine a member with the code that another one shows, as "agent
// pair CODE" does.
func (d *dashboard) pair(ctx context.Context, in struct {
	Code string `json:"code"`
}) (struct{}, error) {
	var none struct{}
	code, err := v4.ParsePairingCode(in.Code)
	if err != nil {
		return none, fault{http.StatusBadRequest, err}
	}
	c, err := config.Load(d.o.Folder)
	if err != nil {
		return none, err
	}
	dev, err := device.Load(d.o.Folder)
	if err != nil {
		return none, err
	}
	if dev.Vault != (vault.ID{}) {
		return none, wrong("this machine is a member already")
	}
	s, err := client.Dial(ctx, client.Options{Address: c.Address, Pin: dev.Pin, Key: dev.Identity.TLS(), Log: d.o.Log})
	if err != nil {
		return none, err
	}
	defer s.Close()
	if err := enrol.Pair(ctx, s, d.o.Folder, &dev, code); err != nil {
		return none, fmt.Errorf("pair: %w", err)
	}
	return none, nil
}
