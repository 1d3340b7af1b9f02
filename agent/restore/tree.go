package restore

import (
	"container/list"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"sync"
)

// A tree is what is restored into: the target and the folders below it, made when
// something in them is, and held open as long as there is room. A folder is named
// by its path as recorded; what it is called on disk may differ.
//
// Every step down goes by one component from an open folder and through no
// symlink, so that nobody who moves or replaces folders meanwhile can lead a
// write out of the target.
type tree struct {
	top *node
	// aside moves away what stands where a folder is to be, or says why not.
	aside  func(n *node, name string) error
	seed   maphash.Seed
	report func(path, name string) // of a folder that got another name

	making sync.Mutex // serialises what makes folders: two may fold to one name

	mu      sync.Mutex // guards the fields below, and users and place of every node
	nodes   map[string]*node
	idle    list.List           // of *node without users, the longest unused first
	known   map[uint64]struct{} // hashes of the paths of folders that were made or found
	renamed map[string]string   // their names on disk, where those differ
	devices map[uint64]*folder  // file systems met, for what makes them durable
	err     error               // of making a closed folder durable
}

// maxIdle is how many folders without users stay open: many, for first passes send
// files by age and not by folder, and few enough for the 1,024 files that systems
// allow at least.
const maxIdle = 256

// A node is an open folder of a tree.
type node struct {
	*folder
	path  string
	users int
	place *list.Element // in idle

	once  sync.Once
	seed  maphash.Seed
	there map[uint64]struct{} // hashes of the names found in it, not of those made since
	err   error
}

func newTree(top *folder) *tree {
	t := &tree{
		seed:  maphash.MakeSeed(),
		nodes: make(map[string]*node), known: make(map[uint64]struct{}),
		renamed: make(map[string]string), devices: make(map[uint64]*folder),
	}
	t.top = &node{folder: top, seed: t.seed, users: 1}
	return t
}

// enter returns the folder of a path, which it makes if need be. The caller gives
// it back to leave.
func (t *tree) enter(path string) (*node, error) {
	if path == "" {
		return t.top, nil
	}
	if n := t.hold(path, nil); n != nil {
		return n, nil
	}
	dir, name := cutPath(path)
	parent, err := t.enter(dir)
	if err != nil {
		return nil, err
	}
	defer t.leave(parent)
	f, err := t.openChild(parent, path, name)
	if err != nil {
		return nil, err
	}
	return t.hold(path, f), nil
}

// hold returns the open folder of a path with one user more. If it is not open it
// is f; a second f for the same path is closed.
func (t *tree) hold(path string, f *folder) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[path]
	switch {
	case n == nil && f == nil:
		return nil
	case n == nil:
		n = &node{folder: f, path: path, seed: t.seed}
		t.nodes[path] = n
	case f != nil:
		_ = f.close() // nothing was written through it
	}
	if n.place != nil {
		t.idle.Remove(n.place)
		n.place = nil
	}
	n.users++
	return n
}

func (t *tree) leave(n *node) {
	if n == t.top {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.users--; n.users > 0 {
		return
	}
	n.place = t.idle.PushBack(n)
	for t.idle.Len() > maxIdle {
		old := t.idle.Remove(t.idle.Front()).(*node)
		delete(t.nodes, old.path)
		if !syncsWhole {
			t.err = errors.Join(t.err, syncFolder(old.folder))
		}
		_ = old.close()
	}
}

// openChild opens the folder that path names in its parent.
func (t *tree) openChild(parent *node, path, name string) (*folder, error) {
	id := maphash.String(t.seed, path)
	t.mu.Lock()
	_, known := t.known[id]
	if actual, ok := t.renamed[path]; ok {
		name = actual
	}
	t.mu.Unlock()
	if known {
		return open(parent, path, name)
	}
	t.making.Lock()
	defer t.making.Unlock()
	t.mu.Lock()
	_, known = t.known[id] // another was faster
	t.mu.Unlock()
	if known {
		return t.openChild(parent, path, name)
	}
	f, actual, err := t.make(parent, path, name)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[id] = struct{}{}
	if actual != name {
		t.renamed[path] = actual
		t.report(path, actual)
	}
	return f, nil
}

func open(parent *node, path, name string) (*folder, error) {
	f, err := parent.open(name)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", path, err)
	}
	return f, nil
}

// made reports whether a path is a folder of this restore.
func (t *tree) made(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[maphash.String(t.seed, path)]
	return ok
}

// make makes a folder, or finds it, and returns the name that it got.
func (t *tree) make(parent *node, path, name string) (*folder, string, error) {
	names := newCandidates(name)
	moved := false
	for {
		err := parent.mkdir(names.name)
		switch {
		case err == nil:
			f, err := open(parent, path, names.name)
			return f, names.name, err
		case unholdable(err) && names.plain():
			continue
		case !errors.Is(err, fs.ErrExist):
			return nil, "", fmt.Errorf("make folder %s: %w", path, err)
		}
		exact, err := parent.has(names.name)
		if err != nil {
			return nil, "", err
		}
		if !exact {
			names.next()
			continue
		}
		f, err := parent.open(names.name)
		if err == nil {
			return f, names.name, t.meet(f)
		}
		if !notFolder(err) || moved {
			return nil, "", fmt.Errorf("folder %s: %w", path, err)
		}
		if err := t.aside(parent, names.name); err != nil {
			return nil, "", fmt.Errorf("folder %s: %w", path, err)
		}
		moved = true
	}
}

// meet notes the file system of a folder that was there before.
func (t *tree) meet(f *folder) error {
	if !syncsWhole {
		return nil
	}
	dev, err := f.device()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.devices[dev] == nil {
		again, err := f.open(".")
		if err != nil {
			return err
		}
		t.devices[dev] = again
	}
	return nil
}

// sync makes the tree durable: whole file systems where the system does that, else
// the names in the folders that are still open. Those closed were synced before.
func (t *tree) sync() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := errors.Join(t.err, syncFolder(t.top.folder))
	if !syncsWhole {
		for _, n := range t.nodes {
			err = errors.Join(err, syncFolder(n.folder))
		}
	}
	for _, f := range t.devices {
		err = errors.Join(err, syncFolder(f))
	}
	return err
}

func (t *tree) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.nodes {
		_ = n.close() // closing a folder loses nothing
	}
	for _, f := range t.devices {
		_ = f.close()
	}
	_ = t.top.close()
}

// has reports whether the folder held exactly this name when it was first asked.
// A name that is taken although the folder does not have it is taken by one that
// the file system takes for the same: of other case or composition, or made since.
func (n *node) has(name string) (bool, error) {
	n.once.Do(func() {
		var names []string
		names, n.err = n.names()
		n.there = make(map[uint64]struct{}, len(names))
		for _, name := range names {
			n.there[maphash.String(n.seed, name)] = struct{}{}
		}
	})
	_, ok := n.there[maphash.String(n.seed, name)]
	return ok, n.err
}

// candidates are the names that something may get, one after the other.
type candidates struct {
	name, base string
	n          int
}

func newCandidates(name string) candidates {
	c := candidates{name: name, base: name, n: 1}
	if !holds(name) {
		c.plain()
	}
	return c
}

// plain goes on with a name that every system holds. It is false after the first time.
func (c *candidates) plain() bool {
	p := plain(c.base)
	if p == c.base && c.n > 1 {
		return false
	}
	c.base = p
	c.next()
	return true
}

func (c *candidates) next() {
	c.n++
	c.name = suffixed(c.base, c.n)
}
