// Package conditions decides whether the agent may send now: what its owner said in
// agent.toml about battery, metered networks and hours, held against the state of the
// machine and the clock.
//
// The one invariant: what is not known never holds anything back. The package is pure
// logic: it reads no clock, no file and no device; agent/machine does. Enter at
// [Policy.Reasons].
package conditions

import (
	"errors"
	"fmt"
	"time"
)

// Cause is what keeps the agent from sending, as the status shows it. Values are
// stable.
type Cause string

// The causes, the first to be named first.
const (
	You     Cause = "you" // a person has paused it
	Battery Cause = "battery"
	Metered Cause = "metered network"
	Hours   Cause = "outside the hours in agent.toml"
)

// Reason is a cause that holds.
type Reason struct {
	Cause Cause
	// Text says it in a line for a person, with what decided it.
	Text string
	// Until is when it ends by itself; zero if nobody can say.
	Until time.Time
}

// Machine is the state of the machine as far as it is known.
type Machine struct {
	// OnBattery: it draws from a battery. False where that is not known.
	OnBattery bool
	// Percent is the charge of the battery, 0 to 100; negative where it is not
	// known.
	Percent int
	// Metered: what goes over its network is paid for by the byte, or is little.
	// False where that is not known.
	Metered bool
}

// Unknown is a machine of which nothing is known.
var Unknown = Machine{Percent: -1}

// Choice says what to do while a condition lasts.
type Choice string

// The choices.
const (
	Continue Choice = "continue"
	Pause    Choice = "pause"
)

// Policy is what agent.toml says of when to send. Every key may be left out;
// [Default] is in force then.
type Policy struct {
	// OnBattery says whether to send while the machine runs on battery.
	OnBattery Choice `toml:"on_battery"`
	// BatteryFloor is the charge in percent below which nothing is sent on
	// battery, whatever OnBattery says; 0: there is none.
	BatteryFloor int `toml:"battery_floor"`
	// OnMetered says whether to send over a metered network.
	OnMetered Choice `toml:"on_metered"`
	// Windows are the hours in which sending is allowed; none: always.
	Windows []Window `toml:"windows"`
}

// Default returns what is in force where agent.toml says nothing.
func Default() Policy { return Policy{OnBattery: Continue, BatteryFloor: 10, OnMetered: Pause} }

// Check says what is wrong with a policy.
func (p Policy) Check() error {
	for _, k := range []struct {
		key    string
		choice Choice
	}{{"on_battery", p.OnBattery}, {"on_metered", p.OnMetered}} {
		if k.choice != Continue && k.choice != Pause {
			return fmt.Errorf("%s is %q; it is \"continue\" or \"pause\"", k.key, k.choice)
		}
	}
	if p.BatteryFloor < 0 || p.BatteryFloor > 100 {
		return errors.New("battery_floor is a charge in percent, from 0 to 100")
	}
	return nil
}

// Reasons returns what keeps the agent from sending at a time, in the order of the
// causes. next is when the clock alone next changes the answer; zero if it does not.
// now's location is the one in which windows are meant.
func (p Policy) Reasons(m Machine, now time.Time) (reasons []Reason, next time.Time) {
	low := m.Percent >= 0 && m.Percent < p.BatteryFloor
	switch {
	case m.OnBattery && p.OnBattery == Pause:
		reasons = append(reasons, Reason{Cause: Battery, Text: "this machine runs on battery"})
	case m.OnBattery && low:
		reasons = append(reasons, Reason{Cause: Battery, Text: fmt.Sprintf("the battery is down to %d %%, battery_floor in agent.toml is %d %%", m.Percent, p.BatteryFloor)})
	}
	if m.Metered && p.OnMetered == Pause {
		reasons = append(reasons, Reason{Cause: Metered, Text: "the network is metered"})
	}
	if len(p.Windows) == 0 {
		return reasons, next
	}
	open := p.open(now)
	next = p.turn(now, open)
	if !open {
		text := "agent.toml never allows sending"
		if !next.IsZero() {
			text = "agent.toml allows sending from " + next.Format("Mon 15:04")
		}
		reasons = append(reasons, Reason{Cause: Hours, Text: text, Until: next})
	}
	return reasons, next
}

// open says whether a window is open.
func (p Policy) open(t time.Time) bool {
	for _, w := range p.Windows {
		if w.Contains(t) {
			return true
		}
	}
	return false
}

// turn is when open is first not what it is; zero if that is not within a week and a
// day. It goes minute by minute: all times at which anything can change are whole
// minutes, those at which the clocks change, too, and no other way is as sure to
// agree with open.
func (p Policy) turn(now time.Time, open bool) time.Time {
	for t := now.Truncate(time.Minute); t.Sub(now) < 8*24*time.Hour; {
		t = t.Add(time.Minute)
		if p.open(t) != open {
			return t
		}
	}
	return time.Time{}
}

// A Window is a part of the week by the wall clock: the days on which it begins, and
// from when to when. One that ends before it begins ends on the next day. The zero
// value is empty.
//
// It follows the wall clock over a change of the clocks: an hour that is there twice
// counts twice, one that is left out is not there.
type Window struct {
	days       [7]bool
	start, end int // minutes since midnight; end may be 24:00
}

// Contains says whether the window is open at a time, in that time's location.
func (w Window) Contains(t time.Time) bool {
	hour, minute, _ := t.Clock()
	at, today := 60*hour+minute, int(t.Weekday())
	if w.start < w.end {
		return w.days[today] && w.start <= at && at < w.end
	}
	return w.days[today] && at >= w.start || w.days[(today+6)%7] && at < w.end
}
