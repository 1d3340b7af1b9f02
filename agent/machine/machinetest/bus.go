//go:build linux

// Package machinetest is a system bus of a test's own, with a UPower and a
// NetworkManager on it that say what the test wants. It is for tests only.
package machinetest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:dir=%s</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/>
  </policy>
</busconfig>
`

// Bus is a system bus.
type Bus struct {
	// Address is what DBUS_SYSTEM_BUS_ADDRESS has to be.
	Address string

	tb     testing.TB
	daemon *exec.Cmd
	upower *service
	nm     *service
}

// service is a program on the bus.
type service struct {
	conn  *dbus.Conn
	props []*prop.Properties
}

// Start starts a bus with neither service on it; both end with the test. It skips the
// test where there is no dbus-daemon.
func Start(tb testing.TB) *Bus {
	tb.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	dir, err := os.MkdirTemp("", "bus") // its path has to be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, dir), 0o600); err != nil {
		tb.Fatal(err)
	}
	b := &Bus{tb: tb, daemon: exec.Command(daemon, "--config-file="+config, "--nofork", "--print-address=1")}
	b.daemon.Stderr = os.Stderr
	out, err := b.daemon.StdoutPipe()
	if err == nil {
		err = b.daemon.Start()
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.End)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatal("dbus-daemon:", err)
	}
	b.Address = strings.TrimSpace(line)
	return b
}

// End ends the bus.
func (b *Bus) End() {
	b.daemon.Process.Kill()
	b.daemon.Wait()
}

// serve starts a service: for each of the objects its interface and properties.
func (b *Bus) serve(name string, objects map[dbus.ObjectPath]prop.Map) *service {
	b.tb.Helper()
	conn, err := dbus.Connect(b.Address)
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(func() { conn.Close() })
	s := &service{conn: conn}
	for path, m := range objects {
		p, err := prop.Export(conn, path, m)
		if err != nil {
			b.tb.Fatal(err)
		}
		s.props = append(s.props, p)
	}
	if r, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		b.tb.Fatalf("own %s: %v, %v", name, r, err)
	}
	return s
}

func value(v any) *prop.Prop { return &prop.Prop{Value: v, Emit: prop.EmitTrue} }

// set sets a property wherever it is.
func (s *service) set(iface, property string, v any) {
	for _, p := range s.props {
		if _, err := p.Get(iface, property); err == nil {
			p.SetMust(iface, property, v)
		}
	}
}

// Power says what UPower says; it starts UPower.
func (b *Bus) Power(onBattery bool, percent float64) {
	b.tb.Helper()
	const iface, device = "org.freedesktop.UPower", "org.freedesktop.UPower.Device"
	if b.upower == nil {
		b.upower = b.serve(iface, map[dbus.ObjectPath]prop.Map{
			"/org/freedesktop/UPower":                       {iface: {"OnBattery": value(onBattery)}},
			"/org/freedesktop/UPower/devices/DisplayDevice": {device: {"Percentage": value(percent)}},
		})
		return
	}
	b.upower.set(device, "Percentage", percent)
	b.upower.set(iface, "OnBattery", onBattery)
}

// EndPower ends UPower.
func (b *Bus) EndPower() {
	b.upower.conn.Close()
	b.upower = nil
}

// Metered says what NetworkManager says, an NMMetered; it starts NetworkManager.
func (b *Bus) Metered(metered uint32) {
	b.tb.Helper()
	const iface = "org.freedesktop.NetworkManager"
	if b.nm == nil {
		b.nm = b.serve(iface, map[dbus.ObjectPath]prop.Map{"/org/freedesktop/NetworkManager": {iface: {"Metered": value(metered)}}})
		return
	}
	b.nm.set(iface, "Metered", metered)
}
