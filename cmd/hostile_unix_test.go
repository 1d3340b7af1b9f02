//go:build unix

package cmd_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/metadata/treetest"
)

// TestHostileTree backs up what is hard to back up, and 5,000 odd files more, or 300
// with the race detector, and gets it back with the kit alone: nothing may differ,
// metadata included. Who is not root gets everything but owners, setuid bits and
// devices.
func TestHostileTree(t *testing.T) {
	l := newLab(t)
	treetest.Hostile(t, l.docs)
	n := 5000
	if raceEnabled {
		n = 300
	}
	odd(t, filepath.Join(l.docs, "odd"), n)
	l.serve()
	l.join()
	l.agent(0, "backup")
	root := os.Geteuid() == 0
	var flags []string
	if root {
		flags = append(flags, "--owner")
	}
	back := l.recover(0, flags...)
	treetest.Removable(t, back)
	treetest.Compare(t, l.docs, back, treetest.Options{SkipOwner: !root, SkipSetID: !root, SkipDevices: !root})
	// What came back is as good as the original: it looks unchanged from within.
	l.agent(0, "verify", "--all")
	if out := l.agent(0, "backup"); !strings.HasPrefix(out, "0 files safe") {
		t.Errorf("a second backup sends again: %s", out)
	}
}

// TestBreakGlass restores with the reader in testdata/reader, a second
// implementation that knows nothing but SPEC.md: from the packs and the phrase,
// without a server and without any of this project's programs.
func TestBreakGlass(t *testing.T) {
	python := ""
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import cryptography, zstandard").Run() == nil {
			python = name
			break
		}
	}
	if python == "" {
		const why = "no python3 with the packages cryptography and zstandard"
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	l := newLab(t)
	treetest.Hostile(t, l.docs)
	odd(t, filepath.Join(l.docs, "odd"), 200)
	l.serve()
	l.join()
	l.agent(0, "backup")
	// A second version and a deletion: the newest state counts.
	l.write("changed", "first")
	l.write("deleted", "first")
	l.agent(0, "backup")
	l.write("changed", "second")
	if err := os.Remove(filepath.Join(l.docs, "deleted")); err != nil {
		t.Fatal(err)
	}
	l.agent(0, "backup")
	l.stop()
	store, to := filepath.Join(l.dir, "store"), filepath.Join(l.dir, "out")
	if err := os.Rename(filepath.Join(l.data, "store"), store); err != nil {
		t.Fatal(err)
	}
	// Nothing but the packs.
	others, err := filepath.Glob(filepath.Join(store, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(others, l.data, l.conf, l.state) {
		if filepath.Base(path) != "packs" {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	reader := filepath.Join("..", "protocol", "testdata", "reader", "reader.py")
	out, err := exec.CommandContext(t.Context(), python, "-B", reader, "--store", store, "--phrase-file", l.kit, "--to", to).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(to, "desk", l.docs)
	treetest.Removable(t, to)
	for _, d := range treetest.Differences(l.docs, back, treetest.Options{
		SkipOwner: true, SkipSetID: true, SkipDevices: true,
		Skip: func(rel string) bool { return rel == "special/fifo" }, // the reader makes no special files
	}) {
		// Nor does it give attributes back that are not users', or setgid.
		if !strings.Contains(d, `extended attribute "trusted.`) && !strings.HasPrefix(d, `"modes/folder 2770": mode 0770`) {
			t.Error(d)
		}
	}
}

// odd fills a folder with n files, links and folders whose names, sizes, times,
// modes and attributes nobody would choose.
func odd(t *testing.T, dir string, n int) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("odd files: seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	folders, files := []string{dir}, []string{}
	made := 0
	for range n {
		// No folder becomes longer than a path that a system call takes.
		parent := folders[rng.IntN(len(folders))]
		if len(parent) > 3000 {
			parent = dir
		}
		path := parent + "/" + oddName(rng)
		var err error
		switch k := rng.IntN(20); {
		case k < 2:
			if err = os.Mkdir(path, 0o755); err == nil {
				folders = append(folders, path)
			}
		case k == 2:
			err = os.Symlink(oddName(rng), path)
		case k == 3 && len(files) > 0:
			err = os.Link(files[rng.IntN(len(files))], path)
		default:
			if err = oddFile(rng, path); err == nil {
				files = append(files, path)
			}
		}
		if err == nil {
			made++
		} else if !errors.Is(err, os.ErrExist) && !errors.Is(err, unix.EILSEQ) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENAMETOOLONG) {
			t.Fatal(err)
		}
	}
	if made < n/4 {
		t.Fatalf("only %d of %d could be made", made, n)
	}
	// Modes and times last, from the inside out: making something in a folder
	// changes its time.
	for _, path := range files {
		mode := uint32(0o400 | rng.IntN(0o1000))
		oddTime(rng, path)
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if err := unix.Chmod(folders[i], uint32(0o500|rng.IntN(0o2000))&^0o022); err != nil {
			t.Fatal(err)
		}
		oddTime(rng, folders[i])
	}
}

// oddName is any bytes that can be a name, most of them short.
func oddName(rng *rand.Rand) string {
	name := make([]byte, 1+rng.IntN(cmp.Or(rng.IntN(40), 250)))
	for i := range name {
		for name[i] == 0 || name[i] == '/' {
			name[i] = byte(rng.Uint32())
		}
		if rng.IntN(3) > 0 {
			name[i] = 'a' + name[i]%26
		}
	}
	if strings.Trim(string(name), ".") == "" {
		return fmt.Sprintf("%s and %d", name, rng.Uint32())
	}
	return string(name)
}

func oddFile(rng *rand.Rand, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	size := rng.IntN(cmp.Or(rng.IntN(3), rng.IntN(20_000)) + 1)
	if rng.IntN(200) == 0 {
		size = rng.IntN(1 << 20)
	}
	content := []byte(random(rng, size))
	if rng.IntN(3) == 0 {
		content = []byte(strings.Repeat("the same again ", size/15))
	}
	_, err = f.Write(content)
	if rng.IntN(50) == 0 { // a hole, and something behind it
		_, werr := f.WriteAt(content, int64(rng.IntN(8<<20)))
		err = errors.Join(err, werr)
	}
	for range max(0, rng.IntN(12)-9) {
		name := fmt.Sprintf("user.%x", oddName(rng))
		if err := unix.Setxattr(path, name[:min(len(name), 100)], []byte(random(rng, rng.IntN(300))), 0); err != nil {
			break // not on this file system
		}
	}
	return err
}

// oddTime gives a path a time from 1902 to 2446, which is what common file systems
// keep, to the nanosecond.
func oddTime(rng *rand.Rand, path string) {
	ts, err := unix.TimeToTimespec(time.Unix(rng.Int64N(1<<34)-1<<31, rng.Int64N(int64(time.Second))))
	if err == nil {
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}
