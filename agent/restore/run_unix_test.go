//go:build unix

package restore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/protocol/vault"
)

const lockable = true

// TestSymlinkSwap has somebody replace folders with symlinks that lead out of the
// target while it is restored into.
func TestSymlinkSwap(t *testing.T) {
	const folders, swappers, rounds = 150, 3, 2 // more folders than stay open
	l := newLab(t)
	var changes []change
	for i := range folders {
		dir := fmt.Sprintf("/top/%d", i)
		changes = append(changes, put(dir, vault.Record{Type: vault.TypeFolder, Metadata: vault.Metadata{Mode: new(uint32(0o755))}}), put(dir+"/s/small", inline("small")),
			put(dir+"/s/chunk", l.file(make([]byte, 5000))), put(dir+"/s/many", vault.Record{Type: vault.TypeFile, Content: l.content(make([]byte, 9000), vault.FixedCutter(5000))}),
			put(dir+"/s/link", vault.Record{Type: vault.TypeSymlink, Target: []byte("/etc")}))
	}
	l.commit(changes...)
	sel := l.all()
	swapped := 0
	for range rounds {
		base := t.TempDir()
		outside, to := filepath.Join(base, "outside"), filepath.Join(base, "to")
		if err := errors.Join(os.Mkdir(outside, 0o700), os.Mkdir(filepath.Join(outside, "s"), 0o700)); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var swapping sync.WaitGroup
		counts := make([]int, swappers)
		for s := range swappers {
			swapping.Go(func() {
				away := filepath.Join(base, fmt.Sprint("away", s))
				for ctx.Err() == nil {
					// Never below one that is swapped itself, or it would be us who go outside.
					i := rand.IntN(folders)
					victim := filepath.Join(to, "top", fmt.Sprint(i))
					if i%2 == 0 {
						victim = filepath.Join(victim, "s")
					}
					if os.Rename(victim, away) != nil {
						continue
					}
					if os.Symlink(outside, victim) == nil {
						counts[s]++
						_ = os.Remove(victim)
					}
					if os.Rename(away, victim) != nil { // it was made again meanwhile
						_ = os.RemoveAll(away)
					}
				}
			})
		}
		for _, overwrite := range []bool{false, true} {
			if _, err := Run(context.Background(), l, sel, Options{Keys: l.keys, To: to, Overwrite: overwrite}); err != nil {
				t.Error(err)
			}
		}
		stop()
		swapping.Wait()
		for _, n := range counts {
			swapped += n
		}
		equalTrees(t, contents(t, outside), map[string]string{"s": "folder"})
		if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o700 {
			t.Error("the folder outside was changed:", info.Mode(), err)
		}
	}
	if swapped == 0 {
		t.Error("nothing was ever swapped")
	}
	t.Logf("%d swaps", swapped)
}

// mount gives the test a small file system of its own.
func mount(t *testing.T, options string, flags uintptr) string {
	dir := t.TempDir()
	if err := mountTmpfs(dir, options, flags); err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("mounting a file system takes root: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnly(t *testing.T) {
	l, _ := wide(t, 10)
	dir := t.TempDir()
	want := error(os.ErrPermission)
	if os.Geteuid() == 0 {
		dir, want = mount(t, "", readOnlyMount), unix.EROFS
	} else if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{dir, filepath.Join(dir, "new")} {
		report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: to})
		if !errors.Is(err, want) || len(report.Failed) > 0 {
			t.Errorf("%v, failed %v", err, report.Failed)
		}
		t.Log(err)
	}
}

// TestFull has no room for everything, goes on when there is, and leaves nothing
// unfinished.
func TestFull(t *testing.T) {
	l, model := wide(t, 90)
	for name, options := range map[string]string{"of bytes": "size=400k", "of files": "nr_inodes=40"} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t, options, 0)
			report, err := Run(context.Background(), l, l.all(), Options{Keys: l.keys, To: dir})
			if !errors.Is(err, unix.ENOSPC) || len(report.Failed) > 0 {
				t.Fatalf("%v, failed %v", err, report.Failed)
			}
			t.Log(err)
			for name, content := range contents(t, dir) {
				if content != model[name] {
					t.Errorf("%s is %.40q", name, content)
				}
			}
			if err := mountTmpfs(dir, "size=100m,nr_inodes=10000", remount); err != nil {
				t.Fatal(err)
			}
			if report := l.restore("/", dir); report.Same == 0 {
				t.Error("nothing was there already")
			}
			equalTrees(t, contents(t, dir), model)
		})
	}
}

// TestFoldersLast gives folders rights with which nothing more could be made in
// them, and times that making something would move.
func TestFoldersLast(t *testing.T) {
	l := newLab(t)
	at := time.Date(1999, 1, 2, 3, 4, 5, 6, time.UTC)
	closed := vault.Record{Type: vault.TypeFolder, Metadata: vault.Metadata{ModTime: at, Mode: new(uint32(0o500))}}
	l.commit(put("/a", closed), put("/a/b", closed), put("/a/b/c", closed), put("/a/b/x", inline("x")), put("/a/y", inline("y")))
	to := t.TempDir()
	t.Cleanup(func() {
		for _, dir := range []string{"a", "a/b", "a/b/c"} {
			_ = os.Chmod(filepath.Join(to, dir), 0o700)
		}
	})
	for range 2 {
		l.restore("/", to)
		for _, dir := range []string{"a", "a/b", "a/b/c"} {
			info, err := os.Stat(filepath.Join(to, dir))
			if err != nil {
				t.Fatal(err)
			}
			if !info.ModTime().Equal(at) || info.Mode().Perm() != 0o500 {
				t.Errorf("%s: %v %v", dir, info.Mode(), info.ModTime())
			}
		}
	}
}
