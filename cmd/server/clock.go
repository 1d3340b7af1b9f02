package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"backstay/server/admin"
)

func clockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clock",
		Short: "Look after the server's clock",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "confirm",
		Short: "Say that this machine's clock is right after it leapt",
		Long: `Say that this machine's clock is right. A server whose clock is more than a day ahead
of when it last ran takes no commits, because times decide what is kept and a wrong one
cannot be taken back. That is so, too, after a server was off for more than a day.

Look at the time first: if it is wrong, set it, and nothing needs to be confirmed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withService(cmd, func(ctx context.Context, s admin.Service) error {
				now, err := s.ConfirmClock(ctx)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "the clock is believed: it is %s\n", now.Local().Format(time.RFC1123))
				return nil
			})
		},
	})
	return cmd
}
