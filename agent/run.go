package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"backstay/agent/config"
	"backstay/agent/scan"
	"backstay/agent/settle"
	"backstay/internal/backoff"
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
	a, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &work{
		agent: a, queue: newQueue(), sets: make(chan []watcher.Root, 1),
		settling: settle.New(settle.Options{Quiet: time.Duration(a.cfg.Settings.Settle)}),
		rescans:  map[string]string{}, torn: map[string]int{}, wake: make(chan struct{}, 1),
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
	part(w.send)
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
}

func (w *work) end() {
	w.mu.Lock()
	w.busy--
	settled := w.busy == 0 && !w.quiet && len(w.rescans) == 0 && w.settling.Waiting() == 0 && w.queue.len() == 0
	w.quiet = w.quiet || settled
	w.mu.Unlock()
	if !settled {
		return
	}
	w.agent.mu.Lock()
	problems := len(w.problems)
	w.agent.mu.Unlock()
	w.tell(Event{Kind: Settled, Size: int64(problems)})
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
		w.mu.Unlock()

		if len(scans)+len(due) > 0 {
			w.begin()
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
	for _, r := range w.rootsNow() {
		var err error
		if why, ok := scans[r.path]; ok {
			w.log.Debug("scan", "root", r.path, "why", why)
			err = w.look(ctx, r, nil, false, w.found(r, false))
		}
		var paths []string
		for _, d := range due {
			if below(r.path, d.Path) {
				paths = append(paths, d.Path)
			}
		}
		if err == nil && len(paths) > 0 {
			err = w.look(ctx, r, paths, false, w.found(r, true))
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

// found returns what takes the files that differ from the catalog. A scan may come
// upon a file that is being written; one that has settled has waited already.
func (w *work) found(r root, settled bool) func([]scan.Entry) error {
	return func(entries []scan.Entry) error {
		now := time.Now()
		quiet := time.Duration(w.config().Settings.Settle)
		for _, e := range entries {
			age := now.Sub(time.Unix(0, e.Facts.MTime))
			if !settled && age >= 0 && age < quiet {
				w.do(func() { w.touch(r.path, e.Path) })
				continue
			}
			w.queue.add(item{root: r.path, path: e.Path, score: score(e.Facts.Size, age)})
		}
		return nil
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
		w.tell(Event{Kind: Offline, Text: err.Error()})
	}
	for {
		it, ok, more := w.queue.take()
		if !ok {
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
			if online {
				online = false
				w.tell(Event{Kind: Offline, Text: err.Error()})
			}
		}
		if out != offline {
			online = true
			wait.Reset()
			w.end()
			continue
		}
		w.queue.add(it)
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
	})
	if err != nil {
		// Protecting files matters more: the next scan of everything reads
		// the configuration, too.
		w.log.Warn("changes to the configuration are noticed late", "err", err)
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
	w.queue.retain(func(root string) bool { return paths[root] })
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
