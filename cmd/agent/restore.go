package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/catalog"
	"backstay/agent/enrol"
	"backstay/agent/history"
	"backstay/agent/metadata"
	"backstay/agent/restore"
	client "backstay/agent/v4"
	"backstay/internal/cli"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

func restoreCommand() *cobra.Command {
	var to string
	var overwrite, owner bool
	cmd := &cobra.Command{
		Use:   "restore PATH...",
		Short: "Get files and folders back as they were at a time",
		Long: `Get files and folders back as they were at a time, now if --at does not say. The
result is put beside the original as "NAME (restored 2026-11-20 14.03.07)"; with --to
into that folder; with --overwrite in the original's place. Nothing is lost: what is in
the way stays, or with --overwrite is kept as "NAME (replaced ...)".

What was broken off goes on where it was when the same command is given again with
--to. Everything is compared with what this machine signed when it sent it; exit code 5
says that something came back that is not what was sent, or is missing, and names it.`,
		Args: cobra.MinimumNArgs(1),
	}
	at := atFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "put the result into this folder")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "put it in the original's place; what is there is kept under another name")
	cmd.Flags().BoolVar(&owner, "owner", false, "restore owners and setuid bits, too (as root)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		now := time.Now()
		when, err := parseAt(*at, now)
		if err != nil {
			return err
		}
		r, err := reader(cmd)
		if err != nil {
			return err
		}
		defer r.Close()
		ctx, me := cmd.Context(), r.Device.Identity.ID()
		q := restore.Query{Device: me, Members: r.Members, Pin: r.Device.Pin}
		moment, err := q.Open(ctx, r.Session, when)
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
		sum := outcome{cmd: cmd, moment: moment}
		for _, arg := range args {
			path, err := absolute(arg)
			if err != nil {
				return err
			}
			sel, err := state.Select(r.Keys.Path(me, []byte(path)))
			if err != nil {
				return restoreCode(fmt.Errorf("%s: %w (as of %s)", cli.Name(path), err, moment.Time.Local().Format(time.DateTime)))
			}
			o := restore.Options{
				Keys: r.Keys, Root: []byte(path), To: to, Name: filepath.Base(path), Overwrite: overwrite,
				Metadata: metadata.Options{Owner: owner, SetID: owner, Devices: owner}, Now: now,
			}
			if to == "" {
				o.To = filepath.Dir(path)
				if !overwrite {
					shown := moment.Time
					if !when.IsZero() {
						shown = when
					}
					o.Name += " (restored " + shown.Local().Format("2006-01-02 15.04.05") + ")"
				}
			}
			if err := sum.run(r, sel, o); err != nil {
				return restoreCode(err)
			}
		}
		if err := sum.finish(); err != nil {
			return err
		}
		if behind != "" {
			return cli.WithCode(cli.CodeIntegrity, errors.New(behind))
		}
		return nil
	}
	return cmd
}

// serverBehind says, in a text, that the server does not have what it had
// acknowledged to this machine.
func serverBehind(cmd *cobra.Command, r *history.Reader, newest *restore.Moment) (string, error) {
	_, state, err := folders(cmd)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(state, catalog.FileName)); err != nil {
		return "", nil // nothing is remembered here
	}
	c, err := catalog.Open(cmd.Context(), state, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	defer c.Close()
	dest, err := c.Destination(cmd.Context(), r.Device.Destination())
	if err != nil {
		return "", err
	}
	known, err := dest.History(cmd.Context())
	if err != nil {
		return "", err
	}
	alarms, err := dest.Alarms(cmd.Context())
	if err != nil {
		return "", err
	}
	head, err := r.Session.Head(cmd.Context(), r.Device.Identity.ID(), time.Time{})
	if err != nil {
		return "", reachCode(err)
	}
	seq := uint64(0)
	if len(head.Commit) > 0 {
		c, err := vault.ParseCommit(head.Commit)
		if err != nil {
			return "", restoreCode(err)
		}
		seq = c.Seq
	}
	if seq < known.Seq {
		return fmt.Sprintf("the server is behind: it acknowledged commit %d and has commit %d now; what it has was restored, newer versions are not there", known.Seq, seq), nil
	}
	for _, a := range alarms {
		if newest.Newest {
			return a.Text, nil
		}
	}
	return "", nil
}

// outcome adds up what became of restores.
type outcome struct {
	cmd    *cobra.Command
	moment *restore.Moment
	report restore.Report
	worst  int
}

// run restores a selection and prints what there is to say about it.
func (s *outcome) run(r *history.Reader, sel *restore.Selection, o restore.Options) error {
	return s.from(r.Session, sel, o)
}

func (s *outcome) from(src restore.Getter, sel *restore.Selection, o restore.Options) error {
	bar := newBar(s.cmd)
	o.Progress = func(p restore.Progress) { bar.set(p.Bytes, p.TotalBytes) }
	report, err := restore.Run(s.cmd.Context(), src, sel, o)
	bar.wait()
	s.report.Files += report.Files
	s.report.Same += report.Same
	s.report.Bytes += report.Bytes
	errOut := s.cmd.ErrOrStderr()
	for _, f := range report.Failed {
		name := cli.Name(f.Path)
		if f.Path == "" {
			name = "a path whose name is lost with it"
		}
		fmt.Fprintf(errOut, "%s is NOT restored: %v\n", name, f.Err)
		code := cli.CodeFailed
		if damaged(f.Err) {
			code = cli.CodeIntegrity
		}
		s.worst = max(s.worst, code)
	}
	for _, l := range report.Losses {
		fmt.Fprintf(errOut, "%s: without %s: %v\n", cli.Name(l.Path), l.What, l.Err)
	}
	total := int64(0)
	for _, n := range report.LossCount {
		total += n
	}
	if more := total - int64(len(report.Losses)); more > 0 {
		fmt.Fprintf(errOut, "and %d more could not be given everything\n", more)
	}
	for _, n := range report.Renamed {
		fmt.Fprintf(errOut, "%s is called %s here, which cannot hold its name, or has it twice\n", cli.Name(n.Path), cli.Name(n.Name))
	}
	for _, name := range report.Replaced {
		fmt.Fprintf(s.cmd.OutOrStdout(), "kept what was there as %s\n", cli.Name(name))
	}
	if err != nil {
		return err
	}
	s.report.Failed = append(s.report.Failed, report.Failed...)
	where := filepath.Join(o.To, o.Name)
	fmt.Fprintf(s.cmd.OutOrStdout(), "%s: %d paths, %s written%s\n", cli.Name(where), report.Files, cli.Bytes(report.Bytes), same(report.Same))
	return nil
}

func same(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d were there already", n)
}

// finish says what the restore is, and gives the exit code.
func (s *outcome) finish() error {
	m := s.moment
	out := s.cmd.OutOrStdout()
	fmt.Fprintf(out, "as of %s (commit %d)", m.Time.Local().Format("2006-01-02 15:04:05.000"), m.Commit.Seq)
	switch {
	case !m.Complete:
		fmt.Fprint(out, ": an unfinished first pass, files that had not been sent by then are missing")
	case len(s.report.Failed) == 0:
		fmt.Fprint(out, ": complete, compared with what the device signed")
	}
	if m.Passed > 0 {
		fmt.Fprintf(out, "; the nearest moment that is kept, %d later ones are not", m.Passed)
	}
	fmt.Fprintln(out)
	if s.worst != 0 {
		return cli.WithCode(s.worst, fmt.Errorf("%d paths are not restored, named above; all others are", len(s.report.Failed)))
	}
	return nil
}

func damaged(err error) bool {
	return errors.Is(err, vault.ErrCorrupt) || errors.Is(err, vault.ErrMissing) || errors.Is(err, restore.ErrIntegrity) || errors.Is(err, v4.ErrCorrupt)
}

// restoreCode gives a restore's errors their exit codes.
func restoreCode(err error) error {
	if damaged(err) {
		return cli.WithCode(cli.CodeIntegrity, err)
	}
	return reachCode(err)
}

func recoverCommand() *cobra.Command {
	var phraseFile, to, invitation, server, pin string
	var owner bool
	cmd := &cobra.Command{
		Use:   "recover --phrase-file KIT --to DIR",
		Short: "Get everything back on an empty machine, with the recovery kit alone",
		Long: `Get everything back on an empty machine, with the recovery kit that "join" wrote: it
names the server and proves the right. Each device's files are put into DIR under its
name. A file with nothing but the 24 words serves, too, with --server and --pin, or
with an --invitation to the server.

What was broken off goes on when the command is given again.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&phraseFile, "phrase-file", "", "the recovery kit, or a file with the 24 words")
	f.StringVar(&to, "to", "", "the folder to restore into")
	f.StringVar(&invitation, "invitation", "", "an invitation, for its server's address and pin")
	f.StringVar(&server, "server", "", "the server's address, if the kit's is not right any more")
	f.StringVar(&pin, "pin", "", "the server's pin, if the kit has none or it changed")
	f.BoolVar(&owner, "owner", false, "restore owners and setuid bits, too (as root)")
	cmd.MarkFlagRequired("phrase-file")
	cmd.MarkFlagRequired("to")
	at := atFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		when, err := parseAt(*at, time.Now())
		if err != nil {
			return err
		}
		data, err := os.ReadFile(phraseFile)
		if err != nil {
			return err
		}
		kit, err := vault.ParseKit(data)
		if err != nil {
			return fmt.Errorf("%s: %w", phraseFile, err)
		}
		if err := complement(&kit, invitation, server, pin); err != nil {
			return err
		}
		root, err := vault.NewIdentity(vault.RoleRoot, kit.Seed)
		if err != nil {
			return err
		}
		session, err := dialAny(cmd, kit, root)
		if err != nil {
			return reachCode(err)
		}
		defer session.Close()
		hello := session.Hello()
		if hello.Client != v4.ClientRoot || hello.Vault == nil {
			return errors.New("the server has no vault of this recovery phrase; is it the right server, and the right phrase?")
		}
		if kit.Vault != nil && *kit.Vault != *hello.Vault {
			return cli.WithCode(cli.CodeIntegrity, fmt.Errorf("the server offers vault %v, the kit names %v", *hello.Vault, *kit.Vault))
		}
		members, err := enrol.Members(cmd.Context(), session, *hello.Vault)
		if err != nil {
			return restoreCode(err)
		}
		if members.Root() != root.Public() {
			return cli.WithCode(cli.CodeIntegrity, errors.New("the server's vault was not made with this recovery phrase"))
		}
		keys, err := members.Unlock(root, members.Genesis())
		if err != nil {
			return restoreCode(err)
		}
		worst, found := error(nil), 0
		for _, f := range deviceFolders(members) {
			q := restore.Query{Device: f.device, Members: members, Pin: v4.Pin(*kit.Pin)}
			moment, err := q.Open(cmd.Context(), session, when)
			if errors.Is(err, restore.ErrNoCommit) {
				continue
			}
			if err != nil {
				return restoreCode(fmt.Errorf("device %s: %w", f.name, err))
			}
			state, err := restore.ReadState(cmd.Context(), session, moment)
			if err != nil {
				return restoreCode(fmt.Errorf("device %s: %w", f.name, err))
			}
			all, err := state.All()
			if err != nil {
				return restoreCode(err)
			}
			found++
			sum := outcome{cmd: cmd, moment: moment}
			err = sum.from(session, all, restore.Options{
				Keys: keys, To: filepath.Join(to, f.name), Metadata: metadata.Options{Owner: owner, SetID: owner, Devices: owner},
			})
			if err != nil {
				return restoreCode(err)
			}
			if err := sum.finish(); err != nil {
				worst = err
			}
		}
		if found == 0 {
			return errors.New("nothing was backed up by then")
		}
		return worst
	}
	return cmd
}

// complement fills in what a kit does not say.
func complement(kit *vault.Kit, invitation, server, pin string) error {
	if invitation != "" {
		i, err := v4.ParseInvitation(invitation)
		if err != nil {
			return err
		}
		p := [32]byte(i.Pin)
		kit.Servers, kit.Pin = i.Addresses, &p
	}
	if server != "" {
		kit.Servers = []string{server}
	}
	if pin != "" {
		var p v4.Pin
		if err := p.UnmarshalText([]byte(pin)); err != nil {
			return cli.Usage("--pin: %w", err)
		}
		b := [32]byte(p)
		kit.Pin = &b
	}
	if len(kit.Servers) == 0 || kit.Pin == nil {
		return cli.Usage("the kit does not say which server to ask: add --server ADDRESS --pin HEX, or --invitation")
	}
	return nil
}

// dialAny begins a session as the root at the first address that answers.
func dialAny(cmd *cobra.Command, kit vault.Kit, root *vault.Identity) (*client.Session, error) {
	var errs []error
	for _, address := range kit.Servers {
		s, err := client.Dial(cmd.Context(), client.Options{Address: address, Pin: v4.Pin(*kit.Pin), Key: root.TLS(), Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
	}
	return nil, errors.Join(errs...)
}

// deviceFolder is where a device's files go.
type deviceFolder struct {
	name   string
	device vault.DeviceID
}

// deviceFolders gives every device that ever was a member a folder of its name.
func deviceFolders(m *vault.Members) []deviceFolder {
	var folders []deviceFolder
	taken := map[string]bool{}
	for _, member := range m.All() {
		name := member.Name
		if strings.ContainsAny(name, `/\:`+"\x00") || strings.Trim(name, ". ") == "" || !filepath.IsLocal(name) {
			name = member.ID.String()
		}
		if taken[strings.ToLower(name)] {
			name += " " + member.ID.String()[:8]
		}
		taken[strings.ToLower(name)] = true
		folders = append(folders, deviceFolder{name, member.ID})
	}
	return folders
}
