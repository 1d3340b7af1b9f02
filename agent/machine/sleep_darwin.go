package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

func asleep() (time.Duration, bool) { return between(unix.CLOCK_MONOTONIC, unix.CLOCK_UPTIME_RAW) }
