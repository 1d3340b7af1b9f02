package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

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
			if watch {
				return watchStatus(cmd, c, asJSON)
			}
			st, err := c.Status(cmd.Context())
			return showStatus(cmd, st, err, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, and say so when it changes")
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

// showStatus prints the status, or that there is none yet.
func showStatus(cmd *cobra.Command, st localapi.Status, err error, asJSON bool) error {
	if errors.Is(err, localsock.ErrNotRunning) && notSetUp(cmd) {
		st.State, st.Reason = localapi.NotSetUp, "join a server first: agent join INVITATION FOLDER"
	} else if err != nil {
		return reachCode(err)
	}
	out := cmd.OutOrStdout()
	if asJSON {
		return errors.Join(printJSON(out, st), reachCode(err))
	}
	now := time.Now()
	fmt.Fprintln(out, st.Summary(now))
	for _, line := range st.Details(now) {
		fmt.Fprintln(out, "  "+line)
	}
	return reachCode(err)
}

// watchStatus prints each status as it comes, in one line.
func watchStatus(cmd *cobra.Command, c *localapi.Client, asJSON bool) error {
	last := ""
	for st, err := range c.Watch(cmd.Context()) {
		switch {
		case cmd.Context().Err() != nil:
			return nil
		case err != nil:
			return showStatus(cmd, st, err, asJSON)
		case asJSON:
			if err := printJSON(cmd.OutOrStdout(), st); err != nil {
				return err
			}
		default:
			if line := st.Summary(time.Now()); line != last {
				fmt.Fprintln(cmd.OutOrStdout(), line)
				last = line
			}
		}
	}
	return nil
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
				span, err := parseSpan(args[0])
				if err != nil || span == 0 {
					return cli.Usage("%q is no span of time; write 30m, 2h or 1d", args[0])
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
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := running(cmd)
			if err != nil {
				return err
			}
			return reachCode(c.Resume(cmd.Context()))
		},
	}
}
