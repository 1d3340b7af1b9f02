package enrol

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"backstay/agent/config"
)

func TestFolders(t *testing.T) {
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	docs, link := filepath.Join(folder, "docs"), filepath.Join(folder, "link")
	if err := os.Mkdir(docs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(docs, link); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	file := filepath.Join(folder, config.TransferFile)
	if err := AddFolders(folder, []string{docs}); !errors.Is(err, config.ErrNotSetUp) {
		t.Fatalf("without a file: %v", err)
	}
	const head = "# mine\nhost:1\nada\n"
	for _, tt := range []struct {
		name, before string
		do           func() error
		after        string
	}{
		{"add", head, func() error { return AddFolders(folder, []string{docs}) }, head + docs + "\n"},
		{"add what is listed", head + docs + "\n", func() error { return AddFolders(folder, []string{docs}) }, head + docs + "\n"},
		{"add what is listed otherwise", head + "./docs/\n!*.tmp\n", func() error { return AddFolders(folder, []string{docs}) }, head + "./docs/\n!*.tmp\n"},
		{"remove", head + "other\n" + docs + "\n# end\n", func() error { return RemoveFolders(folder, []string{docs}) }, head + "other\n# end\n"},
		{"remove what is listed otherwise", head + "docs\ndocs/.\n", func() error { return RemoveFolders(folder, []string{docs}) }, head},
		{"remove what is gone", head + "/gone/\n", func() error { return RemoveFolders(folder, []string{"/gone"}) }, head},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "remove what is gone" && runtime.GOOS == "windows" {
				t.Skip("no absolute path there")
			}
			if err := os.WriteFile(file, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != tt.after {
				t.Errorf("%q, %v, want %q", got, err, tt.after)
			}
		})
	}
	if err := os.WriteFile(file, []byte(head+"docs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveFolders(folder, []string{docs, filepath.Join(folder, "never")}); err == nil || !strings.Contains(err.Error(), "never is not listed") {
		t.Errorf("one that is not listed: %v", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != head+"docs\n" {
		t.Errorf("after that: %q, %v", got, err)
	}
	if runtime.GOOS != "windows" && !Same(folder, link, docs) {
		t.Error("a link to it is another")
	}
	if Same(folder, filepath.Join(folder, "never"), docs) || Same(folder, "never", filepath.Join(folder, "other")) {
		t.Error("what is not there is the same")
	}
}

func TestExcludes(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, config.TransferFile)
	const head = "host:1\nada\n/docs\n"
	for _, tt := range []struct {
		name, before string
		do           func() error
		after, err   string
	}{
		{"add", head, func() error { return AddExclude(folder, "*.tmp") }, head + "!*.tmp\n", ""},
		{"add behind a line without an end", strings.TrimSuffix(head, "\n"), func() error { return AddExclude(folder, "*.tmp") }, head + "!*.tmp\n", ""},
		{"add what is there", head + "!*.tmp\n# end\n", func() error { return AddExclude(folder, "*.tmp") }, head + "!*.tmp\n# end\n", ""},
		{"add what takes in again", head, func() error { return AddExclude(folder, "!keep.tmp") }, head + "!!keep.tmp\n", ""},
		{"add what cannot be honoured", head, func() error { return AddExclude(folder, "[") }, head, "malformed"},
		{"add two lines", head, func() error { return AddExclude(folder, "a\n/etc") }, head, "is no exclude pattern"},
		{"remove", head + "!a\n!*.tmp\n!a\n", func() error { return RemoveExclude(folder, "a") }, head + "!*.tmp\n", ""},
		{"remove a path", head, func() error { return RemoveExclude(folder, "/docs") }, head, "not listed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != tt.after {
				t.Errorf("%q, %v, want %q", got, err, tt.after)
			}
		})
	}
}
