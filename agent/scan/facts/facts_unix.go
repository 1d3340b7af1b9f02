//go:build unix

package facts

import "golang.org/x/sys/unix"

// FromStat converts what fstat or fstatat filled in.
func FromStat(st *unix.Stat_t) Facts {
	f := Facts{
		Type:  typeOf(uint32(st.Mode)),
		Mode:  uint32(st.Mode) & 0o7777,
		Dev:   uint64(st.Dev),
		Inode: st.Ino,
		MTime: int64(st.Mtim.Sec)*1e9 + int64(st.Mtim.Nsec),
		CTime: int64(st.Ctim.Sec)*1e9 + int64(st.Ctim.Nsec),
	}
	if f.Type == Regular || f.Type == Symlink {
		f.Size = st.Size
	}
	return f
}

func typeOf(mode uint32) Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular
	case unix.S_IFDIR:
		return Directory
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFIFO:
		return FIFO
	case unix.S_IFSOCK:
		return Socket
	case unix.S_IFCHR:
		return CharDevice
	case unix.S_IFBLK:
		return BlockDevice
	}
	return Irregular
}
