//go:build darwin && cgo

package watcher

/*
#cgo LDFLAGS: -framework CoreServices
#include <CoreServices/CoreServices.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/param.h>

extern void watcherChanged(uintptr_t handle, size_t n, char **paths, FSEventStreamEventFlags *flags);

static inline void changed(ConstFSEventStreamRef stream, void *handle, size_t n, void *paths,
		const FSEventStreamEventFlags *flags, const FSEventStreamEventId *ids) {
	watcherChanged((uintptr_t)handle, n, (char **)paths, (FSEventStreamEventFlags *)flags);
}

// start returns NULL if the system refuses. That the system gathers for 50 ms spares wake-ups.
static inline FSEventStreamRef start(const char *path, uintptr_t handle, dispatch_queue_t queue) {
	CFStringRef name = CFStringCreateWithFileSystemRepresentation(NULL, path);
	if (name == NULL)
		return NULL;
	CFArrayRef names = CFArrayCreate(NULL, (const void **)&name, 1, &kCFTypeArrayCallBacks);
	FSEventStreamContext context = {0, (void *)handle, NULL, NULL, NULL};
	FSEventStreamRef stream = FSEventStreamCreate(NULL, changed, &context, names, kFSEventStreamEventIdSinceNow, 0.05,
		kFSEventStreamCreateFlagFileEvents | kFSEventStreamCreateFlagNoDefer | kFSEventStreamCreateFlagWatchRoot);
	CFRelease(names);
	CFRelease(name);
	if (stream == NULL)
		return NULL;
	FSEventStreamSetDispatchQueue(stream, queue);
	if (!FSEventStreamStart(stream)) {
		FSEventStreamInvalidate(stream);
		FSEventStreamRelease(stream);
		return NULL;
	}
	return stream;
}

static inline void nothing(void *unused) {}

// stop returns when the last callback has.
static inline void stop(FSEventStreamRef stream, dispatch_queue_t queue) {
	FSEventStreamStop(stream);
	FSEventStreamInvalidate(stream);
	FSEventStreamRelease(stream);
	dispatch_sync_f(queue, NULL, nothing);
}

static inline dispatch_queue_t newQueue(void) { return dispatch_queue_create("watcher", DISPATCH_QUEUE_SERIAL); }
static inline void freeQueue(dispatch_queue_t queue) { dispatch_release(queue); }

// pathOf writes the true name of an open file, spelt as on the disk and without symbolic links, which is how events name it.
static inline int pathOf(int fd, char *buf) { return fcntl(fd, F_GETPATH, buf); }
*/
import "C"

import (
	"errors"
	"os"
	"runtime/cgo"
	"strings"
	"sync"
	"unsafe"
)

// fsevents has one FSEvents stream per root.
type fsevents struct {
	callbacks C.dispatch_queue_t

	mu      sync.Mutex // guards all below; callbacks do not take it
	streams map[int]*stream
	last    int // newest id
}

// A stream is one watch.
type stream struct {
	ref    C.FSEventStreamRef
	handle cgo.Handle // of the stream itself, for the callback
	id     int
	path   string // as events spell it
	deep   bool
	q      *queue
}

func newBackend() backend {
	return &fsevents{callbacks: C.newQueue(), streams: make(map[int]*stream)}
}

func (b *fsevents) recursive() bool { return true }

func (b *fsevents) watch(dir *os.File, deep bool, q *queue) (int, error) {
	buf := make([]byte, C.MAXPATHLEN)
	if C.pathOf(C.int(dir.Fd()), (*C.char)(unsafe.Pointer(unsafe.SliceData(buf)))) != 0 {
		return 0, errors.New("the system does not tell the folder's true name")
	}
	path := C.GoString((*C.char)(unsafe.Pointer(unsafe.SliceData(buf))))

	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.streams {
		if s.q == q && s.path == path {
			return id, nil
		}
	}
	b.last++
	s := &stream{id: b.last, path: path, deep: deep, q: q}
	s.handle = cgo.NewHandle(s)
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if s.ref = C.start(name, C.uintptr_t(s.handle), b.callbacks); s.ref == nil {
		s.handle.Delete()
		return 0, errors.New("the system refuses to report changes (FSEvents)")
	}
	b.streams[s.id] = s
	return s.id, nil
}

func (b *fsevents) unwatch(id int, _ *queue) {
	b.mu.Lock()
	s := b.streams[id]
	delete(b.streams, id)
	b.mu.Unlock()
	if s != nil {
		C.stop(s.ref, b.callbacks)
		s.handle.Delete()
	}
}

func (b *fsevents) close() {
	b.mu.Lock()
	streams := b.streams
	b.streams = nil
	b.mu.Unlock()
	for _, s := range streams {
		C.stop(s.ref, b.callbacks)
		s.handle.Delete()
	}
	C.freeQueue(b.callbacks)
}

//export watcherChanged
func watcherChanged(handle C.uintptr_t, n C.size_t, paths **C.char, flags *C.FSEventStreamEventFlags) {
	s := cgo.Handle(handle).Value().(*stream)
	names := unsafe.Slice(paths, int(n))
	for i, f := range unsafe.Slice(flags, int(n)) {
		s.changed(C.GoString(names[i]), uint32(f))
	}
}

// changed passes one event on. Its flags may be those of several changes merged.
func (s *stream) changed(path string, flags uint32) {
	const (
		lost    = C.kFSEventStreamEventFlagMustScanSubDirs
		moved   = C.kFSEventStreamEventFlagRootChanged
		mount   = C.kFSEventStreamEventFlagMount | C.kFSEventStreamEventFlagUnmount
		changed = C.kFSEventStreamEventFlagItemCreated | C.kFSEventStreamEventFlagItemRenamed
	)
	e := event{id: s.id}
	switch {
	case flags&lost != 0:
		s.q.lose()
		return
	case flags&moved != 0:
		e.what = maybeMoved
	case flags&mount != 0:
		e.what = mounted
	case len(path) < len(s.path) || !strings.EqualFold(path[:len(s.path)], s.path):
		s.q.lose() // it is under a name that cannot be related to the root's
		return
	default:
		e.name = strings.Trim(path[len(s.path):], "/")
		if e.name != "" && flags&changed != 0 {
			e.what = appeared
		}
		if !s.deep && strings.Contains(e.name, "/") {
			return // a stream always covers subdirectories
		}
	}
	s.q.push(e)
}
