// Package localsock is how a command on this machine reaches the program that
// runs here: a stream that only the same user (and the system's administrator)
// can open. It is a unix socket in a private folder, on Windows a named pipe
// whose name derives from that folder. There is no TCP port.
//
// A program of the whole machine can have a second door, which everybody on it can
// open ([ListenShared]). Which rights a caller has is a matter of the door alone.
package localsock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"path/filepath"
)

// ErrNotRunning says that no program answers at the place named.
var ErrNotRunning = errors.New("no running program answers")

// Client returns an HTTP client whose every request goes to the program that
// listens for dir; the host in a request's URL is not used. Requests end with an
// error that wraps ErrNotRunning when nothing listens.
func Client(dir string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, dir) },
	}}
}

func socketPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(abs, "control.sock"), nil
}

// digest names a socket or pipe by the path it stands for.
func digest(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}
