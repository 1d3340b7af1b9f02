package cmd_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"backstay/agent/localapi"
)

// The keeper starts the agent again when it is killed, and both end when the keeper is
// asked to.
func TestKeeperRestartsTheAgent(t *testing.T) {
	l := newLab(t)
	keeper := start(t, l.dir, nil, "agent", "service", "keep", "--config", l.conf, "--state", l.state)
	l.until(localapi.NotSetUp)
	kill(t, l.state)
	if _, err := keeper.wait("failed and is started again"); err != nil {
		t.Fatal(err)
	}
	l.until(localapi.NotSetUp)
	if code, err := keeper.end(); code != 0 || err != nil {
		t.Fatalf("ends with %d, %v", code, err)
	}
	l.agent(4, "status")
	// Without its keeper, the agent does not stay behind.
	keeper = start(t, l.dir, nil, "agent", "service", "keep", "--config", l.conf, "--state", l.state)
	l.until(localapi.NotSetUp)
	keeper.kill()
	waitFor(t, func() (bool, string) {
		out, code := run(t, l.dir, "agent", "status", "--config", l.conf, "--state", l.state)
		return code == 4, out
	})
}

// kill kills the process that holds a state folder.
func kill(t *testing.T, state string) {
	t.Helper()
	lock := filepath.Join(state, "lock")
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != lock {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(fd, "/")[2])
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no process holds %s", lock)
}
