package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"backstay/agent"
	"backstay/agent/config"
	"backstay/agent/localapi"
	"backstay/internal/cli"
)

func backupCommand() *cobra.Command {
	var debug, asJSON bool
	cmd := &cobra.Command{
		Use:   "backup [PATH...]",
		Short: "Send now what has changed, and end when it is durable",
		Long: `Look at everything in transfer.info, or only at the paths given, send what has changed,
and end when the server has acknowledged it. An agent that runs is asked to do it. With
--protocol 3 every file is sent once. Exit code 3: done, but some files are not
protected; each is named on standard error with the reason.`,
		Example: `  agent backup
  agent backup ~/Documents/thesis
  agent backup --protocol 3`,
	}
	protocol := protocolFlag(cmd)
	cmd.Flags().BoolVar(&debug, "debug", false, "log everything, with file names")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkProtocol(*protocol); err != nil {
			return err
		}
		level := slog.LevelWarn
		if debug {
			level = slog.LevelDebug
		}
		o, closeLog, err := options(cmd, *protocol, level)
		if err != nil {
			return err
		}
		defer closeLog()
		bar := newBar(cmd)
		o.Events = bar.event
		for i, path := range args {
			// Named by the link that transfer.info names, it is what that points to.
			c, err := config.Load(o.Folder)
			if err != nil {
				return withCode(err)
			}
			if args[i], err = recorded(path, c.Roots); err != nil {
				return err
			}
		}
		var report agent.Report
		err = mending(func() (err error) {
			report, err = agent.Backup(cmd.Context(), o, args)
			return err
		})
		if errors.Is(err, agent.ErrRunning) && *protocol == 4 {
			bar.wait()
			bar = newCount(cmd)
			report, err = backupRunning(cmd, args, bar)
		}
		bar.wait()
		for _, text := range bar.notices {
			fmt.Fprintln(cmd.ErrOrStderr(), text)
		}
		for _, p := range report.Problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is NOT protected: %s\n", cli.Name(p.Path), p.Text())
		}
		if cmd.Context().Err() != nil {
			return fmt.Errorf("interrupted: %d files are safe, the others were not sent", report.Files)
		}
		if err != nil {
			return withCode(err)
		}
		if asJSON {
			done := localapi.Report{Files: report.Files, Bytes: report.Bytes, Problems: []localapi.Problem{}}
			for _, p := range report.Problems {
				text, raw := localapi.Text(p.Path)
				done.Problems = append(done.Problems, localapi.Problem{Path: text, PathBytes: raw, Reason: p.Reason, Fix: p.Fix})
			}
			if err := printJSON(cmd.OutOrStdout(), done); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(cmd.OutOrStdout(), "%d files safe, %s\n", report.Files, cli.Bytes(report.Bytes))
		}
		if n := len(report.Problems); n > 0 {
			return cli.WithCode(cli.CodeUnprotected, fmt.Errorf("%d not protected, named above", n))
		}
		return nil
	}
	return cmd
}

// backupRunning asks the agent that runs, which holds the state folder, and shows how
// much that has yet to send.
func backupRunning(cmd *cobra.Command, paths []string, bar *bar) (agent.Report, error) {
	var report agent.Report
	c, err := running(cmd)
	if err != nil {
		return report, err
	}
	ctx, stop := context.WithCancel(cmd.Context())
	var following sync.WaitGroup
	following.Go(func() { bar.follow(ctx, c) })
	done, err := c.Backup(cmd.Context(), paths)
	stop()
	following.Wait()
	report.Files, report.Bytes = done.Files, done.Bytes
	for _, p := range done.Problems {
		u := agent.Unprotected{Path: p.Path, Reason: p.Reason, Fix: p.Fix}
		if p.PathBytes != nil {
			u.Path = string(p.PathBytes)
		}
		report.Problems = append(report.Problems, u)
	}
	return report, err
}

// bar is a progress bar on a terminal and nothing elsewhere.
type bar struct {
	progress *mpb.Progress
	shown    *mpb.Bar
	total    int64
	// notices are to be told when the bar is gone.
	notices []string
}

// newBar returns a bar of bytes.
func newBar(cmd *cobra.Command) *bar {
	return barOf(cmd, decor.CountersKiloByte("% .1f / % .1f"), decor.Percentage(), decor.Name("  "),
		decor.AverageSpeed(decor.SizeB1000(0), "% .1f"), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO))
}

// newCount returns a bar of paths.
func newCount(cmd *cobra.Command) *bar {
	return barOf(cmd, decor.CountersNoUnit("%d / %d paths"), decor.Percentage(), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO))
}

func barOf(cmd *cobra.Command, left decor.Decorator, right ...decor.Decorator) *bar {
	b := &bar{}
	if !cli.IsTerminal(cmd.ErrOrStderr()) {
		return b
	}
	b.progress = mpb.NewWithContext(cmd.Context(), mpb.WithOutput(cmd.ErrOrStderr()))
	b.shown = b.progress.AddBar(0, mpb.PrependDecorators(left), mpb.AppendDecorators(right...))
	return b
}

// follow shows how much of what waited at most an agent that runs has sent, until ctx
// ends.
func (b *bar) follow(ctx context.Context, c *localapi.Client) {
	if b.shown == nil {
		return
	}
	for st, err := range c.Watch(ctx) {
		if err != nil {
			return // whoever waits for the backup is told
		}
		b.total = max(b.total, int64(st.Waiting))
		b.set(b.total-int64(st.Waiting), b.total)
	}
}

func (b *bar) event(e agent.Event) {
	if e.Kind == agent.Notice {
		b.notices = append(b.notices, e.Text)
	}
	if b.shown == nil {
		return
	}
	switch e.Kind {
	case agent.Planned:
		b.total += e.Size
		b.shown.SetTotal(b.total, false)
	case agent.Sent:
		b.shown.IncrInt64(e.Size)
	}
}

// set says how far it is.
func (b *bar) set(done, total int64) {
	if b.shown != nil {
		b.shown.SetTotal(total, false)
		b.shown.SetCurrent(done)
	}
}

// wait leaves the bar as it is and gives the terminal back. Nothing happens the second
// time.
func (b *bar) wait() {
	if b.shown != nil {
		b.shown.SetTotal(-1, true)
		b.progress.Wait()
		b.shown = nil
	}
}
