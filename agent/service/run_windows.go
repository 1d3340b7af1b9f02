package service

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

// Run runs the agent as the service that the system started: f, until ctx ends or the
// service manager asks for it. Started by anybody else it just calls f.
func Run(ctx context.Context, f func(context.Context) error) error {
	h := &handler{ctx: ctx, f: f}
	// Asked rather than guessed from the process's session or parent: only the
	// manager's own answer is right everywhere.
	err := svc.Run(Name, h)
	if errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) {
		return f(ctx)
	}
	return errors.Join(err, h.err)
}

// handler is the agent as the service manager sees it.
type handler struct {
	ctx context.Context
	f   func(context.Context) error
	err error
}

// Execute implements svc.Handler. A failure is told as an exit code, so that the
// manager starts the service again.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, states chan<- svc.Status) (bool, uint32) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	states <- svc.Status{State: svc.StartPending}
	ended := make(chan error, 1)
	go func() { ended <- h.f(ctx) }()
	running := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	states <- running
	for {
		select {
		case h.err = <-ended:
			if h.err != nil {
				return true, 1
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				states <- running
			case svc.Stop, svc.Shutdown:
				running = svc.Status{State: svc.StopPending, WaitHint: uint32(grace / time.Millisecond)}
				states <- running
				cancel()
			}
		}
	}
}

// eventName names what asks the keeper of this person's session to end.
const eventName = `Local\` + Name + `-stop`

// asked returns a context that ends when Stop asks for it, too, and what to call when
// the keeper has ended.
func (s Service) asked(ctx context.Context) (context.Context, func(), error) {
	name, err := windows.UTF16PtrFromString(eventName)
	if err != nil {
		return nil, nil, err
	}
	event, err := windows.CreateEvent(nil, 1, 0, name)
	if errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		windows.CloseHandle(event)
		return nil, nil, errors.New("the service runs already")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("begin the service: %w", err)
	}
	// The window that came with a start at login. Without the agent's own, it
	// closes.
	_, _, _ = windows.NewLazySystemDLL("kernel32.dll").NewProc("FreeConsole").Call()
	ctx, cancel := context.WithCancel(ctx)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_, _ = windows.WaitForSingleObject(event, windows.INFINITE)
		cancel()
	}()
	return ctx, func() {
		_ = windows.SetEvent(event)
		<-waited
		windows.CloseHandle(event)
	}, nil
}

// hidden starts a program without a window.
func hidden(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true, CreationFlags: windows.CREATE_NO_WINDOW | windows.CREATE_NEW_PROCESS_GROUP}
}
