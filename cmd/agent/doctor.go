package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/history"
	"backstay/agent/localapi"
	"backstay/internal/cli"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// maxClockOff is how far the clocks may be apart before it is worth a word: stamps
// come from the server, and "two hours ago" from this machine.
const maxClockOff = time.Minute

func doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps files from being protected, and say what to do about it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, state, err := folders(cmd)
			if err != nil {
				return err
			}
			findings := examine(cmd.Context(), folder, state)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
					return err
				}
			}
			bad := 0
			for _, f := range findings {
				mark := "ok  "
				if !f.OK {
					mark = "BAD "
					bad++
				}
				if asJSON {
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s %-14s %s\n", mark, f.Check, f.Text)
				if f.Fix != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "     %-14s -> %s\n", "", f.Fix)
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d checks found something", bad, len(findings))
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func examine(ctx context.Context, folder, state string) []finding {
	findings := []finding{}
	note := func(check string, err error, text, fix string) bool {
		f := finding{Check: check, OK: err == nil, Text: text}
		if err != nil {
			f.Text, f.Fix = err.Error(), fix
		}
		findings = append(findings, f)
		return f.OK
	}
	c, err := config.Load(folder)
	if !note("configuration", err, fmt.Sprintf("%d folders and files in %s", len(c.Roots), folder), "join a server: agent join INVITATION FOLDER; or mend the line named") {
		return findings
	}
	for _, root := range c.Roots {
		_, err := os.ReadDir(root)
		if info, serr := os.Stat(root); serr == nil && !info.IsDir() {
			err = nil
		}
		note("folder", err, cli.Name(root), "connect its disk, give this user the right to read it, or remove it: agent folder remove")
	}
	d, err := device.Load(folder)
	if err == nil && d.Vault == (vault.ID{}) {
		err = enrol.ErrNeedsMember
	}
	if !note("identity", err, fmt.Sprintf("device %q, account %q", d.Name, d.Account), "") {
		return findings
	}
	r, err := history.Open(ctx, folder, slog.New(slog.DiscardHandler))
	if note("server", err, fmt.Sprintf("%s answers with the key it was trusted by", c.Address), "see that the server runs and that this machine's network reaches it") {
		defer r.Close()
		began := time.Now()
		clock, err := r.Session.Ping(ctx)
		took := time.Since(began)
		if note("round trip", err, took.Round(100*time.Microsecond).String(), "the connection breaks; look at the network") {
			off := clock.Sub(began.Add(took / 2)).Round(time.Second)
			if off.Abs() > maxClockOff {
				err = fmt.Errorf("this machine's clock and the server's are %v apart", off.Abs())
			}
			note("clock", err, "agrees with the server's", "set the clock; times of versions are the server's")
		}
	}
	findings = append(findings, systemFindings()...)
	st, err := localapi.NewClient(state).Status(ctx)
	switch {
	case errors.Is(err, localsock.ErrNotRunning):
		note("agent", errors.New("no agent is running, so changes are not protected"), "", "agent run")
	case err != nil:
		note("agent", err, "", "restart the agent")
	default:
		if st.Problems > 0 {
			err = fmt.Errorf("%s, %d problems", st.State, st.Problems)
		}
		note("agent", err, fmt.Sprintf("%s, %d paths protected", st.State, st.Protected), "agent problems")
	}
	return findings
}
