package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"backstay/agent/catalog"
	"backstay/agent/device"
	"backstay/agent/localapi"
	"backstay/agent/restore"
	"backstay/internal/cli"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

// verified is what "verify --json" prints.
type verified struct {
	Checked int64    `json:"checked"`
	Bytes   int64    `json:"bytes"`
	Failed  []failed `json:"failed"`
	// DamagedCommits are those that the server has and cannot give.
	DamagedCommits []damagedCommits `json:"damaged_commits,omitempty"`
}

type failed struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
	Error     string `json:"error"`
	// Resent says that verify has had it sent again.
	Resent bool `json:"resent,omitempty"`
}

type damagedCommits struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// After and Before are the times of the commits around them.
	After  *time.Time `json:"after,omitempty"`
	Before time.Time  `json:"before"`
}

// sampleDefault is how many paths are fetched where nobody says: enough that what
// spoils one in a hundred does not go unseen.
const sampleDefault = 1000

func verifyCommand() *cobra.Command {
	var asJSON, all bool
	var sample int
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that what is on the server opens and equals what was sent",
		Long: `Prove that what is on the server opens and equals what was sent: every commit's
signature, order and time, the list of all paths against what this machine signed, and
the content of a sample of files, drawn anew each time; of all with --all, which fetches
everything. What turns out to be damaged or missing, and is still here, is sent again by
the running agent or the next backup; nothing else is written. Exit code 5 says that
something is damaged or missing, and names it.`,
		Example: `  agent verify
  agent verify --sample 50
  agent verify --all`,
		Args: cobra.NoArgs,
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&all, "all", false, "fetch and open everything")
	cmd.Flags().IntVar(&sample, "sample", sampleDefault, "how many paths to fetch and open")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case sample < 1:
			return cli.Usage("--sample %d: at least 1", sample)
		case all && cmd.Flags().Changed("sample"):
			return cli.Usage("--all is without --sample")
		}
		r, err := reader(cmd)
		if err != nil {
			return err
		}
		defer r.Close()
		ctx := cmd.Context()
		q := restore.Query{Device: r.Device.Identity.ID(), Members: r.Members, Pin: r.Device.Pin}
		chain, err := q.Chain(ctx, r.Session, 1, 0)
		if err != nil {
			return restoreCode(err)
		}
		moment, err := q.Open(ctx, r.Session, time.Time{})
		if err != nil {
			return restoreCode(err)
		}
		behind, err := serverBehind(cmd, r, moment)
		if err != nil {
			return err
		}
		state, err := restore.ReadState(ctx, r.Session, moment)
		if err != nil {
			return restoreCode(err)
		}
		o := restore.CheckOptions{Keys: r.Keys, Sample: sample}
		if all {
			o.Sample = 0
		}
		bar := newBar(cmd)
		o.Progress = func(p restore.Progress) { bar.set(p.Bytes, p.TotalBytes) }
		report, err := restore.Check(ctx, r.Session, state, o)
		bar.wait()
		if err != nil {
			return restoreCode(err)
		}
		if err := nameLost(cmd, r, report.Failed); err != nil {
			return err
		}
		resent, resendErr := resend(cmd, r.Device, report)
		out := verified{Checked: report.Checked, Bytes: report.Bytes, Failed: []failed{}}
		for _, f := range report.Failed {
			entry := failed{Error: f.Err.Error(), Resent: resent[f.Path]}
			entry.Path, entry.PathBytes = localapi.Text(f.Path)
			out.Failed = append(out.Failed, entry)
		}
		for _, g := range chain.Damaged {
			entry := damagedCommits{First: g.First, Last: g.Last, Before: g.Before.UTC()}
			if !g.After.IsZero() {
				after := g.After.UTC()
				entry.After = &after
			}
			out.DamagedCommits = append(out.DamagedCommits, entry)
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), out)
		} else {
			printDamage(cmd.OutOrStdout(), report.Failed, resent, chain.Damaged)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d commits, the list of %d paths, and %d paths with %s of content checked; failed: %d\n",
				chain.Commits, state.Len(), out.Checked, cli.Bytes(out.Bytes), len(out.Failed))
		}
		switch {
		case err != nil:
			return err
		case resendErr != nil:
			return cli.WithCode(cli.CodeIntegrity, fmt.Errorf("%d paths on the server are damaged or missing, and could not be had sent again: %w", len(out.Failed), resendErr))
		case len(out.Failed) > 0:
			return cli.WithCode(cli.CodeIntegrity, fmt.Errorf("%d paths on the server are damaged or missing; keep what this machine still has of them, and have the server's disk looked at", len(out.Failed)))
		case len(out.DamagedCommits) > 0:
			return cli.WithCode(cli.CodeIntegrity, errors.New("commits on the server are damaged, named above; have the server's disk looked at"))
		case behind != "":
			return cli.WithCode(cli.CodeIntegrity, errors.New(behind))
		}
		return nil
	}
	return cmd
}

// printDamage lists what is damaged, and says what becomes of it.
func printDamage(w io.Writer, paths []restore.Failure, resent map[string]bool, commits []restore.Gap) {
	for _, f := range paths {
		name := cli.Name(f.Path)
		if f.Path == "" {
			name = "a path whose name is lost with it"
		}
		fmt.Fprintf(w, "%s: %v\n", name, f.Err)
	}
	for _, g := range commits {
		numbers, when := fmt.Sprint("commit ", g.First), ""
		if g.Last > g.First {
			numbers = fmt.Sprintf("commits %d to %d", g.First, g.Last)
		}
		if !g.After.IsZero() {
			when = "after " + g.After.Local().Format(time.DateTime) + " and "
		}
		fmt.Fprintf(w, "%s, %sbefore %s: damaged on the server; those times cannot be restored, all others can\n",
			numbers, when, g.Before.Local().Format(time.DateTime))
	}
	if len(paths) == 0 {
		return
	}
	for _, f := range paths {
		switch {
		case resent[f.Path]:
		case f.Path == "":
			fmt.Fprintf(w, "path %v is not known here, so that nothing can be sent again\n", f.ID)
		default:
			fmt.Fprintf(w, "%s: this machine no longer holds it, so that it cannot be sent again\n", cli.Name(f.Path))
		}
	}
	if len(resent) > 0 {
		fmt.Fprintf(w, "%d of them will be sent again as they are here now, by the running agent or the next \"agent backup\"; "+
			"that makes older versions whole, too, where they have the same content under the same key\n", len(resent))
	}
}

// resendBatch is how much the running agent is asked for at a time.
const resendBatch = 1000

// resend has what a check found damaged or missing sent again: by the agent that runs,
// which owns the catalog, or by the next backup. It returns the paths that will be.
func resend(cmd *cobra.Command, d device.Device, report restore.CheckReport) (resent map[string]bool, err error) {
	var paths []string
	for _, f := range report.Failed {
		if f.Path == "" {
			continue
		}
		if _, err := os.Lstat(f.Path); err == nil {
			paths = append(paths, f.Path)
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	ctx := cmd.Context()
	_, state, err := folders(cmd)
	if err != nil {
		return nil, err
	}
	resent = map[string]bool{}
	forget := func(forget func(paths []string, objects []vault.ObjectID) ([]string, error)) error {
		// A path is captured when the agent knows what it lacks.
		for objects := range slices.Chunk(report.Lost, resendBatch) {
			if _, err := forget(nil, objects); err != nil {
				return err
			}
		}
		for paths := range slices.Chunk(paths, resendBatch) {
			present, err := forget(paths, nil)
			if err != nil {
				return err
			}
			for _, path := range present {
				resent[path] = true
			}
		}
		return nil
	}
	lock := flock.New(filepath.Join(state, "lock"))
	ok, err := lock.TryLock()
	if err == nil && !ok {
		c := localapi.NewClient(state)
		err = forget(func(paths []string, objects []vault.ObjectID) ([]string, error) { return c.Resend(ctx, paths, objects) })
		if errors.Is(err, localsock.ErrNotRunning) {
			err = errors.New("a backup is at work; verify again when it has ended")
		}
		return resent, err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer lock.Close()
	if _, err := os.Stat(filepath.Join(state, catalog.FileName)); errors.Is(err, fs.ErrNotExist) {
		for _, path := range paths { // the next backup looks at everything
			resent[path] = true
		}
		return resent, nil
	}
	c, err := catalog.Open(ctx, state, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	dest, err := c.Destination(ctx, d.Destination())
	if err != nil {
		return nil, err
	}
	err = forget(func(paths []string, objects []vault.ObjectID) ([]string, error) {
		if len(objects) > 0 {
			return nil, dest.ForgetChunks(ctx, objects...)
		}
		return dest.Recapture(ctx, paths)
	})
	return resent, err
}
