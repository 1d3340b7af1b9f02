package capture

import "golang.org/x/sys/unix"

// openLink opens a symlink itself.
const openLink = unix.O_SYMLINK
