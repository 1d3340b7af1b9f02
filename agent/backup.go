package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"backstay/agent/catalog"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	"backstay/agent/upload"
	"backstay/agent/v3"
	client "backstay/agent/v4"
	"backstay/internal/backoff"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// attempts is how often Backup connects before it gives the server up.
const attempts = 4

// Report says what a Backup did.
type Report struct {
	// Files and Bytes were acknowledged by the server.
	Files int
	Bytes int64
	// Problems are the paths in scope that are not protected, in the order of
	// their names.
	Problems []Unprotected
}

// Unprotected is a path that is not protected.
type Unprotected struct {
	// Path is absolute, as raw bytes.
	Path        string
	Reason, Fix string
}

// Text is the problem in one line without its path.
func (u Unprotected) Text() string { return u.Reason + "; " + u.Fix }

// Backup goes once over everything in transfer.info, or only what is at and below
// the paths given, and returns when the server has acknowledged it. In protocol 4
// it sends what has changed, in protocol 3 every file. A file that
// cannot be sent is in the report, and the others are sent all the same. The
// report is valid up to the point where an error ended the pass. Errors:
// [ErrUnreachable], [ErrOutOfScope], and those of [Run].
func Backup(ctx context.Context, o Options, paths []string) (report Report, err error) {
	a, err := open(ctx, o)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	b := &pass{agent: a, queue: newQueue(a.changed.ring), torn: map[string]int{}}
	tell := a.o.Events
	a.o.Events = func(e Event) {
		if e.Kind == Safe {
			report.Files++
			report.Bytes += e.Size
		}
		if tell != nil {
			tell(e)
		}
	}
	err = b.run(ctx, paths)
	for path, p := range a.problems {
		report.Problems = append(report.Problems, Unprotected{Path: path, Reason: p.Reason, Fix: p.Fix})
	}
	slices.SortFunc(report.Problems, func(x, y Unprotected) int { return strings.Compare(x.Path, y.Path) })
	return report, err
}

// pass is one Backup.
type pass struct {
	*agent
	queue *queue
	torn  map[string]int
}

func (b *pass) run(ctx context.Context, paths []string) error {
	scopes, err := scopesOf(b.roots, paths)
	if err != nil {
		return err
	}
	if b.o.Protocol == 4 {
		return b.runV4(ctx, scopes)
	}
	s := &sender{a: b.agent}
	defer s.hangUp()
	// Whether the server is there is known before a long scan.
	if err := b.connect(ctx, s.connect); err != nil {
		return err
	}
	for _, r := range b.roots {
		if named, ok := scopes[r.path]; ok {
			if err := b.look(ctx, r, named, true, b.found(r), nil); err != nil {
				return err
			}
		}
	}
	for {
		it, ok, _ := b.queue.take()
		if !ok {
			return nil
		}
		if err := b.deliver(ctx, s, it); err != nil {
			return err
		}
		b.queue.done(it.path)
	}
}

// scopesOf says for each root which paths in it are meant, nil for all of it.
func scopesOf(roots []root, paths []string) (map[string][]string, error) {
	scopes := map[string][]string{}
	if len(paths) == 0 {
		for _, r := range roots {
			scopes[r.path] = nil
		}
		return scopes, nil
	}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if resolved, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			abs = filepath.Join(resolved, filepath.Base(abs))
		}
		i := slices.IndexFunc(roots, func(r root) bool { return below(r.path, abs) })
		if i < 0 {
			return nil, fmt.Errorf("%s: %w; add a line for it, or a folder above it", abs, ErrOutOfScope)
		}
		scopes[roots[i].path] = append(scopes[roots[i].path], abs)
	}
	return scopes, nil
}

func (b *pass) found(r root) func([]scan.Entry) error {
	return func(entries []scan.Entry) error {
		for _, e := range entries {
			b.queue.add(item{root: r.path, path: e.Path, op: vault.OpPut, score: score(e.Facts.Size, time.Since(time.Unix(0, e.Facts.MTime)))})
			b.tell(Event{Kind: Planned, Path: e.Path, Size: e.Facts.Size})
		}
		return nil
	}
}

// connect tries a few times: a server that is restarting is back in seconds, and
// whoever waits for the end wants to know soon that there is none.
func (b *pass) connect(ctx context.Context, connect func(context.Context) error) error {
	wait := backoff.Backoff{Min: 250 * time.Millisecond, Max: 2 * time.Second}
	for n := 1; ; n++ {
		err := connect(ctx)
		if err == nil || n == attempts || ctx.Err() != nil || !transient(err) {
			return err
		}
		b.log.Info("connect", "attempt", n, "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait.Next()):
		}
	}
}

// transient says whether a server may be back in seconds. One that answers
// nonsense, or nothing at all, has been waited for already.
func transient(err error) bool {
	return errors.Is(err, ErrUnreachable) && !fatal(err) && !errors.Is(err, v3.ErrProtocol) && !errors.Is(err, v3.ErrRegistrationRefused) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded)
}

// runV4 sends what has changed in scope, over as many sessions as it takes.
func (b *pass) runV4(ctx context.Context, scopes map[string][]string) error {
	dest, _, err := b.destination(ctx)
	if err != nil {
		return err
	}
	var (
		last    vault.CommitHash
		compare bool
	)
	for n := 1; ; n++ {
		var l *link
		err := b.connect(ctx, func(ctx context.Context) (err error) {
			l, err = b.connectV4(ctx, dest)
			return err
		})
		if err != nil {
			return err
		}
		last, err = b.over(ctx, l, dest, scopes, last, compare)
		l.session.Close()
		compare = errors.Is(err, v4.ErrDigest)
		lost := errors.Is(err, client.ErrLost) || errors.Is(err, upload.ErrStale)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !lost:
			return err
		case n == attempts:
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		b.log.Info("the session ended; going on in another", "err", err)
	}
}

// over makes the pass over one session.
func (b *pass) over(ctx context.Context, l *link, dest *catalog.Destination, scopes map[string][]string, last vault.CommitHash, compare bool) (vault.CommitHash, error) {
	u, finding, err := b.open(ctx, l, dest, last, compare)
	if err != nil {
		return last, err
	}
	if finding == upload.RolledBack {
		if err := b.alarm(ctx, dest, alarmRollback, rollbackText); err != nil {
			return last, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &feed{pass: b, looking: true, changed: make(chan struct{})}
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() {
		if err := f.look(ctx, dest, scopes); err != nil {
			cancel(err)
		}
	})
	err = u.Run(ctx, func(ctx context.Context) (upload.Item, bool) { return f.next(ctx, u) }, f.done)
	cancel(err)
	return u.LastSent(), err
}

// feed is how what a pass finds gets to the uploader while it looks.
type feed struct {
	*pass

	mu sync.Mutex // guards what follows
	// looking: more may be found. over: nothing more will be.
	looking, over bool
	// taken counts the items that are not done.
	taken int
	// complete are the roots that were looked at whole.
	complete []string
	// changed is closed and replaced when one of the others changes.
	changed chan struct{}
}

// change changes the state and wakes who waits for that.
func (f *feed) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
	close(f.changed)
	f.changed = make(chan struct{})
}

// look fills the queue, again and again where it could not hold all.
func (f *feed) look(ctx context.Context, dest *catalog.Destination, scopes map[string][]string) error {
	for first := true; ; first = false {
		for _, r := range f.roots {
			named, ok := scopes[r.path]
			if !ok {
				continue
			}
			if err := f.pass.look(ctx, r, named, false, f.found(r), f.gone(r)); err != nil {
				return err
			}
			f.agent.mu.Lock()
			_, wanting := f.problems[r.path]
			f.agent.mu.Unlock()
			if first && named == nil && !wanting {
				f.change(func() { f.complete = append(f.complete, r.path) })
			}
		}
		if first {
			if err := f.unlisted(ctx, dest, f.queue); err != nil {
				return err
			}
		}
		f.change(func() { f.looking = false })
		if !f.drained(ctx) {
			return nil
		}
		again := f.queue.again()
		if again == nil {
			f.change(func() { f.over = true })
			return nil
		}
		missed := map[string][]string{}
		for _, root := range again {
			if named, ok := scopes[root]; ok {
				missed[root] = named
			}
		}
		scopes = missed
		f.change(func() { f.looking = true })
	}
}

// drained waits until everything that was found is done; false if ctx ends first.
func (f *feed) drained(ctx context.Context) bool {
	for {
		f.mu.Lock()
		done, changed := f.taken == 0 && f.queue.len() == 0, f.changed
		f.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// next waits for an item; false when there will be none.
func (f *feed) next(ctx context.Context, u *upload.Uploader) (upload.Item, bool) {
	for {
		f.mu.Lock()
		it, ok, more := f.queue.take()
		if ok {
			f.taken++
			f.mu.Unlock()
			return upload.Item{Root: it.root, Path: it.path, Op: it.op, Fuzzy: f.torn[it.path] > 0}, true
		}
		over, changed := f.over, f.changed
		if !f.looking && !f.queue.incomplete() {
			for _, root := range f.complete {
				u.Complete(root)
			}
		}
		f.mu.Unlock()
		if over {
			return upload.Item{}, false
		}
		select {
		case <-more:
		case <-changed:
		case <-ctx.Done():
			return upload.Item{}, false
		}
	}
}

// done notes what became of an item.
func (f *feed) done(r upload.Result) {
	f.change(func() {
		f.settle(r, func(again bool) {
			if again && f.torn[r.Path] == 0 {
				f.torn[r.Path]++
				f.queue.add(item{root: r.Root, path: r.Path, op: r.Op})
			}
		})
		if r.Outcome == upload.Again {
			f.queue.add(item{root: r.Root, path: r.Path, op: r.Op})
		}
		f.queue.done(r.Path)
		f.taken--
	})
}

func (b *pass) gone(r root) func(vault.Op, []string) {
	return func(op vault.Op, paths []string) {
		for _, path := range paths {
			b.queue.add(item{root: r.path, path: path, op: op})
		}
	}
}

// deliver sends one file, again where the session broke off. A server that ends
// every session at the same file must not keep the others from being sent.
func (b *pass) deliver(ctx context.Context, s *sender, it item) error {
	for n := 1; ; n++ {
		if err := b.connect(ctx, s.connect); err != nil {
			return err
		}
		out, err := s.deliver(ctx, it, n > 1)
		switch {
		case err != nil:
			return err
		case out == safe || out == failed || out == restless && n > 1:
			return nil
		case n == attempts:
			b.report(&facts.Problem{Path: it.path, Reason: "the connection broke off each time it was sent",
				Fix: "look at the server's log; the other files were sent"}, true)
			return nil
		}
	}
}
