//go:build unix && !linux

package capture

import (
	"strings"

	"golang.org/x/sys/unix"

	"backstay/agent/metadata"
	"backstay/protocol/vault"
)

func describe(root, rel, path string) (Description, error) {
	dir, name, follow := unix.AT_FDCWD, root, 0
	if rel != "" {
		folder := ""
		name, follow = rel, unix.AT_SYMLINK_NOFOLLOW
		if i := strings.LastIndexByte(rel, '/'); i >= 0 {
			folder, name = rel[:i], rel[i+1:]
		}
		fd, err := resolve(root, folder, openFolder)
		if err != nil {
			return Description{}, err
		}
		defer unix.Close(fd)
		dir = fd
	}
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstatat(dir, name, &st, follow) }); err != nil {
		return Description{}, err
	}
	n := metadata.FromStat(&st)
	d := describeNode(n)
	d.Metadata = n.Named()
	if d.Type == vault.TypeSymlink {
		buf := make([]byte, 4096)
		var size int
		if err := again(func() (err error) {
			size, err = unix.Readlinkat(dir, name, buf)
			return err
		}); err != nil {
			return Description{}, err
		}
		d.Target = buf[:size:size]
	}
	flags := openName | nofollow(rel)
	switch d.Type {
	case vault.TypeFile:
	case vault.TypeFolder:
		flags |= unix.O_DIRECTORY
	case vault.TypeSymlink:
		if openLink == 0 {
			return d, nil
		}
		flags = openName | openLink
	default:
		return d, nil
	}
	// It is opened for its extended attributes.
	fd, err := openat(dir, name, flags)
	if err != nil {
		return d, err
	}
	defer unix.Close(fd)
	if n, err = metadata.Stat(fd); err != nil {
		return Description{}, err
	}
	if n.Type != d.Type {
		return Description{}, unix.ENOENT // another took its name
	}
	d.Facts = n.Facts
	d.Metadata, err = metadata.Read(fd, n, path)
	return d, err
}

// nofollow: the root alone may be a symlink.
func nofollow(rel string) int {
	if rel == "" {
		return 0
	}
	return unix.O_NOFOLLOW
}
