package restore

import "golang.org/x/sys/unix"

const (
	readOnlyMount = unix.MS_RDONLY
	remount       = unix.MS_REMOUNT
)

func mountTmpfs(dir, options string, flags uintptr) error {
	return unix.Mount("backstay-test", dir, "tmpfs", flags, options)
}
