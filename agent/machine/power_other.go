//go:build !linux && !windows && !darwin

package machine

import (
	"context"
	"log/slog"

	"backstay/agent/conditions"
)

func watchPower(ctx context.Context, _ *slog.Logger, tell func(conditions.Machine)) {
	tell(conditions.Unknown)
	<-ctx.Done()
}
