//go:build !windows

package localsock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
// The caller must hold dir's lock: a socket that is left over is removed.
func Listen(dir string) (net.Listener, error) {
	path, err := address(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for local commands: %w", err), l.Close())
	}
	return l, nil
}

// Dial connects to the program that listens for dir.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	path, err := address(dir)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w for %s", ErrNotRunning, dir)
	}
	return conn, err
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
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(private, hex.EncodeToString(sum[:16])+".sock"), nil
}
