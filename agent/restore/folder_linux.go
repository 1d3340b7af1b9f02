package restore

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncsWhole says that syncFolder makes all of a file system durable at once, so
// that files need not be synced one by one.
const syncsWhole = true

// syncFolder makes everything on the folder's file system durable.
func syncFolder(d *folder) error {
	return os.NewSyscallError("syncfs", again(func() error { return unix.Syncfs(d.fd) }))
}

func renameNew(fd int, old, name string) error {
	err := again(func() error { return unix.Renameat2(fd, old, fd, name, unix.RENAME_NOREPLACE) })
	if err == unix.EINVAL || err == unix.ENOSYS { // a file system, or a container, that does not know it
		return linkAndUnlink(fd, old, name)
	}
	return err
}
