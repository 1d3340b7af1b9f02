package localsock

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// nobody is a user who is not this one.
const nobody = 65534

// as runs f on a thread that belongs to another user. Only Linux has that, and only
// root may.
func as(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			t.Errorf("become user %d: %v", uid, e)
			return
		}
		f()
	}()
	<-done
}

// connect connects this thread's user to a socket and returns what the other side
// sends, or the error of connecting.
func connect(path string) (string, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return "", err
	}
	buf := make([]byte, 10)
	n, err := syscall.Read(fd, buf)
	if errors.Is(err, syscall.ECONNRESET) {
		n, err = 0, nil
	}
	return string(buf[:max(n, 0)]), err
}

func greet(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "hello")
		conn.Close()
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	// Not below t.TempDir, whose parents may be closed to others.
	dir, err := os.MkdirTemp("/tmp", "backstay-peer-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go greet(l)
	path := l.Addr().String()
	as(t, nobody, func() {
		if _, err := connect(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("another user reaches the socket: %v", err)
		}
	})
	// Somebody opens folder and socket, by mistake.
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	as(t, nobody, func() {
		if got, err := connect(path); got != "" || err != nil {
			t.Errorf("another user is answered %q, %v; want to be hung up on", got, err)
		}
	})
	if got, err := connect(path); got != "hello" || err != nil {
		t.Errorf("afterwards the same user gets %q, %v", got, err)
	}
}

func TestSharedIsForEverybody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can open the shared socket")
	}
	dir := t.TempDir()
	l, err := ListenShared(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go greet(l)
	as(t, nobody, func() {
		if got, err := connect(l.Addr().String()); got != "hello" || err != nil {
			t.Errorf("another user gets %q, %v", got, err)
		}
	})
	// Who has no access to the folder, or finds no socket in it, comes here.
	conn, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
