package cmd_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/machine/machinetest"
)

// settings writes agent.toml, in one step: a running agent reads it.
func (l *lab) settings(lines ...string) {
	l.Helper()
	path := filepath.Join(l.conf, "agent.toml")
	if err := errors.Join(os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600), os.Rename(path+".new", path)); err != nil {
		l.Fatal(err)
	}
}

// random writes a file of so many bytes that cannot be compressed.
func (l *lab) random(name string, size int) {
	l.Helper()
	b := make([]byte, size)
	rand.Read(b)
	l.write(name, string(b))
}

// says waits for a line of a program, and fails the test if there is none.
func (l *lab) says(p *process, pattern string) {
	l.Helper()
	if _, err := p.wait(pattern); err != nil {
		l.Fatal(err)
	}
}

// becomes waits until the agent's status matches.
func (l *lab) becomes(pattern string) {
	l.Helper()
	re := regexp.MustCompile(pattern)
	var out string
	for began := time.Now(); time.Since(began) < patience; {
		// The agent may not be up yet.
		if out, _ = run(l, l.dir, "agent", "status", "--json", "--config", l.conf, "--state", l.state); re.MatchString(out) {
			return
		}
	}
	l.Fatalf("the status does not become %s:\n%s", pattern, out)
}

// silent fails the test if a program has said something.
func (l *lab) silent(p *process, text string) {
	l.Helper()
	if out, _ := p.output(); strings.Contains(out, text) {
		l.Fatalf("it said %q:\n%s", text, out)
	}
}

func TestLaptop(t *testing.T) {
	bus := machinetest.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address)
	bus.Power(false, 90)
	bus.Metered(2)
	l := newLab(t)
	l.serve()
	l.write("first", "1")
	l.join()
	l.settings(`on_battery = "pause"`)
	agent := l.watch()
	l.says(agent, `first safe`)

	// On battery changes are kept, and the status says why; on mains they are sent.
	bus.Power(true, 80)
	l.says(agent, `^paused, changes are kept here: this machine runs on battery`)
	l.write("on-battery", "2")
	l.becomes(`"state":"paused","reason":"this machine runs on battery",.*"waiting":[1-9].*"paused_by":"battery"`)
	if code, err := agent.end(); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	l.silent(agent, "on-battery safe")
	agent = l.watch()
	l.says(agent, `^paused,`)
	l.becomes(`"waiting":[1-9].*"paused_by":"battery"`)
	l.silent(agent, "on-battery safe")
	bus.Power(false, 80)
	l.says(agent, `^sending again`)
	l.says(agent, `on-battery safe`)

	// A person may override it until it ends.
	bus.Metered(1)
	l.becomes(`"paused_by":"metered network"`)
	l.write("metered", "3")
	l.becomes(`"waiting":[1-9].*"paused_by":"metered network"`)
	if out := l.agent(0, "resume"); !strings.Contains(out, "metered network") {
		t.Errorf("resume says %q", out)
	}
	l.says(agent, `metered safe`)
	bus.Metered(4)
	l.says(agent, `metered=true(.*\n)+.*metered=false`)
	bus.Metered(3)
	l.becomes(`"paused_by":"metered network"`)

	// A backup goes on regardless, and the pause lasts.
	l.write("asked", "4")
	l.agent(0, "backup")
	l.says(agent, `asked safe`)
	l.becomes(`"paused_by":"metered network"`)

	// What agent.toml says holds at once.
	l.write("allowed", "5")
	l.becomes(`"waiting":[1-9]`)
	l.settings(`on_metered = "continue"`)
	l.says(agent, `allowed safe`)
	at := time.Now().Add(12 * time.Hour)
	l.settings(`on_metered = "continue"`, fmt.Sprintf("windows = ['%s-%s']", at.Format("15:04"), at.Add(time.Hour).Format("15:04")))
	l.becomes(`"state":"paused","reason":"agent.toml allows sending from \w+ ` + at.Format("15:04") + `".*"paused_until":"[^"]+","paused_by":"outside the hours in agent.toml"`)
	l.settings(`on_metered = "continue"`)
	l.becomes(`"state":"protected"`)

	// A person's pause outlives the agent, killed or not.
	l.agent(0, "pause", "2h")
	l.becomes(`"paused_by":"you"`)
	agent.kill()
	l.write("paused", "6")
	agent = l.watch()
	l.becomes(`"waiting":[1-9].*"paused_until":"[^"]+","paused_by":"you"`)
	l.silent(agent, "paused safe")
	if out := l.agent(0, "resume"); out != "" {
		t.Errorf("resume says %q", out)
	}
	l.says(agent, `paused safe`)
	agent.kill()
	l.watch()
	l.becomes(`"state":"protected"`)
}

// TestPauseStopsALargeFile: what is on its way when the agent pauses does not go on for
// as long as the file is.
func TestPauseStopsALargeFile(t *testing.T) {
	l := newLab(t)
	l.serve()
	l.write("first", "1")
	l.join()
	// At this speed the file takes a minute.
	l.settings(`upload_limit = "1MB/s"`)
	agent := l.watch()
	l.says(agent, `first safe`)
	stored := func() int64 {
		var sum int64
		filepath.Walk(filepath.Join(l.data), func(_ string, info os.FileInfo, err error) error {
			if err == nil && strings.HasSuffix(info.Name(), ".pack") {
				sum += info.Size()
			}
			return nil
		})
		return sum
	}
	before := stored()
	l.random("large", 64<<20)
	for began := time.Now(); stored() < before+4<<20; {
		if time.Since(began) > patience {
			t.Fatal("it is not being sent")
		}
		l.agent(0, "status")
	}
	l.agent(0, "pause")
	l.becomes(`"state":"paused"`)
	before = stored()
	// It has all the speed there is: with nothing to hold it, it would be there in a
	// second.
	l.settings(`upload_limit = 0`)
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		l.agent(0, "status")
	}
	if more := stored() - before; more > 16<<20 {
		t.Errorf("%d bytes went after the pause", more)
	}
	l.silent(agent, "large safe")
	l.agent(0, "resume")
	l.says(agent, `large safe`)
}

func TestSpeedLimits(t *testing.T) {
	l := newLab(t)
	l.serve()
	l.join()
	const size = 1 << 20
	slow := func(what string, seconds float64, f func()) {
		t.Helper()
		began := time.Now()
		f()
		if took := time.Since(began).Seconds(); took < seconds {
			t.Errorf("%s took %.1f s, less than %v s", what, took, seconds)
		}
	}
	l.settings(`upload_limit = "256KiB/s"`, `download_limit = "512KiB/s"`)
	l.random("one", size)
	slow("sending", 3.5, func() { l.agent(0, "backup") })
	slow("getting back", 1.5, func() { l.agent(0, "restore", filepath.Join(l.docs, "one"), "--to", filepath.Join(l.dir, "out")) })

	// A running agent follows: by the first limit this takes four minutes.
	l.settings(`upload_limit = "16KiB/s"`)
	agent := l.watch()
	l.says(agent, `^connected`)
	l.random("two", 4*size)
	l.becomes(`"state":"working"`)
	l.settings(`upload_limit = 0`)
	l.says(agent, `two safe`)
}

// inside says that this is a test in a network of its own.
const inside = "BACKSTAY_OWN_NETWORK"

// TestNetworkChange takes the address away over which an agent speaks with its server,
// and gives it back.
func TestNetworkChange(t *testing.T) {
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNetworkChange$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if len(out) == 0 && err != nil && os.Getenv("BACKSTAY_REQUIRE") != "all" {
			t.Skip("no network of its own to be had:", err)
		}
		if err != nil || !strings.Contains(string(out), "PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	set := func(name string, what uint, how func(*unix.Ifreq) error) {
		t.Helper()
		r, err := unix.NewIfreq(name)
		if err == nil {
			err = how(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, what, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const address = "192.0.2.7"
	up := func(name string) {
		set(name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil })
	}
	give := func() {
		set("lo:1", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{192, 0, 2, 7}) })
		up("lo:1")
	}
	take := func() { set("lo:1", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { return nil }) }
	up("lo")
	give()
	l := newLab(t)
	l.serve("--listen", address+":0")
	l.join()
	agent := l.watch()
	l.says(agent, `^connected to `+address)
	take()
	l.says(agent, `^offline, changes are kept here: .*this machine's network has changed`)
	l.write("meanwhile", "1")
	give()
	l.says(agent, `^offline(.*\n)+connected to `+address)
	l.says(agent, `meanwhile safe`)
}
