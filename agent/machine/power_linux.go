package machine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"backstay/agent/conditions"
)

const (
	upower         = "org.freedesktop.UPower"
	networkManager = "org.freedesktop.NetworkManager"

	upowerPath         = dbus.ObjectPath("/org/freedesktop/UPower")
	displayDevicePath  = upowerPath + "/devices/DisplayDevice"
	networkManagerPath = dbus.ObjectPath("/org/freedesktop/NetworkManager")
)

// busPatience is how long the bus may take for an answer.
const busPatience = 5 * time.Second

// supplies is where the kernel lists what feeds the machine.
const supplies = "/sys/class/power_supply"

// watchPower asks UPower and NetworkManager over the system's bus; where there is no
// bus, or no UPower, it looks at what the kernel says.
func watchPower(ctx context.Context, log *slog.Logger, tell func(conditions.Machine)) {
	kernel := func() conditions.Machine {
		m := conditions.Unknown
		m.OnBattery, m.Percent = supplied(supplies)
		return m
	}
	for ctx.Err() == nil {
		err := watchBus(ctx, tell)
		if ctx.Err() != nil {
			return
		}
		log.Debug("no system bus", "err", err)
		tell(kernel())
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// watchBus tells what the bus says until ctx ends or the bus does.
func watchBus(ctx context.Context, tell func(conditions.Machine)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(busPatience, cancel)
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		properties(upower, upowerPath), properties(upower, displayDevicePath), properties(networkManager, networkManagerPath),
		comesOrGoes(upower), comesOrGoes(networkManager),
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return err
		}
	}
	if !patience.Stop() {
		return context.DeadlineExceeded
	}
	for {
		m, all := readBus(ctx, conn)
		if ctx.Err() != nil || !conn.Connected() {
			return errors.New("the connection with the system bus broke")
		}
		tell(m)
		var again <-chan time.Time
		if !all {
			again = time.After(lookEvery)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-signals:
			if !ok {
				return errors.New("the system bus has ended")
			}
		case <-again:
		}
	}
}

// properties matches the changes of an object's properties.
func properties(name string, path dbus.ObjectPath) []dbus.MatchOption {
	return []dbus.MatchOption{dbus.WithMatchSender(name), dbus.WithMatchObjectPath(path),
		dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchMember("PropertiesChanged")}
}

// comesOrGoes matches the start and the end of the program with a name.
func comesOrGoes(name string) []dbus.MatchOption {
	return []dbus.MatchOption{dbus.WithMatchSender("org.freedesktop.DBus"),
		dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)}
}

// readBus returns the state of the machine; all says that signals will tell of every
// change of it.
func readBus(ctx context.Context, conn *dbus.Conn) (m conditions.Machine, all bool) {
	m = conditions.Unknown
	if err := property(ctx, conn, upower, upowerPath, upower, "OnBattery", &m.OnBattery); err != nil {
		m.OnBattery, m.Percent = supplied(supplies)
	} else {
		all = true
		var percent float64
		// There is none where there is no battery.
		if property(ctx, conn, upower, displayDevicePath, upower+".Device", "Percentage", &percent) == nil && m.OnBattery {
			m.Percent = int(percent)
		}
	}
	var metered uint32
	if property(ctx, conn, networkManager, networkManagerPath, networkManager, "Metered", &metered) == nil {
		const yes, guessYes = 1, 3
		m.Metered = metered == yes || metered == guessYes
	}
	return m, all
}

// property reads a property into v. It starts no program.
func property(ctx context.Context, conn *dbus.Conn, name string, path dbus.ObjectPath, iface, property string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, busPatience)
	defer cancel()
	var value dbus.Variant
	err := conn.Object(name, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, iface, property).Store(&value)
	if err != nil {
		return err
	}
	return value.Store(v)
}

// supplied says what feeds the machine, by the kernel's list of it. Batteries of mice
// and the like are no matter.
func supplied(dir string) (onBattery bool, percent int) {
	read := func(name, attribute string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name, attribute)) // not all have all
		return strings.TrimSpace(string(b))
	}
	entries, _ := os.ReadDir(dir)
	batteries, charge, mains, discharging := 0, 0, false, false
	for _, e := range entries {
		name := e.Name()
		switch {
		case read(name, "scope") == "Device":
		case read(name, "type") != "Battery":
			mains = mains || read(name, "online") == "1"
		default:
			discharging = discharging || read(name, "status") == "Discharging"
			if n, err := strconv.Atoi(read(name, "capacity")); err == nil {
				batteries++
				charge += n
			}
		}
	}
	if batteries == 0 {
		return discharging && !mains, -1
	}
	return discharging && !mains, charge / batteries
}
