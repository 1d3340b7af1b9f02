package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent"
	"backstay/internal/cli"
)

func runCommand() *cobra.Command {
	var debug, verbose bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Watch and send changes, in the foreground, until Ctrl-C or SIGTERM",
		Long: `Watch the folders of transfer.info and send what changes, in the foreground, until
Ctrl-C or SIGTERM. After a restart only what changed meanwhile is sent. Changes to
transfer.info and agent.toml take effect at once.

Files that cannot be protected are named on standard output with the reason; with
--verbose, or on a terminal, every file that becomes safe is, too. The log holds
no file names unless --debug is given.`,
		Args: cobra.NoArgs,
	}
	protocol := protocolFlag(cmd)
	cmd.Flags().BoolVar(&debug, "debug", false, "log everything, with file names")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "name every file that becomes safe")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkProtocol(*protocol); err != nil {
			return err
		}
		level := slog.LevelWarn
		switch {
		case debug:
			level = slog.LevelDebug
		case verbose:
			level = slog.LevelInfo
		}
		o, closeLog, err := options(cmd, *protocol, level)
		if err != nil {
			return err
		}
		defer closeLog()
		out := cmd.OutOrStdout()
		live := &lines{out: out, safe: verbose || cli.IsTerminal(out), name: cli.Name}
		o.Events = live.event
		return withCode(mending(func() error { return agent.Run(cmd.Context(), o) }))
	}
	return cmd
}

// lines prints events one a line, as they happen.
type lines struct {
	out io.Writer
	// safe: files that become safe are printed, too.
	safe bool
	// name writes a path for a person.
	name func(string) string

	mu sync.Mutex // guards what follows
	// files and bytes became safe since the last quiet moment.
	files int
	bytes int64
	since time.Time
}

func (l *lines) event(e agent.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Kind {
	case agent.Connected:
		fmt.Fprintf(l.out, "connected to %s\n", e.Text)
	case agent.Offline:
		fmt.Fprintf(l.out, "offline, changes are kept here: %s\n", e.Text)
	case agent.Safe:
		if l.files == 0 {
			l.since = time.Now()
		}
		l.files++
		l.bytes += e.Size
		if l.safe {
			fmt.Fprintf(l.out, "%s safe\n", l.name(e.Path))
		}
	case agent.Problem:
		fmt.Fprintf(l.out, "%s is NOT protected: %s\n", l.name(e.Path), e.Text)
	case agent.Solved:
		fmt.Fprintf(l.out, "%s: the problem is solved\n", l.name(e.Path))
	case agent.Settled:
		if l.files > 0 {
			state := "all safe"
			if e.Size > 0 {
				state = fmt.Sprintf("%d NOT protected, named above; the others are safe", e.Size)
			}
			fmt.Fprintf(l.out, "%s: %d sent, %s in %s\n", state, l.files, cli.Bytes(l.bytes), time.Since(l.since).Round(100*time.Millisecond))
		}
		l.files, l.bytes = 0, 0
	case agent.Notice:
		fmt.Fprintln(l.out, e.Text)
	}
}
