package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/catalog"
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
}

var typeNames = map[vault.FileType]string{
	vault.TypeFile: "file", vault.TypeFolder: "folder", vault.TypeSymlink: "symlink", vault.TypeFIFO: "fifo", vault.TypeSocket: "socket",
	vault.TypeCharDevice: "character device", vault.TypeBlockDevice: "block device", vault.TypeOther: "other",
}

func entryOf(v history.Version) listedEntry {
	e := listedEntry{Type: typeNames[v.Type], Size: v.Size(), Deleted: v.Op == vault.OpDelete}
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
and files of transfer.info. A file is listed as itself. With --deleted what was
deleted by then is listed, too.`,
		Args: cobra.MaximumNArgs(1),
	}
	at := atFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
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
		if len(args) == 0 {
			for _, root := range r.Config.Roots {
				v, ok, err := versionAt(cmd, r, root, when)
				if err != nil {
					return reachCode(err)
				}
				if ok {
					versions = append(versions, v)
				}
			}
		} else {
			path, err := absolute(args[0])
			if err != nil {
				return err
			}
			v, ok, err := versionAt(cmd, r, path, when)
			if err != nil {
				return reachCode(err)
			}
			children, err := r.Children(cmd.Context(), path, when)
			if err != nil {
				return reachCode(err)
			}
			switch {
			case ok && v.Type != vault.TypeFolder && v.Op != vault.OpDelete:
				versions = []history.Version{v}
			case !ok && len(children) == 0:
				return unknown(cmd, asJSON, path)
			default:
				versions = children
			}
		}
		entries := []listedEntry{}
		for _, v := range versions {
			if v.Op != vault.OpDelete || deleted {
				entries = append(entries, entryOf(v))
			}
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), entries)
		}
		for _, v := range versions {
			if v.Op == vault.OpDelete && !deleted {
				continue
			}
			printEntry(cmd, v)
		}
		return nil
	}
	return cmd
}

func printEntry(cmd *cobra.Command, v history.Version) {
	mark := ""
	switch {
	case v.Op == vault.OpDelete:
		mark = "  (deleted)"
	case v.Op == vault.OpOutOfScope:
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

// versionAt returns the newest version of a path at a time, the zero time for now.
func versionAt(cmd *cobra.Command, r *history.Reader, path string, at time.Time) (history.Version, bool, error) {
	versions, err := r.Of(cmd.Context(), path)
	for _, v := range versions {
		if at.IsZero() || !v.Time.After(at) {
			return v, true, err
		}
	}
	return history.Version{}, false, err
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
}

func historyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history PATH",
		Short: "List the versions of a file or folder that the server holds, the newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := absolute(args[0])
			if err != nil {
				return err
			}
			r, err := reader(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			versions, err := r.Of(cmd.Context(), path)
			if err == nil && len(versions) == 0 {
				return unknown(cmd, asJSON, path)
			}
			list := []listedVersion{}
			for _, v := range versions {
				list = append(list, listedVersion{v.Time.UTC(), v.Size(), v.Op == vault.OpDelete, v.Fuzzy, v.Seq})
			}
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), list), reachCode(err))
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
			return reachCode(err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
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
The newest version of each is shown; "agent history" lists all.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := matcher(args[0])
			if err != nil {
				return err
			}
			r, err := reader(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			_, state, err := folders(cmd)
			if err != nil {
				return err
			}
			c, err := catalog.Open(cmd.Context(), state, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer c.Close()
			dest, err := c.Destination(cmd.Context(), r.Device.Destination())
			if err != nil {
				return err
			}
			found := []foundPath{}
			for v, err := range dest.Versions(cmd.Context(), string(filepath.Separator)) {
				if err != nil {
					return err
				}
				if !match(v.Path) || v.Record == (vault.ObjectID{}) {
					continue
				}
				f := foundPath{Time: v.At.UTC(), Size: v.Facts.Size, Deleted: v.State == catalog.Gone}
				f.Path, f.PathBytes = localapi.Text(v.Path)
				found = append(found, f)
				if !asJSON {
					mark := ""
					if f.Deleted {
						mark = "  (deleted)"
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%10s  %s  %s%s\n", cli.Bytes(f.Size), f.Time.Local().Format(time.DateTime), cli.Name(v.Path), mark)
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), found); err != nil {
					return err
				}
			}
			if len(found) == 0 {
				return fmt.Errorf("nothing on the server is named like %q", args[0])
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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
