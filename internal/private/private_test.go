package private_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"backstay/internal/private"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := private.ReadFile(path); err != nil || string(b) != "secret" {
		t.Fatalf("%q, %v", b, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := private.ReadFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "secret") {
		t.Fatalf("a file of mode 640: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: the owner is not tested")
		return
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := private.ReadFile(path); err == nil || !strings.Contains(err.Error(), "chown") {
		t.Fatalf("a file of somebody else: %v", err)
	}
}
