package metadata

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/scan/facts"
)

// Stat asks for everything that one system call tells of h.
func Stat(h Handle) (Node, error) {
	var x unix.Statx_t
	err := again(func() error {
		return unix.Statx(h, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x)
	})
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // not known, or a container forbids it
		return fstat(h)
	case err != nil:
		return Node{}, err
	}
	// The type and the mode as everybody else reads them, then the times without
	// the 32 bits that they have in a Stat_t of some processors.
	f := facts.FromStat(&unix.Stat_t{Mode: uint32(x.Mode), Size: int64(x.Size), Ino: x.Ino})
	f.Dev = unix.Mkdev(x.Dev_major, x.Dev_minor)
	f.MTime = x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec)
	f.CTime = x.Ctime.Sec*1e9 + int64(x.Ctime.Nsec)
	n := node(f, x.Uid, x.Gid, x.Rdev_major, x.Rdev_minor)
	n.Links, n.Allocated = uint64(x.Nlink), int64(x.Blocks)*512
	n.meta.ModTime = time.Unix(x.Mtime.Sec, int64(x.Mtime.Nsec)).UTC()
	if x.Mask&unix.STATX_BTIME != 0 {
		n.meta.Created = time.Unix(x.Btime.Sec, int64(x.Btime.Nsec)).UTC()
	}
	return n, nil
}

// fstat is Stat without the time of creation.
func fstat(h Handle) (Node, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstat(h, &st) }); err != nil {
		return Node{}, err
	}
	n := node(facts.FromStat(&st), st.Uid, st.Gid, unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	n.Links, n.Allocated = uint64(st.Nlink), int64(st.Blocks)*512
	n.meta.ModTime = time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)).UTC()
	return n, nil
}
