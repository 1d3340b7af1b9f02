package watcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An inotify is one instance of the kernel's inotify, shared by all roots since a user has few of them. The kernel keeps one
// watch per directory and instance, known by a descriptor whatever the directory is called. The descriptors are what ties
// notices to the trees; the trees alone know names, which renames and mounts make ambiguous.
type inotify struct {
	mu      sync.Mutex // guards all below; never held while the kernel looks up a path, which may hang
	file    *os.File   // nil until first used
	fd      int        // of file, whose Fd method would make reading block
	queues  map[int][]*queue
	removed int // counts removed watches

	reader sync.WaitGroup
}

// wanted selects the notices. IN_MODIFY is for files that stay open, IN_CLOSE_WRITE for those written through a mapping. The
// end of a watch is always reported.
const wanted = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MOVE_SELF |
	unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

func newBackend() backend { return &inotify{queues: make(map[int][]*queue)} }

func (b *inotify) recursive() bool { return false }

func (b *inotify) watch(dir *os.File, _ bool, q *queue) (int, error) {
	// By descriptor it is the very directory that will be read, and its path may be longer than the system takes.
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd()))
	for {
		fd, removed, err := b.start()
		if err != nil {
			return 0, err
		}
		id, err := unix.InotifyAddWatch(fd, path, wanted)
		if errors.Is(err, unix.ENOSPC) {
			return 0, fmt.Errorf("the system's limit of %s watched folders is reached; raise fs.inotify.max_user_watches", limit("watches"))
		} else if err != nil {
			return 0, fmt.Errorf("the system refuses to watch it (%w)", err)
		}
		if b.subscribe(id, q, removed) {
			return id, nil
		}
	}
}

// start returns the descriptor of the instance, made when first needed, and how many watches were removed so far.
func (b *inotify) start() (fd, removed int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if errors.Is(err, unix.EMFILE) {
			return 0, 0, fmt.Errorf("the system's limit of %s inotify instances is reached; raise fs.inotify.max_user_instances", limit("instances"))
		} else if err != nil {
			return 0, 0, fmt.Errorf("the system offers no inotify (%w)", err)
		}
		b.fd, b.file = fd, os.NewFile(uintptr(fd), "inotify")
		b.reader.Go(b.read)
	}
	return b.fd, b.removed, nil
}

// subscribe has notices of a watch go to q. It reports false if some watch was removed meanwhile: it may have been this one,
// which another root had.
func (b *inotify) subscribe(id int, q *queue, removed int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.removed != removed {
		return false
	}
	if !slices.Contains(b.queues[id], q) {
		b.queues[id] = append(b.queues[id], q)
	}
	return true
}

func (b *inotify) unwatch(id int, q *queue) {
	b.mu.Lock()
	defer b.mu.Unlock()
	had := len(b.queues[id])
	left := slices.DeleteFunc(b.queues[id], func(other *queue) bool { return other == q })
	switch {
	case len(left) > 0:
		b.queues[id] = left
	case had > 0: // else the kernel has removed the watch
		delete(b.queues, id)
		b.removed++
		unix.InotifyRmWatch(b.fd, uint32(id)) // fails if the kernel is just removing it
	}
}

func (b *inotify) close() {
	b.mu.Lock()
	if b.file != nil {
		b.file.Close()
	}
	b.mu.Unlock()
	b.reader.Wait()
}

// read passes notices on until the instance is closed. Reading fails for no other reason.
func (b *inotify) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := b.file.Read(buf)
		if err != nil {
			return
		}
		b.mu.Lock()
		for raw := range notices(buf[:n]) {
			b.dispatch(raw)
		}
		b.mu.Unlock()
	}
}

// dispatch passes one notice on to those it concerns. The caller holds mu.
func (b *inotify) dispatch(raw notice) {
	if raw.mask&unix.IN_Q_OVERFLOW != 0 {
		for _, queues := range b.queues {
			for _, q := range queues {
				q.lose()
			}
		}
		return
	}
	e := event{id: raw.wd, name: raw.name}
	switch {
	case raw.mask&unix.IN_IGNORED != 0:
		e.what = ended
	case raw.mask&unix.IN_UNMOUNT != 0:
		e.what = mounted
	case raw.mask&unix.IN_MOVE_SELF != 0:
		e.what = maybeMoved
	case raw.name == "" || raw.mask&unix.IN_ISDIR == 0:
	case raw.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
		e.what = isDir | appeared
	case raw.mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
		e.what = isDir | vanished
	default:
		e.what = isDir
	}
	for _, q := range b.queues[raw.wd] {
		q.push(e)
	}
	if e.what == ended {
		delete(b.queues, raw.wd)
	}
}

// A notice is one struct inotify_event.
type notice struct {
	wd   int
	mask uint32
	name string
}

// notices yields what one read has given. It stops at what is not whole, which the kernel does not produce.
func notices(buf []byte) iter.Seq[notice] {
	return func(yield func(notice) bool) {
		for len(buf) >= unix.SizeofInotifyEvent {
			wd := int32(binary.NativeEndian.Uint32(buf))
			mask := binary.NativeEndian.Uint32(buf[4:])
			size := binary.NativeEndian.Uint32(buf[12:]) // after a cookie
			buf = buf[unix.SizeofInotifyEvent:]
			if uint64(size) > uint64(len(buf)) {
				return
			}
			name, _, _ := bytes.Cut(buf[:size], []byte{0})
			if !yield(notice{int(wd), mask, string(name)}) {
				return
			}
			buf = buf[size:]
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

// mounts describes the filesystems mounted below a place. inotify tells of unmounting only.
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
