//go:build linux || darwin

package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

// between is how far a clock that goes on in sleep is ahead of one that stops.
func between(going, stopping int32) (time.Duration, bool) {
	var a, b unix.Timespec
	if unix.ClockGettime(stopping, &b) != nil || unix.ClockGettime(going, &a) != nil {
		return 0, false
	}
	return time.Duration(a.Nano() - b.Nano()), true
}
