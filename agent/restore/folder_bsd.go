//go:build unix && !linux && !darwin

package restore

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncsWhole: no call that waits for a whole file system.
const syncsWhole = false

// syncFolder makes the names in the folder durable.
func syncFolder(d *folder) error {
	return os.NewSyscallError("fsync", again(func() error { return unix.Fsync(d.fd) }))
}

func renameNew(fd int, old, name string) error { return linkAndUnlink(fd, old, name) }
