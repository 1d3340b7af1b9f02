package watcher

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

var contractLinux = []struct {
	name    string
	prepare func(t *testing.T, root, outside string)
	steps   []step
}{
	{"permissions", func(t *testing.T, root, _ string) { write(t, root+"/d/f", "1") }, []step{
		{func(t *testing.T, root, _ string) { must(t, os.Chmod(root+"/d/f", 0o600)) }, []string{"d/f"}},
		{func(t *testing.T, root, _ string) { must(t, os.Chmod(root+"/d", 0o700)) }, []string{"d"}},
		{func(t *testing.T, root, _ string) { must(t, os.Chmod(root, 0o700)) }, []string{"."}},
	}},
	{"links", func(t *testing.T, root, outside string) { write(t, outside+"/f", "1") }, []step{
		{func(t *testing.T, root, outside string) { must(t, os.Link(outside+"/f", root+"/hard")) }, []string{"hard"}},
		{func(t *testing.T, root, outside string) { must(t, os.Symlink(outside, root+"/soft")) }, []string{"soft"}},
		{func(t *testing.T, root, _ string) { must(t, unix.Mkfifo(root+"/fifo", 0o600)) }, []string{"fifo"}},
	}},
	{"write through a mapping", func(t *testing.T, root, _ string) { write(t, root+"/f", "1234") }, []step{
		{func(t *testing.T, root, _ string) {
			f, err := os.OpenFile(root+"/f", os.O_RDWR, 0)
			must(t, err)
			mem, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			mem[0] = '9'
			must(t, unix.Munmap(mem))
			must(t, f.Close())
		}, []string{"f"}},
	}},
	{"folders that change places", func(t *testing.T, root, _ string) { write(t, root+"/left/f", "1"); write(t, root+"/right/g", "1") }, []step{
		{func(t *testing.T, root, _ string) {
			must(t, unix.Renameat2(unix.AT_FDCWD, root+"/left", unix.AT_FDCWD, root+"/right", unix.RENAME_EXCHANGE))
		}, []string{"left", "right", "left/g", "right/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/left/h", "1") }, []string{"left/h"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/right/h", "1") }, []string{"right/h"}},
	}},
	{"folder and file that change places", func(t *testing.T, root, _ string) { write(t, root+"/a/f", "1"); write(t, root+"/b", "1") }, []step{
		{func(t *testing.T, root, _ string) {
			must(t, unix.Renameat2(unix.AT_FDCWD, root+"/a", unix.AT_FDCWD, root+"/b", unix.RENAME_EXCHANGE))
		}, []string{"a", "b", "b/f"}},
		{func(t *testing.T, root, _ string) { write(t, root+"/b/g", "1") }, []string{"b/g"}},
	}},
	{"names that are not text", nil, []step{
		{func(t *testing.T, root, _ string) { write(t, root+"/\xff\n/\xfe", "1") }, []string{"\xff\n/\xfe"}},
	}},
}

func TestContractLinux(t *testing.T) {
	for _, c := range contractLinux {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testSteps(t, newBackend(), quick, c.prepare, c.steps)
		})
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	root := filepath.Join(dir, "root")
	link := filepath.Join(dir, "link")
	write(t, dir+"/outside/d/f", "1")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Symlink(dir+"/outside", root+"/before"))
	must(t, os.Symlink(dir+"/outside", link))
	s := start(t, newBackend(), quick, Root{Path: root}, Root{Path: link})
	must(t, os.Symlink(dir+"/outside", root+"/after"))
	s.see(t, root, root+"/after")
	s.reset()
	write(t, dir+"/outside/d/f", "22")
	write(t, dir+"/outside/g", "1")
	write(t, root+"/last", "1")
	s.see(t, root, root+"/last")
	must(t, os.Remove(link))
	must(t, os.Symlink(root, link))
	s.see(t, link, link)
	s.stop()
	if got := append(s.seen(root), s.seen(link)...); !slices.Equal(got, []string{root + "/last", link}) {
		t.Errorf("reported %q", got)
	}
}

// TestDeeperThanPathMax has a tree that can only be entered step by step.
func TestDeeperThanPathMax(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	const depth = 30
	name := strings.Repeat("d", 200)
	r, err := os.OpenRoot(root)
	must(t, err)
	defer r.Close()
	long := strings.TrimSuffix(strings.Repeat(name+"/", depth), "/")
	must(t, r.MkdirAll(long, 0o755))
	t.Cleanup(func() { r.RemoveAll(name) })
	skip := func(path string, _ bool) bool {
		open := 0
		fds, _ := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, root+"/"+name) {
				open++
			}
		}
		if open > 2 { // one is left when the next is open
			t.Errorf("%d folders are open at depth %d", open, strings.Count(path[len(root):], "/"))
		}
		return false
	}
	s := start(t, newBackend(), quick, Root{root, skip})
	if w := s.inMode(t, root, Watching); w.Watched != depth+1 || w.Unreadable != nil {
		t.Errorf("state %+v", w)
	}
	must(t, r.WriteFile(long+"/f", nil, 0o644))
	must(t, r.MkdirAll(long+"/more/more", 0o755))
	s.see(t, root, root+"/"+long+"/f", root+"/"+long+"/more/more")
	s.stop()
	must(t, r.RemoveAll(name))
}

// TestOverflow lets the kernel's queue run over by not reading it, for real.
func TestOverflow(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	b := newBackend().(*inotify)
	found := make(map[string]bool) // guarded by the recorder's goroutine, then by its end
	r := newRecorder()
	r.onRescan = func(root string) {
		filepath.WalkDir(root, func(path string, _ fs.DirEntry, _ error) error {
			found[path] = true
			return nil
		})
	}
	s := launch(t, r, b, quick, Root{Path: root})
	s.rescanned(t, root, Started)
	must(t, os.Mkdir(root+"/before", 0o755))
	must(t, os.Mkdir(root+"/left", 0o755))
	must(t, os.Mkdir(root+"/right", 0o755))
	s.see(t, root, root+"/before", root+"/left", root+"/right")
	s.reset()

	b.mu.Lock() // the reader cannot pass on anything now
	for i := range 20_000 {
		write(t, fmt.Sprintf("%s/%d", root, i), "")
	}
	for i := range 100 {
		write(t, fmt.Sprintf("%s/d%d/f", root, i), "")
	}
	must(t, os.Rename(root+"/before", root+"/after"))
	must(t, unix.Renameat2(unix.AT_FDCWD, root+"/left", unix.AT_FDCWD, root+"/right", unix.RENAME_EXCHANGE))
	b.mu.Unlock()
	s.rescanned(t, root, Overflow)

	s.reset()
	for i := range 100 {
		write(t, fmt.Sprintf("%s/d%d/late", root, i), "")
	}
	write(t, root+"/after/late", "")
	write(t, root+"/left/late", "")
	for i := range 100 {
		s.see(t, root, fmt.Sprintf("%s/d%d/late", root, i))
	}
	s.see(t, root, root+"/after/late", root+"/left/late")
	s.stop()
	for _, p := range s.seen(root) {
		if p == root+"/right/late" || p == root+"/before/late" {
			t.Errorf("reported under a former name: %s", p)
		}
	}
	for _, p := range s.seen(root) {
		found[p] = true
	}
	filepath.WalkDir(root, func(path string, _ fs.DirEntry, _ error) error {
		if !found[path] {
			t.Errorf("missed %s", path)
		}
		return nil
	})
}

// TestWatchesAreShared counts what the kernel holds.
func TestWatchesAreShared(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	write(t, root+"/a/b/f", "1")
	b := newBackend().(*inotify)
	s := start(t, b, quick, Root{Path: root}, Root{Path: root + "/a"}, Root{Path: root + "/a/b/f"})
	kernel := func() int {
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", b.fd))
		must(t, err)
		return strings.Count(string(info), "inotify wd:")
	}
	if n := kernel(); n != 3 {
		t.Errorf("%d watches for 3 directories", n)
	}
	remove(t, root+"/a/b")
	s.see(t, root, root+"/a/b")
	s.inMode(t, root+"/a/b/f", Gone)
	s.roots <- []Root{{Path: root + "/a"}}
	eventually(t, func() bool { return kernel() == 1 }, func() string { return fmt.Sprint(kernel(), " watches for 1 directory") })
	s.stop()
}

// TestSharedWatchRace has one root give up a watch just when another has asked for it.
func TestSharedWatchRace(t *testing.T) {
	b := newBackend().(*inotify)
	defer b.close()
	dir, err := os.Open(tempDir(t))
	must(t, err)
	defer dir.Close()
	leaving, coming := newQueue(), newQueue()
	id, err := b.watch(dir, true, leaving)
	must(t, err)
	_, removed, err := b.start()
	must(t, err)
	b.unwatch(id, leaving)
	if b.subscribe(id, coming, removed) {
		t.Error("a root has a watch that is no more")
	}
}

// TestPolledAboveWatched has a folder that is watched change places where that is only found out by comparing.
func TestPolledAboveWatched(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	write(t, root+"/d/f", "1")
	write(t, root+"/other/g", "1")
	b := &deaf{backend: newBackend(), only: root}
	s := start(t, b, Options{PollInterval: 20 * time.Millisecond}, Root{Path: root})
	if st := s.inMode(t, root, Polling); st.Polled != 1 || st.Watched != 2 {
		t.Errorf("state %+v", st)
	}
	must(t, os.Rename(root+"/d", root+"/aside"))
	must(t, os.Rename(root+"/other", root+"/d"))
	s.see(t, root, root+"/aside/f", root+"/d/g", root+"/other")
	s.reset()
	write(t, root+"/d/g", "22")
	write(t, root+"/aside/f", "22")
	s.see(t, root, root+"/d/g", root+"/aside/f")
	s.stop()
}

// TestLinkInsteadOfFolder has a folder replaced by a link before it is entered.
func TestLinkInsteadOfFolder(t *testing.T) {
	dir := tempDir(t)
	root := dir + "/root"
	write(t, dir+"/outside/f", "1")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Symlink("../outside", root+"/d"))
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{}
		s := start(t, p, Options{}, Root{Path: root})
		p.push(root, "d", isDir|appeared)
		time.Sleep(time.Second)
		if _, st := s.told(root); st.Watched != 1 || st.Unreadable != nil || !slices.Equal(s.seen(root), []string{root + "/d"}) {
			t.Errorf("state %+v, reported %q", st, s.seen(root))
		}
		s.stop()
	})
}

// inNamespace runs the calling test again, as root of a user namespace of its own, whose limits and mounts it may change, and
// reports whether this is that second run.
func inNamespace(t *testing.T, flags ...string) bool {
	t.Helper()
	if os.Getenv("WATCHER_NAMESPACE") == t.Name() {
		return true
	}
	t.Parallel()
	flags = append([]string{"--user", "--map-root-user"}, flags...)
	if out, err := exec.Command("unshare", append(flags, "true")...).CombinedOutput(); err != nil {
		unavailable(t, fmt.Sprintf("unshare %v: %v %s", flags, err, out))
	}
	cmd := exec.Command("unshare", append(flags, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")...)
	cmd.Env = append(os.Environ(), "WATCHER_NAMESPACE="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// unavailable skips the test, or fails it where everything is required.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("BACKSTAY_REQUIRE") == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func setLimit(t *testing.T, of string, n int) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/user/max_inotify_"+of, []byte(fmt.Sprint(n)), 0))
}

func TestWatchLimit(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	setLimit(t, "watches", 10)
	root := tempDir(t)
	for i := range 30 {
		write(t, fmt.Sprintf("%s/d%d/f", root, i), "1")
	}
	s := start(t, newBackend(), Options{PollInterval: 20 * time.Millisecond, Coalesce: 5 * time.Millisecond}, Root{Path: root})
	st := s.inMode(t, root, Polling)
	if st.Watched != 10 || st.Polled != 21 || !strings.Contains(st.Why, "limit of 10 ") || !strings.Contains(st.Why, "fs.inotify.max_user_watches") {
		t.Errorf("state %+v", st)
	}
	for i := range 30 {
		write(t, fmt.Sprintf("%s/d%d/f", root, i), "22")
		write(t, fmt.Sprintf("%s/d%d/new/g", root, i), "1")
	}
	for i := range 30 {
		s.see(t, root, fmt.Sprintf("%s/d%d/f", root, i), fmt.Sprintf("%s/d%d/new/g", root, i))
	}
	setLimit(t, "watches", 1000)
	if st := s.inMode(t, root, Watching); st.Watched != 61 || st.Polled != 0 || st.Why != "" {
		t.Errorf("state %+v", st)
	}
	s.reset()
	write(t, root+"/d29/new/g", "22")
	s.see(t, root, root+"/d29/new/g")
	s.stop()
}

func TestInstanceLimit(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	setLimit(t, "instances", 0)
	root := tempDir(t)
	write(t, root+"/d/f", "1")
	s := start(t, newBackend(), Options{PollInterval: 20 * time.Millisecond, Coalesce: 5 * time.Millisecond}, Root{Path: root}, Root{Path: root + "/d/f"})
	if st := s.inMode(t, root, Polling); st.Polled != 2 || !strings.Contains(st.Why, "fs.inotify.max_user_instances") {
		t.Errorf("state %+v", st)
	}
	write(t, root+"/d/f", "22")
	s.see(t, root, root+"/d/f")
	s.see(t, root+"/d/f", root+"/d/f")
	setLimit(t, "instances", 1)
	s.inMode(t, root, Watching)
	s.inMode(t, root+"/d/f", Watching)
	s.stop()
}

func TestMounts(t *testing.T) {
	if !inNamespace(t, "--mount") {
		return
	}
	root := tempDir(t)
	must(t, os.MkdirAll(root+"/mnt point", 0o755))
	write(t, root+"/mnt point/below", "1")
	write(t, root+"/a/d/f", "1")
	must(t, os.MkdirAll(root+"/b", 0o755))
	s := start(t, newBackend(), quick, Root{Path: root})

	must(t, unix.Mount("none", root+"/mnt point", "tmpfs", 0, ""))
	write(t, root+"/mnt point/d/f", "1")
	s.rescanned(t, root, Mounts)
	s.reset()
	write(t, root+"/mnt point/d/f", "22")
	s.see(t, root, root+"/mnt point/d/f")

	// One filesystem at two places has one watch, and both names.
	must(t, unix.Mount(root+"/a", root+"/b", "", unix.MS_BIND, ""))
	s.rescanned(t, root, Mounts)
	s.reset()
	write(t, root+"/a/d/f", "22")
	s.see(t, root, root+"/a/d/f", root+"/b/d/f")
	must(t, unix.Unmount(root+"/b", 0))
	s.rescanned(t, root, Mounts)
	s.reset()
	write(t, root+"/a/d/f", "333")
	s.see(t, root, root+"/a/d/f")
	if slices.Contains(s.seen(root), root+"/b/d/f") {
		t.Error("reported at a place where it is no more")
	}

	s.reset()
	must(t, unix.Unmount(root+"/mnt point", 0))
	s.rescanned(t, root, Mounts)
	s.reset()
	write(t, root+"/mnt point/below", "22") // the folder that was hidden is heard again
	s.see(t, root, root+"/mnt point/below")

	// The root itself is a mounted disk that is taken out and put back.
	must(t, unix.Mount("none", root+"/mnt point", "tmpfs", 0, ""))
	write(t, root+"/mnt point/disk/f", "1")
	disk := root + "/mnt point/disk"
	s.roots <- []Root{{Path: disk}}
	s.rescanned(t, disk, Started)
	s.reset()
	must(t, unix.Unmount(root+"/mnt point", 0))
	s.inMode(t, disk, Gone)
	if got := s.seen(disk); got != nil {
		t.Errorf("reported as deleted: %q", got)
	}
	must(t, unix.Mount("none", root+"/mnt point", "tmpfs", 0, ""))
	write(t, disk+"/f", "1")
	s.rescanned(t, disk, Returned)
	write(t, disk+"/f", "22")
	s.see(t, disk, disk+"/f")
	s.stop()
	must(t, unix.Unmount(root+"/mnt point", 0))
}

// TestDiskSwapped has a disk taken out and put back between two looks, which nothing but the end of its watches shows.
func TestDiskSwapped(t *testing.T) {
	if !inNamespace(t, "--mount") {
		return
	}
	dir := tempDir(t)
	root, disk := dir+"/root", dir+"/root/mnt"
	must(t, os.MkdirAll(disk, 0o755))
	must(t, unix.Mount("none", disk, "tmpfs", 0, ""))
	must(t, os.Mkdir(disk+"/d", 0o755))
	s := start(t, newBackend(), Options{LookInterval: 50 * time.Millisecond}, Root{Path: root})
	must(t, unix.Unmount(disk, 0))
	must(t, unix.Mount("none", disk, "tmpfs", 0, ""))
	must(t, os.Mkdir(disk+"/d", 0o755))
	s.rescanned(t, root, Mounts)
	// How often the watches have to be made good depends on who came first.
	n := 0
	eventually(t, func() bool {
		n++
		write(t, disk+"/d/f", strings.Repeat("x", n))
		return slices.Contains(s.seen(root), disk+"/d/f")
	}, func() string { return "changes on the new disk are not reported" })
	s.stop()
	must(t, unix.Unmount(disk, 0))
}

func TestUnreadable(t *testing.T) {
	const nobody = 65534
	if os.Getuid() == 0 {
		// Root reads everything: run as somebody else, from a copy of the program that somebody else can reach.
		t.Parallel()
		dir := tempDir(t)
		must(t, os.Chmod(dir, 0o755))
		program, err := os.ReadFile(os.Args[0])
		must(t, err)
		syscall.ForkLock.RLock() // a child of another test would hold the file open for writing, and it could not be run
		err = os.WriteFile(dir+"/test", program, 0o755)
		syscall.ForkLock.RUnlock()
		must(t, err)
		cmd := exec.Command(dir+"/test", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("as another user: %v\n%s", err, out)
		}
		return
	}
	root := tempDir(t)
	write(t, root+"/closed/d/f", "1")
	must(t, os.Chmod(root+"/closed", 0))
	t.Cleanup(func() { os.Chmod(root+"/closed", 0o755) })
	s := start(t, newBackend(), Options{PollInterval: time.Hour}, Root{Path: root})
	st := s.inMode(t, root, Watching)
	if err := st.Unreadable[root+"/closed"]; st.Watched != 1 || len(st.Unreadable) != 1 || err != syscall.EACCES {
		t.Errorf("state %+v", st)
	}
	must(t, os.Chmod(root+"/closed", 0o755))
	s.see(t, root, root+"/closed", root+"/closed/d/f")
	s.wait(t, "readable state", func() bool { return s.states[root].Watched == 3 && s.states[root].Unreadable == nil })
	write(t, root+"/closed/d/f", "22")
	s.see(t, root, root+"/closed/d/f")

	// A file in a folder that may be passed through but not read.
	must(t, os.Chmod(root+"/closed", 0o311))
	file := root + "/closed/g"
	write(t, file, "1")
	s.roots <- []Root{{Path: file}}
	st = s.inMode(t, file, Polling)
	if !strings.Contains(st.Why, "permission denied") {
		t.Errorf("state %+v", st)
	}
	s.stop()
}

func FuzzNotices(f *testing.F) {
	whole := binary.NativeEndian.AppendUint32(nil, 7)
	whole = binary.NativeEndian.AppendUint32(whole, unix.IN_CREATE|unix.IN_ISDIR)
	whole = binary.NativeEndian.AppendUint32(whole, 0)
	whole = binary.NativeEndian.AppendUint32(whole, 8)
	whole = append(whole, "name\x00\x00\x00\x00"...)
	f.Add(whole)
	f.Add(whole[:20])
	f.Fuzz(func(t *testing.T, buf []byte) {
		size := 0
		for n := range notices(buf) {
			size += unix.SizeofInotifyEvent + len(n.name)
			if strings.Contains(n.name, "\x00") {
				t.Errorf("name %q", n.name)
			}
		}
		if size > len(buf) {
			t.Errorf("%d bytes of notices in %d", size, len(buf))
		}
	})
}
