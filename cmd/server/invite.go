package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"backstay/internal/cli"
	"backstay/protocol/v4"
	"backstay/server/admin"
)

func inviteCommand() *cobra.Command {
	var account, ttl, address string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Invite a computer to keep its backups here",
		Long: `Invite a computer to keep its backups here. What is printed is one line; on that
computer run "agent join" with it. Each invitation serves one computer, once, and is a
secret until then: send it as you would send a password.

The computers of one account see each other in the server's lists, and may share a
vault if their owner says so. Invite people who do not to accounts of their own.

The line names where the server listens, or will by its settings if it does not run now;
--listen of "server run" is not known then. If it cannot be reached there from outside,
say where it can with --address.`,
		Example: `  server invite
  server invite --account grace --ttl 24h
  server invite --address backup.example.org:1256`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := admin.InviteOptions{Account: account, Address: address}
			var err error
			if ttl != "" {
				if o.TTL, err = cli.Span(ttl); err != nil {
					return cli.Usage("--ttl: %w", err)
				}
			}
			if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
				return cli.Usage("--address %s: write host:port, as backup.example.org:1256", address)
			}
			return withService(cmd, func(ctx context.Context, s admin.Service) error {
				i, err := s.Invite(ctx, o)
				if err != nil {
					return err
				}
				if _, running := s.(*admin.Client); !running && address == "" {
					made, err := v4.ParseInvitation(i.Invitation)
					if err != nil {
						return err
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "the server is not running; the invitation names %s, where its settings say that it listens. If it is run elsewhere, say where with --address\n",
						strings.Join(made.Addresses, ", "))
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(i)
				}
				fmt.Fprintln(cmd.OutOrStdout(), i.Invitation)
				if cli.IsTerminal(cmd.OutOrStdout()) {
					fmt.Fprintf(cmd.OutOrStdout(), "\nOn the computer to protect, until %s: agent join '…the line above…' ~/Documents\n",
						i.Expires.Local().Format("2 January 2006, 15:04"))
					return cli.QR(cmd.OutOrStdout(), i.Invitation)
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&account, "account", "", "account that the computer belongs to; made when it joins (default \"default\")")
	f.StringVar(&ttl, "ttl", "", "how long the invitation holds, as 24h or 7d (default 7d)")
	f.StringVar(&address, "address", "", "host:port at which the computer reaches this server (default where the server listens)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
