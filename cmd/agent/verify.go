package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/localapi"
	"backstay/agent/restore"
	"backstay/internal/cli"
)

// verified is what "verify --json" prints.
type verified struct {
	Checked int64    `json:"checked"`
	Bytes   int64    `json:"bytes"`
	Failed  []failed `json:"failed"`
}

type failed struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
	Error     string `json:"error"`
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
everything. Nothing is written. Exit code 5 says that something is damaged or missing,
and names it.`,
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
		commits, err := q.Chain(ctx, r.Session, 1, 0)
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
		out := verified{Checked: report.Checked, Bytes: report.Bytes, Failed: []failed{}}
		for _, f := range report.Failed {
			entry := failed{Error: f.Err.Error()}
			entry.Path, entry.PathBytes = localapi.Text(f.Path)
			out.Failed = append(out.Failed, entry)
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), out)
		} else {
			for _, f := range report.Failed {
				name := cli.Name(f.Path)
				if f.Path == "" {
					name = "a path whose name is lost with it"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", name, f.Err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d commits, the list of %d paths, and %d paths with %s of content checked; failed: %d\n",
				commits, state.Len(), out.Checked, cli.Bytes(out.Bytes), len(out.Failed))
		}
		switch {
		case err != nil:
			return err
		case len(out.Failed) > 0:
			return cli.WithCode(cli.CodeIntegrity, fmt.Errorf("%d paths on the server are damaged or missing; keep what this machine still has of them, and have the server's disk looked at", len(out.Failed)))
		case behind != "":
			return cli.WithCode(cli.CodeIntegrity, fmt.Errorf("%s", behind))
		}
		return nil
	}
	return cmd
}
