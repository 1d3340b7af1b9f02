package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"backstay/agent/scan"
	"backstay/agent/scan/facts"
	"backstay/agent/v3"
	"backstay/internal/backoff"
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

// Backup sends every file of transfer.info once, or only those at and below the
// paths given, and returns when the server has acknowledged them. A file that
// cannot be sent is in the report, and the others are sent all the same. The
// report is valid up to the point where an error ended the pass. Errors:
// [ErrUnreachable], [ErrOutOfScope], and those of [Run].
func Backup(ctx context.Context, o Options, paths []string) (report Report, err error) {
	a, err := open(ctx, o)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	b := &pass{agent: a, queue: newQueue(), torn: map[string]int{}}
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
	scopes, err := b.scopes(paths)
	if err != nil {
		return err
	}
	s := &sender{a: b.agent}
	defer s.hangUp()
	// Whether the server is there is known before a long scan.
	if err := b.connect(ctx, s); err != nil {
		return err
	}
	for _, r := range b.roots {
		if named, ok := scopes[r.path]; ok {
			if err := b.look(ctx, r, named, true, b.found(r)); err != nil {
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
	}
}

// scopes says for each root which paths in it are meant, nil for all of it.
func (b *pass) scopes(paths []string) (map[string][]string, error) {
	scopes := map[string][]string{}
	if len(paths) == 0 {
		for _, r := range b.roots {
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
		i := slices.IndexFunc(b.roots, func(r root) bool { return below(r.path, abs) })
		if i < 0 {
			return nil, fmt.Errorf("%s: %w; add a line for it, or a folder above it", abs, ErrOutOfScope)
		}
		scopes[b.roots[i].path] = append(scopes[b.roots[i].path], abs)
	}
	return scopes, nil
}

func (b *pass) found(r root) func([]scan.Entry) error {
	return func(entries []scan.Entry) error {
		for _, e := range entries {
			b.queue.add(item{root: r.path, path: e.Path, score: score(e.Facts.Size, time.Since(time.Unix(0, e.Facts.MTime)))})
			b.tell(Event{Kind: Planned, Path: e.Path, Size: e.Facts.Size})
		}
		return nil
	}
}

// connect tries a few times: a server that is restarting is back in seconds, and
// whoever waits for the end wants to know soon that there is none.
func (b *pass) connect(ctx context.Context, s *sender) error {
	wait := backoff.Backoff{Min: 250 * time.Millisecond, Max: 2 * time.Second}
	for n := 1; ; n++ {
		err := s.connect(ctx)
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
	return !errors.Is(err, v3.ErrProtocol) && !errors.Is(err, v3.ErrRegistrationRefused) && !errors.Is(err, os.ErrDeadlineExceeded)
}

// deliver sends one file, again where the session broke off. A server that ends
// every session at the same file must not keep the others from being sent.
func (b *pass) deliver(ctx context.Context, s *sender, it item) error {
	for n := 1; ; n++ {
		if err := b.connect(ctx, s); err != nil {
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
