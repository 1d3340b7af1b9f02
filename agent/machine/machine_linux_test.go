package machine

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/conditions"
	"backstay/agent/machine/machinetest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// watched starts WatchPower and returns what waits for it to tell a state.
func watched(t *testing.T) func(conditions.Machine) {
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan conditions.Machine, 100), make(chan struct{})
	go func() {
		defer close(ended)
		WatchPower(ctx, slog.New(slog.DiscardHandler), func(m conditions.Machine) { told <- m })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return func(want conditions.Machine) {
		t.Helper()
		var got conditions.Machine
		timeout := time.After(patience)
		for {
			select {
			case got = <-told:
				if got == want {
					return
				}
			case <-timeout:
				t.Fatalf("told %+v last, want %+v", got, want)
			}
		}
	}
}

func TestWatchPowerOverTheBus(t *testing.T) {
	onBattery, percent := supplied(supplies)
	here := conditions.Machine{OnBattery: onBattery, Percent: percent}
	bus := machinetest.Start(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address)
	await := watched(t)
	await(here)
	bus.Power(true, 80)
	await(conditions.Machine{OnBattery: true, Percent: 80})
	bus.Power(true, 79.6)
	await(conditions.Machine{OnBattery: true, Percent: 79})
	bus.Metered(3)
	await(conditions.Machine{OnBattery: true, Percent: 79, Metered: true})
	bus.Metered(4)
	await(conditions.Machine{OnBattery: true, Percent: 79})
	bus.Power(false, 79)
	await(conditions.Machine{Percent: -1})
	bus.Power(true, 78)
	await(conditions.Machine{OnBattery: true, Percent: 78})
	bus.EndPower()
	await(here)
	bus.Power(true, 77)
	await(conditions.Machine{OnBattery: true, Percent: 77})
	bus.End()
	await(here)
}

func TestWatchPowerWithoutABus(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	onBattery, percent := supplied(supplies)
	watched(t)(conditions.Machine{OnBattery: onBattery, Percent: percent})
}

func TestSupplied(t *testing.T) {
	for _, tt := range []struct {
		name      string
		files     map[string]string
		onBattery bool
		percent   int
	}{
		{"nothing", nil, false, -1},
		{"desktop", map[string]string{"AC/type": "Mains", "AC/online": "1"}, false, -1},
		{"on battery", map[string]string{"AC/type": "Mains", "AC/online": "0", "BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/capacity": "42"}, true, 42},
		{"charging", map[string]string{"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery", "BAT0/status": "Charging", "BAT0/capacity": "42"}, false, 42},
		{"losing charge on mains", map[string]string{"AC/type": "USB", "AC/online": "1", "BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/capacity": "42"}, false, 42},
		{"two batteries", map[string]string{"BAT0/type": "Battery", "BAT0/status": "Unknown", "BAT0/capacity": "100", "BAT1/type": "Battery", "BAT1/status": "Discharging", "BAT1/capacity": "20"}, true, 60},
		{"a mouse", map[string]string{"m/type": "Battery", "m/scope": "Device", "m/status": "Discharging", "m/capacity": "3"}, false, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tt.files {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content+"\n"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if onBattery, percent := supplied(dir); onBattery != tt.onBattery || percent != tt.percent {
				t.Errorf("got %v, %d", onBattery, percent)
			}
		})
	}
	if onBattery, percent := supplied(filepath.Join(t.TempDir(), "none")); onBattery || percent != -1 {
		t.Error("a system without a list has a battery")
	}
}

// inside says that this is the test in a network of its own.
const inside = "BACKSTAY_OWN_NETWORK"

// TestWatchNetworkForReal brings the loopback of a network of its own up.
func TestWatchNetworkForReal(t *testing.T) {
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWatchNetworkForReal$", "-test.v")
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
	own, err := addresses()
	if err != nil || len(own) > 0 {
		t.Fatalf("addresses of a new network: %v, %v", own, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan []netip.Addr, 1)
	go WatchNetwork(ctx, func(own []netip.Addr) { told <- own })
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// Up and down until it is told: the first may come before the socket listens.
	timeout := time.After(patience)
	for n := 0; ; n++ {
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			lo.SetUint16(unix.IFF_UP)
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
			t.Fatal(err)
		}
		select {
		case own := <-told:
			if len(own) > 0 && !slices.Contains(own, netip.MustParseAddr("127.0.0.1")) {
				t.Fatalf("told %v", own)
			}
			return
		case <-time.After(4 * settles):
		case <-timeout:
			t.Fatal("not told")
		}
	}
}
