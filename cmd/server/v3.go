package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"backstay/internal/cli"
	"backstay/internal/durable"
	"backstay/server/admin"
	"backstay/server/v3"
)

func v3Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "v3",
		Short: "Look after clients of protocol version 3",
	}
	cmd.AddCommand(v3AllowCommand(), v3FilesCommand(), v3GetCommand())
	return cmd
}

func v3AllowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "allow NAME",
		Short: "Let a client of this name register when the server runs with --v3 on",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withService(cmd, func(ctx context.Context, s admin.Service) error { return s.V3Allow(ctx, args[0]) })
		},
	}
}

func v3FilesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "files",
		Short: "List the files that version 3 clients have sent",
		Long: `List the newest version of every file that version 3 clients have sent. A file is
verified when its client has compared the checksum; some clients never do.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withService(cmd, func(ctx context.Context, s admin.Service) error {
				files, damage := s.V3Files(ctx), error(nil)
				whole := func(yield func(v3.File, error) bool) {
					for f, err := range files {
						if err != nil && f.ClientID != "" {
							fmt.Fprintf(cmd.ErrOrStderr(), "damaged: %v\n", err)
							damage = err
						} else if !yield(f, err) {
							return
						}
					}
				}
				if asJSON {
					return errors.Join(filesJSON(cmd, whole), damage)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "CLIENT\tFILE\tSIZE\tRECEIVED\tVERSIONS\tVERIFIED")
				for f, err := range whole {
					if err != nil {
						return errors.Join(w.Flush(), err)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", f.Client, f.Name, cli.Bytes(f.Size), f.Time.Local().Format(time.DateTime), f.Versions, yes(f.Verified))
				}
				return errors.Join(w.Flush(), damage)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// filesJSON prints the array element by element: a listing may be long.
func filesJSON(cmd *cobra.Command, files iter.Seq2[v3.File, error]) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	sep := "["
	for f, err := range files {
		if err != nil {
			return err
		}
		line, err := json.Marshal(f)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s%s", sep, line)
		sep = ",\n "
	}
	if sep == "[" {
		fmt.Fprint(out, "[")
	}
	fmt.Fprintln(out, "]")
	return out.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func v3GetCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "get CLIENT FILE",
		Short: "Get the newest version of a file back",
		Long: `Get the newest version of a file back. CLIENT is the client's name or its id, FILE
the name as "server v3 files" shows it. With -o the file appears only once it is
whole and its checksum is right; without, content goes to standard output and the
exit code says whether it was right.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withService(cmd, func(ctx context.Context, s admin.Service) error {
				if out == "" || out == "-" {
					return s.V3Get(ctx, args[0], args[1], cmd.OutOrStdout())
				}
				return getTo(ctx, s, args[0], args[1], out)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to this file instead of standard output")
	return cmd
}

// getTo writes into a file beside out and renames it when it is whole.
func getTo(ctx context.Context, s admin.Service, client, file, out string) (err error) {
	part, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(part.Name())
		}
	}()
	err = s.V3Get(ctx, client, file, part)
	if err == nil {
		err = part.Sync()
	}
	if err = errors.Join(err, part.Close()); err != nil {
		return err
	}
	if err := os.Rename(part.Name(), out); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(out))
}
