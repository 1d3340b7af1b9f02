package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/catalog"
	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/history"
	"backstay/agent/localapi"
	"backstay/internal/cli"
	"backstay/protocol/vault"
)

// listedEntry is what "ls --json" prints; fields may be added, never renamed.
type listedEntry struct {
	Path      string     `json:"path"`
	PathBytes []byte     `json:"path_bytes,omitempty"`
	Type      string     `json:"type"`
	Size      uint64     `json:"size"`
	MTime     *time.Time `json:"mtime"`
	Mode      string     `json:"mode,omitempty"`
	Deleted   bool       `json:"deleted"`
	// OutOfScope: it was excluded or its folder removed, and is kept.
	OutOfScope bool `json:"out_of_scope,omitempty"`
}

var typeNames = map[vault.FileType]string{
	vault.TypeFile: "file", vault.TypeFolder: "folder", vault.TypeSymlink: "symlink", vault.TypeFIFO: "fifo", vault.TypeSocket: "socket",
	vault.TypeCharDevice: "character device", vault.TypeBlockDevice: "block device", vault.TypeOther: "other",
}

// entryOf describes a version of which the server was last told op.
func entryOf(v history.Version, op vault.Op) listedEntry {
	e := listedEntry{Type: typeNames[v.Type], Size: v.Size(), Deleted: op == vault.OpDelete, OutOfScope: op == vault.OpOutOfScope}
	e.Path, e.PathBytes = localapi.Text(string(v.Name))
	if !v.ModTime.IsZero() {
		t := v.ModTime.UTC()
		e.MTime = &t
	}
	if v.Mode != nil {
		e.Mode = fmt.Sprintf("%04o", *v.Mode)
	}
	return e
}

func lsCommand() *cobra.Command {
	var asJSON, deleted bool
	cmd := &cobra.Command{
		Use:   "ls [PATH]",
		Short: "List what the server holds: a folder's entries, now or at a time",
		Long: `List what the server holds of a folder, now or as of --at. Without a path, the folders
and files that transfer.info names, or named then. A file is listed as itself. With
--deleted what was deleted by then is listed, too.`,
		Example: `  agent ls
  agent ls ~/Documents --at "yesterday 14:00"`,
		Args: cobra.MaximumNArgs(1),
	}
	at := atFlag(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&deleted, "deleted", false, "list what was deleted, too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		when, err := parseAt(*at, time.Now())
		if err != nil {
			return err
		}
		r, err := reader(cmd)
		if err != nil {
			return err
		}
		defer r.Close()
		var versions []history.Version
		var damage error
		if len(args) == 0 {
			versions, damage = r.Roots(cmd.Context(), when)
		} else {
			path, err := recorded(args[0], r.Config.Roots)
			if err != nil {
				return err
			}
			all, err := r.Of(cmd.Context(), path)
			v, ok := history.At(all, when)
			children, cerr := r.Children(cmd.Context(), path, when)
			damage = errors.Join(err, cerr)
			switch {
			case ok && v.Type != vault.TypeFolder && len(children) == 0:
				versions = []history.Version{v}
			case !ok && len(children) == 0 && damage == nil:
				return unknown(cmd, asJSON, path)
			default:
				versions = children
			}
		}
		entries := []listedEntry{}
		for _, v := range versions {
			if v.Op == vault.OpDelete && !deleted {
				continue
			}
			op := v.Op
			v, err = was(cmd, r, v)
			damage = errors.Join(damage, err)
			entries = append(entries, entryOf(v, op))
			if !asJSON {
				printEntry(cmd, v, op)
			}
		}
		if asJSON {
			if err := printJSON(cmd.OutOrStdout(), entries); err != nil {
				return err
			}
		}
		return restoreCode(damage)
	}
	return cmd
}

// was returns what a path was before it was deleted or fell out of scope, which
// neither says; v itself if it is there.
func was(cmd *cobra.Command, r *history.Reader, v history.Version) (history.Version, error) {
	if v.Op == vault.OpPut {
		return v, nil
	}
	all, err := r.Of(cmd.Context(), string(v.Name))
	i := slices.IndexFunc(all, func(before history.Version) bool { return before.Op == vault.OpPut && before.Time.Before(v.Time) })
	if i < 0 {
		return v, err
	}
	return all[i], err
}

func printEntry(cmd *cobra.Command, v history.Version, op vault.Op) {
	mark := ""
	switch {
	case op == vault.OpDelete:
		mark = "  (deleted)"
	case op == vault.OpOutOfScope:
		mark = "  (no longer protected)"
	case v.Type == vault.TypeFolder:
		mark = string(filepath.Separator)
	case v.Type == vault.TypeSymlink:
		mark = " -> " + cli.Name(string(v.Target))
	}
	when := ""
	if !v.ModTime.IsZero() {
		when = v.ModTime.Local().Format(time.DateTime)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%10s  %19s  %s%s\n", cli.Bytes(int64(v.Size())), when, cli.Name(string(v.Name)), mark)
}

// unknown ends a command about a path that the server does not hold.
func unknown(cmd *cobra.Command, asJSON bool, path string) error {
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), []struct{}{}); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: the server holds no version of it", cli.Name(path))
}

// listedVersion is what "history --json" prints.
type listedVersion struct {
	Time    time.Time `json:"time"`
	Size    uint64    `json:"size"`
	Deleted bool      `json:"deleted"`
	Fuzzy   bool      `json:"fuzzy"`
	Commit  uint64    `json:"commit"`
	// OutOfScope: from here on it was not protected any more.
	OutOfScope bool `json:"out_of_scope,omitempty"`
}

func historyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history PATH",
		Short: "List the versions of a file or folder that the server holds, the newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := reader(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			path, err := recorded(args[0], r.Config.Roots)
			if err != nil {
				return err
			}
			versions, err := r.Of(cmd.Context(), path)
			if err == nil && len(versions) == 0 {
				return unknown(cmd, asJSON, path)
			}
			list := []listedVersion{}
			for _, v := range versions {
				list = append(list, listedVersion{v.Time.UTC(), v.Size(), v.Op == vault.OpDelete, v.Fuzzy, v.Seq, v.Op == vault.OpOutOfScope})
			}
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), list), restoreCode(err))
			}
			for _, v := range versions {
				what := cli.Bytes(int64(v.Size()))
				switch {
				case v.Op == vault.OpDelete:
					what = "deleted"
				case v.Op == vault.OpOutOfScope:
					what = "no longer protected"
				case v.Fuzzy:
					what += " (changed while it was read)"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", v.Time.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), what)
			}
			return restoreCode(err)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// foundPath is what "find --json" prints.
type foundPath struct {
	Path      string    `json:"path"`
	PathBytes []byte    `json:"path_bytes,omitempty"`
	Time      time.Time `json:"time"`
	Size      int64     `json:"size"`
	Deleted   bool      `json:"deleted"`
}

func findCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "find PATTERN",
		Short: "Find files by name, also deleted ones: a part of the name, or a pattern with * and ?",
		Long: `Find paths on the server by name, deleted ones included. A pattern without * ? or [ is
a part of the name, upper and lower case alike; with a slash in it, of the whole path.
The newest version of each is shown; "agent history" lists all.

This machine remembers what it has sent. Where it does not, because its state folder was
lost or damaged once, the server is asked, which takes longer.`,
		Example: `  agent find report
  agent find '*.odt'`,
		Args: cobra.ExactArgs(1),
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		match, err := matcher(args[0])
		if err != nil {
			return err
		}
		found := []foundPath{}
		take := func(f foundPath, path string) {
			f.Path, f.PathBytes = localapi.Text(path)
			found = append(found, f)
			if !asJSON {
				mark := ""
				if f.Deleted {
					mark = "  (deleted)"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%10s  %s  %s%s\n", cli.Bytes(f.Size), f.Time.Local().Format(time.DateTime), cli.Name(path), mark)
			}
		}
		complete, err := findHere(cmd, match, take)
		if err == nil && (!complete || len(found) == 0) {
			err = findThere(cmd, match, take)
		}
		if asJSON {
			err = errors.Join(printJSON(cmd.OutOrStdout(), found), err)
		}
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("nothing on the server is named like %q", args[0])
		}
		return restoreCode(err)
	}
	return cmd
}

// findHere looks at what this machine remembers. Where that is not everything, it takes
// nothing and says so.
func findHere(cmd *cobra.Command, match func(string) bool, take func(foundPath, string)) (complete bool, err error) {
	var found []catalog.Version
	complete, err = eachHere(cmd, func(v catalog.Version) {
		if match(v.Path) && v.Record != (vault.ObjectID{}) {
			found = append(found, v)
		}
	})
	if !complete || err != nil {
		return false, err
	}
	for _, v := range found {
		take(foundPath{Time: v.At.UTC(), Size: v.Facts.Size, Deleted: v.State == catalog.Gone}, v.Path)
	}
	return true, nil
}

// eachHere calls f for every path that this machine remembers, and says whether that is
// everything there is.
func eachHere(cmd *cobra.Command, f func(catalog.Version)) (complete bool, err error) {
	folder, state, err := folders(cmd)
	if err != nil {
		return false, err
	}
	d, err := device.Load(folder)
	if err != nil {
		return false, err
	}
	dest, closeCatalog, err := remembered(cmd, state, d)
	if dest == nil || err != nil {
		return false, err
	}
	defer closeCatalog()
	known, err := dest.History(cmd.Context())
	if unreadable(cmd, err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, err := config.Load(folder)
	if err != nil {
		return false, err
	}
	volumes := map[string]bool{}
	for _, root := range append(c.Roots, folder) {
		volumes[filepath.VolumeName(root)+string(filepath.Separator)] = true
	}
	for _, volume := range slices.Sorted(maps.Keys(volumes)) {
		for v, err := range dest.Versions(cmd.Context(), volume) {
			if unreadable(cmd, err) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			f(v)
		}
	}
	return !known.Partial, nil
}

// findThere asks the server.
func findThere(cmd *cobra.Command, match func(string) bool, take func(foundPath, string)) error {
	r, err := reader(cmd)
	if err != nil {
		return err
	}
	defer r.Close()
	for v, err := range r.All(cmd.Context()) {
		if err != nil {
			return err
		}
		if !match(string(v.Name)) {
			continue
		}
		f := foundPath{Time: v.Time.UTC(), Deleted: v.Op == vault.OpDelete}
		if v, err = was(cmd, r, v); err != nil {
			return err
		}
		f.Size = int64(v.Size())
		take(f, string(v.Name))
	}
	return nil
}

// matcher returns what says whether a path is meant by a pattern.
func matcher(pattern string) (func(path string) bool, error) {
	subject := filepath.Base
	if strings.ContainsRune(pattern, filepath.Separator) {
		subject = func(path string) string { return path }
	}
	if !strings.ContainsAny(pattern, "*?[") {
		lower := strings.ToLower(pattern)
		return func(path string) bool { return strings.Contains(strings.ToLower(subject(path)), lower) }, nil
	}
	if _, err := filepath.Match(pattern, ""); err != nil {
		return nil, cli.Usage("%q is no pattern: %w", pattern, err)
	}
	return func(path string) bool {
		ok, _ := filepath.Match(pattern, subject(path)) // checked above
		return ok
	}, nil
}
