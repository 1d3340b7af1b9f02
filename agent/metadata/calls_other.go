//go:build unix && !linux && !darwin && !freebsd

package metadata

import "golang.org/x/sys/unix"

func flistxattr(int, []byte) (int, error)        { return 0, unix.ENOTSUP }
func fgetxattr(int, string, []byte) (int, error) { return 0, unix.ENOTSUP }
func fsetxattr(int, string, []byte) error        { return unix.ENOTSUP }

// futimens counts in microseconds here.
func futimens(fd int, modified unix.Timespec) error {
	tv := unix.NsecToTimeval(unix.TimespecToNsec(modified))
	return unix.Futimes(fd, []unix.Timeval{tv, tv})
}
