//go:build !linux && !darwin && !windows

package service

import (
	"context"
	"fmt"
)

func (s Service) none() error {
	return fmt.Errorf("%w that is known here; have the system start: %s run", ErrNoManager, s.Executable)
}

// Install returns ErrNoManager.
func (s Service) Install(context.Context) error { return s.none() }

// Uninstall returns ErrNoManager.
func (s Service) Uninstall(context.Context) error { return s.none() }

// Start returns ErrNoManager.
func (s Service) Start(context.Context) error { return s.none() }

// Stop returns ErrNoManager.
func (s Service) Stop(context.Context) error { return s.none() }

// Restart returns ErrNoManager.
func (s Service) Restart(context.Context) error { return s.none() }

// Status returns ErrNoManager.
func (s Service) Status(context.Context) (Status, error) { return Status{}, s.none() }

// Beyond says how a person's service runs beyond their sessions.
func Beyond() string { return "" }
