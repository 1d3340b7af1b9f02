package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/catalog"
	"backstay/agent/enrol"
	"backstay/agent/history"
	"backstay/agent/localapi"
	"backstay/agent/metadata"
	"backstay/agent/restore"
	client "backstay/agent/v4"
	"backstay/internal/cli"
	"backstay/internal/private"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

func restoreCommand() *cobra.Command {
	var to string
	var overwrite, owner, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore PATH...",
		Short: "Get files and folders back as they were at a time",
		Long: `Get files and folders back as they were at a time, now if --at does not say. The
result is put beside the original as "NAME (restored 2026-11-20 14.03.07)"; with --to
into that folder; with --overwrite in the original's place. Nothing is lost: what is in
the way stays, or with --overwrite is kept as "NAME (replaced ...)".

What was broken off goes on where it was when the same command is given again with
--to. Everything is compared with what this machine signed when it sent it; exit code 5
says that something came back that is not what was sent, or is missing, and names it.
A folder is compared with the list of all paths; for files alone that is not fetched,
and where this machine does not remember which version was the newest then, the last
line says that the server could have left out one.`,
		Example: `  agent restore ~/Documents/report.odt
  agent restore ~/Documents --at "yesterday 14:00" --to /tmp/back
  agent restore ~/Documents --at 2h --overwrite`,
		Args: cobra.MinimumNArgs(1),
	}
	at := atFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "put the result into this folder")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "put it in the original's place; what is there is kept under another name")
	cmd.Flags().BoolVar(&owner, "owner", false, "restore owners and setuid bits, too (as root)")
	jsonFlag(cmd, &asJSON)
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
		paths, err := targets(args, r.Config.Roots, to)
		if err != nil {
			return err
		}
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
		sum := outcome{cmd: cmd, json: asJSON, restored: restoredOf(r.Device.Name, moment), reader: r}
		states, newest, err := alone(cmd, r, q, moment, paths)
		if err == nil && states == nil {
			var state *restore.State
			state, err = restore.ReadState(ctx, r.Session, moment)
			states, newest = slices.Repeat([]*restore.State{state}, len(paths)), true
		}
		if err != nil {
			return restoreCode(err)
		}
		sum.Newest = newest
		for i, path := range paths {
			state := states[i]
			sel, err := state.Select(r.Keys.Path(me, []byte(path)))
			if err != nil {
				sum.miss(path, fmt.Errorf("%w (as of %s)", err, moment.Time.Local().Format(time.DateTime)))
				continue
			}
			o := restore.Options{
				Keys: r.Keys, Root: []byte(path), To: to, Name: baseName(path), Overwrite: overwrite,
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
			if err := sum.run(r.Session, sel, o); err != nil {
				return restoreCode(err)
			}
		}
		err = sum.finish()
		if asJSON {
			err = cmp.Or(printJSON(cmd.OutOrStdout(), sum.restored), err)
		}
		if err == nil && behind != "" {
			return cli.WithCode(cli.CodeIntegrity, errors.New(behind))
		}
		return err
	}
	return cmd
}

// maxAlone is how many paths are asked for one by one: more take as long as the list
// of all.
const maxAlone = 32

// alone returns a state for each path that says no more than that, if all of them are
// files, and whether that the server left out nothing newer is certain, too: this
// machine remembers the same. No states mean that the list of all paths is needed.
func alone(cmd *cobra.Command, r *history.Reader, q restore.Query, m *restore.Moment, paths []string) (states []*restore.State, newest bool, err error) {
	if len(paths) > maxAlone {
		return nil, false, nil
	}
	_, folder, err := folders(cmd)
	if err != nil {
		return nil, false, err
	}
	dest, closeCatalog, err := remembered(cmd, folder, r.Device)
	if err != nil {
		return nil, false, err
	}
	if dest != nil {
		defer closeCatalog()
		known, err := dest.History(cmd.Context())
		if err != nil {
			return nil, false, err
		}
		newest = known.Seq >= m.Commit.Seq
	}
	for _, path := range paths {
		id := r.Keys.Path(q.Device, []byte(path))
		state, err := q.Single(cmd.Context(), r.Session, m, r.Keys, id)
		switch {
		case err == nil:
		case errors.Is(err, restore.ErrIntegrity), errors.Is(err, client.ErrLost), cmd.Context().Err() != nil:
			return nil, false, err
		default:
			return nil, false, nil
		}
		states = append(states, state)
		if !newest {
			continue
		}
		v, err := dest.Version(cmd.Context(), path)
		if errors.Is(err, catalog.ErrUnknown) {
			newest = false
			continue
		}
		if err != nil {
			return nil, false, err
		}
		later := v.At.After(m.Time)
		record, _ := state.Record(id)
		switch {
		case !later && (v.Record != record || v.State != catalog.Present): // what this machine did last is left out
			return nil, false, nil
		case v.Record != record:
			newest = false
		}
	}
	return states, newest, nil
}

// targets returns the paths to restore, each once. It is an error if two of them
// would get the same place.
func targets(args, roots []string, to string) ([]string, error) {
	var paths []string
	named := map[string]string{}
	for _, arg := range args {
		path, err := recorded(arg, roots)
		if err != nil {
			return nil, err
		}
		name := baseName(path)
		if slices.Contains(paths, path) {
			continue
		}
		if other, taken := named[name]; to != "" && (taken || name == "" && len(paths) > 0) {
			return nil, cli.Usage("%s and %s would both be restored as %s; restore them into different folders", cli.Name(cmp.Or(other, paths[0])), cli.Name(path), cli.Name(filepath.Join(to, name)))
		}
		if name == "" && to == "" {
			return nil, cli.Usage("there is no place beside %s; say with --to where it is to go", path)
		}
		named[name] = path
		paths = append(paths, path)
	}
	return paths, nil
}

// baseName is what a path is called in a target; empty for the root of a file system,
// whose content goes into the target itself.
func baseName(path string) string {
	if filepath.Dir(path) == path {
		return ""
	}
	return filepath.Base(path)
}

// serverBehind says, in a text, that the server does not have what it had
// acknowledged to this machine.
func serverBehind(cmd *cobra.Command, r *history.Reader, newest *restore.Moment) (string, error) {
	_, state, err := folders(cmd)
	if err != nil {
		return "", err
	}
	dest, closeCatalog, err := remembered(cmd, state, r.Device)
	if dest == nil || err != nil {
		return "", err // nothing is remembered here
	}
	defer closeCatalog()
	known, err := dest.History(cmd.Context())
	var alarms []catalog.Alarm
	if err == nil {
		alarms, err = dest.Alarms(cmd.Context())
	}
	if unreadable(cmd, err) {
		return "", nil
	}
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

// restored is what "restore --json" prints, and "recover --json" for each device.
type restored struct {
	Device string    `json:"device"`
	Time   time.Time `json:"time"`
	Commit uint64    `json:"commit"`
	// Complete: it was no unfinished first pass.
	Complete bool `json:"complete"`
	// Newest: it is certain that the server left out nothing newer. Else that rests
	// on its word, for files that were proven one by one.
	Newest bool `json:"newest"`
	// Paths were restored, Same of them were there already; Bytes were written.
	Paths    int64    `json:"paths"`
	Same     int64    `json:"same"`
	Bytes    int64    `json:"bytes"`
	To       []string `json:"to"`
	Replaced []string `json:"replaced"`
	Failed   []failed `json:"failed"`

	passed int
}

func restoredOf(device string, m *restore.Moment) restored {
	return restored{
		Device: device, Time: m.Time.UTC(), Commit: m.Commit.Seq, Complete: m.Complete, Newest: true,
		To: []string{}, Replaced: []string{}, Failed: []failed{}, passed: m.Passed,
	}
}

// outcome adds up what became of restores.
type outcome struct {
	cmd *cobra.Command
	// json: only what went wrong is told as it goes.
	json bool
	restored
	// worst is the exit code for what failed.
	worst int
	// reader is what was restored from if it is this machine's history; else nil.
	reader *history.Reader
}

// tell prints for a person.
func (s *outcome) tell(format string, args ...any) {
	if !s.json {
		fmt.Fprintf(s.cmd.OutOrStdout(), format, args...)
	}
}

// miss notes that a path is not restored.
func (s *outcome) miss(path string, err error) {
	name, code := cli.Name(path), cli.CodeFailed
	if path == "" {
		name = "a path whose name is lost with it"
	}
	fmt.Fprintf(s.cmd.ErrOrStderr(), "%s is NOT restored: %v\n", name, err)
	if damaged(err) {
		code = cli.CodeIntegrity
	}
	s.worst = max(s.worst, code)
	f := failed{Error: err.Error()}
	f.Path, f.PathBytes = localapi.Text(path)
	s.Failed = append(s.Failed, f)
}

// run restores a selection and prints what there is to say about it.
func (s *outcome) run(src restore.Getter, sel *restore.Selection, o restore.Options) error {
	bar := newBar(s.cmd)
	o.Progress = func(p restore.Progress) { bar.set(p.Bytes, p.TotalBytes) }
	report, err := restore.Run(s.cmd.Context(), src, sel, o)
	bar.wait()
	s.Paths += report.Files
	s.Same += report.Same
	s.Bytes += report.Bytes
	if s.reader != nil {
		if err := nameLost(s.cmd, s.reader, report.Failed); err != nil {
			return err
		}
	}
	for _, f := range report.Failed {
		s.miss(f.Path, f.Err)
	}
	errOut := s.cmd.ErrOrStderr()
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
		s.tell("kept what was there as %s\n", cli.Name(filepath.Join(o.To, name)))
		s.Replaced = append(s.Replaced, filepath.Join(o.To, name))
	}
	if err != nil {
		return err
	}
	where := filepath.Join(o.To, o.Name)
	s.To = append(s.To, where)
	same := ""
	if report.Same > 0 {
		same = fmt.Sprintf(", %d were there already", report.Same)
	}
	if report.OutOfScope > 0 {
		same += fmt.Sprintf(", %d as they were when they were protected last", report.OutOfScope)
	}
	s.tell("%s: %d paths, %s written%s\n", cli.Name(where), report.Files, cli.Bytes(report.Bytes), same)
	return nil
}

// nameLost gives failures whose name is lost with the record the one that this
// machine remembers.
func nameLost(cmd *cobra.Command, r *history.Reader, failed []restore.Failure) error {
	lost := map[vault.PathID]*restore.Failure{}
	for i := range failed {
		if failed[i].Path == "" {
			lost[failed[i].ID] = &failed[i]
		}
	}
	if len(lost) == 0 {
		return nil
	}
	me := r.Device.Identity.ID()
	_, err := eachHere(cmd, func(v catalog.Version) {
		if f := lost[r.Keys.Path(me, []byte(v.Path))]; f != nil {
			f.Path = v.Path
		}
	})
	return err
}

// finish says what the restore is, and gives the exit code.
func (s *outcome) finish() error {
	what := ""
	switch {
	case !s.Complete:
		what = ": an unfinished first pass, files that had not been sent by then are missing"
	case len(s.Failed) == 0 && !s.Newest:
		what = ": what the device signed; that nothing newer was left out rests on the server's word"
	case len(s.Failed) == 0:
		what = ": complete, compared with what the device signed"
	}
	if s.passed > 0 {
		what += fmt.Sprintf("; the nearest moment that is kept, %d later ones are not", s.passed)
	}
	s.tell("as of %s (commit %d)%s\n", s.Time.Local().Format("2006-01-02 15:04:05.000"), s.Commit, what)
	if s.worst != 0 {
		return cli.WithCode(s.worst, fmt.Errorf("%d paths are not restored, named above; all others are", len(s.Failed)))
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
	var owner, asJSON bool
	cmd := &cobra.Command{
		Use:   "recover --phrase-file KIT --to DIR",
		Short: "Get everything back on an empty machine, with the recovery kit alone",
		Long: `Get everything back on an empty machine, with the recovery kit that "join" wrote: it
names the server and proves the right. Each device's files are put into DIR under its
name. A file with nothing but the 24 words serves, too, with --server and --pin, or
with an --invitation to the server.

What was broken off goes on when the command is given again.`,
		Example: `  agent recover --phrase-file /media/stick/kit.txt --to ~/recovered
  agent recover --phrase-file words.txt --server backup.example.org:1256 --pin 3f... --to ~/recovered`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&phraseFile, "phrase-file", "", "the recovery kit, or a file with the 24 words")
	f.StringVar(&to, "to", "", "the folder to restore into")
	f.StringVar(&invitation, "invitation", "", "an invitation, for its server's address and pin")
	f.StringVar(&server, "server", "", "the server's address, if the kit's is not right any more")
	f.StringVar(&pin, "pin", "", "the server's pin, if the kit has none or it changed")
	f.BoolVar(&owner, "owner", false, "restore owners and setuid bits, too (as root)")
	jsonFlag(cmd, &asJSON)
	cmd.MarkFlagRequired("phrase-file")
	cmd.MarkFlagRequired("to")
	at := atFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		when, err := parseAt(*at, time.Now())
		if err != nil {
			return err
		}
		kit, err := openKit(cmd, phraseFile)
		if err != nil {
			return err
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
		var worst error
		list := []restored{}
		for _, f := range deviceFolders(members) {
			sum := outcome{cmd: cmd, json: asJSON}
			err := sum.device(session, restore.Query{Device: f.device, Members: members, Pin: v4.Pin(*kit.Pin)}, when, f.name, restore.Options{
				Keys: keys, To: filepath.Join(to, f.name), Metadata: metadata.Options{Owner: owner, SetID: owner, Devices: owner},
			})
			if errors.Is(err, restore.ErrNoCommit) {
				continue
			}
			if err != nil {
				err = restoreCode(fmt.Errorf("device %s: %w", cli.Name(f.name), err))
				// The others can be had all the same, unless nothing can.
				if cmd.Context().Err() != nil || session.Err() != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				if worst == nil || sum.worst == cli.CodeIntegrity || damaged(err) {
					worst = err
				}
			}
			if sum.To != nil {
				list = append(list, sum.restored)
			}
		}
		if asJSON {
			worst = cmp.Or(printJSON(cmd.OutOrStdout(), list), worst)
		}
		if worst == nil && len(list) == 0 {
			return errors.New("nothing was backed up by then")
		}
		return worst
	}
	return cmd
}

// device restores everything of a device.
func (s *outcome) device(session *client.Session, q restore.Query, at time.Time, name string, o restore.Options) error {
	ctx := s.cmd.Context()
	moment, err := q.Open(ctx, session, at)
	if err != nil {
		return err
	}
	state, err := restore.ReadState(ctx, session, moment)
	if err != nil {
		return err
	}
	all, err := state.All()
	if err != nil {
		return err
	}
	s.restored = restoredOf(name, moment)
	if err := s.run(session, all, o); err != nil {
		return err
	}
	return s.finish()
}

// openKit reads a recovery kit from wherever it was kept, also where every file can
// be read by everybody, as on a stick.
func openKit(cmd *cobra.Command, file string) (vault.Kit, error) {
	if _, err := private.ReadFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v\n", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return vault.Kit{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, vault.MaxKit+1))
	if err != nil {
		return vault.Kit{}, err
	}
	kit, err := vault.ParseKit(data)
	if err != nil {
		return kit, fmt.Errorf("%s: %w", file, err)
	}
	return kit, nil
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
