package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	kardianos "github.com/kardianos/service"
)

const (
	unitName = Name + ".service"
	// manager is the library's name for it, knownAs the service's there.
	manager, knownAs = "linux-systemd", Name
)

// Install writes the unit, has it start at login or boot, and starts it, anew if it
// runs. It may be called again, and mends what is there.
func (s Service) Install(ctx context.Context) error {
	text, err := Unit(Systemd, s)
	if err != nil {
		return err
	}
	if err := s.reach(true); err != nil {
		return err
	}
	file, err := s.file()
	if err != nil {
		return err
	}
	if err := s.folders(); err != nil {
		return err
	}
	if err := s.link(ctx, file); err != nil {
		return err
	}
	if err := s.install(ctx, text, file); err != nil {
		return s.explained(err)
	}
	return s.Restart(ctx)
}

// Uninstall stops the service and removes its unit. Where there is none it returns
// ErrNotInstalled. A unit that a package brought stays, and does not start any more.
func (s Service) Uninstall(ctx context.Context) error {
	if err := s.reach(true); err != nil {
		return err
	}
	file, err := s.file()
	if err != nil {
		return err
	}
	err = s.Stop(ctx)
	if errors.Is(err, ErrNotInstalled) && os.Remove(file) == nil {
		// It was there, and nothing that systemd could read.
		_, err = s.ctl(ctx, "daemon-reload")
		return err
	}
	if err != nil {
		return err
	}
	// There is no file of ours where a package brought the unit.
	if err := s.call(ctx, nil, kardianos.Service.Uninstall); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.explained(err)
	}
	// A memory of its last failure keeps its name alive; there may be none.
	_, _ = s.ctl(ctx, "reset-failed", unitName)
	return nil
}

// Start starts the service unless it runs.
func (s Service) Start(ctx context.Context) error { return s.do(ctx, kardianos.Service.Start) }

// Stop stops the service, until it is started or the next login or boot.
func (s Service) Stop(ctx context.Context) error { return s.do(ctx, kardianos.Service.Stop) }

// Restart stops the service, if it runs, and starts it.
func (s Service) Restart(ctx context.Context) error { return s.do(ctx, kardianos.Service.Restart) }

func (s Service) do(ctx context.Context, verb func(kardianos.Service) error) error {
	if err := s.reach(true); err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if !st.Installed {
		return ErrNotInstalled
	}
	return s.explained(s.call(ctx, nil, verb))
}

// explained says where the reason is: the library keeps what systemctl says to itself.
func (s Service) explained(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("systemctl failed (%w); see why: systemctl %s", err, strings.Join(s.flags("status", unitName), " "))
	}
	return err
}

// Status asks how the service is doing. That there is none is no error.
func (s Service) Status(ctx context.Context) (Status, error) {
	st := Status{System: s.System}
	if err := s.reach(false); err != nil {
		return st, err
	}
	out, err := s.ctl(ctx, "show", "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,FragmentPath", unitName)
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

// reach makes sure that there is a manager to talk to: the machine's, or the person's.
// With change it is to do something, which takes rights.
func (s Service) reach(change bool) error {
	if info, err := os.Lstat("/run/systemd/system"); err != nil || !info.IsDir() {
		return fmt.Errorf("%w: systemd does not run here, as in most containers; have whatever starts programs here start: %s run", ErrNoManager, s.Executable)
	}
	if s.System {
		if change && os.Geteuid() != 0 {
			return fmt.Errorf("%w: the service of the whole machine is root's; give the same command with sudo, or without --system", ErrRights)
		}
		return nil
	}
	if by := os.Getenv("SUDO_USER"); change && os.Geteuid() == 0 && by != "" && by != "root" {
		return fmt.Errorf("%w that sudo could reach: a service of your own is installed by you, so give the same command without sudo; for the whole machine add --system", ErrNoManager)
	}
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	if runtime == "" {
		// Where no session was made: over su, in a job. The library hands our
		// environment to systemctl as it is.
		runtime = fmt.Sprintf("/run/user/%d", os.Getuid())
		if err := os.Setenv("XDG_RUNTIME_DIR", runtime); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(filepath.Join(runtime, "systemd", "private")); err != nil {
		name := strconv.Itoa(os.Getuid())
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return fmt.Errorf("%w runs for %s, who has no login session here: log in as %[2]s at the screen or by ssh (not by su or sudo) and give the same command; "+
			"or have one run without a login, as root: loginctl enable-linger %[2]s; or protect the whole machine with --system", ErrNoManager, name)
	}
	return nil
}

// flags are arguments of systemctl, for the manager that the service has.
func (s Service) flags(args ...string) []string {
	if s.System {
		return args
	}
	return append([]string{"--user"}, args...)
}

func (s Service) ctl(ctx context.Context, args ...string) (string, error) {
	return command(ctx, "systemctl", s.flags(args...)...)
}

// file is where the library puts a unit. A package's own are elsewhere.
func (s Service) file() (string, error) {
	if s.System {
		return filepath.Join("/etc/systemd/system", unitName), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".config/systemd/user", unitName), err
}

// link has the manager of a person find the library's file where it looks for units
// elsewhere: that depends on its environment, not on ours. Disabling removes the link.
func (s Service) link(ctx context.Context, file string) error {
	if s.System {
		return nil
	}
	out, err := s.ctl(ctx, "show", "--property=UnitPath", "--value")
	if err != nil {
		return err
	}
	for dir := range strings.FieldsSeq(out) {
		if !strings.HasSuffix(dir, "/systemd/user") || strings.HasPrefix(dir, "/run/") || strings.HasPrefix(dir, "/etc/") {
			continue
		}
		put := filepath.Dir(file)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(put, 0o755)); err != nil {
			return err
		}
		a, errA := os.Stat(dir)
		b, errB := os.Stat(put)
		if err := errors.Join(errA, errB); err != nil || os.SameFile(a, b) {
			return err
		}
		place := filepath.Join(dir, unitName)
		_ = os.Remove(place) // what cannot go is in the link's way
		return os.Symlink(file, place)
	}
	return fmt.Errorf("%w: the user's systemd names no folder for units", ErrNoManager)
}

// Beyond says how a person's service runs beyond their sessions.
func Beyond() string {
	return "To have it run from boot on, logged in or not: loginctl enable-linger"
}
