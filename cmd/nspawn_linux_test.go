package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"backstay/agent/localapi"
	"backstay/agent/service"
)

// container is a booted Debian with a systemd, a D-Bus and logins of its
// own, and this machine's network. What is changed in it is gone when it ends.
type container struct {
	testing.TB
	leader string // the process id of its first process
}

// system is what is put into the container besides the smallest Debian.
const system = "systemd,dbus,libpam-systemd,dbus-user-session"

// boot starts a container with the programs of a folder in /opt/backstay.
func boot(tb testing.TB, programs string) *container {
	tb.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "only root can boot a container"
	}
	for _, tool := range []string{"debootstrap", "systemd-nspawn", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil && missing == "" {
			missing = err.Error() + " (Debian: debootstrap, systemd-container, util-linux)"
		}
	}
	if missing != "" {
		// Root with the tools is asked for; whoever tests as somebody else did not
		// mean this.
		if os.Getenv("BACKSTAY_REQUIRE") == "all" && os.Geteuid() == 0 {
			tb.Fatal(missing)
		}
		tb.Skip(missing)
	}
	root := debian(tb)
	cmd := exec.Command("systemd-nspawn", "--quiet", "--directory="+root, "--volatile=overlay",
		"--machine=backstay-"+strconv.Itoa(os.Getpid()), "--register=no", "--keep-unit", "--console=pipe",
		"--bind-ro="+programs+":/opt/backstay", "--boot")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	m := &container{TB: tb}
	tb.Cleanup(func() {
		if m.leader != "" {
			_ = exec.Command("nsenter", "--target", m.leader, "--all", "--", "systemctl", "poweroff").Run()
			select {
			case <-ended:
				return
			case <-time.After(patience):
				tb.Error("the container does not power off")
			}
		}
		_ = cmd.Process.Kill()
		<-ended
	})
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid)
	waitFor(tb, func() (bool, string) {
		select {
		case <-ended:
			tb.Fatalf("the container does not boot:\n%s", console.String())
		default:
		}
		pids, err := os.ReadFile(children)
		if err != nil || len(bytes.Fields(pids)) == 0 {
			return false, "no first process"
		}
		leader := string(bytes.Fields(pids)[0])
		// Asked in the container; before it has its namespaces, this fails.
		out, err := exec.Command("nsenter", "--target", leader, "--all", "--", "systemctl", "is-system-running").CombinedOutput()
		if state := strings.TrimSpace(string(out)); state != "running" && state != "degraded" {
			return false, fmt.Sprintf("%s, %v", state, err)
		}
		m.leader = leader
		return true, ""
	})
	return m
}

// debian returns the folder with the container's system, which is made once and kept.
func debian(tb testing.TB) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	const suite = "bookworm"
	root := filepath.Join(cache, "backstay-test", suite+"-"+strings.ReplaceAll(system, ",", "-"))
	if _, err := os.Stat(root); err == nil {
		return root
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		tb.Fatal(err)
	}
	half, err := os.MkdirTemp(filepath.Dir(root), "half-")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(half)
	out, err := exec.CommandContext(tb.Context(), "debootstrap", "--variant=minbase", "--include="+system, suite, half, "http://deb.debian.org/debian").CombinedOutput()
	if err == nil {
		// Its users must be able to look into it.
		err = errors.Join(os.Chmod(half, 0o755), os.Rename(half, root))
	}
	if err != nil {
		tb.Fatalf("make a Debian: %v\n%s", err, out)
	}
	return root
}

// sh runs a shell script in the container, as a user without a login session of that
// name, and returns what it printed and its exit code.
func (m *container) sh(user, script string) (string, int) {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	args := []string{"--target", m.leader, "--all", "--", "env", "-i", "PATH=/opt/backstay:/usr/bin:/bin:/usr/sbin:/sbin"}
	if user == "root" {
		args = append(args, "HOME=/root", "sh", "-c", script)
	} else {
		args = append(args, "HOME=/home/"+user, "setpriv", "--reuid", user, "--regid", user, "--init-groups", "sh", "-c", "cd; "+script)
	}
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		m.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs a script that has to exit with a code.
func (m *container) must(code int, user, script string) string {
	m.Helper()
	out, got := m.sh(user, script)
	if got != code {
		journal, _ := m.sh("root", "journalctl --no-pager --lines=40")
		m.Fatalf("%s: %s: exit %d, want %d\n%s\n-- journal\n%s", user, script, got, code, out, journal)
	}
	return out
}

// until runs a script until it ends well.
func (m *container) until(user, script string) {
	m.Helper()
	waitFor(m, func() (bool, string) {
		out, code := m.sh(user, script)
		return code == 0, fmt.Sprintf("%s: %s: exit %d: %s", user, script, code, out)
	})
}

// login opens a session as at a console; logout ends it, and the user's manager.
func (m *container) login(user string) {
	m.Helper()
	// Of the session before, systemd may still be remembering the name.
	m.until("root", "systemd-run --quiet --collect --unit=login-"+user+" --uid="+user+" -p PAMName=login sleep infinity")
}

func (m *container) logout(user string) {
	m.Helper()
	m.must(0, "root", "systemctl stop login-"+user+" user@$(id -u "+user+")")
}

// service asks how the service is doing.
func (m *container) service(user, flags string) service.Status {
	m.Helper()
	out, _ := m.sh(user, "agent service status --json "+flags)
	var st service.Status
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&st); err != nil {
		m.Fatalf("%v: %s", err, out)
	}
	return st
}

// safe writes a file and waits until the server has it.
func (m *container) safe(user, path, flags string) {
	m.Helper()
	m.must(0, user, fmt.Sprintf("echo %s >%[1]s", path))
	m.until(user, fmt.Sprintf("agent history %s --json %s | grep -q commit", path, flags))
	waitFor(m, func() (bool, string) {
		out, _ := m.sh(user, "agent status --json "+flags)
		var st localapi.Status
		_ = json.NewDecoder(strings.NewReader(out)).Decode(&st)
		return st.State == localapi.Protected, out
	})
}

// crash kills the agent and waits until the system has started it again.
func (m *container) crash(user, flags string) {
	m.Helper()
	before := m.service(user, flags)
	if !before.Running || before.PID == 0 {
		m.Fatalf("it does not run: %+v", before)
	}
	m.must(0, "root", fmt.Sprintf("kill -KILL %d", before.PID))
	waitFor(m, func() (bool, string) {
		now := m.service(user, flags)
		return now.Running && now.PID != before.PID, fmt.Sprintf("%+v", now)
	})
}

// TestServiceOfSystemd has a real systemd run the agent: a person's, started at login,
// then the machine's.
func TestServiceOfSystemd(t *testing.T) {
	if raceEnabled {
		t.Skip("the programs in the container are made without the race detector; the plain run tests them")
	}
	// The container's libraries need not be this machine's.
	programs := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", programs+"/", "./agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The container's users come here, too.
	for dir := programs; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := boot(t, programs)
	l := newLab(t)
	l.serve()
	invitation := func(account string) string {
		var made struct{ Invitation string }
		if err := json.Unmarshal([]byte(l.must(0, "server", "invite", "--json", "--data", l.data, "--account", account)), &made); err != nil {
			t.Fatal(err)
		}
		return made.Invitation
	}
	m.must(0, "root", "useradd --create-home ada && useradd --create-home eve")

	t.Run("a person's", func(t *testing.T) {
		m := &container{TB: t, leader: m.leader}
		// Without a session there is no manager, and with sudo it is the wrong one.
		for _, tt := range []struct{ name, user, script, want string }{
			{"no session", "ada", "agent service install", "enable-linger ada"},
			{"sudo", "root", "SUDO_USER=ada agent service install", "without sudo"},
		} {
			if out := m.must(4, tt.user, tt.script); !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
				t.Errorf("%s: %s", tt.name, out)
			}
		}
		m.login("ada")
		m.until("ada", "test -S /run/user/$(id -u)/systemd/private")
		m.must(4, "ada", "agent service status")
		m.must(4, "ada", "agent service start")
		m.must(0, "ada", "agent service uninstall")
		if out := m.must(0, "ada", "agent service install"); !strings.Contains(out, "enable-linger") || !strings.Contains(out, "agent join") {
			t.Errorf("install says: %s", out)
		}
		m.logout("ada")
		if out := m.must(4, "ada", "agent status"); !strings.Contains(out, "Not set up") {
			t.Errorf("after the session: %s", out)
		}

		// Started by nothing but the login, and set up only then.
		m.login("ada")
		m.until("ada", "agent status")
		m.must(0, "ada", "mkdir docs && agent join "+invitation("ada")+" docs --phrase-file kit")
		m.safe("ada", "docs/first", "")
		m.crash("ada", "")
		m.safe("ada", "docs/second", "")
		if out := m.must(4, "eve", "agent status --state /home/ada/.local/state/backstay"); !strings.Contains(out, "no agent is running") {
			t.Errorf("another user is told: %s", out)
		}

		m.must(0, "ada", "agent service stop")
		m.must(4, "ada", "agent service status")
		m.must(4, "ada", "agent status")
		m.must(0, "ada", "agent service start")
		first := m.service("ada", "")
		m.must(0, "ada", "agent service restart")
		if now := m.service("ada", ""); now.PID == first.PID || !now.Running || !now.Enabled {
			t.Errorf("restarted: %+v, before %+v", now, first)
		}
		// Whatever somebody made of it, installing again mends.
		m.must(0, "ada", "echo broken >"+first.Where+"; systemctl() { XDG_RUNTIME_DIR=/run/user/$(id -u) /usr/bin/systemctl --user $@; }; systemctl disable --quiet backstay-agent; agent service stop; agent service install")
		m.safe("ada", "docs/third", "")

		if out := m.must(0, "ada", "agent service uninstall"); !strings.Contains(out, "/home/ada/.config/backstay") {
			t.Errorf("uninstall does not say what stays: %s", out)
		}
		m.must(4, "ada", "agent service status")
		m.must(4, "ada", "agent status")
		if out := m.must(0, "ada", "find /home/ada /run/user/$(id -u) -name '*backstay-agent*' 2>/dev/null || true"); out != "" {
			t.Errorf("left behind: %s", out)
		}
		m.must(0, "ada", "test -s .config/backstay/me.info && test -s docs/third && agent restore docs/first --to back && cmp docs/first back/first")
	})

	// Where units belong depends on the environment of a person's manager, not on that of
	// the command, and not every umask lets others read.
	t.Run("a person's with folders elsewhere", func(t *testing.T) {
		m := &container{TB: t, leader: m.leader}
		m.must(0, "root", `useradd --create-home kim && d=/etc/systemd/system/user@$(id -u kim).service.d && mkdir $d &&
			printf '[Service]\nEnvironment=XDG_CONFIG_HOME=/home/kim/else\n' >$d/else.conf && systemctl daemon-reload`)
		m.login("kim")
		m.until("kim", "test -S /run/user/$(id -u)/systemd/private")
		for range 2 {
			m.must(0, "kim", "umask 077; agent service install --state '/home/kim/{{end}}'")
			if st := m.service("kim", ""); !st.Running || !st.Enabled {
				t.Errorf("installed: %+v", st)
			}
		}
		m.must(0, "kim", "test $(stat --dereference --format %a "+m.service("kim", "").Where+") = 644")
		m.logout("kim")
		m.login("kim")
		m.until("kim", "agent service status")
		m.must(0, "kim", "agent service uninstall")
		m.must(4, "kim", "agent service status")
		if out := m.must(0, "kim", "find /home/kim /run/user/$(id -u) -name '*backstay-agent*' 2>/dev/null || true"); out != "" {
			t.Errorf("left behind: %s", out)
		}
		m.logout("kim")
	})

	// What a package brought is not ours to remove, and what stands before it is.
	t.Run("a package's", func(t *testing.T) {
		m := &container{TB: t, leader: m.leader}
		const unit = "/usr/lib/systemd/user/backstay-agent.service"
		m.must(0, "root", "useradd --create-home pat")
		m.login("pat")
		m.until("pat", "test -S /run/user/$(id -u)/systemd/private")
		m.must(0, "pat", "agent service install")
		m.must(0, "root", "cp /home/pat/.config/systemd/user/backstay-agent.service "+unit)
		for range 2 {
			if out := m.must(0, "pat", "agent service uninstall"); !strings.Contains(out, unit+" belongs to a package") {
				t.Errorf("uninstall says: %s", out)
			}
			if st := m.service("pat", ""); !st.Installed || st.Running || st.Enabled || st.Where != unit {
				t.Errorf("uninstalled: %+v", st)
			}
			m.must(0, "pat", "agent service start")
		}
		m.must(0, "root", "rm "+unit)
		m.logout("pat")
	})

	// Without the words of systemctl, which the library keeps, it says where they are.
	t.Run("that cannot start", func(t *testing.T) {
		m := &container{TB: t, leader: m.leader}
		m.must(0, "root", "cp /opt/backstay/agent /root/agent && /root/agent service install --system && systemctl stop backstay-agent && mv /root/agent /root/gone")
		if out := m.must(1, "root", "agent service start --system"); !strings.Contains(out, "see why: systemctl status backstay-agent.service") {
			t.Errorf("start says: %s", out)
		}
		m.must(0, "root", "agent service uninstall --system && rm -r /etc/backstay /var/lib/backstay")
	})

	t.Run("the machine's", func(t *testing.T) {
		m := &container{TB: t, leader: m.leader}
		const folders = "--config /etc/backstay --state /var/lib/backstay"
		if out := m.must(1, "eve", "agent service install --system"); !strings.Contains(out, "sudo") {
			t.Errorf("without rights: %s", out)
		}
		m.must(0, "root", "agent service install --system")
		m.until("root", "agent status "+folders)
		// Readable by their owner alone.
		m.must(0, "eve", "mkdir docs && chmod 700 docs && umask 077 && echo mine >docs/mine")
		m.must(0, "root", "agent join "+invitation("machine")+" /home/eve/docs /tmp "+folders+" --phrase-file /root/kit")
		m.safe("root", "/home/eve/docs/first", folders)
		m.must(0, "root", "agent history /home/eve/docs/mine --json "+folders+" | grep -q commit")

		// Others may know how it is doing, and nothing else.
		if out := m.must(0, "eve", "agent status --state /var/lib/backstay"); !strings.HasPrefix(out, "Protected") {
			t.Errorf("another user asks for the status: %s", out)
		}
		m.must(0, "eve", "agent service status --system")
		for _, verb := range []string{"pause", "resume", "problems", "problems --acknowledge"} {
			if out := m.must(1, "eve", "agent "+verb+" --state /var/lib/backstay"); !strings.Contains(out, "as root") {
				t.Errorf("%s: %s", verb, out)
			}
		}
		m.must(1, "eve", "agent service stop --system")
		m.must(1, "eve", "cat /var/lib/backstay/agent.log")

		m.crash("root", "--system")
		m.safe("root", "/tmp/second", folders)
		m.must(0, "root", "agent service uninstall --system")
		m.must(4, "root", "agent service status --system")
		if out := m.must(0, "root", "find /etc /run /var/lib/systemd -name '*backstay-agent*' -not -path '/run/systemd/propagate*'"); out != "" {
			t.Errorf("left behind: %s", out)
		}
		m.must(0, "root", "test ! -e /run/backstay && test -s /etc/backstay/me.info")
	})
}
