//go:build unix && !linux

package restore

import "errors"

const readOnlyMount, remount = 0, 0

func mountTmpfs(string, string, uintptr) error { return errors.New("not on this system") }
