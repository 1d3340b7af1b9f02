//go:build !linux

package watcher

// mounts would describe the filesystems below a place. macOS reports mounts as events, Windows mounts next to nothing in folders.
func mounts(place) string { return "" }
