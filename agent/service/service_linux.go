package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"backstay/internal/durable"
)

const unitName = Name + ".service"

// Install writes the unit, has it start at login or boot, and starts it, anew if it
// runs. It may be called again, and mends what is there.
func (s Service) Install(ctx context.Context) error {
	text, err := Unit(Systemd, s)
	if err != nil {
		return err
	}
	m, err := s.systemd(true)
	if err != nil {
		return err
	}
	file, err := m.file(ctx)
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
	for _, args := range [][]string{{"daemon-reload"}, {"enable", "--quiet", unitName}, {"restart", unitName}} {
		if _, err := m.ctl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// Uninstall stops the service and removes its unit. Where there is none it returns
// ErrNotInstalled. A unit that a package brought stays, and does not start any more.
func (s Service) Uninstall(ctx context.Context) error {
	m, err := s.systemd(true)
	if err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	file, err := m.file(ctx)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) && !st.Installed {
		return ErrNotInstalled
	}
	if st.Installed {
		if _, err := m.ctl(ctx, "disable", "--now", "--quiet", unitName); err != nil {
			return err
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := m.ctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	// A memory of its last failure keeps its name alive; there may be none.
	_, _ = m.ctl(ctx, "reset-failed", unitName)
	return nil
}

// Start starts the service unless it runs.
func (s Service) Start(ctx context.Context) error { return s.do(ctx, "start") }

// Stop stops the service, until it is started or the next login or boot.
func (s Service) Stop(ctx context.Context) error { return s.do(ctx, "stop") }

// Restart stops the service, if it runs, and starts it.
func (s Service) Restart(ctx context.Context) error { return s.do(ctx, "restart") }

func (s Service) do(ctx context.Context, verb string) error {
	m, err := s.systemd(true)
	if err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if !st.Installed {
		return ErrNotInstalled
	}
	_, err = m.ctl(ctx, verb, unitName)
	return err
}

// Status asks how the service is doing. That there is none is no error.
func (s Service) Status(ctx context.Context) (Status, error) {
	st := Status{System: s.System}
	m, err := s.systemd(false)
	if err != nil {
		return st, err
	}
	out, err := m.ctl(ctx, "show", "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,FragmentPath", unitName)
	if err != nil {
		return st, err
	}
	shown := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		shown[key] = value
	}
	st.Installed = shown["LoadState"] != "not-found"
	st.Running = shown["ActiveState"] == "active" || shown["ActiveState"] == "reloading"
	st.Enabled = shown["UnitFileState"] == "enabled"
	st.PID, _ = strconv.Atoi(shown["MainPID"])
	st.Where = shown["FragmentPath"]
	st.Detail = shown["ActiveState"] + " (" + shown["SubState"] + ")"
	return st, nil
}

// systemd is the manager to talk to: the machine's, or the person's.
type systemd struct {
	flags []string
	env   []string
}

// systemd finds the manager. With change it is to do something, which takes rights.
func (s Service) systemd(change bool) (systemd, error) {
	if info, err := os.Lstat("/run/systemd/system"); err != nil || !info.IsDir() {
		return systemd{}, fmt.Errorf("%w: systemd does not run here, as in most containers; have whatever starts programs here start: %s run", ErrNoManager, s.Executable)
	}
	if s.System {
		if change && os.Geteuid() != 0 {
			return systemd{}, fmt.Errorf("%w: the service of the whole machine is root's; give the same command with sudo, or without --system", ErrRights)
		}
		return systemd{}, nil
	}
	if by := os.Getenv("SUDO_USER"); change && os.Geteuid() == 0 && by != "" && by != "root" {
		return systemd{}, fmt.Errorf("%w that sudo could reach: a service of your own is installed by you, so give the same command without sudo; for the whole machine add --system", ErrNoManager)
	}
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	if runtime == "" {
		// Where no session was made: over su, in a job.
		runtime = fmt.Sprintf("/run/user/%d", os.Getuid())
	}
	if _, err := os.Lstat(filepath.Join(runtime, "systemd", "private")); err != nil {
		name := strconv.Itoa(os.Getuid())
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return systemd{}, fmt.Errorf("%w runs for %s, who has no login session here: log in as %[2]s at the screen or by ssh (not by su or sudo) and give the same command; "+
			"or have one run without a login, as root: loginctl enable-linger %[2]s; or protect the whole machine with --system", ErrNoManager, name)
	}
	return systemd{flags: []string{"--user"}, env: []string{"XDG_RUNTIME_DIR=" + runtime}}, nil
}

func (m systemd) ctl(ctx context.Context, args ...string) (string, error) {
	return command(ctx, m.env, "systemctl", append(append([]string{}, m.flags...), args...)...)
}

// file is where an administrator's, or a person's, own unit belongs. Which folder
// that is for a person depends on their manager's environment, not on ours.
func (m systemd) file(ctx context.Context) (string, error) {
	if m.flags == nil {
		return filepath.Join("/etc/systemd/system", unitName), nil
	}
	out, err := m.ctl(ctx, "show", "--property=UnitPath", "--value")
	if err != nil {
		return "", err
	}
	for dir := range strings.FieldsSeq(out) {
		if strings.HasSuffix(dir, "/systemd/user") && !strings.HasPrefix(dir, "/run/") && !strings.HasPrefix(dir, "/etc/") {
			return filepath.Join(dir, unitName), nil
		}
	}
	return "", fmt.Errorf("%w: the user's systemd names no folder for units", ErrNoManager)
}

// Beyond says how a person's service runs beyond their sessions.
func Beyond() string {
	return "To have it run from boot on, logged in or not: loginctl enable-linger"
}
