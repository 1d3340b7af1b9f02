package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"backstay/agent/localapi"
	"backstay/internal/backoff"
	"backstay/internal/localsock"
	"backstay/tray"
	"backstay/tray/systray"
)

const (
	// A lost agent is looked for at growing intervals.
	retryFirst = 200 * time.Millisecond
	retryMost  = 5 * time.Second
	// askAgain is how often a program is started to say why no agent runs.
	askAgain = time.Minute
	// hostPatience is how long a desktop that starts may take to show its panel.
	hostPatience = 10 * time.Second
	// answerTimeout bounds what the agent does at once.
	answerTimeout = 10 * time.Second
)

// program follows the agent and does what is chosen.
type program struct {
	client *localapi.Client
	// flags are handed to every agent program that is started.
	flags  []string
	notify func(context.Context, tray.Notice) error
	// welcomed is a file that is made when a person has been asked to set up.
	welcomed string
	// views holds the newest view that is not on the screen yet.
	views   chan tray.View
	actions chan tray.Action
	errOut  io.Writer
}

// run shows the tray until ctx ends or a person quits it.
func (p *program) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	inputs := make(chan tray.Input)
	group.Go(func() { p.watch(ctx, inputs) })
	group.Go(func() { p.render(ctx, inputs) })
	group.Go(func() { p.expectHost(ctx) })
	group.Go(func() { p.act(ctx, cancel) })
	err := systray.Run(ctx, p.views, func(a tray.Action) {
		select {
		case p.actions <- a:
		default: // nobody chooses sixteen times before the first is done
		}
	})
	cancel()
	group.Wait()
	return err
}

// watch tells what is known of the agent, whenever that changes.
func (p *program) watch(ctx context.Context, inputs chan<- tray.Input) {
	wait := backoff.Backoff{Min: retryFirst, Max: retryMost}
	var asked time.Time
	var unreached tray.Input
	for {
		for st, err := range p.client.Watch(ctx) {
			in := tray.Input{Reach: tray.Answers, Status: st}
			switch {
			case err == nil:
				wait.Reset()
				asked = time.Time{}
			case !errors.Is(err, localsock.ErrNotRunning):
				in = tray.Input{Reach: tray.NoAnswer}
			default:
				if asked.IsZero() || time.Since(asked) > askAgain {
					asked, unreached = time.Now(), p.whyNotRunning(ctx)
				}
				in = unreached
			}
			select {
			case inputs <- in:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-time.After(wait.Next()):
		case <-ctx.Done():
			return
		}
	}
}

// whyNotRunning asks the agent's program, which knows whether it is set up.
func (p *program) whyNotRunning(ctx context.Context) tray.Input {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	cmd, err := p.agent(ctx, "status", "--json")
	if err != nil {
		return tray.Input{}
	}
	out, _ := cmd.Output() // it exits with an error: no agent runs
	var st localapi.Status
	if json.Unmarshal(out, &st) != nil || st.State != localapi.NotSetUp {
		return tray.Input{}
	}
	return tray.Input{Reach: tray.Answers, Status: st}
}

// render hands views to the screen, and tells of trouble.
func (p *program) render(ctx context.Context, inputs <-chan tray.Input) {
	var in tray.Input
	var notices tray.Notices
	for first := true; ; first = false {
		now := time.Now()
		select {
		case <-p.views: // never shown, and too late
		default:
		}
		if !first { // nobody has looked for the agent before
			p.views <- tray.Render(in, now)
		}
		if in.Reach == tray.Answers {
			if in.Status.State == localapi.NotSetUp {
				p.welcome(ctx)
			}
			if n, ok := notices.Next(in.Status, now); ok {
				p.tell(ctx, n)
			}
		}
		select {
		case in = <-inputs:
		case <-time.After(tray.Refresh(in, now)):
		case <-ctx.Done():
			return
		}
	}
}

// welcome opens the dashboard, which then asks for all it takes to set up: once, since
// who closes it knows where it is.
func (p *program) welcome(ctx context.Context) {
	f, err := os.OpenFile(p.welcomed, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	f.Close()
	p.do(ctx, tray.Dashboard)
}

// tell shows a notification, without waiting for it; a desktop need not have any.
func (p *program) tell(ctx context.Context, n tray.Notice) {
	go func() {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		if err := p.notify(ctx, n); err != nil && ctx.Err() == nil {
			fmt.Fprintf(p.errOut, "tray: %s. %s (%v)\n", n.Title, n.Text, err)
		}
	}()
}

// expectHost says once that there is nothing to show the icon.
func (p *program) expectHost(ctx context.Context) {
	select {
	case <-time.After(hostPatience):
	case <-ctx.Done():
		return
	}
	if err := systray.Host(ctx); err != nil && ctx.Err() == nil {
		text := "The icon will appear when there is a tray; until then everything is shown by: agent dashboard"
		fmt.Fprintf(p.errOut, "tray: %v. %s\n", err, text)
		p.tell(ctx, tray.Notice{Title: "Backstay: " + err.Error(), Text: text, Icon: tray.IconNotRunning})
	}
}

// act does what is chosen, one after the other, and says what went wrong.
func (p *program) act(ctx context.Context, quit func()) {
	for {
		select {
		case a := <-p.actions:
			if a == tray.QuitTheIcon {
				quit()
				return
			}
			p.do(ctx, a)
		case <-ctx.Done():
			return
		}
	}
}

func (p *program) do(ctx context.Context, a tray.Action) {
	failed := func(err error) {
		if err != nil && ctx.Err() == nil {
			p.tell(ctx, tray.Notice{Title: "Backstay: that did not work", Text: localapi.Line(err.Error()), Icon: string(localapi.Attention)})
		}
	}
	brief, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if page, ok := a.Page(); ok {
		go func() { failed(p.dashboard(page)) }()
	} else if until, ok := a.Pause(time.Now()); ok {
		failed(p.client.Pause(brief, until))
	} else if a == tray.Resume {
		failed(p.client.Resume(brief))
	} else if a == tray.Backup {
		go func() { // it may take hours
			_, err := p.client.Backup(ctx, nil)
			failed(err)
		}()
	}
}

// dashboard opens a page, and returns when its program has ended. It outlives the
// tray: a person may be in the middle of something.
func (p *program) dashboard(page string) error {
	args := []string{"dashboard"}
	if page != "" {
		args = append(args, "--page", page)
	}
	cmd, err := p.agent(context.Background(), args...)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the dashboard did not open: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// agent prepares a run of the agent's program, which lies beside this one.
func (p *program) agent(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	suffix := ""
	if runtime.GOOS == "windows" {
		suffix = ".exe"
	}
	for _, name := range []string{"agent", "backstay"} {
		path := filepath.Join(filepath.Dir(self), name+suffix)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			cmd := exec.CommandContext(ctx, path, append(args, p.flags...)...)
			hideWindow(cmd)
			return cmd, nil
		}
	}
	return nil, fmt.Errorf("the agent's program is not in %s", filepath.Dir(self))
}
