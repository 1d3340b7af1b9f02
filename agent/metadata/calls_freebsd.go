package metadata

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func flistxattr(fd int, buf []byte) (int, error)           { return unix.Flistxattr(fd, buf) }
func fgetxattr(fd int, name string, v []byte) (int, error) { return unix.Fgetxattr(fd, name, v) }
func fsetxattr(fd int, name string, v []byte) error        { return unix.Fsetxattr(fd, name, v, 0) }

func futimens(fd int, modified unix.Timespec) error {
	const omit = -2 // UTIME_OMIT
	times := [2]unix.Timespec{{Nsec: omit}, modified}
	_, _, errno := unix.Syscall(unix.SYS_FUTIMENS, uintptr(fd), uintptr(unsafe.Pointer(&times)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
