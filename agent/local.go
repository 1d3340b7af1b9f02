package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/localapi"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

// serve answers on the local socket until ctx ends; with o.Shared other users' door,
// too.
func serve(ctx context.Context, o Options, s localapi.Service) error {
	own, err := localsock.Listen(o.State)
	if err != nil {
		return err
	}
	doors := map[net.Listener]http.Handler{own: localapi.Handler(s)}
	if o.Shared {
		shared, err := localsock.ListenShared(o.State)
		if err != nil {
			return errors.Join(err, own.Close())
		}
		doors[shared] = localapi.StatusHandler(s)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for l, handler := range doors {
		srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { srv.Close() })
		group.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// lookAgain is how often an agent that waits looks whether it is set up, besides when
// it hears of a change.
const lookAgain = 5 * time.Second

// await returns when the config folder can be understood, or ctx ends. Until then it
// holds the state folder and says on the local socket what it waits for.
func await(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	look := func() error { return (&agent{o: o, log: o.Log}).load() }
	why := look()
	if why == nil {
		return nil
	}
	// What is to come is watched for, so its folder has to be there.
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return err
	}
	lock, err := lock(o.State)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &waiting{why: why}
	hint := make(chan struct{}, 1)
	var group sync.WaitGroup
	group.Go(func() {
		if err := serve(ctx, o, w); err != nil {
			cancel(err)
		}
	})
	group.Go(func() {
		err := config.Follow(ctx, o.Folder, func() {
			select {
			case hint <- struct{}{}:
			default:
			}
		}, device.MeFile, device.VaultFile)
		if err != nil {
			o.Log.Warn("changes to the configuration are noticed late", "err", err)
		}
	})
	told := ""
	for why != nil && ctx.Err() == nil {
		if text := why.Error(); text != told {
			told = text
			o.Log.Warn("waiting until this is put right", "why", text)
		}
		w.set(why)
		select {
		case <-ctx.Done():
		case <-hint:
		case <-time.After(lookAgain):
		}
		why = look()
	}
	cause := context.Cause(ctx)
	cancel(nil)
	group.Wait()
	if err := lock.Close(); err != nil {
		return err
	}
	if cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// waiting answers for an agent that has not begun.
type waiting struct {
	changed bell // rings when why does

	mu  sync.Mutex // guards why
	why error
}

func (w *waiting) set(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.why.Error() != why.Error() {
		w.changed.ring()
	}
	w.why = why
}

// StatusChanged implements localapi.Service.
func (w *waiting) StatusChanged() <-chan struct{} { return w.changed.wait() }

// Status implements localapi.Service.
func (w *waiting) Status(context.Context) (localapi.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := localapi.Status{State: localapi.Failing, Reason: w.why.Error(), Problems: 1}
	if errors.Is(w.why, config.ErrNotSetUp) || errors.Is(w.why, device.ErrNotEnrolled) || errors.Is(w.why, enrol.ErrNeedsMember) {
		st.State, st.Problems = localapi.NotSetUp, 0
	}
	if errors.Is(w.why, config.ErrNotSetUp) {
		st.Reason = "join a server first: agent join INVITATION FOLDER"
	}
	return st, nil
}

// Problems implements localapi.Service.
func (w *waiting) Problems(ctx context.Context) ([]localapi.Problem, error) {
	list := []localapi.Problem{}
	st, err := w.Status(ctx)
	if st.State == localapi.Failing {
		list = append(list, localapi.Problem{Reason: st.Reason, Fix: "agent doctor"})
	}
	return list, err
}

// refuse says what keeps the agent from doing anything.
func (w *waiting) refuse() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &localapi.Error{Text: w.why.Error(), Code: 4}
}

// Acknowledge implements localapi.Service.
func (w *waiting) Acknowledge(context.Context) error { return w.refuse() }

// Pause implements localapi.Service.
func (w *waiting) Pause(context.Context, time.Time) error { return w.refuse() }

// Resume implements localapi.Service.
func (w *waiting) Resume(context.Context) error { return w.refuse() }

// Activity implements localapi.Service.
func (w *waiting) Activity(context.Context) (localapi.Activity, error) {
	return localapi.Activity{Sending: []localapi.Transfer{}, Waiting: []localapi.Transfer{}, Recent: []localapi.Batch{}}, nil
}

// Days implements localapi.Service.
func (w *waiting) Days(context.Context) ([]localapi.Day, error) { return []localapi.Day{}, nil }

// Resend implements localapi.Service.
func (w *waiting) Resend(context.Context, []string, []vault.ObjectID) ([]string, error) {
	return nil, w.refuse()
}

// Backup implements localapi.Service.
func (w *waiting) Backup(context.Context, []string) (localapi.Report, error) {
	return localapi.Report{}, w.refuse()
}
