//go:build unix

package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/capture"
	"backstay/agent/scan/facts"
)

var captures = flag.Int("captures", 1000, "clean captures to make in TestUnderWriters")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a file that has settled.
func open(t testing.TB, root, path string) *capture.File {
	t.Helper()
	for {
		f, err := capture.Open(root, path)
		must(t, err)
		if f.Unsettled() == 0 {
			return f
		}
		must(t, f.Close())
		<-time.After(f.Unsettled())
	}
}

func TestCleanCapture(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o700))
	tests := []struct{ name, path, content string }{
		{"a file", "file", "content"},
		{"empty", "empty", ""},
		{"deeper", "a/b/c", strings.Repeat("x", 100_000)},
		{"a newline", "a/\n", "y"},
		{"a long name", strings.Repeat("n", 255), "z"},
		{"nobody may write", "readonly", "r"},
	}
	for _, test := range tests {
		path := filepath.Join(root, test.path)
		must(t, os.WriteFile(path, []byte(test.content), 0o600))
		must(t, os.Chmod(path, 0o400))
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(root, test.path)
			for _, root := range []string{root, path} { // as a root of its own, too
				f := open(t, root, path)
				got, err := io.ReadAll(f)
				if err != nil || string(got) != test.content {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				must(t, f.Check())
				must(t, f.Close())
				var st unix.Stat_t
				must(t, unix.Stat(path, &st))
				if f.Facts() != facts.FromStat(&st) {
					t.Errorf("facts %+v", f.Facts())
				}
			}
		})
	}
}

func TestDeepPath(t *testing.T) {
	root := t.TempDir()
	name := strings.Repeat("d", 250)
	fd, err := unix.Open(root, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	path := root
	for range 20 {
		must(t, unix.Mkdirat(fd, name, 0o700))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd, path = next, path+"/"+name
	}
	file, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	must(t, err)
	_, err = unix.Write(file, []byte("deep"))
	must(t, err)
	must(t, unix.Close(file))
	f := open(t, root, path+"/file")
	got, err := io.ReadAll(f)
	if err := errors.Join(err, f.Check(), f.Close()); err != nil || string(got) != "deep" {
		t.Errorf("read %q, %v", got, err)
	}
	must(t, unix.Symlinkat("file", fd, "link"))
	if _, err := capture.Open(root, path+"/link"); !errors.Is(err, capture.ErrNotRegular) {
		t.Errorf("a symlink at depth: %v", err)
	}
	must(t, unix.Close(fd))
}

// TestChangeWhileReading makes one change after half of a file was read.
func TestChangeWhileReading(t *testing.T) {
	old := bytes.Repeat([]byte("old "), 1000)
	tests := []struct {
		name   string
		change func(t *testing.T, path string)
		want   error
	}{
		{"none", func(*testing.T, string) {}, nil},
		{"read by another", func(t *testing.T, path string) {
			_, err := os.ReadFile(path)
			must(t, err)
		}, nil},
		{"overwritten in place", func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("new"), 0)
			must(t, errors.Join(err, f.Close()))
		}, capture.ErrTorn},
		{"overwritten, times put back", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.WriteFile(path, bytes.Repeat([]byte("new "), 1000), 0))
			must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, capture.ErrTorn},
		{"appended", func(t *testing.T, path string) { must(t, os.Truncate(path, 5000)) }, capture.ErrTorn},
		{"cut short", func(t *testing.T, path string) { must(t, os.Truncate(path, 10)) }, capture.ErrTorn},
		{"replaced", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", old, 0o600))
			must(t, os.Rename(path+".new", path))
		}, capture.ErrTorn},
		{"rights changed", func(t *testing.T, path string) { must(t, os.Chmod(path, 0o640)) }, capture.ErrTorn},
		{"deleted", func(t *testing.T, path string) { must(t, os.Remove(path)) }, capture.ErrVanished},
		{"renamed", func(t *testing.T, path string) { must(t, os.Rename(path, path+"2")) }, capture.ErrVanished},
		{"folder renamed", func(t *testing.T, path string) { must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+"2")) }, capture.ErrVanished},
		{"folder swapped", func(t *testing.T, path string) {
			dir := filepath.Dir(path)
			must(t, os.Rename(dir, dir+"2"))
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.WriteFile(path, old, 0o600))
		}, capture.ErrTorn},
		{"folder made a symlink", func(t *testing.T, path string) {
			dir := filepath.Dir(path)
			must(t, os.Rename(dir, dir+"2"))
			must(t, os.Symlink(filepath.Base(dir)+"2", dir))
		}, capture.ErrNotRegular},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "dir/file")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			must(t, os.WriteFile(path, old, 0o600))
			f := open(t, root, path)
			defer f.Close()
			if _, err := io.ReadFull(f, make([]byte, len(old)/2)); err != nil {
				t.Fatal(err)
			}
			test.change(t, path)
			n, err := io.Copy(io.Discard, f)
			if err != nil || n > int64(len(old)/2) {
				t.Errorf("then read %d bytes, %v", n, err)
			}
			if err := f.Check(); !errors.Is(err, test.want) {
				t.Errorf("Check: %v, want %v", err, test.want)
			}
		})
	}
}

// TestJustWritten: a second write within a tick of the clock of file times may
// leave them as they are, so the capture must not count on them.
func TestJustWritten(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	f, err := capture.Open(root, path)
	must(t, err)
	defer f.Close()
	if f.Unsettled() <= 0 || f.Unsettled() > 2*time.Second {
		t.Errorf("unsettled for %v", f.Unsettled())
	}
	if err := f.Check(); !errors.Is(err, capture.ErrTorn) {
		t.Errorf("Check of a file written just now: %v", err)
	}
	must(t, open(t, root, path).Close()) // it does settle
}

func TestWhatIsNotRead(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.WriteFile(at("file"), nil, 0o600))
	must(t, os.Mkdir(at("folder"), 0o700))
	must(t, os.WriteFile(at("folder/file"), nil, 0o600))
	must(t, os.Symlink("file", at("link")))
	must(t, os.Symlink(outside, at("link out")))
	must(t, os.Symlink("folder", at("folder link")))
	must(t, os.Symlink(filepath.Dir(outside), at("folder link out")))
	must(t, os.Symlink("loop", at("loop")))
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	short, err := os.MkdirTemp("", "s") // the name of a socket must be short
	must(t, err)
	defer os.RemoveAll(short)
	l, err := net.Listen("unix", filepath.Join(short, "s"))
	must(t, err)
	defer l.Close()
	must(t, os.Rename(filepath.Join(short, "s"), at("socket")))

	tests := []struct {
		name, path string
		want       error
	}{
		{"a folder", "folder", capture.ErrNotRegular},
		{"a symlink", "link", capture.ErrNotRegular},
		{"a symlink leading out", "link out", capture.ErrNotRegular},
		{"a symlink to itself", "loop", capture.ErrNotRegular},
		{"through a symlink", "folder link/file", capture.ErrNotRegular},
		{"through a symlink leading out", "folder link out/secret", capture.ErrNotRegular},
		{"a FIFO nobody writes to", "fifo", capture.ErrNotRegular},
		{"a socket", "socket", capture.ErrNotRegular},
		{"nothing", "nothing", capture.ErrVanished},
		{"in nothing", "nothing/file", capture.ErrVanished},
		{"below a file", "file/x", capture.ErrVanished},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := capture.Open(root, at(test.path)); !errors.Is(err, test.want) {
				t.Errorf("Open: %v, want %v", err, test.want)
			}
		})
	}
	if _, err := capture.Open("/dev/null", "/dev/null"); !errors.Is(err, capture.ErrNotRegular) {
		t.Errorf("a device: %v", err)
	}
	for _, path := range []string{outside, root + "/../x", root + "x", root + "//file", root + "/folder/../file", root + "/"} {
		if f, err := capture.Open(root, path); err == nil {
			t.Errorf("Open(%q) was accepted", path)
			f.Close()
		}
	}
}

func TestRootBehindASymlink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "real/file"), []byte("x"), 0o600))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("real", link))
	f := open(t, link, filepath.Join(link, "file"))
	must(t, f.Check())
	must(t, f.Close())
}

// TestSymlinkSwap swaps a folder for a symlink that leads out while it is opened.
func TestSymlinkSwap(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "dir"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "dir/file"), []byte("inside"), 0o600))
	must(t, os.WriteFile(filepath.Join(outside, "file"), []byte("escape"), 0o600))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		dir, aside := filepath.Join(root, "dir"), filepath.Join(root, "aside")
		for {
			select {
			case <-stop:
				return
			default:
				err := errors.Join(os.Rename(dir, aside), os.Symlink(outside, dir), os.Remove(dir), os.Rename(aside, dir))
				if err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	defer func() { close(stop); <-done }()
	opened := 0
	for range *captures {
		f, err := capture.Open(root, filepath.Join(root, "dir/file"))
		if err != nil {
			if !errors.Is(err, capture.ErrNotRegular) && !errors.Is(err, capture.ErrVanished) {
				t.Fatal(err)
			}
			continue
		}
		opened++
		if got, err := io.ReadAll(f); err != nil || string(got) != "inside" {
			t.Fatalf("read %q, %v", got, err)
		}
		must(t, f.Close())
	}
	t.Logf("%d of %d opened", opened, *captures)
}

const (
	blockSize = 512
	blocks    = 8
)

// content is a file of blocks that all say generation g.
func content(g uint64) []byte {
	b := make([]byte, blocks*blockSize)
	for at := 0; at < len(b); at += 8 {
		binary.LittleEndian.PutUint64(b[at:], g)
	}
	return b
}

// whole reports whether b is what a file held at one moment, when a writer goes
// from the first block to the last: no block is newer than one before it.
func whole(b []byte) bool {
	first := binary.LittleEndian.Uint64(b)
	last := first
	for at := 8; at < len(b); at += 8 {
		g := binary.LittleEndian.Uint64(b[at:])
		if g > last || g+1 < first {
			return false
		}
		last = g
	}
	return true
}

// TestUnderWriters captures files while 64 writers rewrite them. The writers move
// through the files like a front, and the captures go on just ahead of it: files
// that have settled and are about to be hit. Every block that is read lets some
// writers write.
func TestUnderWriters(t *testing.T) {
	const (
		files   = 1000
		writers = 64
		readers = 4
		front   = 16 // files being written
	)
	root := t.TempDir()
	path := func(i uint64) string { return filepath.Join(root, strconv.FormatUint(i%files, 10)) }
	var locks [files]sync.Mutex // a file has one writer at a time
	var generations [files]uint64
	for i := range uint64(files) {
		must(t, os.WriteFile(path(i), content(0), 0o600))
	}
	var at atomic.Uint64 // where the front is
	turns := make(chan struct{})
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range turns {
				i := (at.Load() + rand.Uint64N(front)) % files
				locks[i].Lock()
				generations[i]++
				if err := rewrite(path(i), generations[i]); err != nil {
					t.Error(err)
				}
				locks[i].Unlock()
			}
		})
	}
	var clean, rejected, caught, unsettled atomic.Int64
	var team sync.WaitGroup
	for range readers {
		team.Go(func() {
			b := make([]byte, blocks*blockSize)
			for clean.Load() < int64(*captures) && !t.Failed() {
				i := at.Add(1) + front + rand.Uint64N(2)
				f, err := capture.Open(root, path(i))
				if err != nil {
					t.Error(err)
					return
				}
				n := 0
				for n < len(b) {
					m, err := f.Read(b[n:min(n+blockSize, len(b))])
					n += m
					if err != nil {
						break
					}
					at.Add(uint64(n / blockSize % 2)) // the front comes nearer
					turns <- struct{}{}
				}
				err = f.Check()
				torn := int64(n) != f.Facts().Size || n > 0 && !whole(b[:n])
				switch {
				case err == nil && torn:
					t.Error("a torn capture was called clean")
				case err == nil:
					clean.Add(1)
				case !errors.Is(err, capture.ErrTorn):
					t.Error(err)
				default:
					rejected.Add(1)
					if torn {
						caught.Add(1)
					}
					if f.Unsettled() > 0 {
						unsettled.Add(1)
					}
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	team.Wait()
	close(turns)
	all.Wait()
	t.Logf("%d clean, %d rejected, of them %d truly torn and %d unsettled", clean.Load(), rejected.Load(), caught.Load(), unsettled.Load())
	if caught.Load() == 0 {
		t.Error("nothing was torn: the test does not test")
	}
}

// rewrite brings a file to generation g, in one of the ways programs do.
func rewrite(path string, g uint64) error {
	flags := os.O_WRONLY
	switch rand.IntN(10) {
	case 0: // written anew beside it
		if err := os.WriteFile(path+".new", content(g), 0o600); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	case 1: // cut and written again
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	for b := content(g); len(b) > 0 && err == nil; b = b[blockSize:] {
		_, err = f.Seek(int64(blocks*blockSize-len(b)), io.SeekStart)
		if err == nil {
			_, err = f.Write(b[:blockSize])
		}
	}
	return errors.Join(err, f.Close())
}

func TestProblem(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, strings.Repeat("n", 256))
	_, err := capture.Open(root, path)
	if p, ok := errors.AsType[*facts.Problem](err); !ok || p.Path != path || p.Reason == "" || p.Fix == "" {
		t.Errorf("Open: %#v", err)
	}
}

func BenchmarkTinyFile(b *testing.B) {
	root := b.TempDir()
	dir := filepath.Join(root, "a/b/c/d")
	must(b, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, "file")
	must(b, os.WriteFile(path, make([]byte, 600), 0o600))
	must(b, open(b, root, path).Close())
	buf := make([]byte, 4096)
	for b.Loop() {
		f, err := capture.Open(root, path)
		must(b, err)
		_, err = f.Metadata()
		must(b, err)
		_, err = f.SkipHoles()
		must(b, err)
		_, err = f.Read(buf)
		must(b, err)
		must(b, f.Check())
		must(b, f.Close())
	}
}
