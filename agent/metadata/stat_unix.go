//go:build unix

package metadata

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// A Handle is an open descriptor. On Linux it may be one opened with O_PATH.
type Handle = int

// Read completes what [Stat] told of h with what further questions tell: the names
// of the owner, from a cache but blocking where the directory of people is far
// away, and extended attributes. path is what a problem shows. Files without
// extended attributes cost one system call.
//
// The metadata is valid with an error, too, which is a *[facts.Problem] and says
// what of it could not be read.
func Read(h Handle, n Node, path string) (vault.Metadata, error) {
	m := n.Named()
	var err error
	m.Xattrs, err = readXattrs(&place{fd: h}, path)
	return m, err
}

// Named returns the metadata without extended attributes, for what cannot be
// opened.
func (n Node) Named() vault.Metadata {
	m := n.meta
	owner := *m.Owner
	owner.User, owner.Group = userNames.get(owner.UID), groupNames.get(owner.GID)
	m.Owner = &owner
	return m
}

// again repeats a call that a signal interrupted, which happens on network and
// user-space file systems.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// node returns what facts and numbers tell; the times are still missing.
func node(f facts.Facts, uid, gid uint32, major, minor uint32) Node {
	n := Node{Facts: f, Type: vault.FileType(f.Type), Key: LinkKey{Volume: f.Dev}, Changed: f.CTime}
	binary.LittleEndian.PutUint64(n.Key.File[:], f.Inode)
	if f.Type == facts.CharDevice || f.Type == facts.BlockDevice {
		n.Device = &vault.DeviceNumber{Major: major, Minor: minor}
	}
	n.meta.Mode = &f.Mode
	n.meta.Owner = &vault.Owner{UID: uid, GID: gid}
	return n
}

// splitNames splits a list of names that each end with a zero byte.
func splitNames(list []byte) []string {
	if len(list) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
}
