// Package scan walks what a person listed and says what differs from what the
// catalog remembers: the truth behind the watcher's hints.
//
// The one invariant: a known path is reported [Missing] only after the scan has
// looked for that very path and found it gone or excluded. What cannot be read is
// a [facts.Problem], and a root that is missing, empty or on another file system
// is one problem of the root, never the loss of everything below it.
//
// The scan follows no symlink below the root (the root itself may be one), reads
// no file and changes nothing. Enter at [Root] for a whole root and at [Paths]
// for the few paths a watcher named.
package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"backstay/agent/scan/facts"
)

// The problems of a root as a whole. [Root] and [Paths] return them inside a
// *[facts.Problem], and then report nothing as missing.
var (
	// ErrRootMissing: nothing is there, or a file where a folder was.
	ErrRootMissing = errors.New("root is missing")
	// ErrRootEmpty: an empty folder, while files in it are known.
	ErrRootEmpty = errors.New("root is empty")
	// ErrRootMoved: another file system than at the last scan, and most of the
	// known files are not on it. (A root that merely got a new device number is
	// recognised by its files.)
	ErrRootMoved = errors.New("root is on another file system")
)

// An Entry is one path that differs from what is known of it.
type Entry struct {
	Path  string // absolute, as raw bytes of the file system
	Facts facts.Facts
}

// A Missing is a known path that the scan looked for and did not find.
type Missing struct {
	Path string
	// Excluded: the rules exclude it now; it may well exist. Otherwise it is gone,
	// or, with Options.FilesOnly, no longer a regular file.
	Excluded bool
}

// Known is what the catalog remembers of one path and everything below it.
type Known interface {
	// Match notes that path was seen and reports whether f is what is known of it.
	// It is called by several goroutines at once and must not keep path.
	Match(path []byte, f facts.Facts) bool
	// Len returns how many paths are known, Seen how many of them Match was asked for.
	Len() int
	Seen() int
	// Unseen yields the others. An error ends it.
	Unseen(ctx context.Context) iter.Seq2[string, error]
}

// Options say what to compare with and whom to tell. The callbacks are called one
// at a time, from several goroutines; they may block, and the scan then waits. An
// error they return ends the scan and is returned by it. The slices are theirs
// only for the time of the call.
type Options struct {
	// Known returns what is known of path and below. It is called once for every
	// subtree scanned. nil: nothing is known.
	Known func(ctx context.Context, path string) (Known, error)
	// Exclude reports whether the rules exclude the path with these components
	// below the root; those above it are not excluded. It is called by several
	// goroutines at once and must not keep rel. nil: nothing is excluded.
	Exclude func(rel []string, dir bool) bool
	// FilesOnly compares and reports regular files only; everything else is just
	// counted. Default: every type is compared and reported.
	FilesOnly bool
	// Volume is the Result.Volume of the last scan of this root, 0 if there was none.
	Volume uint64

	Found   func([]Entry) error        // paths new or changed; nil: only counted
	Missing func([]Missing) error      // known paths not found; nil: not looked for
	Problem func(*facts.Problem) error // paths that could not be looked at; nil: only counted
	Workers int                        // folders read at once; 0: 4 per core, at most 16
}

// A Result counts what a scan saw.
type Result struct {
	ByType   [facts.Types]int // paths seen, by type
	Bytes    int64            // total size of the regular files seen
	Found    int              // paths new or changed
	Excluded int              // paths skipped by rule, folders counted once
	Missing  int              // known paths gone or excluded
	Hidden   int              // known paths that could be neither found nor missed
	Problems int
	Volume   uint64 // identity of the root's file system, 0 if the system names none
}

// Root scans root, a folder or a single file. It returns what it counted, and an
// error when the scan is not complete: the context's, a callback's, or a
// *[facts.Problem] of the root as a whole. Paths found until then were reported.
func Root(ctx context.Context, root string, o Options) (Result, error) {
	s, err := begin(root, o)
	if err != nil {
		return Result{}, err
	}
	known, err := s.known(ctx, root)
	if err != nil {
		return s.result, err
	}
	t := &target{known: known}
	top, err := openRoot(root)
	if err != nil {
		// Not a folder, or one that cannot be listed.
		if s.rootFacts.Type == facts.Directory {
			return s.result, facts.Explain(root, err)
		}
		if err := s.tail.entry(t, []byte(root), s.rootFacts); err != nil {
			return s.result, err
		}
		if known != nil && known.Len() > known.Seen() {
			return s.result, errors.Join(s.tail.flush(), rootProblem(root, ErrRootMissing, "a file stands where the folder was"))
		}
		return s.finish(ctx, []*target{t})
	}
	n := &node{dir: top, path: root, target: t}
	if err := s.walk(ctx, []job{{node: n}}); err != nil {
		return s.result, err
	}
	if known != nil {
		if unseen := known.Len() - known.Seen(); unseen > 0 {
			switch {
			case n.empty:
				return s.result, rootProblem(root, ErrRootEmpty, "the folder is empty, but files in it were protected")
			case s.moved() && unseen > known.Len()/2:
				return s.result, rootProblem(root, ErrRootMoved, "it is on another disk than before, and most of its files are not there")
			}
		}
	}
	return s.finish(ctx, []*target{t})
}

// Paths scans only the given absolute paths, which must be the root or lie below
// it: files, folders (walked whole) or paths that are gone. Errors are those of
// [Root]; a root on another volume than Options.Volume is ErrRootMoved at once,
// because only a whole scan can tell what that means.
func Paths(ctx context.Context, root string, paths []string, o Options) (Result, error) {
	if slices.Contains(paths, root) {
		return Root(ctx, root, o)
	}
	s, err := begin(root, o)
	if err != nil {
		return Result{}, err
	}
	if s.moved() {
		return s.result, rootProblem(root, ErrRootMoved, "it is on another disk than before")
	}
	wanted := make(map[string]bool, len(paths))
	for _, p := range paths {
		wanted[p] = true
	}
	var jobs []job
	var targets []*target
	defer func() {
		for _, j := range jobs {
			j.node.release()
		}
	}()
	for p := range wanted {
		rel, err := s.components(p)
		if err != nil {
			return s.result, err
		}
		if s.below(wanted, p) {
			continue
		}
		known, err := s.known(ctx, p)
		if err != nil {
			return s.result, err
		}
		t := &target{known: known}
		targets = append(targets, t)
		parent, f, err := s.locate(rel)
		switch {
		case err == nil && f.Type == facts.Directory:
			n := &node{dir: parent, path: strings.TrimSuffix(p[:len(p)-len(rel[len(rel)-1])], sep), rel: rel[:len(rel)-1], target: t}
			n.refs.Store(1)
			jobs = append(jobs, job{node: n, name: rel[len(rel)-1]})
			continue
		case err == nil:
			parent.close()
			err = s.tail.entry(t, []byte(p), f)
		case errors.Is(err, errExcluded):
			s.result.Excluded++
			err = nil
		case absent(err):
			err = nil
		default:
			err = s.tail.problem(p, err)
		}
		if err != nil {
			return s.result, err
		}
	}
	todo := jobs
	jobs = nil // walk releases them
	if err := s.walk(ctx, todo); err != nil {
		return s.result, err
	}
	return s.finish(ctx, targets)
}

const sep = string(filepath.Separator)

// errExcluded is what locate answers for a path that the rules exclude.
var errExcluded = errors.New("excluded by rule")

// absent reports whether err says that the path is not there: it is gone, or
// what was a folder on its way is a file or a symlink now.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || notFolder(err) }

func rootProblem(root string, err error, reason string) *facts.Problem {
	return &facts.Problem{
		Path: root, Err: err, Reason: reason,
		Fix: "connect or mount its disk; if this is as it should be, remove the folder from the list and add it again",
	}
}

// A target is one subtree being scanned.
type target struct{ known Known }

// scanner is one call of Root or Paths.
type scanner struct {
	o         Options
	root      string
	rootFacts facts.Facts
	result    Result  // workers are merged into it when they are done
	tail      *worker // for what is found outside the walk

	mu sync.Mutex // held while a callback runs
}

func begin(root string, o Options) (*scanner, error) {
	s := &scanner{o: o, root: root}
	s.tail = &worker{s: s}
	f, err := statRoot(root)
	if absent(err) {
		return nil, rootProblem(root, ErrRootMissing, "it is not there")
	}
	if err != nil {
		return nil, facts.Explain(root, err)
	}
	s.rootFacts = f
	s.result.Volume = volume(root, f)
	return s, nil
}

func (s *scanner) moved() bool {
	return s.o.Volume != 0 && s.result.Volume != 0 && s.o.Volume != s.result.Volume
}

func (s *scanner) known(ctx context.Context, path string) (Known, error) {
	if s.o.Known == nil {
		return nil, nil
	}
	k, err := s.o.Known(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", s.root, err)
	}
	return k, nil
}

// components splits a path below the root.
func (s *scanner) components(path string) ([]string, error) {
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(s.root, sep)+sep)
	if !ok || rel == "" || filepath.Clean(rel) != rel || !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("scan %s: %q is not a path below it", s.root, path)
	}
	return strings.Split(rel, sep), nil
}

// below reports whether a folder above path is wanted too.
func (s *scanner) below(wanted map[string]bool, path string) bool {
	for len(path) > len(s.root) {
		path = path[:strings.LastIndex(path, sep)]
		if wanted[path] {
			return true
		}
	}
	return false
}

// locate looks for a path below the root, component by component and through no
// symlink. It returns the open folder above it and its facts. The caller closes
// the folder when err is nil.
func (s *scanner) locate(rel []string) (dir, facts.Facts, error) {
	d, err := searchRoot(s.root)
	if err != nil {
		return d, facts.Facts{}, err
	}
	last := len(rel) - 1
	for i, name := range rel[:last] {
		if s.o.Exclude != nil && s.o.Exclude(rel[:i+1], true) {
			d.close()
			return d, facts.Facts{}, errExcluded
		}
		next, err := d.search(name)
		d.close()
		if err != nil {
			return next, facts.Facts{}, err
		}
		d = next
	}
	f, err := d.lstat(rel[last])
	if err == nil && s.o.Exclude != nil && s.o.Exclude(rel, f.Type == facts.Directory) {
		err = errExcluded
	}
	if err != nil {
		d.close()
	}
	return d, f, err
}

// finish looks for the known paths that the walk did not meet and reports what is
// left to report.
func (s *scanner) finish(ctx context.Context, targets []*target) (Result, error) {
	if err := ctx.Err(); err != nil {
		return s.result, err
	}
	w := s.tail
	var batch []Missing
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		s.result.Missing += len(batch)
		err := s.o.Missing(batch)
		batch = batch[:0]
		return err
	}
	for _, t := range targets {
		if t.known == nil || s.o.Missing == nil || t.known.Seen() == t.known.Len() {
			continue
		}
		for path, err := range t.known.Unseen(ctx) {
			if err != nil {
				return s.result, fmt.Errorf("scan %s: %w", s.root, err)
			}
			if err := ctx.Err(); err != nil {
				return s.result, err
			}
			f, err := s.recheck(path)
			switch {
			case err == nil && (f.Type == facts.Regular || !s.o.FilesOnly):
				err = w.entry(t, []byte(path), f) // the listing ran past it, or it came back
			case err == nil || absent(err) || errors.Is(err, errExcluded):
				batch = append(batch, Missing{Path: path, Excluded: errors.Is(err, errExcluded)})
				err = nil
				if len(batch) == batchSize {
					err = flush()
				}
			default:
				s.result.Hidden++ // the folder that hides it was reported
				err = nil
			}
			if err != nil {
				return s.result, err
			}
		}
	}
	if err := flush(); err != nil {
		return s.result, err
	}
	err := w.flush()
	s.merge(w)
	return s.result, err
}

// recheck returns the facts of a known path.
func (s *scanner) recheck(path string) (facts.Facts, error) {
	if path == s.root {
		return s.rootFacts, nil
	}
	rel, err := s.components(path)
	if err != nil {
		return facts.Facts{}, err
	}
	d, f, err := s.locate(rel)
	if err == nil {
		d.close()
	}
	return f, err
}

// merge adds what a worker counted. Only one goroutine may be at it.
func (s *scanner) merge(w *worker) {
	for t, n := range w.seen {
		s.result.ByType[t] += n
	}
	s.result.Bytes += w.bytes
	s.result.Found += w.found
	s.result.Excluded += w.excluded
	s.result.Problems += w.problems
}
