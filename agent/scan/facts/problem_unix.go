//go:build unix

package facts

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

var explanations = []explanation{
	{fs.ErrPermission, "permission denied", fixPermission},
	{unix.EIO, "the disk failed to read it", fixDamaged},
	{unix.EBADMSG, "the file system is damaged here", fixDamaged},
	{unix.EAGAIN, "another program holds a lease on it", fixInUse},
	{unix.EBUSY, "it is in use", fixInUse},
	{unix.ETXTBSY, "it is in use", fixInUse},
	{unix.ESTALE, "its network drive is gone or was replaced", fixNetwork},
	{unix.ENOTCONN, "its network drive is not connected", fixNetwork},
	{unix.EHOSTDOWN, "its network drive does not answer", fixNetwork},
	{unix.ETIMEDOUT, "its network drive does not answer", fixNetwork},
	{unix.EMFILE, "this program has too many files open", "raise the limit of open files (ulimit -n) and start the agent again"},
	{unix.ENFILE, "the system has too many files open", "close programs or raise the system's limit; it is tried again by itself"},
	{unix.ENAMETOOLONG, "the path is longer than the system can open", "move it to a shorter path"},
}
