package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"backstay/internal/durable"
)

// patience is how long launchd may take to let go of a service: it gives the agent
// 20 s to end.
const patience = 25 * time.Second

// Install writes the property list, which launchd reads at login or boot, and starts
// the service, anew if it runs. It may be called again, and mends what is there.
func (s Service) Install(ctx context.Context) error {
	text, err := Unit(Launchd, s)
	if err != nil {
		return err
	}
	if err := s.rights(); err != nil {
		return err
	}
	file, err := s.file()
	if err != nil {
		return err
	}
	if err := s.folders(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	return s.Restart(ctx)
}

// Uninstall stops the service and removes its property list. Where there is none it
// returns ErrNotInstalled.
func (s Service) Uninstall(ctx context.Context) error {
	file, err := s.installed()
	if err != nil {
		return err
	}
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return os.Remove(file)
}

// Start starts the service unless it runs.
func (s Service) Start(ctx context.Context) error {
	file, err := s.installed()
	if err != nil {
		return err
	}
	if s.loaded(ctx) {
		_, err = command(ctx, nil, "launchctl", "kickstart", s.target())
		return err
	}
	// A person may have disabled it in the settings; who starts it wants it.
	if _, err := command(ctx, nil, "launchctl", "enable", s.target()); err != nil {
		return err
	}
	if _, err := command(ctx, nil, "launchctl", "bootstrap", s.domain(), file); err != nil {
		return fmt.Errorf("%w; a service of your own starts where you are logged in at the screen", err)
	}
	return nil
}

// Stop stops the service, until it is started or the next login or boot.
func (s Service) Stop(ctx context.Context) error {
	if _, err := s.installed(); err != nil {
		return err
	}
	if !s.loaded(ctx) {
		return nil
	}
	if _, err := command(ctx, nil, "launchctl", "bootout", s.target()); err != nil && s.loaded(ctx) {
		return err
	}
	// It may return while the service is still ending.
	for deadline := time.Now().Add(patience); s.loaded(ctx); {
		if time.Now().After(deadline) {
			return errors.New("stop the service: launchd does not let go of it; try again")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return ctx.Err()
}

// Restart stops the service, if it runs, and starts it.
func (s Service) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

var pidLine = regexp.MustCompile(`(?m)^\s*pid = (\d+)$`)

// Status asks how the service is doing. That there is none is no error.
func (s Service) Status(ctx context.Context) (Status, error) {
	st := Status{System: s.System, Detail: "not loaded"}
	file, err := s.file()
	if err != nil {
		return st, err
	}
	if _, err := os.Lstat(file); err == nil {
		st.Installed, st.Enabled, st.Where = true, true, file
	}
	if out, err := command(ctx, nil, "launchctl", "print", s.target()); err == nil {
		st.Detail = "loaded"
		if m := pidLine.FindStringSubmatch(out); m != nil {
			st.Running, st.Detail = true, "running"
			st.PID, _ = strconv.Atoi(m[1])
		}
	}
	return st, nil
}

// installed returns the property list, ErrNotInstalled if there is none.
func (s Service) installed() (string, error) {
	if err := s.rights(); err != nil {
		return "", err
	}
	file, err := s.file()
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotInstalled
	}
	return file, nil
}

func (s Service) rights() error {
	switch {
	case s.System && os.Geteuid() != 0:
		return fmt.Errorf("%w: the service of the whole machine is root's; give the same command with sudo, or without --system", ErrRights)
	case !s.System && os.Geteuid() == 0:
		return fmt.Errorf("%w that root could reach: a service of your own is installed by you, so give the same command without sudo; for the whole machine add --system", ErrNoManager)
	}
	return nil
}

func (s Service) file() (string, error) {
	if s.System {
		return filepath.Join("/Library/LaunchDaemons", Label+".plist"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, "Library/LaunchAgents", Label+".plist"), err
}

func (s Service) domain() string {
	if s.System {
		return "system"
	}
	return "gui/" + strconv.Itoa(os.Getuid())
}

func (s Service) target() string { return s.domain() + "/" + Label }

func (s Service) loaded(ctx context.Context) bool {
	_, err := command(ctx, nil, "launchctl", "print", s.target())
	return err == nil
}

// Beyond says how a person's service runs beyond their sessions.
func Beyond() string { return "To have one that runs from boot on: --system" }
