//go:build linux || darwin || freebsd

package capture

import (
	"errors"

	"golang.org/x/sys/unix"

	"backstay/protocol/vault"
)

// holes returns the holes of the first size bytes, at most one more than maxHoles.
// It moves the descriptor's position, which nobody uses.
func (h handle) holes(size int64) ([]vault.Hole, error) {
	if !tellsHoles(h.fd) {
		return nil, nil
	}
	var holes []vault.Hole
	for at := int64(0); at < size && len(holes) <= maxHoles; {
		data, err := h.seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but a hole to the end
			data, err = size, nil
		}
		if err != nil {
			return nil, unlessNoHoles(err)
		}
		if data = min(data, size); data > at {
			holes = append(holes, vault.Hole{Offset: uint64(at), Length: uint64(data - at)})
		}
		if data == size {
			break
		}
		at, err = h.seek(data, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) { // cut short meanwhile
			break
		}
		if err != nil {
			return nil, unlessNoHoles(err)
		}
	}
	return holes, nil
}

// unlessNoHoles returns nil for the errors of file systems that do not tell.
func unlessNoHoles(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOTTY) {
		return nil
	}
	return err
}

func (h handle) seek(at int64, whence int) (to int64, err error) {
	err = again(func() error {
		to, err = unix.Seek(h.fd, at, whence)
		return err
	})
	return to, err
}
