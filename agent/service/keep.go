package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os/exec"
	"time"
)

// UntilEOF is the flag of "service run" that makes it end when its standard input
// ends: how Keep ends it, and why it does not outlive its keeper.
const UntilEOF = "--until-eof"

// delays are the waits after failures, the last for all further ones. An agent that
// has run for calm has not failed before.
var delays = [...]time.Duration{5 * time.Second, 30 * time.Second, time.Minute}

const (
	calm = 10 * time.Minute
	// grace is how long an agent may take to end.
	grace = 20 * time.Second
)

// Keep runs the agent as a process of its own and starts it again when it fails, for
// systems whose manager does not do that for a person's programs. It returns when ctx
// ends, when [Service.Stop] asks for it, or when the agent has ended by itself without
// failing. A second keeper of the same person returns an error at once.
func (s Service) Keep(ctx context.Context, log *slog.Logger) error {
	ctx, done, err := s.asked(ctx)
	if err != nil {
		return err
	}
	defer done()
	return keep(ctx, log, s.runOnce)
}

// keep calls run until it returns nil or ctx ends.
func keep(ctx context.Context, log *slog.Logger, run func(context.Context) error) error {
	for failed := 0; ; failed++ {
		began := time.Now()
		err := run(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if time.Since(began) >= calm {
			failed = 0
		}
		delay := delays[min(failed, len(delays)-1)]
		log.Warn("the agent failed and is started again", "after", delay.String(), "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// runOnce runs the agent to its end; when ctx ends, it asks it to.
func (s Service) runOnce(ctx context.Context) error {
	cmd := exec.Command(s.Executable, append(s.arguments(), UntilEOF)...)
	hidden(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	in.Close()
	select {
	case err := <-ended:
		return err
	case <-time.After(grace):
		return errors.Join(errors.New("the agent does not end and is killed"), cmd.Process.Kill(), <-ended)
	}
}

// WithEOF returns a context that ends when r does, for UntilEOF.
func WithEOF(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, r)
	}()
	return ctx
}
