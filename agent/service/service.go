// Package service makes the agent a service of the system: started at login or at
// boot, started again after a failure. It has texts of its own for systemd and launchd;
// installing, starting and stopping is done by github.com/kardianos/service, and beside
// it what that lacks (docs/design/0012).
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

	kardianos "github.com/kardianos/service"
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

// description is the service as the library is told about it. Where its manager reads a
// file, text is what the file says.
func (s Service) description(text []byte) *kardianos.Config {
	return &kardianos.Config{
		Name:        knownAs,
		DisplayName: "Backstay",
		Description: "Keeps a second copy of folders on your server.",
		Executable:  s.Executable,
		Arguments:   s.arguments(),
		// A file is made from a template. The text is a value in it rather than the
		// template, which would give braces in the name of a folder a meaning.
		WorkingDirectory: string(text),
		Option: kardianos.KeyValue{
			"UserService":   !s.System,
			"SystemdScript": "{{WorkingDirectory}}",
			"LaunchdConfig": "{{WorkingDirectory}}",
		},
	}
}

// patience is how long a manager may take to do as told: it gives the agent 20 s to end.
const patience = 3 * grace

var errTooLong = fmt.Errorf("the system has not done it in %v; try again", patience)

// bounded calls the library, which takes no context and may wait for ever, and leaves it
// behind when ctx or patience ends.
func bounded(ctx context.Context, call func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errTooLong)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
