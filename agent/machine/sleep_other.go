//go:build !linux && !windows && !darwin

package machine

import "time"

func asleep() (time.Duration, bool) { return 0, false }
