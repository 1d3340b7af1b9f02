//go:build unix

package treetest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDifferences makes two equal trees, changes one thing in the second, and
// wants to hear of that and of nothing else.
func TestDifferences(t *testing.T) {
	past := time.Unix(1_000_000_000, 1)
	write := func(dir, name, content string) error {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, []byte(content), 0o600)
		return errors.Join(err, os.Chtimes(path, past, past))
	}
	tests := []struct {
		name   string
		change func(dir string) error
		o      Options
		want   []string
	}{
		{"nothing", func(string) error { return nil }, Options{}, nil},
		{"a byte", func(dir string) error { return write(dir, "file", "contenT") }, Options{}, []string{`"file": differs from byte 6 on`}},
		{"a size", func(dir string) error { return write(dir, "file", "contents") }, Options{}, []string{`"file": has 8 bytes`}},
		{"a mode", func(dir string) error { return os.Chmod(dir+"/file", 0o601) }, Options{}, []string{`"file": mode`}},
		{"a setuid bit", func(dir string) error { return os.Chmod(dir+"/file", 0o600|os.ModeSetuid) }, Options{}, []string{`"file": mode`}},
		{"a setuid bit, left out", func(dir string) error { return os.Chmod(dir+"/file", 0o600|os.ModeSetuid) }, Options{SkipSetID: true}, nil},
		{"a nanosecond", func(dir string) error { return os.Chtimes(dir+"/file", past, past.Add(1)) }, Options{}, []string{`"file": changed at`}},
		{"a folder's time", func(dir string) error { return os.Chtimes(dir+"/folder", past.Add(1), past.Add(1)) }, Options{}, []string{`"folder": changed at`}},
		{"the top's time", func(dir string) error { return os.Chtimes(dir, past.Add(1), past.Add(1)) }, Options{}, []string{`".": changed at`}},
		{"the top's time, left out", func(dir string) error { return os.Chtimes(dir, past.Add(1), past.Add(1)) }, Options{SkipTop: true}, nil},
		{"one missing", func(dir string) error { return os.Remove(dir + "/folder/inner") }, Options{}, []string{`"folder/inner": is missing`}},
		{"one missing, left out", func(dir string) error { return os.Remove(dir + "/folder/inner") },
			Options{Skip: func(rel string) bool { return rel == "folder/inner" }}, nil},
		{"one too many", func(dir string) error { return write(dir, "folder/new", "") }, Options{}, []string{`"folder/new": should not`}},
		{"a type", func(dir string) error { return errors.Join(os.Remove(dir+"/file"), os.Mkdir(dir+"/file", 0o700)) }, Options{}, []string{`"file": is a d`}},
		{"a target", func(dir string) error { return errors.Join(os.Remove(dir+"/link"), os.Symlink("there", dir+"/link")) }, Options{},
			[]string{`"link": points to "there"`}},
		{"a link cut", func(dir string) error { return errors.Join(os.Remove(dir+"/twin b"), write(dir, "twin b", "twin")) }, Options{},
			[]string{`"twin b": is a name of another file`}},
		{"a link too many", func(dir string) error {
			return errors.Join(os.Remove(dir+"/alike"), os.Link(dir+"/twin a", dir+"/alike"))
		}, Options{},
			[]string{`is a name of another file`, `is a name of another file`}},
		{"a hole", func(dir string) error { return write(dir, "hole", strings.Repeat("\x00", 4<<20)) }, Options{}, []string{`"hole": takes`}},
		{"an attribute", func(dir string) error { return lsetxattr(dir+"/file", "user.x", []byte("other")) }, Options{}, []string{`"file": extended attribute "user.x" is`}},
		{"an attribute too many", func(dir string) error { return lsetxattr(dir+"/file", "user.y", nil) }, Options{}, []string{`"user.y" should not`}},
		{"an owner", func(dir string) error { return os.Lchown(dir+"/file", 12345, 12345) }, Options{}, []string{`"file": belongs to 12345`}},
		{"an owner, left out", func(dir string) error { return os.Lchown(dir+"/file", 12345, 12345) }, Options{SkipOwner: true}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var dirs [2]string
			for i := range dirs {
				dir := t.TempDir()
				dirs[i] = dir
				err := errors.Join(
					os.Mkdir(dir+"/folder", 0o700), write(dir, "folder/inner", "x"), write(dir, "file", "content"),
					write(dir, "twin a", "twin"), os.Link(dir+"/twin a", dir+"/twin b"), write(dir, "alike", "twin"),
					os.Symlink("here", dir+"/link"), write(dir, "hole", ""), os.Truncate(dir+"/hole", 4<<20))
				if err != nil {
					t.Fatal(err)
				}
				if err := lsetxattr(dir+"/file", "user.x", []byte("value")); err != nil && strings.Contains(test.name, "attribute") {
					t.Skip("no extended attributes: ", err)
				}
				if i == 1 {
					if err := test.change(dir); errors.Is(err, os.ErrPermission) {
						t.Skip("it takes root: ", err)
					} else if err != nil {
						t.Fatal(err)
					}
				}
			}
			// What the change is not about is made equal.
			for _, name := range []string{"link", "hole", "file", "folder", "."} {
				if test.want != nil && strings.Contains(test.want[0], "changed at") && strings.Contains(test.want[0], `"`+name+`"`) || test.o.SkipTop && name == "." {
					continue
				}
				b := &builder{t: t, dir: dirs[0]}
				b.touch(name, past)
				b.dir = dirs[1]
				b.touch(name, past)
			}
			got := Differences(dirs[0], dirs[1], test.o)
			if len(got) != len(test.want) || slices.ContainsFunc(got, func(s string) bool { return !strings.Contains(s, test.want[0]) }) {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}
