package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	kardianos "github.com/kardianos/service"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// runKey lists what Windows starts when its owner logs in.
const runKey = `Software\Microsoft\Windows\CurrentVersion\Run`

// knownAs is the service's name in the manager.
const knownAs = Name

// Install makes the service of the machine in the service manager, or the entry that
// starts a person's at login, and starts it, anew if it runs. It may be called again,
// and mends what is there.
func (s Service) Install(ctx context.Context) error {
	if !s.System {
		if err := s.folders(); err != nil {
			return err
		}
		key, _, err := registry.CreateKey(registry.CURRENT_USER, runKey, registry.SET_VALUE)
		if err != nil {
			return fmt.Errorf("make it start at login: %w", err)
		}
		defer key.Close()
		if err := key.SetStringValue(Name, commandLine(s.Executable, s.kept())); err != nil {
			return fmt.Errorf("make it start at login: %w", err)
		}
		return s.Restart(ctx)
	}
	m, err := connect()
	if err != nil {
		return err
	}
	defer m.Disconnect()
	if err := s.privateFolders(); err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err == nil && !st.Installed {
		err = s.call(ctx, kardianos.Service.Install)
	}
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	service, err := m.OpenService(Name)
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	defer service.Close()
	if err := s.mend(service); err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	actions := make([]mgr.RecoveryAction, len(delays))
	for i, d := range delays {
		actions[i] = mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: d}
	}
	if err := service.SetRecoveryActions(actions, uint32(calm/time.Second)); err != nil {
		return fmt.Errorf("have the service started again after a failure: %w", err)
	}
	// Without this Windows does so after a crash only, not after an exit code. Wine
	// does not know it.
	if err := service.SetRecoveryActionsOnNonCrashFailures(true); err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return fmt.Errorf("have the service started again after a failure: %w", err)
	}
	return s.Restart(ctx)
}

// mend has a service that exists start this program, at boot, and Windows note when that
// fails. The library does not touch what is there; removing it first would lose it where
// any window on the list of services is open.
func (s Service) mend(service *mgr.Service) error {
	line, err := windows.UTF16PtrFromString(commandLine(s.Executable, s.arguments()))
	if err != nil {
		return err
	}
	return windows.ChangeServiceConfig(service.Handle, windows.SERVICE_NO_CHANGE, mgr.StartAutomatic, mgr.ErrorNormal,
		line, nil, nil, nil, nil, nil, nil)
}

// Uninstall stops the service and removes it, or the person's own entry that starts it
// at login. Where there is none it returns ErrNotInstalled. An entry that a package
// made for everybody stays.
func (s Service) Uninstall(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if !s.System {
		key, err := registry.OpenKey(registry.CURRENT_USER, runKey, registry.SET_VALUE)
		if err != nil {
			return fmt.Errorf("remove the start at login: %w", err)
		}
		defer key.Close()
		if err := key.DeleteValue(Name); err != nil && !errors.Is(err, registry.ErrNotExist) {
			return fmt.Errorf("remove the start at login: %w", err)
		}
		return nil
	}
	err := s.call(ctx, kardianos.Service.Uninstall)
	if st, asked := s.Status(ctx); asked == nil && !st.Installed {
		// It may miss the source of events that only its own Install makes.
		return nil
	}
	return err
}

// Start starts the service unless it runs.
func (s Service) Start(ctx context.Context) error {
	st, err := s.installed(ctx)
	if err != nil || st.Running {
		return err
	}
	if !s.System {
		cmd := exec.Command(s.Executable, s.kept()...)
		hidden(cmd)
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start the service: %w", err)
		}
		return errors.Join(s.until(ctx, true), cmd.Process.Release())
	}
	if err := s.call(ctx, kardianos.Service.Start); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	return s.until(ctx, true)
}

// Stop stops the service, until it is started or the next login or boot.
func (s Service) Stop(ctx context.Context) error {
	st, err := s.installed(ctx)
	if err != nil || !st.Running {
		return err
	}
	if !s.System {
		event, err := openEvent(windows.EVENT_MODIFY_STATE)
		if err != nil {
			return err
		}
		err = windows.SetEvent(event)
		windows.CloseHandle(event)
		if err != nil {
			return fmt.Errorf("stop the service: %w", err)
		}
		return s.until(ctx, false)
	}
	if err := s.call(ctx, kardianos.Service.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stop the service: %w", err)
	}
	return s.until(ctx, false)
}

// Restart stops the service, if it runs, and starts it.
func (s Service) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Status asks how the service is doing. That there is none is no error.
func (s Service) Status(context.Context) (Status, error) {
	st := Status{System: s.System, Detail: "stopped"}
	if !s.System {
		// A package makes the entry for everybody.
		for _, root := range []struct {
			key  registry.Key
			name string
		}{{registry.LOCAL_MACHINE, "HKLM"}, {registry.CURRENT_USER, "HKCU"}} {
			key, err := registry.OpenKey(root.key, runKey, registry.QUERY_VALUE)
			if err == nil {
				_, _, err = key.GetStringValue(Name)
				key.Close()
			}
			if err == nil {
				st.Installed, st.Enabled, st.Where = true, true, root.name+`\`+runKey+`\`+Name
			} else if !errors.Is(err, registry.ErrNotExist) {
				return st, err
			}
		}
		if event, err := openEvent(windows.SYNCHRONIZE); err == nil {
			windows.CloseHandle(event)
			st.Running, st.Detail = true, "running"
		}
		return st, nil
	}
	// With the rights to look only: everybody may.
	manager, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return st, fmt.Errorf("%w: %w", ErrNoManager, err)
	}
	defer windows.CloseServiceHandle(manager)
	name, err := windows.UTF16PtrFromString(Name)
	if err != nil {
		return st, err
	}
	h, err := windows.OpenService(manager, name, windows.SERVICE_QUERY_CONFIG|windows.SERVICE_QUERY_STATUS)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("ask for the service: %w", err)
	}
	service := &mgr.Service{Name: Name, Handle: h}
	defer service.Close()
	st.Installed, st.Where = true, `HKLM\SYSTEM\CurrentControlSet\Services\`+Name
	if st.Enabled, err = automatic(h); err != nil {
		return st, fmt.Errorf("ask for the service: %w", err)
	}
	now, err := service.Query()
	if err != nil {
		return st, fmt.Errorf("ask for the service: %w", err)
	}
	st.Running, st.PID = now.State == svc.Running, int(now.ProcessId)
	switch now.State {
	case svc.Running:
		st.Detail = "running"
	case svc.StartPending:
		st.Detail = "starting"
	case svc.StopPending:
		st.Detail = "stopping"
	}
	return st, nil
}

// automatic says whether a service starts by itself.
func automatic(service windows.Handle) (bool, error) {
	// A call without room says how much it needs.
	var size uint32
	if err := windows.QueryServiceConfig(service, nil, 0, &size); !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
		return false, err
	}
	// In words of eight bytes, as the structure at its beginning is aligned.
	room := make([]uint64, size/8+1)
	c := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&room[0]))
	if err := windows.QueryServiceConfig(service, c, size, &size); err != nil {
		return false, err
	}
	return c.StartType == mgr.StartAutomatic, nil
}

// installed is Status, with ErrNotInstalled where there is no service.
func (s Service) installed(ctx context.Context) (Status, error) {
	st, err := s.Status(ctx)
	if err == nil && !st.Installed {
		err = ErrNotInstalled
	}
	return st, err
}

// until waits until the service runs, or does not.
func (s Service) until(ctx context.Context, running bool) error {
	for deadline := time.Now().Add(patience); ; {
		st, err := s.Status(ctx)
		if err != nil {
			return err
		}
		if st.Detail == map[bool]string{true: "running", false: "stopped"}[running] {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the service is %s and should be running = %v; look at agent.log in its state folder", st.Detail, running)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// kept are the arguments that start the agent with a keeper.
func (s Service) kept() []string {
	args := s.arguments()
	args[1] = "keep"
	return args
}

func openEvent(access uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(eventName)
	if err != nil {
		return 0, err
	}
	return windows.OpenEvent(access, false, name)
}

// call has the library do something to the service of the machine.
func (s Service) call(ctx context.Context, do func(kardianos.Service) error) error {
	l, err := kardianos.New(nil, s.description(nil))
	if err != nil {
		return err
	}
	return explained(bounded(ctx, func() error { return do(l) }))
}

func connect() (*mgr.Mgr, error) {
	m, err := mgr.Connect()
	if err == nil || errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return m, explained(err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoManager, err)
}

// explained says what to do about missing rights.
func explained(err error) error {
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return fmt.Errorf("%w: give the same command in a window opened with \"Run as administrator\", or without --system", ErrRights)
	}
	return err
}

func commandLine(executable string, args []string) string {
	words := []string{syscall.EscapeArg(executable)}
	for _, a := range args {
		words = append(words, syscall.EscapeArg(a))
	}
	return strings.Join(words, " ")
}

// privateFolders makes the folders of the machine's service so that only the system
// and administrators can look into them: everybody may make folders in ProgramData,
// and read what is there. A folder that somebody else made first may be a trap, and
// is refused.
func (s Service) privateFolders() error {
	sd, err := windows.SecurityDescriptorFromString("O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)")
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	for _, dir := range []string{s.Config, s.State} {
		if dir == "" {
			continue
		}
		if _, err := os.Lstat(dir); err == nil {
			if err := ownedByAdministrators(dir); err != nil {
				return err
			}
		} else if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		err := windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT,
			windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, owner, nil, dacl, nil)
		if err != nil {
			return fmt.Errorf("keep others out of %s: %w", dir, err)
		}
	}
	return nil
}

func ownedByAdministrators(dir string) error {
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("see whose folder %s is: %w", dir, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return err
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return err
	}
	if owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid) || owner.Equals(user.User.Sid) {
		return nil
	}
	return fmt.Errorf("%s belongs to %v, not to the administrators; look at what is in it, move it away, and install again", dir, owner)
}

// Beyond says how a person's service runs beyond their sessions.
func Beyond() string { return "To have one that runs from boot on: --system" }
