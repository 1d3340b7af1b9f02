package cmd_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"backstay/agent"
	"backstay/agent/enrol"
	"backstay/agent/history"
	"backstay/agent/restore"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server"
	"backstay/server/admin"
)

// TestAnyMoment does random things to folders and to what is protected of them,
// backs up now and then, and notes what was there each time. At the end every
// moment must come back as it was, in restores, listings and histories. It runs in
// one process, to try as much as it can. -rapid.checks says how often (default 40,
// or 10 with the race detector).
func TestAnyMoment(t *testing.T) {
	checks := "40"
	if raceEnabled {
		checks = "10"
	}
	explicit := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { explicit[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		if f := flag.Lookup(name); !explicit[name] {
			before := f.Value.String()
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
			defer f.Value.Set(before)
		}
	}
	histories, moments, out := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "backstay-property-")
		if err == nil {
			defer os.RemoveAll(dir)
			dir, err = filepath.EvalSymlinks(dir)
		}
		if err != nil {
			rt.Fatal(err)
		}
		m := &machine{T: rt, ctx: t.Context(), dir: dir, listed: true, known: map[string]bool{}}
		defer m.serve()()
		m.backup()
		rt.Repeat(map[string]func(*rapid.T){
			"write":    m.write,
			"append":   m.append,
			"truncate": m.truncate,
			"rename":   m.rename,
			"remove":   m.remove,
			"mkdir":    m.mkdir,
			"symlink":  m.symlink,
			"chmod":    m.chmod,
			"touch":    m.touch,
			"scope":    m.scope,
			"backup":   func(*rapid.T) { m.backup() },
		})
		m.backup()
		histories++
		moments += m.check()
		for _, moment := range m.moments {
			out += min(1, len(moment.out))
		}
	})
	t.Logf("%d histories, %d moments, %d with paths out of scope", histories, moments, out)
}

// thing is what stands at a path.
type thing struct {
	mode    fs.FileMode
	changed time.Time
	content string // or where a link points
}

func (a thing) equal(b thing) bool {
	return a.mode == b.mode && a.changed.Equal(b.changed) && a.content == b.content
}

// moment is what a restore as of a time has to give.
type moment struct {
	at   time.Time
	tree map[string]thing
	// out are the paths in tree that were no longer protected.
	out map[string]bool
}

// machine is one history under test. Its folder docs/a is protected always, docs/b
// while it is listed, and neither what begins with "skip" while that is excluded.
type machine struct {
	*rapid.T
	ctx              context.Context
	addr, dir        string
	listed, excluded bool

	moments []moment
	known   map[string]bool // every path that was ever protected
}

// serve starts a server and makes the machine a device; it returns what ends it.
func (m *machine) serve() (end func()) {
	c := server.DefaultConfig()
	c.Listen, c.Metrics, c.V3 = "127.0.0.1:0", "off", server.V3Off
	s, err := server.Open(m.ctx, server.Options{Data: filepath.Join(m.dir, "data"), Config: c})
	if err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.ctx)
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	end = func() {
		cancel()
		if err := errors.Join(<-served, s.Close()); err != nil {
			m.Error(err)
		}
	}
	addr := s.Addr(ctx)
	if addr != nil {
		m.addr = addr.String()
		err = m.join(s)
	}
	if err != nil || addr == nil {
		end()
		m.Fatalf("address %v: %v", addr, err)
	}
	return end
}

func (m *machine) join(s *server.Server) error {
	// A folder of transfer.info that is empty is a problem, not a deletion of all.
	for _, file := range []string{"a/always", "a/d/f", "a/skip d/f", "a/skip d/d/f", "b/always", "b/skip f"} {
		err := os.MkdirAll(filepath.Dir(m.path(file)), 0o755)
		if err == nil {
			err = os.WriteFile(m.path(file), []byte(file), 0o644)
		}
		if err != nil {
			return err
		}
	}
	made, err := s.Invite(m.ctx, admin.InviteOptions{Account: "anna", TTL: time.Hour, Address: m.addr})
	if err != nil {
		return err
	}
	invitation, err := v4.ParseInvitation(made.Invitation)
	if err != nil {
		return err
	}
	_, err = enrol.Join(m.ctx, enrol.Joining{
		Folder: m.conf(), Invitation: invitation, Name: "desk", Paths: []string{m.path("a"), m.path("b")},
		Keep: func(vault.Kit) error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	return err
}

func (m *machine) conf() string { return filepath.Join(m.dir, "conf") }

// path is where something of docs is.
func (m *machine) path(rel string) string {
	return filepath.Join(m.dir, "docs", filepath.FromSlash(rel))
}

var (
	somewhere = rapid.SampledFrom([]string{"a", "a", "b", "a/d", "a/skip d"})
	something = rapid.SampledFrom([]string{"f", "skip f", "d", "skip d"})
	somewhat  = rapid.Custom(func(t *rapid.T) string {
		size := rapid.SampledFrom([]int{0, 1, 100, 5000, 300_000}).Draw(t, "size")
		return strings.Repeat(rapid.StringMatching(`[a-z]{8}`).Draw(t, "text"), size/8+1)[:size]
	})
)

// any draws a path below docs that need not exist.
func (m *machine) any(t *rapid.T) string {
	return m.path(somewhere.Draw(t, "in") + "/" + something.Draw(t, "name"))
}

// What cannot be done, because something is not there or in the way, is not done.

func (m *machine) write(t *rapid.T) {
	os.WriteFile(m.any(t), []byte(somewhat.Draw(t, "content")), 0o644)
}

func (m *machine) append(t *rapid.T) {
	if f, err := os.OpenFile(m.any(t), os.O_WRONLY|os.O_APPEND, 0); err == nil {
		f.WriteString(somewhat.Draw(t, "more"))
		f.Close()
	}
}

func (m *machine) truncate(t *rapid.T) {
	os.Truncate(m.any(t), rapid.Int64Range(0, 6000).Draw(t, "to"))
}
func (m *machine) rename(t *rapid.T) { os.Rename(m.any(t), m.any(t)) }
func (m *machine) remove(t *rapid.T) { os.RemoveAll(m.any(t)) }
func (m *machine) mkdir(t *rapid.T)  { os.Mkdir(m.any(t), 0o755) }

func (m *machine) symlink(t *rapid.T) {
	os.Symlink(rapid.SampledFrom([]string{"f", "../a", "nowhere", "/etc"}).Draw(t, "target"), m.any(t))
}

func (m *machine) chmod(t *rapid.T) {
	path := m.any(t)
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		mode := rapid.SampledFrom([]fs.FileMode{0o700, 0o755, 0o744}).Draw(t, "mode")
		os.Chmod(path, mode)
	}
}

func (m *machine) touch(t *rapid.T) {
	path := m.any(t)
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		at := time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		os.Chtimes(path, at, at)
	}
}

// scope changes what is protected.
func (m *machine) scope(t *rapid.T) {
	m.listed, m.excluded = rapid.Bool().Draw(t, "b listed"), rapid.Bool().Draw(t, "skip excluded")
	lines := []string{m.addr, "desk", m.path("a")}
	if m.listed {
		lines = append(lines, m.path("b"))
	}
	if m.excluded {
		lines = append(lines, "!skip*")
	}
	if err := os.WriteFile(filepath.Join(m.conf(), "transfer.info"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// protected says whether transfer.info asks for a path, relative to docs.
func (m *machine) protected(rel string) bool {
	return (m.listed || rel != "b" && !strings.HasPrefix(rel, "b/")) && !(m.excluded && strings.Contains("/"+rel, "/skip"))
}

// gone says whether the way to a path that is no longer protected ends before
// anything excluded.
func (m *machine) gone(rel string, disk map[string]thing) bool {
	if strings.HasPrefix(rel, "b/") && !m.listed {
		return false
	}
	for i, c := range rel + "/" {
		if c != '/' {
			continue
		}
		above := rel[:i]
		if it, ok := disk[above]; !ok || i < len(rel) && !it.mode.IsDir() && !strings.HasPrefix(filepath.Base(above), "skip") {
			return i == len(rel) || !strings.HasPrefix(filepath.Base(above), "skip")
		}
		if m.excluded && strings.HasPrefix(filepath.Base(above), "skip") {
			return false
		}
	}
	return false
}

// covered says whether a path above one is protected and no folder: then the path is
// gone, whether or not anybody looks for it.
func (m *machine) covered(rel string, disk map[string]thing) bool {
	for i, c := range rel {
		if c != '/' {
			continue
		}
		if above, ok := disk[rel[:i]]; ok && m.protected(rel[:i]) && !above.mode.IsDir() {
			return true
		}
	}
	return false
}

// backup backs up and notes what must be had back from now on.
func (m *machine) backup() {
	report, err := agent.Backup(m.ctx, agent.Options{Folder: m.conf(), State: filepath.Join(m.dir, "state"), Protocol: 4}, nil)
	if err != nil || len(report.Problems) > 0 {
		m.Fatalf("backup: %v, %v", err, report.Problems)
	}
	now := moment{tree: map[string]thing{}, out: map[string]bool{}}
	disk := m.look(m.path("."))
	for rel, it := range disk {
		if m.protected(rel) {
			now.tree[rel], m.known[rel] = it, true
		}
	}
	if len(m.moments) > 0 {
		before := m.moments[len(m.moments)-1]
		for rel, it := range before.tree {
			// What was excluded stays as it was last until it is there and
			// protected again. What is protected no longer stays unless it is
			// seen to be gone; nobody looks into what is excluded.
			_, there := disk[rel]
			if m.covered(rel, disk) {
				continue
			}
			if before.out[rel] && !(there && m.protected(rel)) || !before.out[rel] && !m.protected(rel) && !m.gone(rel, disk) {
				now.tree[rel], now.out[rel] = it, true
			}
		}
	}
	r := m.reader()
	defer r.Close()
	head, err := r.Session.Head(m.ctx, r.Device.Identity.ID(), time.Time{})
	if err != nil {
		m.Fatal(err)
	}
	stamp, err := vault.ParseStamp(head.Stamp)
	if err != nil {
		m.Fatal(err)
	}
	now.at = stamp.Time
	m.moments = append(m.moments, now)
}

func (m *machine) reader() *history.Reader {
	r, err := history.Open(m.ctx, m.conf(), slog.New(slog.DiscardHandler))
	if err != nil {
		m.Fatal(err)
	}
	return r
}

// look returns everything below a folder, by its path there.
func (m *machine) look(dir string) map[string]thing {
	all := map[string]thing{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		it := thing{mode: info.Mode(), changed: info.ModTime()}
		switch {
		case d.Type().IsRegular():
			var content []byte
			content, err = os.ReadFile(path)
			it.content = string(content)
		case d.Type()&fs.ModeSymlink != 0:
			it.content, err = os.Readlink(path)
		}
		all[filepath.ToSlash(path[len(dir)+1:])] = it
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	return all
}

// check asks for some moments, and for the time just before the next one.
func (m *machine) check() int {
	r := m.reader()
	defer r.Close()
	checked := 0
	last := len(m.moments) - 1
	for i, want := range m.moments {
		at := want.at
		if i < last {
			if m.moments[i+1].at.Equal(at) {
				continue // nothing had changed
			}
			if i%3 == 1 {
				continue
			}
		}
		checked++
		m.restored(r, want, at, i)
		m.listedAt(r, want)
	}
	m.histories(r)
	return checked
}

// restored restores everything as of a time and compares it.
func (m *machine) restored(r *history.Reader, want moment, at time.Time, i int) {
	me := r.Device.Identity.ID()
	moment, err := restore.Query{Device: me, Members: r.Members, Pin: r.Device.Pin}.Open(m.ctx, r.Session, at)
	if err != nil {
		m.Fatal(err)
	}
	if !moment.Time.Equal(at) {
		m.Fatalf("asked for %v, got %v", at, moment.Time)
	}
	state, err := restore.ReadState(m.ctx, r.Session, moment)
	if err != nil {
		m.Fatal(err)
	}
	all, err := state.All()
	if err != nil {
		m.Fatal(err)
	}
	to := filepath.Join(m.dir, fmt.Sprintf("out %d", i))
	report, err := restore.Run(m.ctx, r.Session, all, restore.Options{Keys: r.Keys, To: to})
	if err != nil || len(report.Failed) > 0 {
		m.Fatalf("moment %d: restore: %v, %+v", i, err, report.Failed)
	}
	top := strings.TrimPrefix(m.path("."), filepath.VolumeName(m.dir))
	got := m.look(filepath.Join(to, top))
	// Where something took the place of a folder of which something is kept, one of
	// the two cannot have the name.
	for _, renamed := range report.Renamed {
		rel, ok := strings.CutPrefix(filepath.ToSlash(renamed.Path), filepath.ToSlash(strings.TrimPrefix(top, string(filepath.Separator)))+"/")
		if it := want.tree[rel]; !ok || it.mode.IsDir() || !m.above(rel, want) {
			m.Errorf("moment %d: %s is called %s", i, renamed.Path, renamed.Name)
			continue
		}
		name := path.Join(path.Dir(rel), renamed.Name)
		got[rel] = got[name]
		delete(got, name)
	}
	for _, rel := range slices.Sorted(maps.Keys(want.tree)) {
		g, ok := got[rel]
		if !ok {
			m.Errorf("moment %d: %s is missing", i, rel)
		} else if w := want.tree[rel]; !g.equal(w) && !(g.mode&fs.ModeSymlink != 0 && g.mode == w.mode && g.content == w.content && runtime.GOOS == "windows") {
			m.Errorf("moment %d: %s is %v %v %.20q of %d, should be %v %v %.20q of %d", i, rel, g.mode, g.changed, g.content, len(g.content), w.mode, w.changed, w.content, len(w.content))
		}
	}
	for rel := range got {
		// A folder of which only something excluded is left has to be there, too.
		if _, ok := want.tree[rel]; !ok && !m.above(rel, want) {
			m.Errorf("moment %d: %s should not be there", i, rel)
		}
	}
	if n := len(want.out); int(report.OutOfScope) != n {
		m.Errorf("moment %d: %d paths were no longer protected, should be %d", i, report.OutOfScope, n)
	}
	if m.Failed() {
		m.FailNow()
	}
}

// above says whether something is to be below a path.
func (m *machine) above(rel string, want moment) bool {
	for other := range want.tree {
		if strings.HasPrefix(other, rel+"/") {
			return true
		}
	}
	return false
}

// listedAt lists every folder as of a moment.
func (m *machine) listedAt(r *history.Reader, want moment) {
	for _, folder := range []string{"a", "b", "a/d", "a/d/d", "a/skip d", "a/skip d/d", "b/d"} {
		children, err := r.Children(m.ctx, m.path(folder), want.at)
		if err != nil {
			m.Fatal(err)
		}
		var got, should []string
		for _, v := range children {
			if v.Op != vault.OpDelete {
				got = append(got, filepath.Base(string(v.Name)))
			}
		}
		for rel := range want.tree {
			if rest, ok := strings.CutPrefix(rel, folder+"/"); ok && !strings.Contains(rest, "/") {
				should = append(should, rest)
			}
		}
		slices.Sort(should)
		if !slices.Equal(got, should) {
			m.Fatalf("%s at %v: %q, should be %q", folder, want.at, got, should)
		}
	}
}

// histories compares the history of every path with all moments.
func (m *machine) histories(r *history.Reader) {
	for rel := range m.known {
		versions, err := r.Of(m.ctx, m.path(rel))
		if err != nil {
			m.Fatal(err)
		}
		for i, want := range m.moments {
			at := slices.IndexFunc(versions, func(v history.Version) bool { return !v.Time.After(want.at) })
			w, there := want.tree[rel]
			switch {
			case at < 0 || versions[at].Op == vault.OpDelete:
				if there {
					m.Fatalf("moment %d: the history of %s has nothing", i, rel)
				}
			case !there:
				m.Fatalf("moment %d: the history of %s has a version of %v", i, rel, versions[at].Time)
			case (versions[at].Op == vault.OpOutOfScope) != want.out[rel]:
				m.Fatalf("moment %d: %s is said to be out of scope: %v", i, rel, !want.out[rel])
			case versions[at].Op == vault.OpPut && w.mode.IsRegular() && versions[at].Size() != uint64(len(w.content)):
				m.Fatalf("moment %d: the history of %s has %d bytes, should be %d", i, rel, versions[at].Size(), len(w.content))
			}
		}
	}
}
