// Package watcher tells which files beneath a set of roots may have changed.
//
// What it tells are hints, never the truth: the truth is the disk, looked at by the caller. The one invariant is that no change
// goes unmentioned: after the first [Sink.Rescan] of a root, each later change beneath it is followed by a [Sink.Changed] that
// names its path, by another Rescan, or by a [State] that says that the root is gone. The reverse does not hold; a path may be
// named without having changed.
//
// Linux watches every directory by inotify, Windows and macOS watch a root as a whole. Where the system will not watch,
// directories are compared at an interval and the State says why. Symbolic links are never followed.
//
// The package does not read contents, does not wait until a file is quiet, and keeps nothing on disk. It cannot hear of what
// another computer does to a folder on a network filesystem, nor of writes through a memory mapping before the file is
// closed; for those the caller scans now and then.
//
// Enter at [Run].
package watcher

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Root is one folder or one single file to watch.
type Root struct {
	// Path is absolute. The Sink is told of the root by this very string, of paths below it in their clean form. If it names a
	// symbolic link, the link is watched and not what it points to.
	Path string

	// Skip reports whether a path, given in full, is out of scope: it is not reported, and a directory is not entered. dir is
	// whether path is known to be a directory; it is false for what is already gone. Skip is called for each path below Path
	// and only if it is true for none of the folders between; it must not block and is called from goroutines of Run.
	// Default: nothing is skipped.
	Skip func(path string, dir bool) bool
}

// A Sink receives what Run finds. Its methods are called from one goroutine, one call at a time. While a call lasts, what
// happens is gathered: a slow Sink gets fewer and larger batches and loses nothing.
type Sink interface {
	// Changed names paths beneath root, each once, sorted, that may have come, changed or gone. A folder that came is followed
	// by everything in it; a folder that went is named alone. The slice is the Sink's to keep.
	Changed(root string, paths []string)

	// Rescan says that anything beneath root may have changed before this call.
	Rescan(root string, why Reason)

	// State is called when the state of root has changed, and once in the beginning.
	State(root string, s State)
}

// A Reason is why a root must be scanned again.
type Reason string

// The reasons for Rescan.
const (
	Started  Reason = "started"  // the watches stand; what happened before they did was not seen
	Overflow Reason = "overflow" // more changed than the system, or the watcher, could list
	Returned Reason = "returned" // the root had been gone
	Replaced Reason = "replaced" // another folder, file or filesystem stands at the root's path
	Mounts   Reason = "mounts"   // a filesystem beneath the root was mounted or unmounted
	Rules    Reason = "rules"    // a later set kept the root; watches stand for all that its new Skip lets in
)

// A Mode is how a root is being watched.
type Mode string

// The modes of a root.
const (
	Watching Mode = "watching" // the system reports changes at once
	Polling  Mode = "polling"  // some directories, or all, are compared at an interval; State.Why says why
	Gone     Mode = "gone"     // there is nothing at the root's path; nothing in it is reported as deleted
)

// State is the condition of one root.
type State struct {
	Mode Mode

	// Why is a sentence for a person, for Polling and Gone: what the matter is and what to do about it.
	Why string

	// Watched counts directories that the system reports on; a root watched as a whole counts as one.
	Watched int

	// Polled counts directories that are compared at an interval instead.
	Polled int

	// Since is when the root was first found missing, for Gone.
	Since time.Time

	// Unreadable holds the directories whose changes cannot be seen at all, with the reasons. They are tried again at every
	// change of their permissions and every PollInterval. The map is the Sink's to keep.
	Unreadable map[string]error
}

// Options adjust Run. The zero value is ready for use.
type Options struct {
	// Coalesce is the longest time for which changes are gathered before they are passed on. The first change after a quiet
	// time does not wait. Default 100 ms.
	Coalesce time.Duration

	// PollInterval is the time between two comparisons of directories that the system will not watch. It is stretched where
	// comparing takes long, so that it never takes more than a twentieth of the time. Default 30 s.
	PollInterval time.Duration

	// LookInterval is how often each root is looked at: whether it still is what it was, whether one that was gone is back, and
	// whether filesystems were mounted below. Nothing tells when a folder above a root is renamed. Default 2 s.
	LookInterval time.Duration

	// Logger receives what happens to roots. Names of files and folders appear at debug level only. Default: nothing is logged.
	Logger *slog.Logger
}

// Run watches the newest set of roots that was received, until ctx ends; then it returns nil, with no goroutine left behind: it
// waits for a Sink call in progress, and for the disk, which in a dead network filesystem may take long. The first set starts the watching. Each later one replaces it: a root whose Path was
// in the set before keeps its watches, adapted to the new Skip; others start or stop. A root that was dropped is not reported
// any more once a call in progress has returned. Closing the channel keeps the last set. Roots may lie within each other, a path
// is then reported for each of them; of roots with the same Path the last counts.
//
// Run fails if a Path is not absolute. What befalls a root later is told by its State, and is no reason to return.
func Run(ctx context.Context, roots <-chan []Root, sink Sink, opts Options) error {
	return run(ctx, roots, sink, opts, newBackend())
}

// A backend is what one platform has to offer. Its methods may be called concurrently.
type backend interface {
	// watch makes changes in the open directory dir arrive in q under the returned id, those in its subdirectories too if
	// deep and the backend is recursive. The id is the same for as long as the same directory is being watched for q. The
	// caller closes dir. The error's text says for a person why the system will not watch.
	watch(dir *os.File, deep bool, q *queue) (id int, err error)

	// unwatch ends what watch began. Notices already in q stay there.
	unwatch(id int, q *queue)

	// recursive reports whether a watch can cover subdirectories.
	recursive() bool

	// close ends all watches and waits until nothing is pushed any more.
	close()
}

// run is Run over any backend, which it closes.
func run(ctx context.Context, roots <-chan []Root, sink Sink, opts Options, b backend) error {
	if opts.Coalesce <= 0 {
		opts.Coalesce = 100 * time.Millisecond
	}
	if opts.PollInterval <= 0 {
		opts.PollInterval = 30 * time.Second
	}
	if opts.LookInterval <= 0 {
		opts.LookInterval = 2 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}

	ctx, cancel := context.WithCancel(ctx)
	var trees, delivery sync.WaitGroup
	out := newOutbox()
	delivery.Go(func() { out.deliver(ctx, sink) })
	defer func() {
		cancel()
		trees.Wait()
		b.close()
		delivery.Wait()
	}()

	type running struct {
		*tree
		stop context.CancelFunc
	}
	current := make(map[string]running)
	for {
		select {
		case <-ctx.Done():
			return nil
		case set, ok := <-roots:
			if !ok {
				roots = nil
				continue
			}
			next := make(map[string]Root, len(set))
			for _, r := range set {
				if !filepath.IsAbs(r.Path) {
					return fmt.Errorf("watch %q: the path is not absolute", r.Path)
				}
				next[r.Path] = r
			}
			for path, r := range current {
				if _, kept := next[path]; !kept {
					r.stop() // and not waited for: it may hang in a dead network filesystem
					out.close(r.box)
					delete(current, path)
				}
			}
			for path, root := range next {
				if r, kept := current[path]; kept {
					r.setSkip(root.Skip)
					continue
				}
				treeCtx, stop := context.WithCancel(ctx)
				t := newTree(root, opts, b, out)
				trees.Go(func() { defer stop(); t.run(treeCtx) })
				current[path] = running{t, stop}
			}
		}
	}
}
