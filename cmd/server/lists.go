package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"backstay/internal/cli"
	"backstay/server/admin"
)

func devicesCommand() *cobra.Command {
	return listCommand("devices", "List the computers that keep their backups here",
		`List the computers that keep their backups here. LAST SAFE is when the newest of their
versions arrived. One that was revoked is refused; what it sent stays.`,
		"NAME\tACCOUNT\tLAST SEEN\tLAST SAFE\tID\t",
		admin.Service.Devices,
		func(d admin.Device) string {
			note := ""
			if d.Revoked {
				note = "revoked"
			}
			return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", cli.Name(d.Name), cli.Name(d.Account), moment(d.LastSeen), moment(d.LastSafe), d.ID, note)
		})
}

func accountsCommand() *cobra.Command {
	return listCommand("accounts", "List the accounts",
		"List the accounts. An account is made when the first computer joins it.",
		"NAME\tDEVICES\tMADE\tVAULT",
		admin.Service.Accounts,
		func(a admin.Account) string {
			return fmt.Sprintf("%s\t%d\t%s\t%s", cli.Name(a.Name), a.Devices, moment(&a.Created), a.Vault)
		})
}

// listCommand is a command that prints a list, each element as a line or all of it as
// JSON.
func listCommand[T any](use, short, long, head string, list func(admin.Service, context.Context) ([]T, error), line func(T) string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withService(cmd, func(ctx context.Context, s admin.Service) error {
				all, err := list(s, ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(all)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, head)
				for _, v := range all {
					fmt.Fprintln(w, line(v))
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func moment(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
