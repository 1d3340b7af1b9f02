package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeb installs the packages for Debian in a Debian, has them protect a file from
// login on, kills, upgrades, removes and purges them.
func TestDeb(t *testing.T) {
	if raceEnabled {
		t.Skip("packages are made without the race detector; the plain run tests them")
	}
	folder := t.TempDir()
	// What the rig calls the agent.
	if err := os.Symlink("/usr/bin/backstay", filepath.Join(folder, "agent")); err != nil {
		t.Fatal(err)
	}
	m := boot(t, folder)
	for dir := folder; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"1.2.3", "1.2.4"} {
		build := exec.CommandContext(t.Context(), "go", "run", "../packaging/build", "-o", filepath.Join(folder, version), "-version", version, "*_amd64.deb")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const (
		home = "/home/ada"
		// running lists the programs that processes are, one a line.
		running = "readlink /proc/[0-9]*/exe"
	)
	m.must(0, "root", "useradd --create-home ada")
	install := func(name, version string) string {
		return m.must(0, "root", "dpkg --install "+filepath.Join("/opt/backstay", version, name+"_"+version+"*_amd64.deb"))
	}

	// The server.
	if out := install("backstay-server", "1.2.3"); !strings.Contains(out, "systemctl enable --now backstay-server") {
		t.Errorf("the server's package does not say what to do: %s", out)
	}
	m.must(3, "root", "systemctl is-active backstay-server")
	// The folder may be closed to it: the keys of an agent of the machine may be there.
	m.must(0, "root", `chmod 700 /etc/backstay; echo 'listen = "127.0.0.1:12560"' >>/etc/backstay/server.toml; systemctl enable --quiet --now backstay-server`)
	m.until("root", "runuser -u backstay -- backstay-server stats --data /var/lib/backstay-server")
	var made struct{ Invitation string }
	out := m.must(0, "root", "runuser -u backstay -- backstay-server invite --json --address 127.0.0.1:12560 --data /var/lib/backstay-server")
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	// A desktop: whoever is logged in has it at once, whoever comes later from then.
	m.login("ada")
	m.until("ada", "test -S /run/user/$(id -u)/systemd/private")
	if out := install("backstay", "1.2.3"); !strings.Contains(out, "backstay join") {
		t.Errorf("the package does not say what to do: %s", out)
	}
	m.until("ada", "backstay status | grep -q 'Not set up'")
	m.logout("ada")
	m.login("ada")
	m.until("ada", "backstay status | grep -q 'Not set up'")
	m.must(0, "ada", "mkdir docs && backstay join "+made.Invitation+" docs --phrase-file kit")
	m.safe("ada", "docs/first", "")
	m.crash("ada", "")
	m.safe("ada", "docs/second", "")
	// The account of a program has a manager, too, and no agent.
	m.must(0, "root", "loginctl enable-linger backstay")
	m.until("backstay", "XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user is-active default.target")
	if out := m.must(0, "root", running); strings.Count(out, "/usr/bin/backstay\n") != 1 {
		t.Errorf("it runs for others, too: %s", out)
	}
	m.must(0, "ada", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u)/bus nohup backstay-tray >/dev/null 2>&1 &")
	m.until("root", running+" | grep -qx /usr/bin/backstay-tray")

	m.must(0, "root", "loginctl disable-linger backstay")

	// An upgrade: what runs is the new one.
	before := m.service("ada", "").PID
	install("backstay-server", "1.2.4")
	install("backstay", "1.2.4")
	waitFor(t, func() (bool, string) {
		now := m.service("ada", "")
		return now.Running && now.PID != before, fmt.Sprintf("%+v", now)
	})
	if out := m.must(0, "ada", "backstay --version"); !strings.Contains(out, "1.2.4") {
		t.Errorf("upgraded: %s", out)
	}
	m.safe("ada", "docs/third", "")
	m.must(0, "root", "grep -q 12560 /etc/backstay/server.toml && systemctl is-active backstay-server")

	// Removed: nothing runs, nothing is left, but what is people's own.
	for _, verb := range []string{"remove", "purge"} {
		out := m.must(0, "root", "dpkg --"+verb+" backstay backstay-server")
		for _, stays := range []string{"~/.config/backstay", "/var/lib/backstay-server"} {
			if !strings.Contains(out, stays) {
				t.Errorf("%s does not say that %s stays: %s", verb, stays, out)
			}
		}
	}
	m.until("root", "! "+running+" | grep backstay")
	left := m.must(0, "root", "find / -xdev -iname '*backstay*' -not -path '/opt/*' -not -path '/var/log/journal/*' | sort")
	want := []string{home + "/.config/backstay", home + "/.local/state/backstay", "/var/lib/backstay-server"}
	for line := range strings.Lines(left) {
		line = strings.TrimSpace(line)
		ok := false
		for _, w := range want {
			ok = ok || line == w || strings.HasPrefix(line, w+"/")
		}
		if !ok {
			t.Errorf("left behind: %s", line)
		}
	}
	m.must(0, "root", "test -s "+home+"/.config/backstay/me.info && test -s "+home+"/docs/third && test -s /var/lib/backstay-server/server.key")
}
