package watcher

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// A notifier is one fsnotify.Watcher, shared by all roots since a user has few of the inotify instances beneath.
//
// fsnotify knows a directory by the name it was added under, for as long as it is neither moved nor deleted. Real names are
// of no use for that: they change with every folder above, lead elsewhere in the next moment, may be too long, and one
// directory may have several. So a directory is added as a descriptor in /proc, which leads to the very directory that will
// be read, under a name that is used only once; see spell. The trees alone know real names.
type notifier struct {
	adding sync.Mutex // makes watch, unwatch and audit happen one at a time. The reader must not need it: see mu
	fs     *fsnotify.Watcher
	again  []*os.File // each is /proc/self/fd, in which it is found itself
	spelt  uint32     // names given out

	mu     sync.Mutex // guards all below; never held while fsnotify is called, which may wait for the reader
	byName map[string]*watch
	byID   map[int]*watch
	byFile map[file]*watch
	blurry map[file]bool // several directories at once claimed to be this one
	last   int           // newest id

	stop chan struct{} // closed by close
	work sync.WaitGroup
}

// A watch is one directory known to fsnotify.
type watch struct {
	id     int
	name   string
	file   file
	queues []*queue
}

// A file tells directories apart as long as they exist.
type file struct{ dev, ino uint64 }

func newBackend() backend {
	return &notifier{
		byName: make(map[string]*watch), byID: make(map[int]*watch), byFile: make(map[file]*watch),
		blurry: make(map[file]bool), stop: make(chan struct{}),
	}
}

func (b *notifier) recursive() bool { return false }

func (b *notifier) watch(dir *os.File, _ bool, q *queue) (int, error) {
	info, err := dir.Stat()
	if err != nil {
		return 0, fmt.Errorf("its identity cannot be read (%w)", reason(err))
	}
	stat := info.Sys().(*syscall.Stat_t)
	which := file{stat.Dev, stat.Ino}

	b.adding.Lock()
	defer b.adding.Unlock()
	if err := b.start(); err != nil {
		return 0, err
	}
	for {
		old, w, err := b.enter(which, b.spell(dir), q)
		if err != nil {
			return 0, err
		}
		err = b.fs.Add(w.name)
		switch {
		case errors.Is(err, unix.ENOSPC):
			err = fmt.Errorf("the system's limit of %s watched folders is reached; raise fs.inotify.max_user_watches", limit("watches"))
		case err != nil:
			err = fmt.Errorf("the system refuses to watch it (%w)", err)
		case old == nil:
			return w.id, nil
		}
		b.forget(w)
		if err != nil {
			return 0, err
		}
		// fsnotify keeps the first name of a directory, and does not say so.
		if err := b.fs.Remove(w.name); errors.Is(err, fsnotify.ErrNonExistentWatch) {
			if b.join(old, q) {
				return old.id, nil
			}
			continue
		}
		// The old watch was of another directory. If that still exists, numbers do not tell directories apart here.
		if b.fs.Remove(old.name) == nil {
			b.mu.Lock()
			b.blurry[which] = true
			b.mu.Unlock()
		}
		b.end(old)
	}
}

// enter makes q hear of a new watch, before it begins, and returns the one that the directory seems to have already.
func (b *notifier) enter(which file, name string, q *queue) (old, w *watch, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blurry[which] {
		return nil, nil, errors.New("its filesystem gives several folders the same number, so they cannot be told apart")
	}
	b.last++
	w = &watch{b.last, name, which, []*queue{q}}
	b.byName[w.name], b.byID[w.id] = w, w
	if old = b.byFile[which]; old == nil {
		b.byFile[which] = w
	}
	return old, w, nil
}

// join has notices of w go to q too. It reports false if w has ended meanwhile.
func (b *notifier) join(w *watch, q *queue) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byID[w.id] != w {
		return false
	}
	if !slices.Contains(w.queues, q) {
		w.queues = append(w.queues, q)
	}
	return true
}

func (b *notifier) forget(w *watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetLocked(w)
}

func (b *notifier) forgetLocked(w *watch) {
	delete(b.byName, w.name)
	delete(b.byID, w.id)
	if b.byFile[w.file] == w {
		delete(b.byFile, w.file)
	}
}

// end forgets a watch that fsnotify has given up, and says so.
func (b *notifier) end(w *watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endLocked(w)
}

func (b *notifier) endLocked(w *watch) {
	if b.byID[w.id] != w {
		return
	}
	b.forgetLocked(w)
	for _, q := range w.queues {
		q.push(event{id: w.id, what: ended})
	}
}

func (b *notifier) unwatch(id int, q *queue) {
	b.adding.Lock()
	defer b.adding.Unlock()
	b.mu.Lock()
	w := b.byID[id]
	if w == nil {
		b.mu.Unlock()
		return // it has ended
	}
	w.queues = slices.DeleteFunc(slices.Clone(w.queues), func(other *queue) bool { return other == q })
	last := len(w.queues) == 0
	if last {
		b.forgetLocked(w)
	}
	b.mu.Unlock()
	if last {
		b.fs.Remove(w.name) // fails if it is just ending
	}
}

// spellings is the base in which spell counts. Links are followed forty times at most.
const spellings = 16

// start makes the watcher when it is first needed.
func (b *notifier) start() error {
	if b.fs != nil {
		return nil
	}
	for len(b.again) < spellings {
		f, err := os.Open("/proc/self/fd")
		if err != nil {
			return fmt.Errorf("folders cannot be named by descriptor (%w); mount /proc", reason(err))
		}
		b.again = append(b.again, f)
	}
	fs, err := fsnotify.NewBufferedWatcher(1024)
	if errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("the system's limit of %s inotify instances is reached; raise fs.inotify.max_user_instances", limit("instances"))
	} else if err != nil {
		return fmt.Errorf("the system offers no inotify (%w)", err)
	}
	b.fs = fs
	b.work.Go(b.read)
	if table, err := os.Open("/proc/self/mountinfo"); err == nil { // before the first watch, to miss nothing
		b.work.Go(func() { b.auditAfterMounts(table) })
	}
	return nil
}

// spell returns a name of dir that no directory ever had. It goes through links in /proc/self/fd that lead back there, one for
// each digit of a number that is counted up, and then through the link to dir.
func (b *notifier) spell(dir *os.File) string {
	name := []byte("/proc/self/fd/")
	for n, i := b.spelt, 0; i < 8; n, i = n/spellings, i+1 {
		name = append(strconv.AppendInt(name, int64(b.again[n%spellings].Fd()), 10), '/')
	}
	b.spelt++
	return string(strconv.AppendInt(name, int64(dir.Fd()), 10))
}

func (b *notifier) close() {
	close(b.stop)
	if b.fs != nil {
		b.fs.Close()
	}
	b.work.Wait()
	for _, f := range b.again {
		f.Close()
	}
}

// read passes on what comes until the watcher is closed.
func (b *notifier) read() {
	for {
		select {
		case e, ok := <-b.fs.Events:
			if !ok {
				return
			}
			b.dispatch(e)
		case err, ok := <-b.fs.Errors:
			if !ok {
				return
			}
			// A folder that was moved and then deleted has no watch left to remove, which is EINVAL. All else, overflow first
			// of all, may have cost notices.
			if !errors.Is(err, unix.EINVAL) {
				b.loseAll()
			}
		}
	}
}

func (b *notifier) loseAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.byID {
		for _, q := range w.queues {
			q.lose()
		}
	}
}

// dispatch passes one notice on to those it concerns.
func (b *notifier) dispatch(n fsnotify.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w, name := b.byName[n.Name], ""
	if w == nil {
		i := strings.LastIndexByte(n.Name, '/')
		if w, name = b.byName[n.Name[:i]], n.Name[i+1:]; w == nil {
			return // of a watch that is no more
		}
	}
	e := event{id: w.id, name: name}
	switch {
	case name == "" && n.Op&(fsnotify.Remove|fsnotify.Rename) != 0:
		b.endLocked(w) // a folder that is moved loses its watch
		return
	case name == "":
	case n.Op.Has(fsnotify.Create):
		e.what = appeared
	case n.Op&(fsnotify.Remove|fsnotify.Rename) != 0:
		e.what = vanished
	case n.Op.Has(fsnotify.Chmod):
		e.what = touched
	}
	for _, q := range w.queues {
		q.push(e)
	}
}

// auditAfterMounts finds the watches that end because their filesystem is unmounted, of which fsnotify says nothing. Comparing
// what is mounted does not always tell: a disk may be taken out and put back between two looks.
func (b *notifier) auditAfterMounts(table *os.File) {
	defer table.Close()
	fds := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for due := 0; ; {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
		if n, _ := unix.Poll(fds, 0); n > 0 {
			due = 2 // the second time because fsnotify may be behind
		}
		if due > 0 {
			due--
			b.audit()
		}
	}
}

// audit ends the watches that fsnotify does not have any more.
func (b *notifier) audit() {
	b.adding.Lock()
	defer b.adding.Unlock()
	has := make(map[string]bool)
	for _, name := range b.fs.WatchList() {
		has[name] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.byID {
		if !has[w.name] {
			b.endLocked(w)
		}
	}
}

// limit returns the system's limit of inotify watches or instances, for a person to read. The stricter of two counts.
func limit(of string) string {
	least := "unknown"
	for _, file := range []string{"/proc/sys/fs/inotify/max_user_" + of, "/proc/sys/user/max_inotify_" + of} {
		text, err := os.ReadFile(file)
		n, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
		if old, errOld := strconv.Atoi(least); err == nil && err2 == nil && (errOld != nil || n < old) {
			least = strconv.Itoa(n)
		}
	}
	return least
}

// mounts describes the filesystems mounted below a place, of which fsnotify does not tell.
func mounts(at place) string {
	if at.only != "" {
		return ""
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	below := mountEscapes.Replace(join(at.dir, ""))
	var found strings.Builder
	for line := range strings.Lines(string(table)) {
		// mount id, parent's id, device, root, mount point, …
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], below) {
			fmt.Fprintln(&found, f[0], f[2], f[3], f[4])
		}
	}
	return found.String()
}

// mountEscapes writes a path as the mount table does.
var mountEscapes = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
