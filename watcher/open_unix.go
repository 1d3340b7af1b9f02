//go:build unix

package watcher

import (
	"os"
	"syscall"
)

// openFlags open a directory and nothing else.
const openFlags = syscall.O_DIRECTORY | syscall.O_NOFOLLOW

// openDir opens a directory for listing. A symbolic link is refused unless follow.
func openDir(path string, follow bool) (*os.File, error) {
	if follow {
		return os.OpenFile(path, syscall.O_DIRECTORY, 0)
	}
	return os.OpenFile(path, openFlags, 0)
}
