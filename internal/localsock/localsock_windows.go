package localsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// Listen opens the named pipe of dir for this user, administrators and the
// system, and nobody else.
func Listen(dir string) (net.Listener, error) {
	name, err := pipeName(dir)
	if err != nil {
		return nil, err
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	// Protected DACL: full access for SYSTEM, Administrators and this user.
	sddl := fmt.Sprintf("D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;%s)", user.User.Sid)
	return listen(name, sddl)
}

// sharedSuffix tells the name of the pipe for everybody from the private one's.
const sharedSuffix = "-shared"

// everybody is what a caller of the shared pipe may do: read and write, and not make
// another instance of it, which would let them answer in its place.
const everybody = (windows.FILE_GENERIC_READ | windows.FILE_GENERIC_WRITE) &^ windows.FILE_APPEND_DATA

// ListenShared opens a second pipe for dir, which every user who is logged in on this
// machine can reach, and nobody over the network.
func ListenShared(dir string) (net.Listener, error) {
	name, err := pipeName(dir)
	if err != nil {
		return nil, err
	}
	return listen(name+sharedSuffix, fmt.Sprintf("D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;%#x;;;AU)", everybody))
}

func listen(name, sddl string) (net.Listener, error) {
	l, err := winio.ListenPipe(name, &winio.PipeConfig{SecurityDescriptor: sddl})
	if err != nil {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	return l, nil
}

// Dial connects to the program that listens for dir: to its own pipe or, where that is
// not there or not for this user, to the shared one.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	name, err := pipeName(dir)
	if err != nil {
		return nil, err
	}
	conn, err := winio.DialPipeContext(ctx, name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return conn, err
	}
	if conn, serr := winio.DialPipeAccess(ctx, name+sharedSuffix, everybody); serr == nil {
		return conn, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w for %s", ErrNotRunning, dir)
	}
	return nil, fmt.Errorf("%w for %s, or it is another user's and answers only them", ErrNotRunning, dir)
}

func pipeName(dir string) (string, error) {
	path, err := socketPath(dir)
	if err != nil {
		return "", err
	}
	// Windows paths are the same in any case; the pipe's name must be too.
	return `\\.\pipe\backstay-` + digest(strings.ToLower(path)), nil
}
