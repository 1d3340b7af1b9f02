package conditions

import (
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func windows(t *testing.T, texts ...string) []Window {
	t.Helper()
	all := make([]Window, len(texts))
	for i, text := range texts {
		if err := all[i].UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestReasonsOfTheMachine(t *testing.T) {
	always := Policy{OnBattery: Pause, BatteryFloor: 20, OnMetered: Pause}
	never := Policy{OnBattery: Continue, OnMetered: Continue}
	for _, tt := range []struct {
		name    string
		policy  Policy
		machine Machine
		want    []Cause
	}{
		{"nothing known", always, Unknown, nil},
		{"mains", always, Machine{Percent: 5}, nil},
		{"battery", always, Machine{OnBattery: true, Percent: 90}, []Cause{Battery}},
		{"battery of unknown charge", always, Machine{OnBattery: true, Percent: -1}, []Cause{Battery}},
		{"battery that may be used", never, Machine{OnBattery: true, Percent: 1}, nil},
		{"default, enough charge", Default(), Machine{OnBattery: true, Percent: 10}, nil},
		{"default, below the floor", Default(), Machine{OnBattery: true, Percent: 9}, []Cause{Battery}},
		{"default, below the floor on mains", Default(), Machine{Percent: 9}, nil},
		{"default, unknown charge", Default(), Machine{OnBattery: true, Percent: -1}, nil},
		{"default, metered", Default(), Machine{Percent: -1, Metered: true}, []Cause{Metered}},
		{"metered that may be used", never, Machine{Percent: -1, Metered: true}, nil},
		{"both", always, Machine{OnBattery: true, Percent: 50, Metered: true}, []Cause{Battery, Metered}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reasons, next := tt.policy.Reasons(tt.machine, time.Now())
			var got []Cause
			for _, r := range reasons {
				got = append(got, r.Cause)
				if r.Text == "" {
					t.Errorf("%v has no text", r.Cause)
				}
			}
			if !slices.Equal(got, tt.want) || !next.IsZero() {
				t.Fatalf("got %v, next %v; want %v and never", got, next, tt.want)
			}
		})
	}
}

func TestWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// 2026-11-16 is a Monday. In Berlin the clocks go from 2 to 3 on 2026-03-29, from
	// 3 to 2 on 2026-10-25, both Sundays.
	for _, tt := range []struct {
		name    string
		windows []string
		at      string
		open    bool
		next    string // RFC 3339; empty: never
	}{
		{"before", []string{"Mon-Fri 09:00-17:00"}, "2026-11-16T08:59:59+01:00", false, "2026-11-16T09:00:00+01:00"},
		{"at its first moment", []string{"Mon-Fri 09:00-17:00"}, "2026-11-16T09:00:00+01:00", true, "2026-11-16T17:00:00+01:00"},
		{"at its end", []string{"Mon-Fri 09:00-17:00"}, "2026-11-16T17:00:00+01:00", false, "2026-11-17T09:00:00+01:00"},
		{"over the weekend", []string{"Mon-Fri 09:00-17:00"}, "2026-11-20T17:00:00+01:00", false, "2026-11-23T09:00:00+01:00"},
		{"across midnight, evening", []string{"Mon-Fri 22:00-06:00"}, "2026-11-16T23:00:00+01:00", true, "2026-11-17T06:00:00+01:00"},
		{"across midnight, morning", []string{"Mon-Fri 22:00-06:00"}, "2026-11-17T05:59:00+01:00", true, "2026-11-17T06:00:00+01:00"},
		{"across midnight, morning after the last day", []string{"Mon-Fri 22:00-06:00"}, "2026-11-21T05:00:00+01:00", true, "2026-11-21T06:00:00+01:00"},
		{"across midnight, morning of the first day", []string{"Mon-Fri 22:00-06:00"}, "2026-11-16T05:00:00+01:00", false, "2026-11-16T22:00:00+01:00"},
		{"every day", []string{"12:00-13:30"}, "2026-11-22T13:29:59+01:00", true, "2026-11-22T13:30:00+01:00"},
		{"days alone", []string{"sat,SUN"}, "2026-11-21T00:00:00+01:00", true, "2026-11-23T00:00:00+01:00"},
		{"days around the week", []string{"Fri-Mon 08:00-09:00"}, "2026-11-22T08:30:00+01:00", true, "2026-11-22T09:00:00+01:00"},
		{"days around the week, outside", []string{"Fri-Mon 08:00-09:00"}, "2026-11-17T08:30:00+01:00", false, "2026-11-20T08:00:00+01:00"},
		{"two that meet", []string{"22:00-24:00", "00:00-06:00"}, "2026-11-16T23:00:00+01:00", true, "2026-11-17T06:00:00+01:00"},
		{"the whole week", []string{"00:00-24:00"}, "2026-11-16T23:00:00+01:00", true, ""},
		{"one hour a week", []string{"Mon 08:00-09:00"}, "2026-11-16T09:00:00+01:00", false, "2026-11-23T08:00:00+01:00"},
		{"the hour that is left out", []string{"02:00-03:00"}, "2026-03-29T00:00:00+01:00", false, "2026-03-30T02:00:00+02:00"},
		{"a beginning that is left out", []string{"02:30-05:00"}, "2026-03-29T01:59:00+01:00", false, "2026-03-29T03:00:00+02:00"},
		{"an end that is left out", []string{"01:00-02:30"}, "2026-03-29T01:59:00+01:00", true, "2026-03-29T03:00:00+02:00"},
		{"the hour that is there twice", []string{"02:00-03:00"}, "2026-10-25T02:30:00+02:00", true, "2026-10-25T03:00:00+01:00"},
		{"half of the hour that is there twice", []string{"02:00-02:30"}, "2026-10-25T02:30:00+02:00", false, "2026-10-25T02:00:00+01:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, tt.at)
			if err != nil {
				t.Fatal(err)
			}
			p := Policy{Windows: windows(t, tt.windows...)}
			reasons, next := p.Reasons(Unknown, at.In(berlin))
			if open := len(reasons) == 0; open != tt.open {
				t.Errorf("open is %v: %v", open, reasons)
			}
			got := ""
			if !next.IsZero() {
				got = next.Format(time.RFC3339)
			}
			if got != tt.next {
				t.Errorf("next is %s, want %s", got, tt.next)
			}
			if len(reasons) > 0 && (reasons[0].Cause != Hours || !reasons[0].Until.Equal(next) || !strings.Contains(reasons[0].Text, next.Format("Mon 15:04"))) {
				t.Errorf("%+v", reasons[0])
			}
		})
	}
}

func TestWindowRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "Mo 09:00-10:00", "Mon 9:00-10:00", "Mon 09:00", "09:00-09:00", "24:00-06:00", "09:60-10:00", "09:00-24:01",
		"-1:00-10:00", "09:00-10:00 Mon", "Mon, Tue 09:00-10:00", "Mon Tue", "Mon--Fri 09:00-10:00", "Mon- 09:00-10:00", "09:00-10:00-11:00", ",",
	} {
		var w Window
		err := w.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	if err := Default().Check(); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		key    string
		change func(*Policy)
	}{
		{"battery_floor", func(p *Policy) { p.BatteryFloor = -1 }},
		{"battery_floor", func(p *Policy) { p.BatteryFloor = 101 }},
		{"on_battery", func(p *Policy) { p.OnBattery = "stop" }},
		{"on_metered", func(p *Policy) { p.OnMetered = "" }},
	} {
		p := Default()
		tt.change(&p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), tt.key) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
