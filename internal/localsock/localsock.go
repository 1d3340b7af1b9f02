// Package localsock is how a command on this machine reaches the program that
// runs here: a stream that only the same user (and the system's administrator)
// can open. It is a unix socket in a private folder, on Windows a named pipe
// whose name derives from that folder. There is no TCP port.
package localsock

import (
	"context"
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
