package capture

import (
	"golang.org/x/sys/unix"

	"backstay/agent/metadata"
	"backstay/protocol/vault"
)

// targetMax is more than the target of any symlink: 4,095 bytes.
const targetMax = 4096

func describe(root, rel, path string) (Description, error) {
	flags := openName
	if rel != "" {
		flags |= unix.O_NOFOLLOW // a symlink is opened itself
	}
	fd, err := resolve(root, rel, flags)
	if err != nil {
		return Description{}, err
	}
	defer unix.Close(fd)
	n, err := metadata.Stat(fd)
	if err != nil {
		return Description{}, err
	}
	d := describeNode(n)
	if d.Type == vault.TypeSymlink {
		buf := make([]byte, targetMax)
		var size int
		if err := again(func() error {
			size, err = unix.Readlinkat(fd, "", buf)
			return err
		}); err != nil {
			return Description{}, err
		}
		d.Target = buf[:size:size]
	}
	d.Metadata, err = metadata.Read(fd, n, path)
	return d, err
}
