//go:build linux || darwin

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	kardianos "github.com/kardianos/service"

	"backstay/internal/durable"
)

// library is the library's service for the one manager that is asked here. Its own
// choice depends on what it detects, and ends at System V scripts.
func library(program kardianos.Interface, c *kardianos.Config) (kardianos.Service, error) {
	for _, system := range kardianos.AvailableSystems() {
		if system.String() == manager {
			return system.New(program, c)
		}
	}
	return nil, fmt.Errorf("%w: no %s", ErrNoManager, manager)
}

// call has the library do something to the service.
func (s Service) call(ctx context.Context, text []byte, do func(kardianos.Service) error) error {
	l, err := library(nil, s.description(text))
	if err != nil {
		return err
	}
	return bounded(ctx, func() error { return do(l) })
}

// install has the library write file, with text, anew: it refuses one that is there. It
// leaves the file's mode to the umask, and a power cut could empty the file.
func (s Service) install(ctx context.Context, text []byte, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.call(ctx, text, kardianos.Service.Install); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o644), f.Sync(), f.Close(), durable.SyncDir(filepath.Dir(file)))
}

// command runs a manager's tool and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
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

// Run runs the agent as the service that the system started: f, until ctx ends. On
// Windows it tells the service manager about it, if that is who started it.
func Run(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := program{cancel: cancel, ended: make(chan error, 1), run: func() error {
		defer cancel()
		return f(ctx)
	}}
	l, err := library(p, &kardianos.Config{Name: knownAs, Option: kardianos.KeyValue{
		// The signals that end ctx are the caller's.
		"RunWait": func() { <-ctx.Done() },
	}})
	if err != nil {
		return err
	}
	return l.Run()
}

// program is the agent as the library sees it.
type program struct {
	run    func() error // ends with cancel
	cancel context.CancelFunc
	ended  chan error // what run returned
}

// Start implements kardianos.Interface.
func (p program) Start(kardianos.Service) error {
	go func() { p.ended <- p.run() }()
	return nil
}

// Stop implements kardianos.Interface.
func (p program) Stop(kardianos.Service) error {
	p.cancel()
	return <-p.ended
}
