//go:build !windows

package service

import (
	"context"
	"os/exec"
)

// Run runs the agent as the service that the system started: f, until ctx ends. On
// Windows it tells the service manager about it, if that is who started it.
func Run(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

// asked returns ctx: here a signal asks the keeper to end.
func (s Service) asked(ctx context.Context) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

// hidden: nothing here opens a window for a program.
func hidden(*exec.Cmd) {}
