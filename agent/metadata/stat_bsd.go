//go:build unix && !linux

package metadata

import (
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
)

// Stat asks for everything that one system call tells of h.
func Stat(h Handle) (Node, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstat(h, &st) }); err != nil {
		return Node{}, err
	}
	return FromStat(&st), nil
}

// FromStat is Stat for what cannot be opened.
func FromStat(st *unix.Stat_t) Node {
	n := node(facts.FromStat(st), st.Uid, st.Gid, unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	n.Links, n.Allocated = uint64(st.Nlink), int64(st.Blocks)*512
	n.meta.ModTime = time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)).UTC()
	n.meta.Created = created(st)
	return n
}
