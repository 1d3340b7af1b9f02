package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"backstay/agent/catalog"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/localapi"
	"backstay/internal/cli"
	"backstay/internal/durable"
	"backstay/internal/private"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// joined is what "join --json" prints.
type joined struct {
	Server  string `json:"server"`
	Device  string `json:"device"`
	ID      string `json:"id"`
	Account string `json:"account"`
	Vault   string `json:"vault"`
	// PhraseFile is the recovery kit that was written; empty if none was.
	PhraseFile string         `json:"phrase_file"`
	Folders    []listedFolder `json:"folders"`
}

func joinCommand() *cobra.Command {
	var phraseFile, name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "join INVITATION [FOLDER...]",
		Short: "Enrol this machine at a server, and say what to protect",
		Long: `Enrol this machine at a server, with the invitation that "server invite" printed there,
and say what to protect: the folders are written to transfer.info.

The first machine of an account makes the vault and shows the recovery phrase, 24
words, once: they are the only way to the files if every machine is lost. With
--phrase-file they are written to a file instead, the recovery kit, which "agent
recover" takes. Print it and keep it away from this machine.

A further machine of the account becomes a member with "agent pair", or here if
--phrase-file names the kit. On a machine that is a member already, the invitation's
server is trusted from now on; keys, vault and folders stay.`,
		Example: `  agent join backstay:pQGB... ~/Documents ~/Pictures
  agent join backstay:pQGB... ~/Documents --phrase-file /media/stick/kit.txt`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&phraseFile, "phrase-file", "", "write the recovery kit to this file; or, if it exists, join with the phrase in it")
	cmd.Flags().StringVar(&name, "name", "", "what to call this machine (default: as in transfer.info, or its host name)")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		folder, state, err := folders(cmd)
		if err != nil {
			return err
		}
		invitation, err := v4.ParseInvitation(args[0])
		if err != nil {
			return cli.Usage("%w", err)
		}
		if name, err = machineName(folder, name); err != nil {
			return err
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
		out := cmd.OutOrStdout()
		told := out
		if asJSON {
			told = cmd.ErrOrStderr()
		}
		kept := ""
		j.Keep = func(kit vault.Kit) error {
			kept = phraseFile
			return keepKit(cmd, told, phraseFile, kit)
		}
		if j.Former, err = formerMembers(cmd, folder, state); err != nil {
			return err
		}
		done, err := enrol.Join(cmd.Context(), j)
		if err != nil {
			return reachCode(err)
		}
		d := done.Device
		if done.Anew {
			if err := forgetServer(cmd, state, d); err != nil {
				return err
			}
			fmt.Fprintln(told, "the server holds nothing of this machine yet; everything is sent to it")
		}
		if phraseFile != "" && kept == "" && j.Kit == nil {
			fmt.Fprintf(told, "%s is not written: the vault has a recovery kit, which was made with it\n", phraseFile)
		}
		listed, err := enrol.Listed(folder)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, joined{
				Server: done.Address, Device: d.Name, ID: d.Identity.ID().String(), Account: d.Account, Vault: d.Vault.String(),
				PhraseFile: kept, Folders: listedFolders(listed),
			})
		}
		fmt.Fprintf(out, "joined %s as %s, account %s\n", done.Address, cli.Name(d.Name), cli.Name(d.Account))
		for _, path := range listed {
			fmt.Fprintf(out, "  protects %s\n", cli.Name(path))
		}
		if len(listed) == 0 {
			fmt.Fprintln(out, "nothing is protected yet; add folders with: agent folder add FOLDER")
		}
		fmt.Fprintln(out, startText(cmd, state))
		return nil
	}
	return cmd
}

// machineName is the one wanted, or that of transfer.info, or the host's.
func machineName(folder, wanted string) (string, error) {
	listed, err := enrol.Name(folder)
	if err != nil {
		return "", err
	}
	if wanted != "" && listed != "" && wanted != listed {
		return "", cli.Usage("transfer.info calls this machine %q; leave out --name, or change the name there", listed)
	}
	if name := cmp.Or(wanted, listed); name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "", cli.Usage("this machine has no host name; say --name")
	}
	return host, nil
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
func keepKit(cmd *cobra.Command, out io.Writer, file string, kit vault.Kit) error {
	if file != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := writeKit(file, kit.Bytes()); err != nil {
			return err
		}
		fmt.Fprintf(out, "the recovery kit is in %s: print it, or copy it to another place, and remove it here\n", file)
		return nil
	}
	if !cli.IsTerminal(out) {
		return cli.Usage("the recovery phrase has to be kept, and nobody is at a terminal to see it: give the same command with --phrase-file FILE")
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

// writeKit writes a kit where nothing is: another kit may be the only one of its
// vault.
func writeKit(file string, kit []byte) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file)
		}
	}()
	_, err = f.Write(kit)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(file))
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
	dest, closeCatalog, err := remembered(cmd, state, d)
	if dest == nil || err != nil {
		return nil, err
	}
	defer closeCatalog()
	return dest.Members(cmd.Context())
}

// forgetServer makes the catalog say that the server holds nothing: it is a new one,
// and its lack of what the former had acknowledged is no cause for an alarm. An agent
// that runs holds the catalog; it then finds that out by itself, with an alarm.
func forgetServer(cmd *cobra.Command, state string, d device.Device) error {
	lock := flock.New(filepath.Join(state, "lock"))
	if ok, err := lock.TryLock(); !ok || err != nil {
		return nil
	}
	defer lock.Close()
	if _, err := os.Stat(filepath.Join(state, catalog.FileName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c, err := catalog.Open(cmd.Context(), state, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer c.Close()
	dest, err := c.Destination(cmd.Context(), d.Destination())
	if err != nil {
		return err
	}
	h, err := dest.History(cmd.Context())
	if err != nil || h.Seq == 0 {
		return err
	}
	h.After, h.Digest = &vault.Position{}, vault.Digest{}
	drop := func(string, catalog.State, vault.ObjectID) bool { return false }
	return dest.Adopt(cmd.Context(), h, drop, func(func(catalog.Found, error) bool) {})
}

// remembered returns what the catalog of a state folder says of a device, nil if
// there is none that can be read; why not is told. It changes nothing.
func remembered(cmd *cobra.Command, state string, d device.Device) (*catalog.Destination, func() error, error) {
	c, err := catalog.Read(cmd.Context(), state)
	if err == nil {
		var dest *catalog.Destination
		if dest, err = c.Destination(cmd.Context(), d.Destination()); err == nil {
			return dest, c.Close, nil
		}
		err = errors.Join(err, c.Close())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case unreadable(cmd, err):
		return nil, nil, nil
	}
	return nil, nil, err
}

// unreadable says whether an error means that the catalog cannot be read and the agent
// will put that right, and tells so: there is nothing to lose by going on without it.
func unreadable(cmd *cobra.Command, err error) bool {
	switch {
	case errors.Is(err, catalog.ErrCorrupt):
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %v; nothing that is on the server is lost. Start the agent again, or run \"agent backup\": it puts the file aside and makes a new one from the server\n", err)
	case errors.Is(err, catalog.ErrOlder):
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %v; start the agent again, or run \"agent backup\": it brings it up to date\n", err)
	default:
		return false
	}
	return true
}

// listedFolder is what "folder list --json" prints.
type listedFolder struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
}

func listedFolders(paths []string) []listedFolder {
	list := []listedFolder{}
	for _, path := range paths {
		text, raw := localapi.Text(path)
		list = append(list, listedFolder{text, raw})
	}
	return list
}

func folderCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "folder", Short: "Say what to protect: add, remove or list folders", Example: `  agent folder add ~/Pictures
  agent folder list`}
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
			return printJSON(cmd.OutOrStdout(), listedFolders(paths))
		}
		for _, path := range paths {
			fmt.Fprintln(cmd.OutOrStdout(), cli.Name(path))
		}
		return nil
	}}
	jsonFlag(list, &asJSON)
	cmd.AddCommand(add, remove, list)
	return cmd
}
