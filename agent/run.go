package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/localapi"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	"backstay/agent/settle"
	"backstay/agent/upload"
	"backstay/internal/backoff"
	"backstay/protocol/vault"
	"backstay/watcher"
)

const (
	// idleSession is how long a session is kept without anything to send:
	// long enough for the next save, shorter than what servers put up with.
	idleSession = 20 * time.Second
	// A root that cannot be trusted, because it is missing for example, is looked
	// at every retryRoot, other problems of reading every retryRead, and what
	// the server did not take every retrySend: it costs sending it.
	retryRoot = 5 * time.Second
	retryRead = time.Minute
	retrySend = 15 * time.Minute
	// fuzzyAfter is how often a file that changes while it is read is tried
	// in vain before a copy that may mix two states is better than none.
	fuzzyAfter = 3
)

// Run protects the folders of transfer.info until ctx ends; then it returns nil.
// The server being away is no reason to return; errors are those of starting
// ([config.ErrNotSetUp], [ErrRunning], files that cannot be understood) and of the
// catalog.
func Run(ctx context.Context, o Options) (err error) {
	if o.Await {
		if err := await(ctx, o); err != nil || ctx.Err() != nil {
			return err
		}
	}
	a, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &work{
		agent: a, queue: newQueue(a.changed.ring), sets: make(chan []watcher.Root, 1),
		settling: settle.New(settle.Options{Quiet: time.Duration(a.cfg.Settings.Settle)}),
		rescans:  map[string]string{}, torn: map[string]int{}, wake: make(chan struct{}, 1),
		excluded: map[string]int{}, gate: make(chan struct{}), redial: make(chan struct{}, 1),
		scanned: map[string]bool{}, refused: map[string]bool{},
	}
	a.tellExcluded = func(root string, n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.excluded[root] = n
		a.changed.ring()
	}
	w.watch(a.roots)
	var group sync.WaitGroup
	part := func(f func(context.Context) error) {
		group.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	part(func(ctx context.Context) error {
		return watcher.Run(ctx, w.sets, w, watcher.Options{PollInterval: time.Duration(a.cfg.Settings.Poll), Logger: a.log})
	})
	part(w.follow)
	part(w.plan)
	part(w.serve)
	if o.Protocol == 4 {
		part(w.upload)
	} else {
		part(w.send)
	}
	group.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// work is what Run's goroutines share: the watcher tells it what may have changed,
// plan finds out what has, send sends it.
type work struct {
	*agent
	queue *queue
	// sets takes the roots to watch.
	sets chan []watcher.Root
	// wake tells plan that there is something to do.
	wake chan struct{}

	settling *settle.Queue

	mu sync.Mutex // guards what follows
	// rescans holds the roots to scan and why.
	rescans map[string]string
	// torn counts, for each path, the reads in vain since its last safe one.
	torn map[string]int
	// busy counts scans and sends in progress.
	busy int
	// quiet: Settled was told and nothing has happened since.
	quiet bool
	// scanned are the roots that were scanned whole, and not found wanting.
	scanned map[string]bool
	// uploader is that of the session of protocol 4, nil while there is none.
	uploader *upload.Uploader
	// sending counts the items that were taken from the queue and are not done;
	// safeFiles and safeBytes what became safe since the start.
	sending   int
	safeFiles int
	safeBytes int64
	// excluded counts what the rules excluded in the last scan of each root.
	excluded map[string]int
	// offline says why there is no session; empty if there is one. failing is what a
	// person has to do something about before everything is safe; it stays until
	// what was refused, paths that were given back when a session ended, is done.
	offline string
	failing localapi.Problem
	refused map[string]bool
	// pause: nothing is sent until pausedUntil, or for good if that is zero.
	pause       bool
	pausedUntil time.Time
	// redial ends the session, and the wait for the next one.
	redial chan struct{}
	// gate is closed and replaced when pause changes.
	gate chan struct{}
	// waiters are called when everything has settled.
	waiters []func()
	// released is when memory was last given back; releasing: it will be.
	released  time.Time
	releasing bool
}

// watch hands a set of roots to the watcher; a set it has not taken yet is replaced.
func (w *work) watch(roots []root) {
	set := make([]watcher.Root, len(roots))
	for i, r := range roots {
		set[i] = watcher.Root{Path: r.path, Skip: func(path string, dir bool) bool { return r.rules.Match(r.path, path, dir) }}
	}
	select {
	case <-w.sets:
	default:
	}
	w.sets <- set
}

// Changed implements watcher.Sink.
func (w *work) Changed(root string, paths []string) {
	w.do(func() {
		for _, p := range paths {
			w.touch(root, p)
		}
	})
}

// Rescan implements watcher.Sink.
func (w *work) Rescan(root string, why watcher.Reason) {
	w.do(func() { w.rescans[root] = string(why) })
}

// State implements watcher.Sink.
func (w *work) State(root string, s watcher.State) {
	w.log.Info("watching", "mode", string(s.Mode), "watched", s.Watched, "polled", s.Polled)
	switch s.Mode {
	case watcher.Polling:
		w.tell(Event{Kind: Notice, Text: fmt.Sprintf("%s: changes are noticed late: %s", root, s.Why)})
	case watcher.Gone:
		// The scan says whether this is a problem, and which.
		w.Rescan(root, "gone")
	}
}

// do changes what is to be done and wakes plan.
func (w *work) do(f func()) {
	w.mu.Lock()
	f()
	w.quiet = false
	w.mu.Unlock()
	w.changed.ring()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// touch notes that a path may have changed; do holds the lock.
func (w *work) touch(root, path string) {
	if !w.settling.Touch(path, time.Now()) {
		w.rescans[root] = "more changes than can be kept"
	}
}

// begin and end frame a scan or a send, so that Settled is not told meanwhile.
func (w *work) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy++
	w.quiet = false
	w.changed.ring()
}

func (w *work) end() {
	w.mu.Lock()
	w.busy--
	settled := w.busy == 0 && !w.quiet && !w.queue.incomplete() && len(w.rescans) == 0 && w.settling.Waiting() == 0 && w.queue.len() == 0
	w.quiet = w.quiet || settled
	var waiters []func()
	if settled {
		waiters, w.waiters = w.waiters, nil
	}
	w.mu.Unlock()
	w.changed.ring()
	if !settled {
		return
	}
	w.drained()
	w.release()
	for _, f := range waiters {
		f()
	}
	w.agent.mu.Lock()
	problems := len(w.problems)
	w.agent.mu.Unlock()
	w.tell(Event{Kind: Settled, Size: int64(problems)})
}

const (
	// Memory is given back releaseAfter everything has settled, once in
	// releaseEvery at most: it costs a collection.
	releaseAfter = 5 * time.Second
	releaseEvery = time.Minute
)

// release gives the memory that a scan or a first pass took back to the system, soon:
// an agent spends its life waiting.
func (w *work) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.releasing {
		return
	}
	w.releasing = true
	time.AfterFunc(max(releaseAfter, releaseEvery-time.Since(w.released)), func() {
		w.mu.Lock()
		w.released, w.releasing = time.Now(), false
		w.mu.Unlock()
		debug.FreeOSMemory()
	})
}

// plan turns hints and reasons to scan into items to send.
func (w *work) plan(ctx context.Context) error {
	rescan := time.NewTimer(time.Duration(w.config().Settings.Rescan))
	defer rescan.Stop()
	retry := time.NewTicker(retryRoot)
	defer retry.Stop()
	read, sent := time.Now(), time.Now()
	for {
		w.mu.Lock()
		scans := w.rescans
		w.rescans = map[string]string{}
		due := w.settling.Due(time.Now())
		examine := len(scans)+len(due) > 0
		if examine { // before anybody sees that nothing waits any more
			w.busy++
			w.quiet = false
		}
		w.mu.Unlock()

		if examine {
			w.changed.ring()
			err := w.examine(ctx, scans, due)
			w.end()
			if err != nil {
				return err
			}
		}

		var settled <-chan time.Time
		if next, ok := w.settling.Next(); ok {
			settled = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-settled:
		case now := <-retry.C:
			readDue, sendDue := now.Sub(read) >= retryRead, now.Sub(sent) >= retrySend
			if readDue {
				read = now
			}
			if sendDue {
				sent = now
			}
			w.retry(readDue, sendDue)
			w.drained()
		case <-rescan.C:
			if err := w.reload(); err != nil {
				w.tell(Event{Kind: Notice, Text: err.Error()})
			}
			for _, r := range w.rootsNow() {
				w.Rescan(r.path, "interval")
			}
			rescan.Reset(time.Duration(w.config().Settings.Rescan))
		}
	}
}

// retry looks again at roots that have a problem and, if they are due, at what
// could not be read or sent.
func (w *work) retry(read, send bool) {
	w.agent.mu.Lock()
	problems := maps.Clone(w.problems)
	w.agent.mu.Unlock()
	for _, r := range w.rootsNow() {
		for path, p := range problems {
			switch {
			case path == r.path && !p.sending:
				w.Rescan(r.path, "it had a problem")
			case below(r.path, path) && (p.sending && send || !p.sending && read):
				w.do(func() { w.touch(r.path, path) })
			}
		}
	}
}

// examine scans roots and the paths that have settled.
func (w *work) examine(ctx context.Context, scans map[string]string, due []settle.Item) error {
	if len(scans) > 0 {
		dest, _, err := w.destination(ctx)
		if err == nil {
			err = w.unlisted(ctx, dest, w.queue)
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
	}
	for _, r := range w.rootsNow() {
		var err error
		if why, ok := scans[r.path]; ok {
			w.log.Debug("scan", "root", r.path, "why", why)
			err = w.look(ctx, r, nil, false, w.found(r, false), w.gone(r))
			if err == nil && !w.wanting(r.path) {
				w.mu.Lock()
				w.scanned[r.path] = true
				w.mu.Unlock()
			}
		}
		var paths []string
		for _, d := range due {
			if below(r.path, d.Path) {
				paths = append(paths, d.Path)
			}
		}
		if err == nil && len(paths) > 0 {
			err = w.look(ctx, r, paths, false, w.found(r, true), w.gone(r))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wanting says whether a root as a whole has a problem.
func (w *work) wanting(root string) bool {
	w.agent.mu.Lock()
	defer w.agent.mu.Unlock()
	_, ok := w.problems[root]
	return ok
}

// found returns what takes the files that differ from the catalog. A scan may come
// upon a file that is being written; one that has settled has waited already.
func (w *work) found(r root, settled bool) func([]scan.Entry) error {
	return func(entries []scan.Entry) error {
		now := time.Now()
		quiet := time.Duration(w.config().Settings.Settle)
		for _, e := range entries {
			age := now.Sub(time.Unix(0, e.Facts.MTime))
			if !settled && age >= 0 && age < quiet && e.Facts.Type == facts.Regular {
				w.do(func() { w.touch(r.path, e.Path) })
				continue
			}
			w.queue.add(item{root: r.path, path: e.Path, op: vault.OpPut, score: score(e.Facts.Size, age)})
			if settled {
				w.folder(r, e.Path)
			}
		}
		return nil
	}
}

// gone returns what takes the paths that are not there, or not in scope, any more.
func (w *work) gone(r root) func(vault.Op, []string) {
	return func(op vault.Op, paths []string) {
		for _, path := range paths {
			w.queue.add(item{root: r.path, path: path, op: op})
			if op == vault.OpDelete {
				w.folder(r, path)
			}
		}
	}
}

// folder sends the folder of a path that came, changed or went: its times may have
// changed with it, and no watcher says so.
func (w *work) folder(r root, path string) {
	if parent := filepath.Dir(path); w.o.Protocol == 4 && path != r.path && below(r.path, parent) {
		w.queue.add(item{root: r.path, path: parent, op: vault.OpPut})
	}
}

// send sends what is in the queue, and waits longer and longer while the server is
// away.
func (w *work) send(ctx context.Context) error {
	s := &sender{a: w.agent, known: w.holds}
	defer s.hangUp()
	var wait backoff.Backoff
	online := true
	_, dest, err := w.destination(ctx)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	// A server that does not know this machine any more is noticed at once, not
	// at the next change.
	if err := s.connect(ctx); err != nil && ctx.Err() == nil {
		online = false
		w.state(err.Error(), localapi.Problem{})
		w.tell(Event{Kind: Offline, Text: err.Error()})
	}
	for {
		if !w.unpaused(ctx) {
			return nil
		}
		it, ok, more := w.queue.take()
		if !ok {
			w.drained()
			if err := w.noteAcks(ctx); err != nil {
				return unlessEnded(ctx, err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-more:
			case <-time.After(idleSession):
				s.hangUp()
				select {
				case <-ctx.Done():
					return nil
				case <-more:
				}
			}
			continue
		}
		w.begin()
		err = s.connect(ctx)
		if err == nil {
			_, now, err := w.destination(ctx)
			if err != nil {
				w.end()
				return unlessEnded(ctx, err)
			}
			if now != dest {
				// Another server, or one that did not know this machine: what
				// was acknowledged elsewhere is not safe here.
				dest = now
				for _, r := range w.rootsNow() {
					w.Rescan(r.path, "another destination")
				}
			}
		}
		var out outcome
		switch {
		case err == nil:
			out, err = w.deliver(ctx, s, it)
			if err != nil {
				w.end()
				return unlessEnded(ctx, err)
			}
		case ctx.Err() == nil:
			out = offline
			w.state(err.Error(), localapi.Problem{})
			if online {
				online = false
				w.tell(Event{Kind: Offline, Text: err.Error()})
			}
		}
		if out != offline {
			online = true
			w.state("", localapi.Problem{})
			wait.Reset()
			w.queue.done(it.path)
			w.end()
			continue
		}
		w.queue.add(it)
		w.queue.done(it.path)
		w.end()
		delay := wait.Next()
		w.log.Info("offline", "retry_in", delay.Round(time.Millisecond).String(), "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// deliver sends one item and decides what is next for its path.
func (w *work) deliver(ctx context.Context, s *sender, it item) (outcome, error) {
	w.mu.Lock()
	fuzzy := w.torn[it.path] >= fuzzyAfter
	w.mu.Unlock()
	out, err := s.deliver(ctx, it, fuzzy)
	if err != nil || out == offline {
		return out, err
	}
	w.do(func() {
		switch out {
		case safe, failed:
			delete(w.torn, it.path)
		case restless:
			w.torn[it.path]++
			w.touch(it.root, it.path)
		}
	})
	return out, nil
}

// follow applies changes to the configuration while the agent runs.
func (w *work) follow(ctx context.Context) error {
	err := config.Follow(ctx, w.o.Folder, func() {
		if err := w.reload(); err != nil {
			w.tell(Event{Kind: Notice, Text: fmt.Sprintf("%v; what was in force before stays", err)})
		}
	}, device.MeFile, device.VaultFile)
	if err != nil {
		// Protecting files matters more: the next scan of everything reads
		// the configuration, too.
		w.log.Warn("changes to the configuration are noticed late", "err", err)
	}
	return nil
}

// reloadDevice reads again which server and vault are trusted: "agent join" may have
// been given another invitation. A session with a server that is not the one any
// more ends.
func (w *work) reloadDevice(moved bool) error {
	if w.o.Protocol != 4 {
		return nil
	}
	d, err := device.Load(w.o.Folder)
	if err != nil {
		return err
	}
	w.agent.mu.Lock()
	same := d.Pin == w.device.Pin && d.Vault == w.device.Vault && d.Genesis == w.device.Genesis && d.Identity.ID() == w.device.Identity.ID()
	if !same && d.Vault != (vault.ID{}) {
		w.device = &d
	}
	w.agent.mu.Unlock()
	w.changed.ring()
	if !same || moved {
		select {
		case w.redial <- struct{}{}:
		default:
		}
	}
	return nil
}

// reload reads the configuration again and puts it in force if it can be
// understood and says something new.
func (w *work) reload() error {
	cfg, err := config.Load(w.o.Folder)
	if err != nil {
		return err
	}
	roots, err := rootsOf(cfg)
	if err != nil {
		return err
	}
	w.agent.mu.Lock()
	old, oldRoots := w.cfg, w.agent.roots
	w.cfg, w.agent.roots = cfg, roots
	w.agent.mu.Unlock()
	w.changed.ring()
	if err := w.reloadDevice(cfg.Address != old.Address); err != nil {
		return err
	}

	paths := map[string]bool{}
	for _, r := range roots {
		paths[r.path] = true
	}
	before := map[string]bool{}
	for _, r := range oldRoots {
		before[r.path] = true
	}
	if maps.Equal(paths, before) && slices.Equal(cfg.Excludes, old.Excludes) && cfg.Address == old.Address && cfg.Settings == old.Settings {
		return nil
	}
	w.log.Info("configuration changed", "roots", len(roots), "excludes", len(cfg.Excludes))
	w.queue.retain(func(it item) bool { return paths[it.root] || it.op == vault.OpOutOfScope })
	w.solveWhere(func(path string, _ problem) bool {
		return !slices.ContainsFunc(roots, func(r root) bool { return below(r.path, path) && !r.rules.Match(r.path, path, false) })
	})
	w.watch(roots)
	for _, r := range roots {
		w.Rescan(r.path, "configuration")
	}
	w.tell(Event{Kind: Notice, Text: fmt.Sprintf("%s: %d folders and files are protected now", config.TransferFile, len(roots))})
	return nil
}
