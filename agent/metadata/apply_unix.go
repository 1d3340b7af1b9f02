//go:build unix

package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"backstay/protocol/vault"
)

const (
	setID  = 0o6000
	setGID = 0o2000
)

// Apply sets m on an open file or folder, after its content was written and all
// that is in it was made. It returns what it could not set; that stops nothing
// else. Rights come after the owner, which takes setuid bits away, and times last.
func Apply(f *os.File, m *vault.Metadata, o Options) []Loss {
	raw, err := f.SyscallConn()
	if err != nil {
		return []Loss{{"metadata", err}}
	}
	var lost losses
	lost.add("metadata", raw.Control(func(fd uintptr) { lost = (&place{fd: int(fd)}).apply(m, o) }))
	return lost
}

// Make makes a symlink, a FIFO or a device by that name in the open folder dir, as
// r says, and sets its metadata as [Apply] does. It replaces nothing: an error is
// [ErrNotRecreated], fs.ErrExist, or the system's, and then nothing is there by its
// doing.
func Make(dir *os.File, name string, r *vault.Record, o Options) ([]Loss, error) {
	raw, err := dir.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("make %q: %w", name, err)
	}
	var lost losses
	cerr := raw.Control(func(fd uintptr) {
		if err = again(func() error { return create(dir, int(fd), name, r, o) }); err != nil {
			return
		}
		p, perr := placeAt(dir, int(fd), name)
		if perr != nil {
			lost.add("metadata", perr)
			return
		}
		defer p.close()
		lost = p.apply(&r.Metadata, o)
	})
	if err = errors.Join(err, cerr); err != nil {
		return nil, fmt.Errorf("make %q: %w", name, err)
	}
	return lost, nil
}

// SetSparse prepares f to be written with holes. Here every file is.
func SetSparse(*os.File) error { return nil }

func (p *place) apply(m *vault.Metadata, o Options) losses {
	var lost losses
	is, err := p.stat()
	if err != nil {
		lost.add("metadata", err)
		return lost
	}
	owned := p.applyOwner(&lost, is, m, o)
	privileged := o.SetID && owned && os.Geteuid() == 0
	p.applyXattrs(&lost, m, privileged)
	p.applyMode(&lost, is, m, privileged)
	if m.Attributes != nil {
		lost.add("Windows attributes", ErrForeign)
	}
	if m.Security != nil {
		lost.add("Windows permissions", ErrForeign)
	}
	p.applyTimes(&lost, m)
	return lost
}

// applyOwner reports whether owner and group are the recorded ones afterwards.
func (p *place) applyOwner(lost *losses, is Node, m *vault.Metadata, o Options) bool {
	if m.Owner == nil {
		return false
	}
	uid, gid := localIDs(m.Owner, o.NumericIDs)
	now := is.meta.Owner
	if uid == now.UID && gid == now.GID {
		return true
	}
	err := ErrNotAsked
	switch {
	case o.Owner && os.Geteuid() == 0:
		err = p.chown(int(uid), int(gid))
	case uid == now.UID: // a group of one's own
		err = p.chown(-1, int(gid))
	}
	lost.add("owner", err)
	return err == nil
}

func (p *place) applyXattrs(lost *losses, m *vault.Metadata, privileged bool) {
	for _, x := range m.Xattrs {
		name := string(x.Name)
		if name == privilege && !privileged {
			lost.add("file capabilities", ErrNotAsked)
			continue
		}
		// What the system gave it by itself, such as a label, need not be allowed.
		if v, err := p.get(name, len(x.Value)); err == nil && bytes.Equal(v, x.Value) {
			continue
		}
		if err := p.set(name, x.Value); err != nil {
			lost.add("extended attribute "+name, err)
		}
	}
	if m.Mode == nil || len(acls) == 0 {
		return
	}
	// The folder may have handed down ACLs that were not there.
	names, err := p.list()
	if err != nil {
		lost.add("ACL", err)
		return
	}
	for _, acl := range acls {
		recorded := slices.ContainsFunc(m.Xattrs, func(x vault.Xattr) bool { return string(x.Name) == acl })
		if !recorded && slices.Contains(names, acl) {
			lost.add("ACL", p.remove(acl))
		}
	}
}

func (p *place) applyMode(lost *losses, is Node, m *vault.Metadata, privileged bool) {
	if m.Mode == nil || modeless(is.Type) {
		return
	}
	mode := *m.Mode & 0o7777
	// On a folder these bits say whose group what is made there gets.
	if is.Type != vault.TypeFolder && mode&setID != 0 && !privileged {
		mode &^= setID
		lost.add("setuid and setgid bits", ErrNotAsked)
	}
	if err := p.chmod(mode); err != nil {
		lost.add("mode", err)
		return
	}
	if mode&setGID == 0 {
		return
	}
	// The system drops it without a word where the group is not one's own.
	if now, err := p.stat(); err != nil || now.Facts.Mode&setGID == 0 {
		lost.add("setgid bit", errors.Join(unix.EPERM, err))
	}
}

func (p *place) applyTimes(lost *losses, m *vault.Metadata) {
	if m.ModTime.IsZero() {
		return
	}
	if err := p.setTimes(m.ModTime, m.Created); err != nil {
		lost.add("modification time", err)
		return
	}
	// Every file system holds the years from 1970 to 2037; others are cut to
	// what fits without a word. So are times of creation.
	year := m.ModTime.UTC().Year()
	if year >= 1970 && year < 2038 && (!holdsCreated || m.Created.IsZero()) {
		return
	}
	now, err := p.stat()
	switch {
	case err != nil:
		lost.add("modification time", err)
		return
	case now.meta.ModTime.Unix() != m.ModTime.Unix():
		lost.add("modification time", ErrNotHeld)
	}
	if holdsCreated && !m.Created.IsZero() && now.meta.Created.Unix() != m.Created.Unix() {
		lost.add("time of creation", ErrNotHeld)
	}
}
