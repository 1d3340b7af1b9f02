package tray_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"backstay/agent/localapi"
	"backstay/tray"
	"backstay/tray/icons"
)

var now = time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC)

func at(d time.Duration) *time.Time { t := now.Add(d); return &t }

// choices are the actions that can be chosen, in the menu's order.
func choices(items []tray.Item) string {
	var names []string
	for _, it := range items {
		if it.Enabled && it.Action != "" {
			names = append(names, string(it.Action))
		}
		if sub := choices(it.Items); sub != "" {
			names = append(names, sub)
		}
	}
	return strings.Join(names, " ")
}

func labels(items []tray.Item) string {
	var b strings.Builder
	for _, it := range items {
		mark := ""
		if it.Checked {
			mark = "✓"
		}
		fmt.Fprintf(&b, "|%s%s", mark, it.Label)
		b.WriteString(labels(it.Items))
	}
	return b.String()
}

func TestRender(t *testing.T) {
	const (
		all    = "restore rewind backup pause-hour pause-day pause-open folders kit dashboard about quit"
		bad    = "restore rewind backup pause-hour pause-day pause-open problems folders kit dashboard about quit"
		resume = "restore rewind pause-hour pause-day pause-open resume folders kit dashboard about quit"
	)
	safe := at(-12 * time.Second)
	for _, tt := range []struct {
		name    string
		in      tray.Input
		icon    string
		tooltip string
		choices string
		labels  []string
	}{
		{"not running", tray.Input{Status: localapi.Status{State: localapi.Protected}}, "not_running",
			"Not running · The agent is not running, so nothing new is protected.", "dashboard quit", []string{"|Not running|The agent is not running", "|Problems…"}},
		{"no answer", tray.Input{Reach: tray.NoAnswer, Status: localapi.Status{State: localapi.Protected}}, "not_running",
			"No answer · The agent does not answer, so nobody knows what is protected.", "dashboard quit", nil},
		{"not set up", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.NotSetUp}}, "not_set_up",
			"Not set up", "dashboard about quit", []string{"|Set up…"}},
		{"alarm", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Alarm, LastSafe: safe, Problems: 2, Reason: "the server lost backups"}}, "alarm",
			"Alarm · last change safe 12 s ago · 2 problems · the server lost backups", bad, []string{"|2 problems…"}},
		{"failing", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Failing, LastSafe: safe, Problems: 1, Waiting: 4, Reason: "no room"}}, "failing",
			"Failing · last change safe 12 s ago · 1 problem · 4 waiting · no room", bad, []string{"|1 problem…"}},
		{"attention", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Attention, LastSafe: safe, Problems: 3}}, "attention",
			"Attention · last change safe 12 s ago · 3 problems", bad, []string{"|Some of your files are not protected.|", "|3 problems…"}},
		{"offline", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Offline, LastSafe: at(-3 * time.Hour), Waiting: 7, Reason: "no route to host"}}, "offline",
			"Offline · last change safe 3 h ago · 7 waiting · no route to host", all, nil},
		{"paused for good", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Paused, PausedBy: "you", LastSafe: safe}}, "paused",
			"Paused · last change safe 12 s ago", resume, []string{"|Pause|For 1 hour|Until tomorrow|✓Until I resume|Resume|"}},
		{"paused for an hour", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Paused, PausedBy: "you", PausedUntil: at(time.Hour), LastSafe: safe, Waiting: 1}}, "paused",
			"Paused until 15:00 · last change safe 12 s ago · 1 waiting", resume, []string{"|Pause|For 1 hour|Until tomorrow|Until I resume|Resume|"}},
		{"paused by the machine", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Paused, PausedBy: "battery", LastSafe: safe}}, "paused",
			"Paused (battery) · last change safe 12 s ago", strings.Replace(resume, "resume ", "", 1), nil},
		{"paused with problems", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Attention, PausedBy: "you", Problems: 1}}, "attention",
			"Attention · nothing safe yet · 1 problem", strings.Replace(resume, "folders", "problems folders", 1), nil},
		{"first pass", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.FirstPass, Waiting: 1200}}, "first_pass",
			"First backup · nothing safe yet · 1200 waiting", all, nil},
		{"working", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Working, LastSafe: safe, Waiting: 3}}, "working",
			"Backing up · last change safe 12 s ago · 3 waiting", all, nil},
		{"protected", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.Protected, LastSafe: safe}}, "protected",
			"Protected · last change safe 12 s ago", all, []string{"|Protected · last change safe 12 s ago|Everything is safe on the server.||Restore a file…|Rewind a folder…||Back up now|Pause|", "|No problems|Folders…|Recovery kit…|Open dashboard|About||Quit icon (protection goes on)"}},
		{"a state of a later agent", tray.Input{Reach: tray.Answers, Status: localapi.Status{State: "dreaming"}}, "attention",
			"dreaming · nothing safe yet", all, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := tray.Render(tt.in, now)
			if v.Icon != tt.icon || v.Tooltip != tt.tooltip {
				t.Errorf("%s, %q; want %s, %q", v.Icon, v.Tooltip, tt.icon, tt.tooltip)
			}
			if len(utf16.Encode([]rune(v.Tooltip))) > localapi.SummaryLimit {
				t.Errorf("a tooltip of %d", len(v.Tooltip))
			}
			if got := choices(v.Menu); got != tt.choices {
				t.Errorf("can choose %s,\nwant %s", got, tt.choices)
			}
			for _, want := range tt.labels {
				if got := labels(v.Menu); !strings.Contains(got+"|", want) {
					t.Errorf("menu %s\nlacks %s", got, want)
				}
			}
			if got, want := shape(v.Menu), shape(tray.Render(tray.Input{}, now).Menu); got != want {
				t.Errorf("the menu changes its shape: %s, %s", got, want)
			}
			if len(icons.Of(v.Icon)) == 0 {
				t.Errorf("no picture %s", v.Icon)
			}
		})
	}
}

// shape is a menu without what may change.
func shape(items []tray.Item) string {
	s := ""
	for _, it := range items {
		s += fmt.Sprintf("%s %v(%s),", it.Action, it.Label == "", shape(it.Items))
	}
	return s
}

func TestActions(t *testing.T) {
	pages := 0
	for _, a := range []tray.Action{
		tray.Restore, tray.Rewind, tray.Backup, tray.PauseHour, tray.PauseDay, tray.PauseOpen, tray.Resume,
		tray.Problems, tray.Folders, tray.Kit, tray.Dashboard, tray.About, tray.QuitTheIcon,
	} {
		_, page := a.Page()
		_, pause := a.Pause(now)
		if page && pause {
			t.Errorf("%s does two things", a)
		}
		if page {
			pages++
		}
	}
	if pages != 7 {
		t.Errorf("%d actions open a page, want 7", pages)
	}
	late := time.Date(2026, 12, 31, 23, 59, 0, 0, time.FixedZone("here", 7200))
	for _, tt := range []struct {
		action tray.Action
		want   string
	}{
		{tray.PauseHour, "2027-01-01T00:59:00+02:00"}, {tray.PauseDay, "2027-01-01T07:00:00+02:00"}, {tray.PauseOpen, "0001-01-01T00:00:00Z"},
	} {
		if until, ok := tt.action.Pause(late); !ok || until.Format(time.RFC3339) != tt.want {
			t.Errorf("%s until %v, want %s", tt.action, until, tt.want)
		}
	}
}

func TestNotices(t *testing.T) {
	type step struct {
		after time.Duration
		state localapi.State
		want  string // the title without the program's name; empty: nothing
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"nothing while all is well", []step{{0, "protected", ""}, {1, "working", ""}, {1, "protected", ""}, {1, "offline", ""}, {1, "paused", ""}, {1, "protected", ""}}},
		{"trouble and its end", []step{{0, "protected", ""}, {1, "attention", "Attention"}, {1, "attention", ""}, {1, "protected", "Protected"}, {1, "protected", ""}}},
		{"each is worse", []step{{0, "protected", ""}, {1, "attention", "Attention"}, {1, "failing", "Failing"}, {1, "alarm", "Alarm"}, {1, "attention", ""}, {1, "working", "Backing up"}}},
		{"attention at the start is no news", []step{{0, "attention", ""}, {1, "attention", ""}, {1, "protected", "Protected"}}},
		{"failing and alarm at the start are", []step{{0, "failing", "Failing"}, {1, "alarm", "Alarm"}}},
		{"paused and offline say nothing", []step{{0, "protected", ""}, {1, "failing", "Failing"}, {1, "offline", ""}, {1, "paused", ""}, {1, "failing", ""}, {1, "protected", "Protected"}}},
		{"offline first, then attention", []step{{0, "offline", ""}, {1, "attention", ""}, {1, "protected", "Protected"}, {1, "attention", "Attention"}}},
		{"what flutters is told once", []step{{0, "protected", ""}, {1, "attention", "Attention"}, {1, "protected", "Protected"}, {1, "attention", ""}, {1, "protected", ""}, {1, "attention", ""}, {1, "protected", ""}}},
		{"what was held back and stays is told later", []step{{0, "protected", ""}, {1, "attention", "Attention"}, {1, "protected", "Protected"}, {1, "attention", ""}, {Quiet, "attention", "Attention"}, {1, "attention", ""}}},
		{"another trouble is not held back", []step{{0, "protected", ""}, {1, "attention", "Attention"}, {1, "protected", "Protected"}, {1, "alarm", "Alarm"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n tray.Notices
			clock := now
			for i, s := range tt.steps {
				clock = clock.Add(s.after)
				got, ok := n.Next(localapi.Status{State: s.state, Reason: strings.Repeat("long\n", 200)}, clock)
				if ok != (s.want != "") || ok && got.Title != "Backstay: "+s.want {
					t.Fatalf("step %d, %s: %+v", i, s.state, got)
				}
				if ok && (len([]rune(got.Text)) > 240 || strings.Contains(got.Text, "\n") || got.Text == "") {
					t.Errorf("text %q", got.Text)
				}
				if ok && got.Urgent != (s.state == localapi.Alarm) {
					t.Errorf("%s: urgent is %v", s.state, got.Urgent)
				}
			}
		})
	}
}

const Quiet = tray.Quiet

func TestNoticesAreFew(t *testing.T) {
	var n tray.Notices
	told, clock := 0, now
	states := localapi.States()
	for i := range 24 * 60 * 60 { // a day, another state each second
		if _, ok := n.Next(localapi.Status{State: states[i*7%len(states)]}, clock); ok {
			told++
		}
		clock = clock.Add(time.Second)
	}
	// Three troubles, and an end after each, every half an hour.
	if most := 48 * 6; told > most {
		t.Errorf("%d notices in a day, want %d at most", told, most)
	}
}

func TestDesktopEntries(t *testing.T) {
	got := tray.DesktopEntry(`/opt/a "b" $c %d/tray`)
	for _, want := range []string{"[Desktop Entry]\n", "Type=Application\n", "Exec=\"/opt/a \\\\\"b\\\\\" \\\\$c %%d/tray\"\n", "NoDisplay=true\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %q", got, want)
		}
	}
	if got := tray.MenuEntry("/usr/bin/agent"); !strings.Contains(got, "Exec=\"/usr/bin/agent\" dashboard\n") {
		t.Error(got)
	}
}
