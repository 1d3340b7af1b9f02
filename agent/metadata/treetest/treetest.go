// Package treetest builds trees that are hard to back up and tells restored trees
// from what they should be. It is for tests only.
//
// The one invariant: it looks at trees with the system's plain calls and shares no
// code with what it judges.
package treetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Options say what two trees may differ in. Sockets, which no restore makes again,
// may always be missing in the second; one that is there is compared.
type Options struct {
	// SkipOwner, SkipSetID and SkipDevices leave out what only root restores: owner
	// and group; setuid and setgid bits of files and their capabilities; device files.
	SkipOwner, SkipSetID, SkipDevices bool
	// SkipTop leaves out the metadata of the top folders themselves.
	SkipTop bool
	// Skip leaves out a path, relative to the top, and everything below it. Default:
	// nothing.
	Skip func(rel string) bool
}

// Compare reports each difference between the trees at want and got as an error of
// t.
func Compare(t testing.TB, want, got string, o Options) {
	t.Helper()
	for _, d := range Differences(want, got, o) {
		t.Error(d)
	}
}

// slack is how much more room a restored file may take than the original: file
// systems round, preallocate and compress.
const slack = 1 << 20

// Differences returns what Compare reports: types, contents, link targets, modes,
// owners, modification times to the nanosecond, extended attributes, device
// numbers, which paths are names of one file, and holes that got lost.
func Differences(want, got string, o Options) []string {
	c := &comparison{o: o, want: make(map[file]file), got: make(map[file]file)}
	w, err := os.Open(want)
	if err != nil {
		return []string{err.Error()}
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		return []string{err.Error()}
	}
	defer g.Close()
	if !o.SkipTop {
		c.entry(want, got, ".")
	}
	c.folder(w, g, "")
	return c.found
}

// A file is one inode: its device and number.
type file [2]uint64

// stat is what a system keeps about a path, as far as it keeps it.
type stat struct {
	typ           fs.FileMode
	perm          uint32 // 07777, or Windows attributes
	uid, gid      uint32
	size, room    int64
	modified      time.Time
	file          file
	links, device uint64
	xattrs        map[string]string
}

type comparison struct {
	o         Options
	found     []string
	want, got map[file]file // of files with several names, what they are on the other side
}

func (c *comparison) add(rel, format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf("%q: ", rel)+fmt.Sprintf(format, args...))
}

func (c *comparison) folder(want, got *os.File, rel string) {
	names, err := want.Readdirnames(-1)
	others, oerr := got.Readdirnames(-1)
	if err := errors.Join(err, oerr); err != nil {
		c.add(rel, "%v", err)
		return
	}
	here := make(map[string]bool)
	for _, name := range names {
		here[name] = true
	}
	there := make(map[string]bool)
	for _, name := range others {
		there[name] = true
		if rel := filepath.Join(rel, name); !here[name] && !c.skip(rel) {
			c.add(rel, "should not be there")
		}
	}
	slices.Sort(names)
	for _, name := range names {
		rel, w, g := filepath.Join(rel, name), at(want, name), at(got, name)
		if c.skip(rel) {
			continue
		}
		if !there[name] {
			info, err := os.Lstat(w)
			switch {
			case err != nil:
				c.add(rel, "%v", err)
			case info.Mode()&fs.ModeSocket != 0, c.o.SkipDevices && info.Mode()&fs.ModeDevice != 0:
			default:
				c.add(rel, "is missing, a %v", info.Mode())
			}
			continue
		}
		if c.entry(w, g, rel) {
			c.subfolder(w, g, rel)
		}
	}
}

func (c *comparison) skip(rel string) bool { return c.o.Skip != nil && c.o.Skip(rel) }

func (c *comparison) subfolder(want, got, rel string) {
	w, err := os.Open(want)
	if err != nil {
		c.add(rel, "%v", err)
		return
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		c.add(rel, "%v", err)
		return
	}
	defer g.Close()
	c.folder(w, g, rel)
}

// entry compares two paths and reports whether both are folders.
func (c *comparison) entry(want, got, rel string) bool {
	w, err := look(want)
	if err != nil {
		c.add(rel, "%v", err)
		return false
	}
	g, err := look(got)
	if err != nil {
		c.add(rel, "%v", err)
		return false
	}
	if w.typ != g.typ {
		c.add(rel, "is a %v, should be a %v", g.typ, w.typ)
		return false
	}
	folder := w.typ.IsDir()
	wp, gp := w.perm, g.perm
	if c.o.SkipSetID && !folder {
		const setID = 0o6000
		wp, gp = wp&^setID, gp&^setID
		delete(w.xattrs, "security.capability")
		delete(g.xattrs, "security.capability")
	}
	if wp != gp {
		c.add(rel, "mode %#o, should be %#o", gp, wp)
	}
	if !c.o.SkipOwner && (w.uid != g.uid || w.gid != g.gid) {
		c.add(rel, "belongs to %d:%d, should to %d:%d", g.uid, g.gid, w.uid, w.gid)
	}
	if !w.modified.Equal(g.modified) {
		c.add(rel, "changed at %v, should be %v", g.modified, w.modified)
	}
	if w.device != g.device {
		c.add(rel, "device %#x, should be %#x", g.device, w.device)
	}
	for _, name := range slices.Sorted(maps.Keys(w.xattrs)) {
		if v, ok := g.xattrs[name]; !ok || v != w.xattrs[name] {
			c.add(rel, "extended attribute %q is %q (%v), should be %q", name, v, ok, w.xattrs[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.xattrs)) {
		if _, ok := w.xattrs[name]; !ok {
			c.add(rel, "extended attribute %q should not be there", name)
		}
	}
	switch {
	case w.typ == fs.ModeSymlink:
		if a, b := target(want), target(got); a != b {
			c.add(rel, "points to %q, should to %q", b, a)
		}
	case w.typ.IsRegular():
		c.content(want, got, rel, w, g)
	}
	return folder
}

func (c *comparison) content(want, got, rel string, w, g stat) {
	if (w.links > 1 || g.links > 1) && (pair(c.want, w.file, g.file) != g.file || pair(c.got, g.file, w.file) != w.file) {
		c.add(rel, "is a name of another file than it should be")
	}
	if g.room > w.room+slack {
		c.add(rel, "takes %d bytes of room, should take %d", g.room, w.room)
	}
	if w.size != g.size {
		c.add(rel, "has %d bytes, should have %d", g.size, w.size)
		return
	}
	at, err := differAt(want, got)
	if err != nil {
		c.add(rel, "%v", err)
	} else if at >= 0 {
		c.add(rel, "differs from byte %d on", at)
	}
}

// pair returns what from was first paired with.
func pair(known map[file]file, from, to file) file {
	if first, ok := known[from]; ok {
		return first
	}
	known[from] = to
	return to
}

func target(path string) string {
	s, err := os.Readlink(path)
	if err != nil {
		return err.Error()
	}
	return s
}

// differAt returns where two files of one size begin to differ, -1 if nowhere.
func differAt(want, got string) (int64, error) {
	w, err := os.Open(want)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		return 0, err
	}
	defer g.Close()
	a, b := make([]byte, 256<<10), make([]byte, 256<<10)
	for at := int64(0); ; {
		n, werr := io.ReadFull(w, a)
		m, gerr := io.ReadFull(g, b)
		if !bytes.Equal(a[:n], b[:m]) {
			for i := range min(n, m) {
				if a[i] != b[i] {
					return at + int64(i), nil
				}
			}
			return at + int64(min(n, m)), nil
		}
		at += int64(n)
		switch {
		case errors.Is(werr, io.EOF), errors.Is(werr, io.ErrUnexpectedEOF):
			return -1, nil
		case werr != nil:
			return 0, werr
		case gerr != nil:
			return 0, gerr
		}
	}
}

// Removable makes every folder below dir writable when the test ends, so that a
// temporary folder can be removed by who is not root.
func Removable(t testing.TB, dir string) {
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700) // what cannot be removed in the end says so itself
			}
			return nil
		})
	})
}
