//go:build unix

package treetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func look(path string) (stat, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return stat{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stat{}, fmt.Errorf("%s: no stat but %T", path, info.Sys())
	}
	s := stat{
		typ: info.Mode().Type(), perm: uint32(st.Mode) & 0o7777, uid: st.Uid, gid: st.Gid,
		size: info.Size(), room: int64(st.Blocks) * 512, modified: info.ModTime(),
		file: file{uint64(st.Dev), st.Ino}, links: uint64(st.Nlink),
	}
	if s.typ&fs.ModeDevice != 0 {
		s.device = uint64(st.Rdev)
	}
	s.xattrs, err = xattrs(path)
	return s, err
}

func xattrs(path string) (map[string]string, error) {
	list := make([]byte, 64<<10)
	n, err := llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes of %s: %w", path, err)
	}
	all := make(map[string]string)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("extended attribute %q of %s: %w", name, path, err)
		}
		all[name] = string(value[:n])
	}
	return all, nil
}

// year returns the start of a year and some nanoseconds.
func year(y int) time.Time { return time.Date(y, 1, 2, 3, 4, 5, 123_456_789, time.UTC) }
