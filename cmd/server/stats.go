package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"backstay/internal/cli"
	"backstay/server/admin"
)

func statsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show how much is stored",
		Long:  "Show how much is stored, of a running server or a stopped one.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withService(cmd, func(ctx context.Context, s admin.Service) error {
				st, err := s.Stats(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(st)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				for _, row := range []struct {
					name  string
					value any
				}{
					{"accounts", st.Accounts}, {"devices", st.Devices}, {"files", st.Files}, {"versions", st.Versions}, {"objects", st.Objects},
					{"in objects", cli.Bytes(st.BytesLogical)}, {"on the disk", cli.Bytes(st.BytesStored)}, {"sessions now", st.Sessions},
				} {
					fmt.Fprintf(w, "%s\t%v\n", row.name, row.value)
				}
				if st.ClockProblem != "" {
					fmt.Fprintf(w, "no commits\t%s\n", st.ClockProblem)
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
