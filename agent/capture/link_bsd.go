//go:build unix && !linux && !darwin

package capture

// openLink is 0 where nothing opens a symlink itself.
const openLink = 0
