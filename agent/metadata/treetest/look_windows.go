package treetest

import (
	"os"
	"path/filepath"
	"syscall"
)

func at(dir *os.File, name string) string { return filepath.Join(dir.Name(), name) }

func look(path string) (stat, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return stat{}, err
	}
	s := stat{typ: info.Mode().Type(), size: info.Size(), modified: info.ModTime(), links: 1}
	if data, ok := info.Sys().(*syscall.Win32FileAttributeData); ok {
		// How a file is stored differs by itself.
		const asked = syscall.FILE_ATTRIBUTE_READONLY | syscall.FILE_ATTRIBUTE_HIDDEN | syscall.FILE_ATTRIBUTE_SYSTEM
		s.perm = data.FileAttributes & asked
	}
	return s, nil
}
