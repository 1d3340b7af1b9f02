package restore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"backstay/agent/metadata"
	"backstay/internal/durable"
	"backstay/protocol/vault"
)

// Options say what to restore and where. Keys and To must be set.
type Options struct {
	Keys *vault.Keyring
	// To is the target folder. It is made if it is not there, and keeps its own
	// metadata.
	To string
	// Root is an absolute path as the device writes it; what is not below it is left
	// out. Default: everything.
	Root []byte
	// Name is what Root is called in the target, a single name. Default: what is in
	// Root goes into the target itself; without Root that is each path in full,
	// without its leading separator.
	Name string
	// Overwrite gives what is restored its name even if something else has it, which
	// is kept as "NAME (replaced TIME)". Default: what is there stays.
	Overwrite bool
	// Metadata says what is set besides what is harmless.
	Metadata metadata.Options
	// Now is the local time in the names of what is replaced. Default: time.Now().
	Now time.Time
	// Progress is told how far it is, some ten times a second and at the end, by one
	// goroutine at a time. Default: nobody is.
	Progress func(Progress)
}

// A Report is what became of everything selected. Paths are those recorded, as the
// bytes the device uses.
type Report struct {
	// Files counts the paths that are in the target as they were, Same those of them
	// that were there before. Bytes is the content that was written.
	Files, Same, Bytes int64
	// OutOfScope counts those that were no longer protected at that moment: they are
	// as they were last seen.
	OutOfScope int64
	// Failed are the paths that were not restored, ascending.
	Failed []Failure
	// Losses are the first of what could not be set, LossCount counts all of it by
	// what it is.
	Losses    []Loss
	LossCount map[string]int64
	// Replaced are the names in the target under which what stood there is kept,
	// Originals what each of it was called.
	Replaced, Originals []string
	// Renamed are paths whose name the target cannot hold, or not besides another.
	Renamed []Renamed
}

// A Failure is a path that was not restored.
type Failure struct {
	// Path is empty where the damage hides it.
	Path string
	ID   vault.PathID
	// Err is [ErrExists], vault.ErrMissing, a vault.ErrCorrupt, an [ErrIntegrity],
	// or what the system said.
	Err error
}

func byPath(a, b Failure) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), bytes.Compare(a.ID[:], b.ID[:]))
}

// A Loss is a path that was restored without something.
type Loss struct {
	Path string
	metadata.Loss
}

// Renamed is a path that got another name than its own: where it should be below the
// target, with "/" between the components, and what it is called there.
type Renamed struct{ Path, Name string }

const (
	// maxLosses bounds [Report.Losses]: without root's rights each file may lose
	// its owner.
	maxLosses = 1000
	// groupSize is how many records one writer takes at a time.
	groupSize = 64
)

// Run restores a selection. A path that cannot be restored is in the report and
// stops nothing else. When the error is nil, everything the report does not name as
// failed is durable; else it says what ended the restore: a target that is full,
// read-only or busy, the source, or ctx. Run again with the same selection into the
// same target it goes on.
//
// Two runs must not restore into each other's folders at the same time; on Unix a
// lock keeps them out of the same target. Memory stays below 100 MB beside the
// state's, whatever the sizes of files. Files in a Windows target are not protected
// from programs that move folders meanwhile.
func Run(ctx context.Context, src Getter, sel *Selection, o Options) (Report, error) {
	r := &run{
		src: src, o: o, sel: sel, keys: o.Keys, meter: meter{tell: o.Progress},
		groups: make(map[linkKey]*group), slots: make(chan *[]byte, slots),
	}
	for range slots {
		r.slots <- new([]byte)
	}
	if o.Now.IsZero() {
		r.o.Now = time.Now()
	}
	if o.Root != nil {
		var err error
		if r.root, err = split(o.Root); err != nil {
			return Report{}, fmt.Errorf("restore: %w", err)
		}
	}
	if o.Name != "" && (!filepath.IsLocal(o.Name) || o.Name == "." || strings.ContainsAny(o.Name, `/`+string(filepath.Separator))) {
		return Report{}, fmt.Errorf("restore: %q is not a single name", o.Name)
	}
	err := r.run(ctx)
	slices.SortFunc(r.report.Failed, byPath)
	r.meter.add(0, 0, 0, true)
	if err != nil {
		err = fmt.Errorf("restore into %s: %w", o.To, err)
	}
	return r.report, err
}

// A run is one restore.
type run struct {
	src   Getter
	o     Options
	keys  *vault.Keyring
	sel   *Selection
	root  []string // components of o.Root
	tree  *tree
	slots chan *[]byte // for sealed chunks in memory
	stop  context.CancelCauseFunc
	meter meter

	replacing sync.Mutex // serialises what is moved aside

	mu     sync.Mutex // guards the fields below
	report Report
	groups map[linkKey]*group
	later  []want // what waits for another path
}

// A linkKey tells files with several names apart. Names that were saved at different
// times may state different contents, and then they are names of different files.
type linkKey struct {
	group   vault.LinkGroup
	content [32]byte
}

// A group are the names of one file.
type group struct {
	done      bool
	dir, name string // where one of them is, in the tree, once done
}

func (r *run) run(ctx context.Context) error {
	if err := os.MkdirAll(r.o.To, 0o700); err != nil {
		return advise(err)
	}
	top, err := openTarget(r.o.To)
	if err != nil {
		return err
	}
	r.tree = newTree(top)
	r.tree.aside, r.tree.report = r.aside, r.renamed
	defer r.tree.close()
	if err := top.lock(); err != nil {
		return err
	}
	if err := probe(top); err != nil {
		return advise(err)
	}
	ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	r.meter.progress.TotalFiles = int64(r.sel.Len())
	if err := r.pass(ctx, r.sel.leaves); err != nil {
		return err
	}
	for _, folders := range slices.Backward(r.sel.folders) {
		if err := r.pass(ctx, folders); err != nil {
			return err
		}
	}
	err = r.tree.sync()
	if !syncsWhole { // the target's own name
		err = errors.Join(err, durable.SyncDir(filepath.Dir(r.o.To)))
	}
	if err != nil {
		return fmt.Errorf("what was restored may not last: %w", err)
	}
	return nil
}

// probe finds out whether anything can be written into the target, so that this is
// said once and not for every path.
func probe(top *folder) error {
	name := partName("restore", vault.ObjectID([]byte(rand.Text() + rand.Text())[:32]))
	if err := top.mkdir(name); err != nil {
		return err
	}
	return top.rmdir(name)
}

// pass restores rows, and then those of them that had to wait, until none does.
func (r *run) pass(ctx context.Context, rows []int32) error {
	err := r.once(ctx, r.sel.state.wants(rows))
	for err == nil && len(r.later) > 0 {
		later := r.later
		r.later = nil
		err = r.once(ctx, slices.Values(later))
	}
	return err
}

// once restores rows, side by side: records are fetched by one goroutine, opened and
// written by some, and content that is not inline goes through [run.contents].
func (r *run) once(ctx context.Context, wants iter.Seq[want]) error {
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	records, files, opens := make(chan []sealed, workers), make(chan *file, 64), make(chan func(*[]byte), workers)
	var writers, fetchers, openers sync.WaitGroup
	for range workers {
		writers.Go(func() {
			for group := range records {
				for _, s := range group {
					r.record(ctx, s, files)
				}
			}
		})
		openers.Go(func() {
			var plain []byte
			for open := range opens {
				open(&plain)
			}
		})
	}
	for range fetchesAtOnce {
		fetchers.Go(func() { r.contents(ctx, files, opens) })
	}
	r.fetch(ctx, wants, records)
	close(records)
	writers.Wait()
	close(files)
	fetchers.Wait()
	close(opens)
	openers.Wait()
	return context.Cause(ctx)
}

// fetch gets the records of wants and hands them to the writers.
func (r *run) fetch(ctx context.Context, wants iter.Seq[want], records chan<- []sealed) {
	give := func(group []sealed) {
		for part := range slices.Chunk(group, groupSize) {
			select {
			case records <- part:
			case <-ctx.Done():
			}
		}
	}
	if err := getRecords(ctx, r.src, r.sel.state, wants, give, func(w want, err error) { r.fail(ctx, w, "", err) }); err != nil {
		r.stop(err)
	}
}

// record opens a record, verifies that it is the one wanted, and restores its path
// or hands it on to have its content fetched.
func (r *run) record(ctx context.Context, s sealed, files chan<- *file) {
	if ctx.Err() != nil {
		return
	}
	rec, refs, err := openRecord(r.keys, r.sel.state, s)
	if err != nil {
		r.fail(ctx, s.want, "", err)
		return
	}
	row := r.sel.state.rows.at(s.row)
	if row.op == vault.OpOutOfScope && s.record == row.record {
		r.wait(want{s.row, refs[0]})
		return
	}
	path, inside, err := below(rec.Name, r.root, r.o.Name)
	switch {
	case err != nil:
	case !inside && !r.sel.all:
		err = fmt.Errorf("%w: it is not below %q", ErrRecord, r.o.Root)
	case !inside:
		r.meter.add(1, 0, 0, false)
		return
	case path == "" && rec.Type != vault.TypeFolder:
		err = fmt.Errorf("%w: no folder and no name in the target", ErrRecord)
	default:
		err = r.restore(ctx, &file{want: s.want, rec: rec, path: path}, files)
	}
	if err != nil {
		r.fail(ctx, s.want, string(rec.Name), err)
	}
}

// restore restores a path, or hands it on to have its content fetched.
func (r *run) restore(ctx context.Context, f *file, files chan<- *file) error {
	if f.rec.Type == vault.TypeFolder {
		return r.folder(f)
	}
	f.dir, f.base = cutPath(f.path)
	n, err := r.tree.enter(f.dir)
	if err != nil {
		return err
	}
	defer r.tree.leave(n)
	if f.rec.Type == vault.TypeSocket || f.rec.Type == vault.TypeOther {
		r.leaveOut(f)
		return nil
	}
	if f.name, f.place, err = r.find(n, f); err != nil {
		return err
	}
	switch {
	case f.rec.Type != vault.TypeFile:
		return r.special(n, f)
	case f.rec.Link != nil:
		if r.linked(n, f) {
			return nil
		}
	case f.place == same:
		r.done(f, 0)
		return nil
	}
	if len(f.rec.Content.Entries) > 0 {
		r.meter.add(0, 0, int64(f.rec.Content.Size), false)
		select {
		case files <- f:
		case <-ctx.Done():
			r.release(f, false)
		}
		return nil
	}
	size := int64(f.rec.Content.Size)
	err = f.write(r, 0, f.rec.Content.Inline)
	r.meter.add(0, size, size, false)
	r.end(ctx, f, err)
	return nil
}

// folder makes a folder and gives it its metadata. The target has its own.
func (r *run) folder(f *file) error {
	n, err := r.tree.enter(f.path)
	if err != nil {
		return err
	}
	defer r.tree.leave(n)
	if f.path != "" {
		err = n.use(func(dir *os.File) error {
			r.lose(f, metadata.Apply(dir, &f.rec.Metadata, r.o.Metadata)...)
			return nil
		})
	}
	if err == nil {
		r.done(f, 0)
	}
	return err
}

// special makes a symlink, a FIFO or a device.
func (r *run) special(n *node, f *file) error {
	for range maxTries {
		if f.place == same {
			r.done(f, 0)
			return nil
		}
		if f.place == taken {
			if err := r.replace(n, f.name); err != nil {
				return err
			}
		}
		var lost []metadata.Loss
		err := n.use(func(dir *os.File) (err error) {
			lost, err = metadata.Make(dir, f.name, f.rec, r.o.Metadata)
			return err
		})
		switch {
		case err == nil:
			r.lose(f, lost...)
			r.done(f, 0)
			return nil
		case errors.Is(err, metadata.ErrNotRecreated):
			r.leaveOut(f)
			return nil
		case errors.Is(err, fs.ErrExist): // another came between
		case unholdable(err) && !f.plain:
			f.plain = true
		default:
			return err
		}
		if f.name, f.place, err = r.find(n, f); err != nil {
			return err
		}
	}
	return ErrExists
}

// leaveOut reports what is recorded and not made again.
func (r *run) leaveOut(f *file) {
	r.lose(f, metadata.Loss{What: "the path itself", Err: metadata.ErrNotRecreated})
	r.meter.add(1, 0, 0, false)
}

// linked deals with a file that has several names: the first that comes is
// written, the others become names of it. It is false if f is to be written, and
// else f is done with or waits for another.
func (r *run) linked(n *node, f *file) bool {
	key := linkKeyOf(f.rec)
	r.mu.Lock()
	g := r.groups[key]
	if g == nil {
		g = new(group)
		r.groups[key], f.first = g, g
	} else if !g.done {
		r.later = append(r.later, f.want)
		r.mu.Unlock()
		return true
	}
	r.mu.Unlock()
	switch {
	case f.place == same:
		r.release(f, true)
	case f.first != nil:
		return false
	default:
		if err := r.link(n, f, g); err != nil {
			r.lose(f, metadata.Loss{What: "hard link", Err: err})
			return false
		}
	}
	r.done(f, 0)
	return true
}

// release lets the other names of a file know what became of the first.
func (r *run) release(f *file, done bool) {
	if f.first == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if done {
		f.first.dir, f.first.name, f.first.done = f.dir, f.name, true
	} else {
		delete(r.groups, linkKeyOf(f.rec))
	}
}

// link makes f a further name of a file that was restored.
func (r *run) link(n *node, f *file, g *group) error {
	from, err := r.tree.enter(g.dir)
	if err != nil {
		return err
	}
	defer r.tree.leave(from)
	part := partName(f.name, f.record)
	err = n.link(from.folder, g.name, part)
	if errors.Is(err, fs.ErrExist) { // a run that was interrupted left it
		if err = n.remove(part); err == nil {
			err = n.link(from.folder, g.name, part)
		}
	}
	if err != nil {
		return err
	}
	return r.settle(n, f, part)
}

func linkKeyOf(rec *vault.Record) linkKey {
	var c vault.Record
	c.Type, c.Content, c.Holes = vault.TypeFile, rec.Content, rec.Holes
	b := c.Append(nil)
	for _, e := range rec.Content.Entries {
		b = append(b, e.Ref[:]...)
	}
	return linkKey{*rec.Link, sha256.Sum256(b)}
}

// A placement is what stands where a path is to be.
type placement uint8

const (
	free  placement = 1
	same  placement = 2 // the path itself, from an earlier run
	taken placement = 3 // something else, which is to be moved away
)

// find returns the name for a path in its folder and what stands there.
func (r *run) find(n *node, f *file) (string, placement, error) {
	names := newCandidates(f.base)
	if f.plain {
		names.plain()
	}
	for {
		at, err := n.lstat(names.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return names.name, free, nil
		case err != nil && unholdable(err) && names.plain():
			continue
		case err != nil:
			return "", 0, err
		}
		exact, err := n.has(names.name)
		switch {
		case err != nil:
			return "", 0, err
		case !exact, names.n == 1 && r.tree.made(f.path):
			// The latter is a folder of which something is left that was no
			// longer protected when this took its place.
		case r.same(n, names.name, at, f.rec):
			return names.name, same, nil
		case r.o.Overwrite && names.n == 1:
			return names.name, taken, nil
		case names.n == 1:
			return "", 0, ErrExists
		}
		names.next()
	}
}

// maxTries is how often a name is looked for anew when another takes it meanwhile.
const maxTries = 20

// settle gives what is complete its name.
func (r *run) settle(n *node, f *file, part string) error {
	err := ErrExists
	for range maxTries {
		if f.place == taken {
			if err = r.replace(n, f.name); err != nil {
				break
			}
		}
		if err = n.rename(part, f.name); err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
		// Another came between, or one that the file system takes for the same.
		if f.name, f.place, err = r.find(n, f); err != nil || f.place == same {
			break
		}
		err = ErrExists
	}
	return errors.Join(err, n.remove(part))
}

// aside moves away what stands where a folder is to be.
func (r *run) aside(n *node, name string) error {
	if !r.o.Overwrite {
		return ErrExists
	}
	return r.replace(n, name)
}

// replace gives what has a name another one.
func (r *run) replace(n *node, name string) error {
	r.replacing.Lock()
	defer r.replacing.Unlock()
	suffix := r.o.Now.Format(" (replaced 2006-01-02 15.04.05")
	for i := 1; ; i++ {
		end := ")"
		if i > 1 {
			end = fmt.Sprintf(" %d)", i)
		}
		kept := shorten(name, 255-len(suffix+end)) + suffix + end
		err := n.rename(name, kept)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // somebody else did
		case err == nil:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.report.Replaced = append(r.report.Replaced, strings.TrimPrefix(n.path+"/"+kept, "/"))
			r.report.Originals = append(r.report.Originals, strings.TrimPrefix(n.path+"/"+name, "/"))
			return nil
		case !errors.Is(err, fs.ErrExist):
			return err
		}
	}
}

// fail reports a path that is not restored, and ends the restore if no other can be.
func (r *run) fail(ctx context.Context, w want, path string, err error) {
	if ctx.Err() != nil { // that is the reason
		return
	}
	if full(err) || readOnly(err) {
		r.stop(advise(err))
		return
	}
	r.mu.Lock()
	r.report.Failed = append(r.report.Failed, Failure{Path: path, ID: r.sel.state.rows.at(w.row).path, Err: err})
	r.mu.Unlock()
	r.meter.add(1, 0, 0, false)
}

// advise says what to do about a target in which nothing can be restored.
func advise(err error) error {
	switch {
	case full(err):
		return fmt.Errorf("there is no room left: make some and restore again, which goes on from here: %w", err)
	case readOnly(err), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("nothing can be written there: restore into another folder: %w", err)
	}
	return err
}

// done reports a path that is in the target as it was.
func (r *run) done(f *file, written int64) {
	r.mu.Lock()
	r.report.Files++
	r.report.Bytes += written
	if f.place == same {
		r.report.Same++
	}
	if r.sel.state.rows.at(f.row).op == vault.OpOutOfScope {
		r.report.OutOfScope++
	}
	r.mu.Unlock()
	if f.name != "" && f.name != f.base {
		r.renamed(f.path, f.name)
	}
	r.meter.add(1, 0, 0, false)
}

func (r *run) renamed(path, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Renamed = append(r.report.Renamed, Renamed{path, name})
}

func (r *run) wait(w want) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later = append(r.later, w)
}

func (r *run) lose(f *file, lost ...metadata.Loss) {
	if len(lost) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report.LossCount == nil {
		r.report.LossCount = make(map[string]int64)
	}
	for _, l := range lost {
		r.report.LossCount[l.What]++
		if len(r.report.Losses) < maxLosses {
			r.report.Losses = append(r.report.Losses, Loss{string(f.rec.Name), l})
		}
	}
}
