package capture_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"backstay/agent/capture"
	"backstay/agent/scan/facts"
)

// TestInUse holds a lease, as a file server does for its clients.
func TestInUse(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	f, err := os.Create(path)
	must(t, err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	must(t, err)
	_, err = capture.Open(root, path)
	if _, ok := errors.AsType[*facts.Problem](err); !ok || !errors.Is(err, capture.ErrInUse) {
		t.Errorf("Open: %v", err)
	}
	must(t, f.Close())
	must(t, open(t, root, path).Close())
}

func TestNameThatIsNotUTF8(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "\xff\xfe")
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	f := open(t, root, path)
	must(t, errors.Join(f.Check(), f.Close()))
}
