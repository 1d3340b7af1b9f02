package metadata

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func flistxattr(fd int, buf []byte) (int, error)           { return unix.Flistxattr(fd, buf) }
func fgetxattr(fd int, name string, v []byte) (int, error) { return unix.Fgetxattr(fd, name, v) }
func fsetxattr(fd int, name string, v []byte) error        { return unix.Fsetxattr(fd, name, v, 0) }

// futimens sets the modification time by fsetattrlist, which takes a descriptor
// and nanoseconds; the library's futimes counts in microseconds.
func futimens(fd int, modified unix.Timespec) error {
	list := unix.Attrlist{Bitmapcount: unix.ATTR_BIT_MAP_COUNT, Commonattr: unix.ATTR_CMN_MODTIME}
	//lint:ignore SA1019 x/sys wraps only the form that takes a path, which another file may have by now
	_, _, errno := unix.Syscall6(unix.SYS_FSETATTRLIST, uintptr(fd), uintptr(unsafe.Pointer(&list)),
		uintptr(unsafe.Pointer(&modified)), unsafe.Sizeof(modified), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
