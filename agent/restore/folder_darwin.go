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

func renameNew(fd int, old, name string) error {
	err := again(func() error { return unix.RenameatxNp(fd, old, fd, name, unix.RENAME_EXCL) })
	if err == unix.ENOTSUP {
		return linkAndUnlink(fd, old, name)
	}
	return err
}
