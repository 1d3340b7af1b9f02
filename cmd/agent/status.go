package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/conditions"
	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/localapi"
	"backstay/internal/cli"
	"backstay/internal/localsock"
)

func statusCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what the running agent is doing and whether everything is protected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := running(cmd)
			if err != nil {
				return err
			}
			show := func() (localapi.Status, error) {
				st, err := c.Status(cmd.Context())
				if errors.Is(err, localsock.ErrNotRunning) && notSetUp(cmd) {
					st.State, st.Reason = localapi.NotSetUp, "join a server first: agent join INVITATION FOLDER"
				}
				return st, err
			}
			for {
				st, err := show()
				if err != nil && st.State == "" {
					return reachCode(err)
				}
				if asJSON {
					if err := printJSON(cmd.OutOrStdout(), st); err != nil {
						return err
					}
				} else {
					printStatus(cmd.OutOrStdout(), st)
				}
				if err != nil {
					return reachCode(err)
				}
				if !watch {
					return nil
				}
				if !sleep(cmd.Context(), time.Second) {
					return nil
				}
			}
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, once a second")
	return cmd
}

// notSetUp says whether nobody has told the agent yet what to protect and where.
func notSetUp(cmd *cobra.Command) bool {
	folder, _, err := folders(cmd)
	if err != nil {
		return false
	}
	if _, err := config.Load(folder); errors.Is(err, config.ErrNotSetUp) {
		return true
	}
	_, err = device.Load(folder)
	return errors.Is(err, device.ErrNotEnrolled)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func printStatus(w io.Writer, st localapi.Status) {
	fmt.Fprint(w, st.State)
	if st.Reason != "" {
		fmt.Fprintf(w, ": %s", st.Reason)
	}
	fmt.Fprintln(w)
	if st.State == localapi.NotSetUp {
		return
	}
	fmt.Fprintf(w, "  %d protected (%s), %d waiting, %d excluded by rule, %d problems\n", st.Protected, cli.Bytes(st.Bytes), st.Waiting, st.Excluded, st.Problems)
	if st.LastSafe != nil {
		fmt.Fprintf(w, "  last safe %s, server %s, device %s\n", st.LastSafe.Local().Format(time.DateTime), st.Server, st.Device)
	} else {
		fmt.Fprintf(w, "  nothing is safe yet, server %s, device %s\n", st.Server, st.Device)
	}
	if st.PausedBy != "" && st.State != localapi.Paused {
		fmt.Fprintf(w, "  nothing is sent now: %s\n", st.PausedBy)
	}
	if st.PausedUntil != nil {
		fmt.Fprintf(w, "  paused until %s\n", st.PausedUntil.Local().Format(time.DateTime))
	}
}

func problemsCommand() *cobra.Command {
	var asJSON, acknowledge bool
	cmd := &cobra.Command{
		Use:   "problems",
		Short: "List every path that is not protected, with the reason and what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := running(cmd)
			if err != nil {
				return err
			}
			if acknowledge {
				return reachCode(c.Acknowledge(cmd.Context()))
			}
			list, err := c.Problems(cmd.Context())
			if err != nil {
				return reachCode(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			for _, p := range list {
				fmt.Fprintln(cmd.OutOrStdout(), problemText(p))
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&acknowledge, "acknowledge", false, "end an alarm that you have taken note of")
	return cmd
}

// problemText is a problem in one line.
func problemText(p localapi.Problem) string {
	path := p.Path
	if p.PathBytes != nil {
		path = string(p.PathBytes)
	}
	if path == "" {
		return fmt.Sprintf("%s; %s", p.Reason, p.Fix)
	}
	return fmt.Sprintf("%s is NOT protected: %s; %s", cli.Name(path), p.Reason, p.Fix)
}

func pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause [DURATION]",
		Short: "Send nothing for a time, or until resume; changes are still noticed",
		Example: `  agent pause 30m
  agent pause 1d
  agent pause`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var until time.Time
			if len(args) == 1 {
				span, err := cli.Span(args[0])
				if err != nil {
					return cli.Usage("%w", err)
				}
				until = time.Now().Add(span)
			}
			c, err := running(cmd)
			if err != nil {
				return err
			}
			return reachCode(c.Pause(cmd.Context(), until))
		},
	}
}

func resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "End a pause",
		Long: `End a pause. Where it is no person but the battery, a metered network or the hours of
agent.toml that keep the agent from sending, it sends all the same, until that has
ended: the next time it is kept from sending again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := running(cmd)
			if err != nil {
				return err
			}
			st, err := c.Status(cmd.Context())
			if err == nil {
				err = c.Resume(cmd.Context())
			}
			if err == nil && st.PausedBy != "" && st.PausedBy != string(conditions.You) {
				fmt.Fprintf(cmd.OutOrStdout(), "sending in spite of this, until it ends: %s; to change it for good, edit agent.toml\n", st.PausedBy)
			}
			return reachCode(err)
		},
	}
}
