//go:build !windows

package watcher

func underWine() bool { return false }
