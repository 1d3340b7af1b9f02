//go:build !linux && !darwin

package machine

import "context"

// networkSignals calls signal whenever the addresses may have changed, until ctx ends.
func networkSignals(ctx context.Context, signal func()) { everyMinute(ctx, signal) }
