// Package service makes the agent a service of the system: started at login or at
// boot, started again after a failure. It writes what systemd, launchd or Windows
// needs to know and asks them to start and stop.
//
// The one invariant: [Service.Uninstall] takes away everything [Service.Install]
// wrote, and neither touches what is protected, the configuration or the state.
//
// A service belongs to a person, the default, and runs with no other rights than
// theirs; or, with System, to the machine. Enter at [Service]; packages take the same
// texts from [Unit]. The started program calls [Run].
package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Name is the service's name with every manager but launchd, which wants Label.
const (
	Name  = "backstay-agent"
	Label = "backstay.agent"
)

var (
	// ErrNoManager: nothing here starts services; the text says why and what to
	// do instead.
	ErrNoManager = errors.New("no service manager")
	// ErrNotInstalled: there is no such service.
	ErrNotInstalled = errors.New("the service is not installed")
	// ErrRights: only the machine's administrator may do that.
	ErrRights = errors.New("this needs the rights of the administrator")
)

// Service is one agent as the system starts it. Its methods ask the system's manager
// and wait for it to do as told. Errors wrap [ErrNoManager], [ErrNotInstalled] and
// [ErrRights].
type Service struct {
	// System: of the machine, started at boot, run as root. Default: of the
	// person who calls, started when they log in.
	System bool
	// Executable is the agent's program, absolute.
	Executable string
	// Config and State are its folders, absolute. Default: as the agent itself
	// finds them.
	Config, State string
}

// Status says how a service is doing.
type Status struct {
	Installed bool `json:"installed"`
	Running   bool `json:"running"`
	// Enabled: it starts by itself, at login or boot.
	Enabled bool `json:"enabled"`
	System  bool `json:"system"`
	// PID is the running process, 0 if there is none or it is not known.
	PID int `json:"pid"`
	// Where is what tells the manager about it: a file, or its place in the
	// registry.
	Where string `json:"where"`
	// Manager's own word for the state.
	Detail string `json:"detail"`
}

// arguments are what the manager starts the executable with.
func (s Service) arguments() []string {
	args := []string{"service", "run"}
	if s.System {
		args = append(args, "--system")
	}
	if s.Config != "" {
		args = append(args, "--config", s.Config)
	}
	if s.State != "" {
		args = append(args, "--state", s.State)
	}
	return args
}

// folders makes the folders that the service will use, private to its user.
func (s Service) folders() error {
	for _, dir := range []string{s.Config, s.State} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// command runs a manager's tool and returns what it printed.
func command(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, failed strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(failed.String())
		if said == "" {
			return out.String(), fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
		}
		return out.String(), fmt.Errorf("%s %s: %s", filepath.Base(name), strings.Join(args, " "), strings.Join(strings.Fields(said), " "))
	}
	return out.String(), nil
}
