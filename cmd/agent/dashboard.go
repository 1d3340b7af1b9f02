package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backstay/agent/dashboard"
	"backstay/agent/history"
	"backstay/agent/restore"
	"backstay/internal/cli"
)

func dashboardCommand() *cobra.Command {
	var page, invitation string
	var noBrowser bool
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Open the dashboard in a browser: state, problems, folders, files, restore, settings",
		Long: `Open the dashboard in a browser. It is served by this command, on this machine and for
you alone: the address works once. The command ends when no page has been open for half
an hour; given again meanwhile it opens another page of the first. A restore from the
dashboard runs with your rights.

It works without a running agent, and is where a machine can be set up.`,
		Example: `  agent dashboard
  agent dashboard --page files
  agent dashboard --no-browser`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&page, "page", "", "what to show first: "+strings.Join(dashboard.Pages(), ", "))
	cmd.Flags().StringVar(&invitation, "invitation", "", "an invitation to set this machine up with")
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "print the address and open no browser")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if page != "" && !slices.Contains(dashboard.Pages(), page) {
			return cli.Usage("there is no page %q; there are: %s", page, strings.Join(dashboard.Pages(), ", "))
		}
		if invitation != "" && page == "" {
			page = "welcome"
		}
		folder, state, err := folders(cmd)
		if err != nil {
			return err
		}
		return dashboard.Run(cmd.Context(), dashboard.Options{
			Folder: folder, State: state, Page: page, Invitation: invitation, Version: programVersion(),
			Log: slog.New(slog.DiscardHandler), Tools: tools(cmd, folder, state),
			Open: func(address string) error {
				if !noBrowser {
					err := openBrowser(address)
					if err == nil {
						fmt.Fprintln(cmd.OutOrStdout(), "the dashboard is open in your browser")
						return nil
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "no browser could be opened: %v\n", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "open this address in a browser on this machine; it works once, within two minutes:\n  %s\n", address)
				return nil
			},
		})
	}
	return cmd
}

// tools are what the dashboard and the other commands do alike.
func tools(cmd *cobra.Command, folder, state string) dashboard.Tools {
	return dashboard.Tools{
		Find: func(pattern string, take func(dashboard.Found)) error {
			match, err := matcher(pattern)
			if err != nil {
				return err
			}
			found := false
			each := func(f foundPath, path string) {
				found = true
				take(dashboard.Found{Path: path, Time: f.Time, Size: f.Size, Deleted: f.Deleted})
			}
			complete, err := findHere(cmd, match, each)
			if err == nil && (!complete || !found) {
				err = findThere(cmd, match, each)
			}
			return err
		},
		Behind: func(r *history.Reader, newest *restore.Moment) (string, error) { return serverBehind(cmd, r, newest) },
		Doctor: func(ctx context.Context) []dashboard.Finding {
			var list []dashboard.Finding
			for _, f := range examine(ctx, folder, state) {
				list = append(list, dashboard.Finding{Check: f.Check, OK: f.OK, Text: f.Text})
			}
			return list
		},
		Explain: restoreCode,
	}
}

// programVersion is what this program was built from.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
