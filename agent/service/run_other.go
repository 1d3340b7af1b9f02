//go:build !windows

package service

import (
	"context"
	"os/exec"
)

// asked returns ctx: here a signal asks the keeper to end.
func (s Service) asked(ctx context.Context) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

// hidden: nothing here opens a window for a program.
func hidden(*exec.Cmd) {}
