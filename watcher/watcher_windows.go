package watcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// changes has one handle per root, read by ReadDirectoryChangesW, and one completion port for all. A handle per directory would
// keep people from renaming the folders above.
type changes struct {
	mu      sync.Mutex // guards all below and the folders' closing
	port    windows.Handle
	folders map[int]*folder // each has a read under way, which writes to it
	last    int             // newest id
	closed  bool

	started sync.Once
	reader  sync.WaitGroup
}

// A folder is one open handle.
type folder struct {
	overlapped windows.Overlapped
	buf        [bufSize]byte // what follows an Overlapped is aligned as the system wants it
	handle     windows.Handle
	path       string
	deep       bool
	q          *queue
	closing    bool // the next completion is its last
}

// bufSize is the most that works over the network.
const bufSize = 64 << 10

const notifyFilter = windows.FILE_NOTIFY_CHANGE_FILE_NAME | windows.FILE_NOTIFY_CHANGE_DIR_NAME |
	windows.FILE_NOTIFY_CHANGE_ATTRIBUTES | windows.FILE_NOTIFY_CHANGE_SIZE | windows.FILE_NOTIFY_CHANGE_LAST_WRITE |
	windows.FILE_NOTIFY_CHANGE_CREATION | windows.FILE_NOTIFY_CHANGE_SECURITY

func newBackend() backend { return &changes{folders: make(map[int]*folder)} }

func (b *changes) recursive() bool { return true }

func (b *changes) watch(dir *os.File, deep bool, q *queue) (int, error) {
	path := dir.Name()
	b.mu.Lock()
	for id, f := range b.folders {
		if f.q == q && f.path == path && !f.closing {
			b.mu.Unlock()
			return id, nil
		}
	}
	b.mu.Unlock()

	handle, err := open(path, windows.FILE_FLAG_OVERLAPPED)
	if err != nil {
		return 0, fmt.Errorf("the system refuses to watch it (%w)", err)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	id := b.last
	f := &folder{handle: handle, path: path, deep: deep, q: q}
	port, err := windows.CreateIoCompletionPort(handle, b.port, uintptr(id), 0)
	if err == nil {
		b.port = port
		err = f.read()
	}
	if err != nil {
		windows.CloseHandle(handle)
		return 0, fmt.Errorf("the system, or the disk, cannot report changes (%w)", err)
	}
	b.folders[id] = f
	b.started.Do(func() { b.reader.Go(b.run) })
	return id, nil
}

// openFlags is for paths too long for openDir, which there are not.
const openFlags = 0

// openDir opens a directory for listing. What leads elsewhere is opened itself unless follow, and lists nothing.
func openDir(path string, follow bool) (*os.File, error) {
	var flags uint32 = windows.FILE_FLAG_OPEN_REPARSE_POINT
	if follow {
		flags = 0
	}
	handle, err := open(path, flags)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// open opens a directory such that others may rename and delete it meanwhile, which os.Open does not.
func open(path string, flags uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(extended(path))
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(name, windows.FILE_LIST_DIRECTORY,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|flags, 0)
}

// extended returns path in the form that may be long.
func extended(path string) string {
	switch {
	case len(path) < 248 || strings.HasPrefix(path, `\\?\`):
		return path
	case strings.HasPrefix(path, `\\`):
		return `\\?\UNC` + path[1:]
	}
	return `\\?\` + path
}

// read asks for the next changes. The system keeps those that happen between two reads.
func (f *folder) read() error {
	f.overlapped = windows.Overlapped{}
	return windows.ReadDirectoryChanges(f.handle, &f.buf[0], bufSize, f.deep, notifyFilter, nil, &f.overlapped, 0)
}

func (b *changes) unwatch(id int, _ *queue) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.folders[id]; f != nil {
		f.cancel()
	}
}

// cancel has the read under way completed, after which the handle is closed. The caller holds mu.
func (f *folder) cancel() {
	f.closing = true
	windows.CancelIoEx(f.handle, &f.overlapped) // fails if it has completed: then that is the last completion
}

func (b *changes) close() {
	b.mu.Lock()
	b.closed = true
	for _, f := range b.folders {
		f.cancel()
	}
	if b.port != 0 {
		windows.PostQueuedCompletionStatus(b.port, 0, 0, nil) // in case there is none
	}
	b.mu.Unlock()
	b.reader.Wait()
	if b.port != 0 {
		windows.CloseHandle(b.port)
	}
}

// run takes completions until the backend is closed and every read has ended.
func (b *changes) run() {
	for {
		var n uint32
		var key uintptr
		var overlapped *windows.Overlapped
		err := windows.GetQueuedCompletionStatus(b.port, &n, &key, &overlapped, windows.INFINITE)
		b.mu.Lock()
		if f := b.folders[int(key)]; f != nil {
			b.completed(int(key), f, int(n), err)
		}
		done := b.closed && len(b.folders) == 0
		b.mu.Unlock()
		if done {
			return
		}
	}
}

// completed passes on what a read has given and starts the next. The caller holds mu.
func (b *changes) completed(id int, f *folder, n int, err error) {
	switch {
	case f.closing:
	case errors.Is(err, windows.ERROR_NOTIFY_ENUM_DIR), err == nil && n == 0:
		f.q.lose()
		err = nil
	case err == nil:
		for c := range parseChanges(f.buf[:min(n, bufSize)]) {
			f.q.push(c.event(id, f.path))
		}
	}
	if !f.closing && err == nil {
		err = f.read()
		if err == nil {
			return
		}
	}
	windows.CloseHandle(f.handle)
	delete(b.folders, id)
	if !f.closing {
		f.q.push(event{id: id, what: ended}) // the folder was deleted, or its disk is gone
	}
}

// A change is one FILE_NOTIFY_INFORMATION.
type change struct {
	action uint32
	name   string
}

// parseChanges yields what one read has given. It stops at what is not whole, which the system does not produce.
func parseChanges(buf []byte) iter.Seq[change] {
	return func(yield func(change) bool) {
		for len(buf) >= 12 {
			next := binary.LittleEndian.Uint32(buf)
			action := binary.LittleEndian.Uint32(buf[4:])
			size := binary.LittleEndian.Uint32(buf[8:])
			if uint64(size) > uint64(len(buf)-12) {
				return
			}
			name := make([]uint16, size/2)
			for i := range name {
				name[i] = binary.LittleEndian.Uint16(buf[12+2*i:])
			}
			if !yield(change{action, windows.UTF16ToString(name)}) || next == 0 || uint64(next) > uint64(len(buf)) {
				return
			}
			buf = buf[next:]
		}
	}
}

// event makes an event of c. Whether the name is a directory's is not known.
func (c change) event(id int, dir string) event {
	e := event{id: id, name: longName(dir, c.name)}
	switch c.action {
	case windows.FILE_ACTION_ADDED, windows.FILE_ACTION_RENAMED_NEW_NAME:
		e.what = appeared
	case windows.FILE_ACTION_REMOVED, windows.FILE_ACTION_RENAMED_OLD_NAME:
		e.what = vanished
	}
	return e
}

// longName returns the full form of a name below dir: who opens a file by its short form (PROGRA~1) has it reported so. What
// is gone keeps the name it was reported by.
func longName(dir, name string) string {
	if !strings.Contains(name, "~") {
		return name
	}
	short, err := windows.UTF16PtrFromString(extended(join(dir, name)))
	if err != nil {
		return name
	}
	base, err := windows.UTF16PtrFromString(extended(dir))
	if err != nil {
		return name
	}
	long, longDir := longPath(short), longPath(base)
	if rel, ok := strings.CutPrefix(long, join(longDir, "")); ok && longDir != "" {
		return rel
	}
	return name
}

// longPath returns the full form of an existing path, or nothing.
func longPath(path *uint16) string {
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetLongPathName(path, unsafe.SliceData(buf), uint32(len(buf)))
	if err != nil || int(n) > len(buf) {
		return ""
	}
	return windows.UTF16ToString(buf[:n])
}
