package machine

import (
	"context"
	"log/slog"
	"os/exec"
	"time"

	"backstay/agent/conditions"
)

// watchPower asks pmset: what signals there are need cgo, and so does whether the
// network is metered.
func watchPower(ctx context.Context, log *slog.Logger, tell func(conditions.Machine)) {
	lookAtPower(ctx, func() conditions.Machine {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		m := conditions.Unknown
		out, err := exec.CommandContext(ctx, "/usr/bin/pmset", "-g", "batt").Output()
		if err != nil {
			log.Debug("pmset", "err", err)
			return m
		}
		m.OnBattery, m.Percent = parsePmset(string(out))
		return m
	}, tell)
}
