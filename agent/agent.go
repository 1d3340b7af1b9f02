// Package agent keeps a second copy of folders on a server: it learns that a file
// changed, waits until it rests, reads it whole, sends it, and remembers what the
// server has acknowledged.
//
// The one invariant: the catalog says of a file that it is safe only after the
// server has acknowledged the very content whose facts are noted. Everything else,
// queue and hints, lives in memory and is found again by comparing the catalog with
// the disk, so a crash at any moment repeats work and skips none.
//
// Enter at [Run], which goes on until its context ends, or [Backup], one pass.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"backstay/agent/bootmark"
	"backstay/agent/catalog"
	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/exclude"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// Errors that callers branch on.
var (
	// ErrUnreachable: the server cannot be reached, or does not let this
	// machine in.
	ErrUnreachable = errors.New("the server cannot be reached")
	// ErrOutOfScope: a path that is named for a backup lies below no line of
	// transfer.info.
	ErrOutOfScope = errors.New("not in transfer.info")
	// ErrRunning: another agent works on the same state folder.
	ErrRunning = errors.New("another agent is running")
)

// Options say what an agent works on.
type Options struct {
	// Folder is the config folder, absolute. It holds transfer.info and takes
	// the machine's identity.
	Folder string
	// State is the state folder, absolute; it is made if it is missing.
	State string
	// Protocol is the version to speak with the server, 3 or 4.
	Protocol int
	// Await: where the agent is not set up, or its files cannot be understood, Run
	// says so on the local socket and begins when that has changed. Default: it
	// returns the error.
	Await bool
	// Shared: other users of this machine may ask for the status. Takes root.
	Shared bool
	// Log takes file names at debug level only. Default: discarded.
	Log *slog.Logger
	// Events is told what happens, one call at a time; the agent waits for it
	// to return. Default: nobody.
	Events func(Event)
}

// Kind says what an [Event] is about.
type Kind int

// The kinds of events.
const (
	// Connected: a session with the server, Text, has begun.
	Connected Kind = iota + 1
	// Offline: the server cannot be reached; Text says why. Told once until
	// the next Connected.
	Offline
	// Planned: Size bytes in Path are to be sent. Backup only.
	Planned
	// Sent: Size more bytes were read and handed to the connection. Where a
	// file has to be sent again they are taken back by a negative Size.
	Sent
	// Safe: the server has acknowledged Path, Size bytes.
	Safe
	// Problem: Path is not protected; Text says why and what to do. Solved: it
	// is no problem any more.
	Problem
	Solved
	// Settled: nothing is left to look at or to send. Size counts the problems
	// that remain.
	Settled
	// Notice: Text is for a person to know.
	Notice
)

// Event is one thing that happened.
type Event struct {
	Kind Kind
	// Path is absolute, as raw bytes.
	Path string
	Size int64
	Text string
}

// agent is what Run and Backup share.
type agent struct {
	o    Options
	log  *slog.Logger
	cat  *catalog.Catalog
	lock *flock.Flock

	// tellExcluded is told how much of a root the rules exclude; nil: nobody.
	tellExcluded func(root string, n int)

	// crashed is when the system was booted after it had stopped under a running
	// agent; zero if it had not, or a person has answered for it.
	crashed time.Time

	telling sync.Mutex // makes Events one call at a time

	// changed rings when what Status says may have changed; sent measures the rate.
	changed bell
	sent    meter

	mu    sync.Mutex // guards what follows
	cfg   config.Config
	roots []root
	// id is this machine for protocol 3, device for protocol 4; the other is
	// nil.
	id       *identityFile
	device   *device.Device
	problems map[string]problem
	// clocks says that this machine's clock and the server's are far apart; nil if
	// they are not.
	clocks error
	// dest is the destination that destName names, nil before it was asked for.
	dest     *catalog.Destination
	destName string
	// acks were given by dest and are not in the catalog yet: a crash that
	// loses them costs sending these files again.
	acks []catalog.Version
}

// ackBatch is how many acknowledgements are noted in one transaction.
const ackBatch = 256

// root is a line of transfer.info as it is in force.
type root struct {
	path  string
	rules *exclude.Rules
}

// problem is a path that is not protected.
type problem struct {
	*facts.Problem
	// sending: found when the file was sent, so a scan that finds nothing
	// wrong with it does not solve it.
	sending bool
}

// open takes the state folder and reads everything that a person or an earlier run
// left.
func open(ctx context.Context, o Options) (_ *agent, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &agent{o: o, log: o.Log, problems: map[string]problem{}}
	if err := a.load(); err != nil {
		return nil, err
	}
	if a.lock, err = lock(o.State); err != nil {
		return nil, err
	}
	if a.crashed, err = bootmark.Set(o.State); err == nil {
		a.cat, err = catalog.Open(ctx, o.State, o.Log)
	}
	if err != nil {
		return nil, errors.Join(err, a.lock.Close())
	}
	a.cat.OnUpdate(a.changed.ring)
	if !a.crashed.IsZero() {
		a.log.Warn("the system stopped while the agent ran; files that are empty since are held back")
	}
	return a, nil
}

// load reads what a person, or an earlier run, left in the config folder.
func (a *agent) load() (err error) {
	if a.cfg, err = config.Load(a.o.Folder); err != nil {
		return err
	}
	if a.roots, err = rootsOf(a.cfg); err != nil {
		return err
	}
	switch a.o.Protocol {
	case 3:
		a.id, err = loadIdentity(a.o.Folder, a.cfg.Name, a.log)
	case 4:
		var d device.Device
		if d, err = device.Load(a.o.Folder); err == nil && d.Vault == (vault.ID{}) {
			err = enrol.ErrNeedsMember
		}
		a.device = &d
	default:
		err = fmt.Errorf("protocol %d: only 3 and 4 are spoken", a.o.Protocol)
	}
	return err
}

// lock takes a state folder, which is made if it is missing, for one agent.
func lock(state string) (*flock.Flock, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	l := flock.New(filepath.Join(state, "lock"))
	if ok, err := l.TryLock(); err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	} else if !ok {
		return nil, fmt.Errorf("%w on %s; end it, or give this one a --state folder of its own", ErrRunning, state)
	}
	return l, nil
}

func (a *agent) close() error {
	// Also when the context that ended the run is over.
	err := errors.Join(a.noteAcks(context.Background()), a.cat.Close())
	if a.crashed.IsZero() {
		err = errors.Join(err, bootmark.Clear(a.o.State))
	}
	return errors.Join(err, a.lock.Close())
}

// rootsOf compiles what a configuration protects. A root that is a symbolic link
// stands for what it points to now.
func rootsOf(c config.Config) ([]root, error) {
	rules, err := exclude.Compile(c.Excludes)
	if err != nil {
		return nil, err
	}
	var roots []root
	for _, p := range c.Roots {
		if target, err := filepath.EvalSymlinks(p); err == nil {
			p = target
		}
		roots = append(roots, root{p, rules})
	}
	return roots, nil
}

func (a *agent) tell(e Event) {
	if e.Kind == Sent {
		a.sent.add(e.Size, time.Now())
		a.changed.ring()
	}
	a.telling.Lock()
	defer a.telling.Unlock()
	if a.o.Events != nil {
		a.o.Events(e)
	}
}

func (a *agent) config() config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

func (a *agent) rootsNow() []root {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.roots
}

// destination is where acknowledgements come from: another server, or the same one
// knowing this machine under another id, has nothing yet. The name tells it from
// every other.
func (a *agent) destination(ctx context.Context) (*catalog.Destination, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var name string
	if a.device != nil {
		name = a.device.Destination()
	} else if name = "v3:" + a.cfg.Address + "/"; a.id.id != nil {
		name += a.id.id.ID.String()
	}
	if a.dest == nil || name != a.destName {
		if err := a.noteAcksLocked(ctx); err != nil {
			return nil, "", err
		}
		d, err := a.cat.Destination(ctx, name)
		if err != nil {
			return nil, "", err
		}
		a.dest, a.destName = d, name
	}
	return a.dest, a.destName, nil
}

// acknowledged notes that the destination has a version, soon.
func (a *agent) acknowledged(ctx context.Context, v catalog.Version) error {
	if _, _, err := a.destination(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acks = append(a.acks, v)
	if len(a.acks) < ackBatch {
		return nil
	}
	return a.noteAcksLocked(ctx)
}

// holds says whether the destination has acknowledged a file as it is now.
func (a *agent) holds(ctx context.Context, path string, f facts.Facts) (bool, error) {
	dest, _, err := a.destination(ctx)
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	i := slices.IndexFunc(a.acks, func(v catalog.Version) bool { return v.Path == path && v.Facts.Same(f) })
	a.mu.Unlock()
	if i >= 0 {
		return true, nil
	}
	v, err := dest.Version(ctx, path)
	if errors.Is(err, catalog.ErrUnknown) {
		return false, nil
	}
	return err == nil && v.State == catalog.Present && !v.Fuzzy && v.Facts.Same(f), err
}

// noteAcks writes down what was acknowledged.
func (a *agent) noteAcks(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.noteAcksLocked(ctx)
}

func (a *agent) noteAcksLocked(ctx context.Context) error {
	if len(a.acks) == 0 {
		return nil
	}
	if err := a.dest.Acknowledge(ctx, a.acks); err != nil {
		return err
	}
	a.acks = a.acks[:0]
	return nil
}

// report notes a problem and tells of it unless it is known.
func (a *agent) report(p *facts.Problem, sending bool) {
	a.mu.Lock()
	old, known := a.problems[p.Path]
	a.problems[p.Path] = problem{p, sending}
	a.mu.Unlock()
	a.changed.ring()
	if !known || old.Reason != p.Reason {
		a.log.Debug("not protected", "path", p.Path, "reason", p.Reason)
		a.tell(Event{Kind: Problem, Path: p.Path, Text: text(p)})
	}
}

// solve forgets a path's problem.
func (a *agent) solve(path string) {
	a.mu.Lock()
	_, known := a.problems[path]
	delete(a.problems, path)
	a.mu.Unlock()
	if known {
		a.changed.ring()
		a.tell(Event{Kind: Solved, Path: path})
	}
}

// solveWhere forgets the problems that match.
func (a *agent) solveWhere(match func(path string, p problem) bool) {
	a.mu.Lock()
	var solved []string
	for path, p := range a.problems {
		if match(path, p) {
			solved = append(solved, path)
		}
	}
	a.mu.Unlock()
	for _, path := range solved {
		a.solve(path)
	}
}

// everything is what the catalog knows, except that nothing is as it was.
type everything struct{ scan.Known }

// Match implements scan.Known.
func (e everything) Match(path []byte, f facts.Facts) bool {
	e.Known.Match(path, f)
	return false
}

// look compares a root, or the paths named in it, with the catalog. found is given
// every path that differs, or with all every path; gone those that are no longer
// there or no longer in scope. Protocol 3 knows files only, and is not told of what
// is gone.
func (a *agent) look(ctx context.Context, r root, paths []string, all bool, found func([]scan.Entry) error, gone func(vault.Op, []string)) error {
	dest, _, err := a.destination(ctx)
	if err != nil {
		return err
	}
	if err := a.noteAcks(ctx); err != nil {
		return err
	}
	volume, err := a.cat.Volume(ctx, r.path)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	o := scan.Options{
		Known: func(ctx context.Context, path string) (scan.Known, error) {
			known, err := dest.Known(ctx, path)
			if all && err == nil {
				return everything{known}, nil
			}
			return known, err
		},
		Exclude:   r.rules.Entry(),
		FilesOnly: a.o.Protocol == 3,
		Volume:    volume,
		Found: func(entries []scan.Entry) error {
			entries, err := a.emptied(ctx, dest, entries, seen)
			if err != nil {
				return err
			}
			if a.o.Protocol == 4 {
				return found(entries)
			}
			// All names in one transaction, rather than one at every send.
			paths := make([]string, len(entries))
			for i, e := range entries {
				paths[i] = e.Path
			}
			if _, err := a.cat.NamesV3(ctx, r.path, paths); err != nil {
				return err
			}
			return found(entries)
		},
		Missing: func(missing []scan.Missing) error {
			var deleted, excluded []string
			for _, m := range missing {
				a.solve(m.Path)
				if m.Excluded {
					excluded = append(excluded, m.Path)
				} else {
					deleted = append(deleted, m.Path)
				}
			}
			if a.o.Protocol == 4 {
				gone(vault.OpDelete, deleted)
				gone(vault.OpOutOfScope, excluded)
				return nil
			}
			now := time.Now()
			if err := dest.Retire(ctx, catalog.Gone, now, deleted); err != nil {
				return err
			}
			return dest.Retire(ctx, catalog.Excluded, now, excluded)
		},
		Problem: func(p *facts.Problem) error {
			seen[p.Path] = true
			a.report(p, false)
			return nil
		},
	}
	start := time.Now()
	var result scan.Result
	if paths == nil {
		result, err = scan.Root(ctx, r.path, o)
	} else {
		result, err = scan.Paths(ctx, r.path, paths, o)
	}
	if p, ok := errors.AsType[*facts.Problem](err); ok {
		seen[p.Path] = true
		a.report(p, false)
		err = nil
		// What is below a root that cannot be trusted is not known to be well.
		if paths == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	if paths == nil {
		paths = []string{r.path}
		if a.tellExcluded != nil {
			a.tellExcluded(r.path, result.Excluded)
		}
		a.log.Info("scanned", "files", result.ByType[facts.Regular], "bytes", result.Bytes, "changed", result.Found,
			"problems", result.Problems, "took", time.Since(start).Round(time.Millisecond).String())
		if err := a.cat.SetVolume(ctx, r.path, result.Volume); err != nil {
			return err
		}
	}
	a.solveWhere(func(path string, p problem) bool {
		if p.sending || seen[path] {
			return false
		}
		for _, looked := range paths {
			if below(looked, path) {
				return true
			}
		}
		return false
	})
	return nil
}

// emptied holds back the files that lost all their content when the system stopped
// while they were written, and reports them: an empty file would be taken for what
// its owner wanted. What is changed after the boot is not held back.
func (a *agent) emptied(ctx context.Context, dest *catalog.Destination, entries []scan.Entry, seen map[string]bool) ([]scan.Entry, error) {
	a.mu.Lock()
	crashed := a.crashed
	a.mu.Unlock()
	if crashed.IsZero() {
		return entries, nil
	}
	var kept []scan.Entry
	for _, e := range entries {
		if e.Facts.Type == facts.Regular && e.Facts.Size == 0 && e.Facts.MTime < crashed.UnixNano() {
			known, err := dest.Current(ctx, []string{e.Path})
			if err != nil {
				return nil, err
			}
			if known[0].State == catalog.Present && known[0].Facts.Size > 0 {
				seen[e.Path] = true
				a.report(&facts.Problem{
					Path: e.Path, Err: errEmptied, Reason: "it lost its content when the system stopped unexpectedly; the version before is safe on the server",
					Fix: "get that back: agent restore --overwrite; or, if it is empty on purpose: agent problems --acknowledge",
				}, false)
				continue
			}
		}
		kept = append(kept, e)
	}
	return kept, nil
}

// errEmptied: see emptied.
var errEmptied = errors.New("empty since the system stopped")

// below says whether path is dir or lies in it.
func below(dir, path string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == filepath.Separator || strings.HasSuffix(dir, string(filepath.Separator)))
}

// text is a problem in one line without its path.
func text(p *facts.Problem) string { return p.Reason + "; " + p.Fix }
