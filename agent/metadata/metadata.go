// Package metadata reads what a system keeps about a path beside its content, and
// sets it again when the path is restored.
//
// The one invariant: everything goes through the open descriptor, never through a
// name that somebody may have given to another file meanwhile. What cannot be read
// or set is said, attribute by attribute, and costs only itself.
//
// Read and set are: the POSIX mode with its setuid, setgid and sticky bits, the
// owner by number and name, the modification time (seconds of 64 bits and
// nanoseconds, so neither 1677 nor 2262 is a limit), the time of creation,
// extended attributes with the POSIX ACLs that Linux keeps among them, and on
// Windows the attributes and the security descriptor (owner, group, DACL).
//
// Neither read nor set are: access times; on Windows alternate data streams, the
// SACL, and that a file is encrypted; on macOS ACLs and file flags; outside Linux
// extended attributes of what is neither a file nor a folder (on macOS nor a
// symlink). Linux has no call that sets a time of creation, so that one is kept
// but comes back on other systems only. ACLs and Windows permissions name people
// by number, and mean others where the numbers do.
//
// Enter at [Stat] and [Read], which package capture calls, and at [Apply] and
// [Make], which a restore calls.
package metadata

import (
	"errors"
	"fmt"
	"slices"

	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// A Node is what one question to the system tells about what stands at a path.
type Node struct {
	Facts facts.Facts // as the scan would take them
	// Type is the record's. It differs from Facts.Type for junctions of Windows,
	// which are symlinks in a record.
	Type   vault.FileType
	Device *vault.DeviceNumber // of devices, else nil
	// Links is how many names a file has; Key is equal for all of them and for no
	// other file. The device in it may be numbered anew at every boot.
	Links uint64
	Key   LinkKey
	// Allocated is how many bytes of room the content takes. A file that takes less
	// than its size may have holes.
	Allocated int64
	// Changed is when anything about it last changed, in nanoseconds since 1970.
	Changed int64

	meta vault.Metadata // what is known without asking again
}

// A LinkKey tells the files of one machine apart.
type LinkKey struct {
	Volume uint64
	File   [16]byte
}

// maxXattrs is how many bytes the extended attributes of one path may have in
// all: they must fit a record of 4 MiB beside everything else. Linux allows 64 KiB
// each, macOS keeps whole resource forks in one.
const maxXattrs = 1 << 20

// Options say what a restore may set besides what is harmless.
type Options struct {
	// Owner gives paths to who they belonged to, which takes root. Default: they
	// belong to who restores; a path of their own gets its group back if they are in
	// it. On Windows it brings back permissions set by others, too.
	Owner bool
	// SetID restores setuid and setgid bits of files and, on Linux, their
	// capabilities: rights beyond those of who runs them. It is for root only, and
	// needs the owner and the group to be the recorded ones. Default: left out.
	SetID bool
	// NumericIDs takes owners by number. Default: by name where this system knows the
	// name, since the same person may have another number on a new machine, and by
	// number where not.
	NumericIDs bool
	// Devices recreates device files, on Linux and as root. Default: left out.
	Devices bool
}

var (
	// ErrNotAsked: the options forbid it, or only root may ask for it.
	ErrNotAsked = errors.New("only restored when root asks for it")
	// ErrNotRecreated: a socket, a device that nobody asked for, or something this
	// system has no word for. It is recorded and stays a record.
	ErrNotRecreated = errors.New("recorded, not recreated")
	// ErrNotHeld: the file system took the value and did not keep it.
	ErrNotHeld = errors.New("the file system cannot hold it")
	// ErrForeign: another kind of system recorded it, and this one has nothing like it.
	ErrForeign = errors.New("this system has no such thing")
)

// A Loss is one thing about a path that could not be set. [ErrNotAsked],
// [ErrNotHeld] and [ErrForeign] are causes to look for in Err.
type Loss struct {
	What string // in words for a person, such as "owner"
	Err  error
}

func (l Loss) String() string { return l.What + ": " + l.Err.Error() }

// losses collects what could not be set.
type losses []Loss

func (l *losses) add(what string, err error) {
	if err != nil {
		*l = append(*l, Loss{What: what, Err: err})
	}
}

// partial says that path is protected but for one thing.
func partial(path, what string, err error) *facts.Problem {
	return &facts.Problem{
		Path: path, Reason: what + ": " + err.Error(), Err: err,
		Fix: "give the account that Backstay runs under the right to read it; the rest of the path is protected",
	}
}

// An xattrStore is where the extended attributes of one path are.
type xattrStore interface {
	list() ([]string, error)
	// get returns errNoXattr if there is none by that name, and errTooLarge
	// instead of a value of more than limit bytes.
	get(name string, limit int) ([]byte, error)
}

var (
	errNoXattr  = errors.New("no such attribute")
	errTooLarge = fmt.Errorf("the extended attributes hold more than %d KiB together", maxXattrs>>10)
)

// readXattrs reads all there are, ascending by name. What it could not read is in
// the error, the rest in the result.
func readXattrs(s xattrStore, path string) ([]vault.Xattr, error) {
	names, err := s.list()
	if err != nil {
		return nil, partial(path, "its extended attributes cannot be read", err)
	}
	slices.Sort(names)
	var all []vault.Xattr
	var problem error
	left := maxXattrs
	for _, name := range slices.Compact(names) {
		value, err := s.get(name, left-len(name))
		switch {
		case errors.Is(err, errNoXattr): // removed since it was listed
		case errors.Is(err, errTooLarge):
			problem = &facts.Problem{
				Path: path, Reason: fmt.Sprintf("its extended attribute %q is left out: %v", name, err), Err: err,
				Fix: "remove it if it is not needed; the rest of the path is protected",
			}
		case err != nil:
			problem = partial(path, fmt.Sprintf("its extended attribute %q cannot be read", name), err)
		default:
			all = append(all, vault.Xattr{Name: []byte(name), Value: value})
			left -= len(name) + len(value)
		}
	}
	return all, problem
}
