package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"backstay/agent/catalog"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/internal/cli"
	"backstay/internal/durable"
	"backstay/internal/private"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

func joinCommand() *cobra.Command {
	var phraseFile, name string
	cmd := &cobra.Command{
		Use:   "join INVITATION [FOLDER...]",
		Short: "Enrol this machine at a server, with the invitation it gave, and say what to protect",
		Long: `Enrol this machine at a server, with the invitation that "server invite" printed there,
and say what to protect: the folders are written to transfer.info.

The first machine of an account makes the vault and shows the recovery phrase, 24
words, once: they are the only way to the files if every machine is lost. With
--phrase-file they are written to a file instead, the recovery kit, which "agent
recover" takes. Print it and keep it away from this machine.

A further machine of the account becomes a member with "agent pair", or here if
--phrase-file names the kit. On a machine that is enrolled already the invitation's
server is trusted from now on; keys, vault and folders stay.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&phraseFile, "phrase-file", "", "write the recovery kit to this file; or, if it exists, join with the phrase in it")
	cmd.Flags().StringVar(&name, "name", "", "what to call this machine (default: its host name)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		folder, state, err := folders(cmd)
		if err != nil {
			return err
		}
		invitation, err := v4.ParseInvitation(args[0])
		if err != nil {
			return err
		}
		if name == "" {
			if name, err = os.Hostname(); err != nil || name == "" {
				return errors.New("this machine has no host name; say --name")
			}
		}
		j := enrol.Joining{Folder: folder, Invitation: invitation, Name: name, Log: slog.New(slog.DiscardHandler)}
		for _, path := range args[1:] {
			abs, err := absolute(path)
			if err != nil {
				return err
			}
			if _, err := os.Stat(abs); err != nil {
				return err
			}
			j.Paths = append(j.Paths, abs)
		}
		if j.Kit, err = readKit(phraseFile); err != nil {
			return err
		}
		j.Keep = func(kit vault.Kit) error { return keepKit(cmd, phraseFile, kit) }
		if j.Former, err = formerMembers(cmd, folder, state); err != nil {
			return err
		}
		d, err := enrol.Join(cmd.Context(), j)
		if err != nil {
			return reachCode(err)
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "joined %s as %s, account %s\n", strings.Join(invitation.Addresses, ", "), d.Name, d.Account)
		listed, err := enrol.Listed(folder)
		if err != nil {
			return err
		}
		for _, path := range listed {
			fmt.Fprintf(out, "  protects %s\n", cli.Name(path))
		}
		if len(listed) == 0 {
			fmt.Fprintln(out, "nothing is protected yet; add folders with: agent folder add FOLDER")
		}
		fmt.Fprintln(out, "start protecting with: agent run")
		return nil
	}
	return cmd
}

// readKit reads a recovery kit; nil if there is no such file.
func readKit(file string) (*vault.Kit, error) {
	if file == "" {
		return nil, nil
	}
	data, err := private.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	kit, err := vault.ParseKit(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &kit, nil
}

// keepKit stores the kit, or shows the phrase once. Without a terminal and a file
// there is nobody to see it, and no vault is made whose only key is lost at once.
func keepKit(cmd *cobra.Command, file string, kit vault.Kit) error {
	out := cmd.OutOrStdout()
	if file != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(file, kit.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(out, "the recovery kit is in %s: print it, or copy it to another place, and remove it here\n", file)
		return nil
	}
	if !cli.IsTerminal(out) {
		return cli.Usage("the recovery phrase has to be kept, and nobody is at a terminal to see it: say --phrase-file FILE")
	}
	fmt.Fprintln(out, "\nYour recovery phrase. It is shown this once. Whoever has these words can read your\nbackups; without them, and without this machine, nobody can. Write them down:")
	fmt.Fprintln(out)
	words := strings.Fields(vault.Phrase(kit.Seed))
	for i := 0; i < len(words); i += 4 {
		fmt.Fprint(out, "  ")
		for k, w := range words[i : i+4] {
			fmt.Fprintf(out, "%2d %-10s", i+k+1, w)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "\n  server %s\n  pin    %x\n  vault  %v\n\n", strings.Join(kit.Servers, ", "), kit.Pin[:], kit.Vault)
	if in, ok := cmd.InOrStdin().(*os.File); ok && cli.IsTerminal(in) {
		fmt.Fprint(out, "Press Enter when you have written them down. ")
		if _, err := bufio.NewReader(in).ReadString('\n'); err != nil {
			return fmt.Errorf("interrupted before the vault was made: %w", err)
		}
	}
	return nil
}

// formerMembers returns the membership log that this machine knows.
func formerMembers(cmd *cobra.Command, folder, state string) ([][]byte, error) {
	d, err := device.Load(folder)
	if errors.Is(err, device.ErrNotEnrolled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(state, catalog.FileName)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	c, err := catalog.Open(cmd.Context(), state, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	dest, err := c.Destination(cmd.Context(), d.Destination())
	if err != nil {
		return nil, err
	}
	return dest.Members(cmd.Context())
}

func folderCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "folder", Short: "Say what to protect: add, remove or list folders"}
	edit := func(use, short string, f func(folder string, paths []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			folder, _, err := folders(cmd)
			if err != nil {
				return err
			}
			paths := make([]string, len(args))
			for i, arg := range args {
				if paths[i], err = absolute(arg); err != nil {
					return err
				}
			}
			return reachCode(f(folder, paths))
		}}
	}
	add := edit("add FOLDER...", "Protect folders or files; a running agent follows at once", func(folder string, paths []string) error {
		for _, path := range paths {
			if _, err := os.Stat(path); err != nil {
				return err
			}
		}
		return enrol.AddFolders(folder, paths)
	})
	remove := edit("remove FOLDER...", "Do not protect folders any more; what is on the server stays there", enrol.RemoveFolders)
	var asJSON bool
	list := &cobra.Command{Use: "list", Short: "List what is protected", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		folder, _, err := folders(cmd)
		if err != nil {
			return err
		}
		paths, err := enrol.Listed(folder)
		if err != nil {
			return reachCode(err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), append([]string{}, paths...))
		}
		for _, path := range paths {
			fmt.Fprintln(cmd.OutOrStdout(), cli.Name(path))
		}
		return nil
	}}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(add, remove, list)
	return cmd
}
