// Package capture reads one regular file so that what was read is the file as it
// was at one moment, or is known not to be.
//
// The one invariant: when [File.Check] returns nil after everything was read, no
// write, truncation, replacement or rename touched the file in between. For that,
// identity, size, modification and change time are taken before and after reading
// from the descriptor, and once more by name from the root down. No symlink below
// the root is followed, and nothing but a regular file is read: a FIFO or a device
// neither blocks the capture nor is read from.
//
// The system's clock for file times ticks every few milliseconds, so a file that
// was written a moment ago can be written again without its times moving. Such a
// file is not yet settled: [File.Unsettled] says how long to wait, and Check never
// calls it clean. Two things cannot be seen by any program: writes through a
// memory mapping show in the times only when the system gets round to it, and a
// file server with a clock of its own makes "a moment ago" a guess. The settle
// time before a capture covers both in practice.
//
// What is not a regular file is captured without being opened for reading, and its
// parts can be no more torn than a folder's listing: see [Entry].
//
// The package does not retry, wait, or decide what to do with a file that will not
// rest. Enter at [Open] for regular files and at [Entry] for everything else.
package capture

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"backstay/agent/metadata"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

var (
	// ErrTorn: the file changed while it was read, or may have. Capture it again.
	ErrTorn = errors.New("the file changed while it was read")
	// ErrVanished: nothing by that name is there, or no longer. Only a scan can say
	// whether it was deleted: its root may be gone with it.
	ErrVanished = errors.New("the file is not there")
	// ErrNotRegular: the name leads to something other than a regular file, or to
	// it through a symlink.
	ErrNotRegular = errors.New("not a regular file")
	// ErrInUse: another program has the file for itself. Try again later.
	ErrInUse = errors.New("the file is in use by another program")
)

const (
	// tick is how far the times of a file may lag behind the clock: two ticks of
	// the slowest kernel (100 a second), and the 10 ms that exFAT counts in.
	tick = 20 * time.Millisecond
	// coarseTick is the same where times come in whole seconds, such as on FAT,
	// which counts in twos.
	coarseTick = 2*time.Second + tick
)

// A File is a regular file open for one capture. It is for one goroutine.
type File struct {
	root, rel string
	handle    handle
	node      metadata.Node
	before    state
	at        int64        // where Read goes on
	holes     []vault.Hole // still ahead of Read, which leaves them out
	short     bool         // it ended before its size
	unsettled time.Duration
}

// A state is what tells one content of a file from the next.
type state struct {
	facts  facts.Facts
	change int64 // when anything about it last changed, ns; its ctime
}

func stateOf(n metadata.Node) state { return state{n.Facts, n.Changed} }

// Open opens the regular file path, which is root itself or lies below it; both
// are absolute. The root may be a symlink or lie behind one. Open does not block
// on FIFOs or leases. Its error is [ErrVanished], [ErrNotRegular], or a
// *[facts.Problem], which holds [ErrInUse] if that is the cause. The caller closes
// the File.
func Open(root, path string) (*File, error) {
	rel, err := below(root, path)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	h, err := open(root, rel)
	if err != nil {
		return nil, explain(path, err)
	}
	now := time.Now() // before the facts: what is written from here on must show in them
	n, err := metadata.Stat(h.of())
	if err == nil && n.Facts.Type != facts.Regular {
		err = fmt.Errorf("%w but a %v", ErrNotRegular, n.Facts.Type)
	}
	if err != nil {
		_ = h.close() // opened for reading: nothing can be lost
		return nil, explain(path, err)
	}
	s := stateOf(n)
	return &File{root: root, rel: rel, handle: h, node: n, before: s, unsettled: unsettled(now, s)}, nil
}

// Facts returns the facts taken when the file was opened.
func (f *File) Facts() facts.Facts { return f.before.facts }

// Unsettled returns how long to wait before opening the file again if Check is to
// succeed, 0 if it may succeed now. It is more than 0 only when the file changed
// within the last 20 ms, on file systems that count in seconds within the last two.
func (f *File) Unsettled() time.Duration { return f.unsettled }

// Metadata returns what the system keeps about the file beside its content. It is
// valid with an error, too, a *[facts.Problem] that says what of it could not be
// read. [File.Check] covers it if called later: what changes it moves the file's
// change time. It costs one system call, and more for each extended attribute.
func (f *File) Metadata() (vault.Metadata, error) {
	return metadata.Read(f.handle.of(), f.node, f.path())
}

// Link returns how many names the file has on its system, and a key that is equal
// for all of them; files with one name need none.
func (f *File) Link() (links uint64, key metadata.LinkKey) { return f.node.Links, f.node.Key }

// maxHoles is how many holes a file may have to be taken apart: more would not fit
// a record beside everything else, and a file so ragged saves nothing.
const maxHoles = 65_536

// SkipHoles finds the parts of the file that take no room, and makes Read leave
// them out. It returns them ascending, nil if there are none, more than 65,536, or
// the system cannot tell: then Read returns everything. Call it before the first
// Read. For a file that takes as much room as its size it asks the system nothing.
// Its error is a *[facts.Problem].
func (f *File) SkipHoles() ([]vault.Hole, error) {
	if f.node.Allocated >= f.node.Facts.Size {
		return nil, nil
	}
	holes, err := f.handle.holes(f.node.Facts.Size)
	if err != nil {
		return nil, explain(f.path(), err)
	}
	if len(holes) > maxHoles {
		return nil, nil
	}
	f.holes = holes
	return holes, nil
}

// Read reads on, up to the size the file had when it was opened and leaving out
// what SkipHoles found. It returns io.EOF there, and earlier if the file got
// shorter, which Check tells. Other errors are *[facts.Problem].
func (f *File) Read(p []byte) (int, error) {
	end := f.node.Facts.Size
	for len(f.holes) > 0 && int64(f.holes[0].Offset) <= f.at {
		f.at = int64(f.holes[0].Offset + f.holes[0].Length)
		f.holes = f.holes[1:]
	}
	if f.at >= end || f.short {
		return 0, io.EOF
	}
	if len(f.holes) > 0 {
		end = int64(f.holes[0].Offset)
	}
	p = p[:min(int64(len(p)), end-f.at)]
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.handle.readAt(p, f.at)
	if err != nil {
		return n, explain(f.path(), err)
	}
	if n == 0 {
		f.short = true
		return 0, io.EOF
	}
	f.at += int64(n)
	return n, nil
}

// Check says whether what was read is one state of the file: nil, [ErrTorn], or
// [ErrVanished] when it was deleted meanwhile. Another error is a
// *[facts.Problem]: it could not be told. Call it after the last Read.
func (f *File) Check() error {
	named, same, err := f.handle.named(f.root, f.rel, f.before)
	if err != nil {
		return explain(f.path(), err)
	}
	now, err := metadata.Stat(f.handle.of())
	if err != nil {
		return explain(f.path(), err)
	}
	after := stateOf(now)
	switch {
	case !same:
		return fmt.Errorf("%w: another file took its name", ErrTorn)
	case f.short || after.facts.Size != f.before.facts.Size:
		return fmt.Errorf("%w: it had %d bytes, now %d", ErrTorn, f.before.facts.Size, after.facts.Size)
	case after != f.before || named != f.before:
		return fmt.Errorf("%w: its times or rights changed", ErrTorn)
	case f.unsettled > 0:
		return fmt.Errorf("%w, or may have: it was changed just before", ErrTorn)
	}
	return nil
}

// Close closes the file. It does not check.
func (f *File) Close() error { return f.handle.close() }

func (f *File) path() string { return filepath.Join(f.root, f.rel) }

// unsettled returns for how long, counted from now, a write may still leave a
// file in state s with the same times.
func unsettled(now time.Time, s state) time.Duration {
	window := tick
	if s.change%int64(time.Second) == 0 {
		window = coarseTick
	}
	age := now.Sub(time.Unix(0, s.change))
	if age.Abs() >= window {
		return 0 // a time in the future cannot be hit by accident before it is near
	}
	return window - age
}

// below returns path relative to root, "" for root itself.
func below(root, path string) (string, error) {
	const sep = string(filepath.Separator)
	if path == root {
		return "", nil
	}
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(root, sep)+sep)
	if !ok || filepath.Clean(rel) != rel || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%q is not a path below %q", path, root)
	}
	return rel, nil
}

// explain sorts an error of the leaf into those that Open, Read and Check promise.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, ErrNotRegular):
		return fmt.Errorf("capture %q: %w", path, err)
	case notRegular(err):
		return fmt.Errorf("capture %q: %w: %w", path, ErrNotRegular, err)
	case vanished(err):
		return fmt.Errorf("capture %q: %w: %w", path, ErrVanished, err)
	case inUse(err):
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return facts.Explain(path, err)
}
