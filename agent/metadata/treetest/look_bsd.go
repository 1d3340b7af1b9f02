//go:build unix && !linux

package treetest

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func at(dir *os.File, name string) string { return filepath.Join(dir.Name(), name) }

func llistxattr(string, []byte) (int, error)        { return 0, unix.ENOTSUP }
func lgetxattr(string, string, []byte) (int, error) { return 0, unix.ENOTSUP }
func lsetxattr(string, string, []byte) error        { return unix.ENOTSUP }
func mknod(string, uint32, uint32, uint32) error    { return unix.ENOTSUP }
