package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/history"
	"backstay/agent/localapi"
	client "backstay/agent/v4"
	"backstay/internal/cli"
	"backstay/internal/localsock"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// folders returns the config and the state folder that a command works on.
func folders(cmd *cobra.Command) (configFolder, state string, err error) {
	named, err := cmd.Flags().GetString("config")
	if err != nil {
		return "", "", err
	}
	if configFolder, err = config.Folder(named); err != nil {
		return "", "", err
	}
	if state, err = cmd.Flags().GetString("state"); err != nil {
		return "", "", err
	}
	if state == "" {
		state = config.DefaultState()
	}
	state, err = filepath.Abs(state)
	return configFolder, state, err
}

// reader begins a session for reading. The caller closes it.
func reader(cmd *cobra.Command) (*history.Reader, error) {
	folder, _, err := folders(cmd)
	if err != nil {
		return nil, err
	}
	r, err := history.Open(cmd.Context(), folder, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, reachCode(err)
	}
	if err := client.CompareClocks(time.Now(), r.Session.Hello().Clock); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %v; times of versions, which --at means, are the server's\n", err)
	}
	return r, nil
}

// running returns a client for the agent that runs.
func running(cmd *cobra.Command) (*localapi.Client, error) {
	_, state, err := folders(cmd)
	return localapi.NewClient(state), err
}

// reachCode gives errors of reaching the server or the agent their exit codes, and
// says what they can mean.
func reachCode(err error) error {
	var told *localapi.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told) && told.Code != 0:
		return cli.WithCode(told.Code, err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, localsock.ErrNotRunning):
		return cli.WithCode(cli.CodeUnreachable, errors.New("no agent is running on this state folder; start it with: agent run, or agent service start"))
	case errors.Is(err, v4.ErrPin):
		return cli.WithCode(cli.CodeUnreachable, fmt.Errorf("%w: another machine may answer at its address, or somebody is in between, or the server was set up anew; nothing was sent. "+
			"If its administrator says it was set up anew, join with a new invitation", err))
	case errors.Is(err, v4.ErrRevoked):
		return cli.WithCode(cli.CodeUnreachable, fmt.Errorf("%w by another device of the vault; to use this machine again move me.info away and join anew", err))
	case errors.Is(err, device.ErrNotEnrolled), errors.Is(err, config.ErrNotSetUp), errors.Is(err, enrol.ErrNeedsMember):
		return cli.WithCode(cli.CodeUnreachable, err)
	case errors.Is(err, client.ErrLost):
		return cli.WithCode(cli.CodeUnreachable, fmt.Errorf("the server cannot be reached: %w; see that it runs and that this machine's network is up", err))
	case errors.Is(err, v4.ErrInvitationUnknown), errors.Is(err, v4.ErrInvitationExpired), errors.Is(err, v4.ErrInvitationUsed):
		return fmt.Errorf("%w; ask for another one (server invite)", err)
	case errors.Is(err, v4.ErrFull), errors.Is(err, v4.ErrQuota):
		return fmt.Errorf("%w; what was acknowledged is safe, the rest waits here until its administrator makes room", err)
	case errors.Is(err, vault.ErrCorrupt), errors.Is(err, v4.ErrCorrupt):
		return cli.WithCode(cli.CodeIntegrity, err)
	}
	return err
}

// printJSON prints a value in one line, as scripts read it.
func printJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// absolute is a path as the server knows it: what is in a folder reached through a
// link is known where it is. The path itself, and folders on the way to it, need not
// be there any more.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			rest, err := filepath.Rel(dir, abs)
			return filepath.Join(real, rest), err
		}
		if dir == filepath.Dir(dir) {
			return abs, nil
		}
	}
}

// recorded is a path as the server knows it, of a machine with these lines in its
// transfer.info: one that is a link itself stands for what it points to.
func recorded(path string, roots []string) (string, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", err
	}
	for _, root := range roots {
		if line, err := absolute(root); err != nil || line != abs {
			continue
		}
		if real, err := filepath.EvalSymlinks(root); err == nil {
			return real, nil
		}
	}
	return abs, nil
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// atFlag adds --at.
func atFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("at", "", "as of this time: 2026-11-20T14:03:07Z, \"2026-11-20 14:03\", 2h, yesterday, \"yesterday 14:00\"")
}

// parseAt reads a time as persons write it, relative to now; the zero time for "".
func parseAt(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "now" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	day := func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location())
	}
	// A day alone means its end: all that was saved on it.
	if t, err := time.ParseInLocation("2006-01-02", text, now.Location()); err == nil {
		return day(t).AddDate(0, 0, 1).Add(-time.Nanosecond), nil
	}
	if word, clock, _ := strings.Cut(text, " "); word == "today" || word == "yesterday" {
		base := day(now)
		if word == "yesterday" {
			base = base.AddDate(0, 0, -1)
		}
		if clock == "" {
			end := base.AddDate(0, 0, 1).Add(-time.Nanosecond)
			if end.After(now) {
				end = now
			}
			return end, nil
		}
		for _, layout := range []string{"15:04", "15:04:05"} {
			if c, err := time.Parse(layout, clock); err == nil {
				return time.Date(base.Year(), base.Month(), base.Day(), c.Hour(), c.Minute(), c.Second(), 0, base.Location()), nil
			}
		}
	}
	if span, err := parseSpan(text); err == nil {
		return now.Add(-span), nil
	}
	return time.Time{}, cli.Usage("%q is no time; write 2026-11-20T14:03:07Z, \"2026-11-20 14:03\", 2h, 3d, or \"yesterday 14:00\"", text)
}

// parseSpan reads a span of time, with d for days and w for weeks beside what
// time.ParseDuration knows.
func parseSpan(text string) (time.Duration, error) {
	unit := map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	var total time.Duration
	for suffix, each := range unit {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			var count int
			if _, err := fmt.Sscanf(n, "%d", &count); err != nil || fmt.Sprint(count) != n || count < 0 {
				return 0, fmt.Errorf("%q is no span of time", text)
			}
			return total + time.Duration(count)*each, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = fmt.Errorf("%q is negative", text)
	}
	return d, err
}
