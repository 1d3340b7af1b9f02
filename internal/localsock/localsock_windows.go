package localsock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	l, err := winio.ListenPipe(name, &winio.PipeConfig{SecurityDescriptor: sddl})
	if err != nil {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	return l, nil
}

// Dial connects to the program that listens for dir.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	name, err := pipeName(dir)
	if err != nil {
		return nil, err
	}
	conn, err := winio.DialPipeContext(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w for %s", ErrNotRunning, dir)
	}
	return conn, err
}

func pipeName(dir string) (string, error) {
	path, err := socketPath(dir)
	if err != nil {
		return "", err
	}
	// Windows paths are the same in any case; the pipe's name must be too.
	sum := sha256.Sum256([]byte(strings.ToLower(path)))
	return `\\.\pipe\backstay-` + hex.EncodeToString(sum[:16]), nil
}
