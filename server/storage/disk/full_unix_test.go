//go:build !windows

package disk

import "syscall"

const errNoSpace = syscall.ENOSPC
