package treetest

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// at returns a path to name in an open folder, however deep that lies.
func at(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

func llistxattr(path string, buf []byte) (int, error)      { return unix.Llistxattr(path, buf) }
func lgetxattr(path, name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) }
func lsetxattr(path, name string, value []byte) error      { return unix.Lsetxattr(path, name, value, 0) }
func mknod(path string, mode uint32, major, minor uint32) error {
	return unix.Mknod(path, mode, int(unix.Mkdev(major, minor)))
}
