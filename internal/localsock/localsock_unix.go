//go:build !windows

package localsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is the longest path a unix socket address holds on every system
// (104 bytes on macOS, 108 on Linux, with the NUL).
const maxSocketPath = 103

// Listen opens the socket of dir, which must exist and be private to its user.
// The caller must hold dir's lock: a socket that is left over is removed. Where the
// system tells who calls, others than this user and root are hung up on, whatever
// the modes of folder and socket say.
func Listen(dir string) (net.Listener, error) {
	path, err := address(dir)
	if err != nil {
		return nil, err
	}
	l, err := listen(path, 0o600)
	if err != nil {
		return nil, err
	}
	return guarded{l}, nil
}

// sharedFolder is where sockets for everybody are: root's alone to write, so what
// is in it was put there by root.
const sharedFolder = "/var/run/backstay"

// ListenShared opens a second socket for dir, which every user of this machine can
// reach. Only root can. The caller must hold dir's lock.
func ListenShared(dir string) (net.Listener, error) {
	path, err := sharedAddress(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(sharedFolder, 0o755); err != nil {
		return nil, fmt.Errorf("listen for other users: %w", err)
	}
	// Whatever the umask took away.
	if err := os.Chmod(sharedFolder, 0o755); err != nil {
		return nil, fmt.Errorf("listen for other users: %w", err)
	}
	return listen(path, 0o666)
}

func listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for local commands: %w", err), l.Close())
	}
	return l, nil
}

// guarded hangs up on other users.
type guarded struct{ *net.UnixListener }

func (g guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, known, err := peer(conn)
		if err == nil && (!known || uid == os.Geteuid() || uid == 0) {
			return conn, nil
		}
		conn.Close()
	}
}

// Dial connects to the program that listens for dir: to its own socket or, where that
// is not there or not for this user, to the shared one.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	path, err := address(dir)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil || !absent(err) && !errors.Is(err, fs.ErrPermission) {
		return conn, err
	}
	if path, serr := sharedAddress(dir); serr == nil {
		if conn, serr := d.DialContext(ctx, "unix", path); serr == nil {
			return conn, nil
		}
	}
	if absent(err) {
		return nil, fmt.Errorf("%w for %s", ErrNotRunning, dir)
	}
	return nil, fmt.Errorf("%w for %s, or it is another user's and answers only them", ErrNotRunning, dir)
}

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func sharedAddress(dir string) (string, error) {
	path, err := socketPath(dir)
	return filepath.Join(sharedFolder, digest(path)+".sock"), err
}

// address is the socket's path in dir or, where that is too long for a socket
// address, in a private folder of this user under the system's temporary one.
func address(dir string) (string, error) {
	path, err := socketPath(dir)
	if err != nil || len(path) <= maxSocketPath {
		return path, err
	}
	private := filepath.Join(os.TempDir(), fmt.Sprintf("backstay-%d", os.Getuid()))
	if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// The temporary folder is everybody's: a folder that another user put at
	// this name must not be trusted.
	info, err := os.Lstat(private)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a private folder of this user; remove it or use a shorter data folder", private)
	}
	return filepath.Join(private, digest(path)+".sock"), nil
}
