//go:build unix && !linux

package capture

import "golang.org/x/sys/unix"

const (
	openName   = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
)

// resolve opens a path below the root, or the root itself.
func resolve(root, rel string, flags int) (int, error) {
	if rel == "" {
		return openat(unix.AT_FDCWD, root, flags)
	}
	return step(root, rel, flags)
}
