package scan_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"backstay/agent/scan"
	"backstay/agent/scan/facts"
)

func TestUnreadable(t *testing.T) {
	if rerunUnprivileged(t) {
		return
	}
	root := tree(t, "open/a", "closed/b", "closed/sub/c", "nolist/d", "nopass/e")
	o := memory(t, root, scan.Options{FilesOnly: true})
	for name, mode := range map[string]fs.FileMode{"closed": 0, "nolist": 0o300, "nopass": 0o600} {
		path := filepath.Join(root, name)
		must(t, os.Chmod(path, mode))
		defer os.Chmod(path, 0o700)
	}
	must(t, os.WriteFile(filepath.Join(root, "nolist/d"), []byte("changed"), 0o600))
	s := scanRoot(t, root, o)
	must(t, s.err)
	check(t, "problems", slices.Sorted(maps.Keys(s.problems)), below(root, "closed", "nolist", "nopass/e"))
	for _, p := range s.problems {
		if !errors.Is(p, fs.ErrPermission) || p.Reason != "permission denied" || p.Fix == "" {
			t.Errorf("problem %#v", p)
		}
	}
	check(t, "found", s.paths(), below(root, "nolist/d")) // its name is known from before
	if len(s.missing) > 0 || s.result.Hidden != 3 || s.result.Problems != 3 {
		t.Errorf("missing %v, result %+v", s.missing, s.result)
	}
	s = scanPaths(t, root, o, below(root, "closed/b", "open/a")...)
	must(t, s.err)
	check(t, "problems by name", slices.Sorted(maps.Keys(s.problems)), below(root, "closed/b"))

	must(t, os.Chmod(root, 0))
	defer os.Chmod(root, 0o700)
	s = scanRoot(t, root, o)
	if p, ok := errors.AsType[*facts.Problem](s.err); !ok || !errors.Is(p, fs.ErrPermission) || len(s.missing) > 0 {
		t.Errorf("closed root: %v, missing %v", s.err, s.missing)
	}
}

// rerunUnprivileged runs the test in a child without root's privileges, in a user
// namespace of its own, and reports whether it did.
func rerunUnprivileged(t *testing.T) bool {
	if os.Geteuid() != 0 {
		return false
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("running as root without user namespaces: ", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("unprivileged: %v\n%s", err, out)
	}
	return true
}
