// Package protocol_test runs the tests of the reader in testdata/reader: a second
// implementation of SPEC.md, in Python, that shares no code with this one.
package protocol_test

import (
	"os"
	"os/exec"
	"testing"
)

func TestReader(t *testing.T) {
	python := findPython(t)
	cmd := exec.Command(python, "-B", "-W", "error", "-m", "unittest")
	cmd.Dir = "testdata/reader"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}

// findPython returns a Python that has the packages which the reader needs. The
// system's is tried, too: another one may come first in PATH without them.
func findPython(t *testing.T) string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import cryptography, zstandard").Run() == nil {
			return name
		}
	}
	const why = "no python3 with the packages cryptography and zstandard"
	if os.Getenv("BACKSTAY_REQUIRE") == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}
