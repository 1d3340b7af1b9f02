//go:build windows || darwin

package machine

import (
	"context"
	"time"

	"backstay/agent/conditions"
)

// lookAtPower calls look now and once a minute until ctx ends, and tells what it
// found.
func lookAtPower(ctx context.Context, look func() conditions.Machine, tell func(conditions.Machine)) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		tell(look())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
