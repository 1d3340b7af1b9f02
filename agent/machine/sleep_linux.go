package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

func asleep() (time.Duration, bool) { return between(unix.CLOCK_BOOTTIME, unix.CLOCK_MONOTONIC) }
