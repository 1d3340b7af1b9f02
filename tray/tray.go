// Package tray says what the tray shows: from what the agent tells, or that it tells
// nothing, to an icon, a tooltip and a menu, whose entries are actions as values. The
// same is shown whatever the system; tray/systray puts it on the screen and cmd/tray
// does what is chosen.
//
// The one invariant: the icon is never a better one than the agent's state. The package
// is pure: it reads no clock, no file and no socket. Enter at [Render].
package tray

import (
	"fmt"
	"time"

	"backstay/agent/localapi"
)

// Input is what is known of the agent.
type Input struct {
	// Reach says whether Status is the agent's.
	Reach  Reach
	Status localapi.Status
}

// Reach is how well the agent is reached.
type Reach int

// What Reach can be.
const (
	NotRunning Reach = iota
	NoAnswer         // something is there that does not answer, or not as expected
	Answers
)

// View is what is on the screen.
type View struct {
	// Icon is a name of tray/icons: the state, or IconNotRunning.
	Icon string
	// Tooltip is one line of at most localapi.SummaryLimit.
	Tooltip string
	// Menu has the same entries in the same order whatever the input, so that it can
	// be changed while it is open.
	Menu []Item
}

// IconNotRunning is the icon while the agent cannot be asked.
const IconNotRunning = "not_running"

// Item is an entry of a menu: a line between entries where Label is empty, a menu of
// its own where Items is not.
type Item struct {
	// Action is what choosing it does; empty where there is nothing to choose.
	Action  Action
	Label   string
	Enabled bool
	Checked bool
	Items   []Item
}

// Action is what a person can choose.
type Action string

// The actions.
const (
	Restore     Action = "restore"
	Rewind      Action = "rewind"
	Backup      Action = "backup"
	PauseHour   Action = "pause-hour"
	PauseDay    Action = "pause-day"
	PauseOpen   Action = "pause-open"
	Resume      Action = "resume"
	Problems    Action = "problems"
	Folders     Action = "folders"
	Kit         Action = "kit"
	Dashboard   Action = "dashboard"
	About       Action = "about"
	QuitTheIcon Action = "quit"
)

// Page is the dashboard's page that an action opens, "" for its first; ok is false
// for an action that opens none.
func (a Action) Page() (page string, ok bool) {
	switch a {
	case Restore, Rewind, Problems, Folders, Kit:
		return string(a), true
	case About:
		return "settings", true
	case Dashboard:
		return "", true
	}
	return "", false
}

// Pause is until when an action pauses, the zero time for until a person resumes; ok
// is false for an action that does not pause. Tomorrow begins at seven in the morning
// in now's zone.
func (a Action) Pause(now time.Time) (until time.Time, ok bool) {
	switch a {
	case PauseHour:
		return now.Add(time.Hour), true
	case PauseDay:
		return time.Date(now.Year(), now.Month(), now.Day()+1, 7, 0, 0, 0, now.Location()), true
	case PauseOpen:
		return time.Time{}, true
	}
	return time.Time{}, false
}

// Render says what is shown at a time.
func Render(in Input, now time.Time) View {
	title, sentence := localapi.NotRunningTitle, localapi.NotRunningSentence
	v := View{Icon: IconNotRunning}
	switch in.Reach {
	case Answers:
		title, sentence = in.Status.Summary(now), in.Status.State.Sentence()
		v.Icon = icon(in.Status.State)
		v.Tooltip = title
	case NoAnswer:
		title, sentence = localapi.NoAnswerTitle, localapi.NoAnswerSentence
	}
	if v.Tooltip == "" {
		v.Tooltip = title + " · " + sentence
	}
	v.Menu = menu(in, title, sentence)
	return v
}

// icon is that of a state; what a newer agent means by one that is not known here
// cannot be called well.
func icon(s localapi.State) string {
	for _, known := range localapi.States() {
		if s == known {
			return string(s)
		}
	}
	return string(localapi.Attention)
}

func menu(in Input, title, sentence string) []Item {
	st := in.Status
	answers := in.Reach == Answers
	setUp := answers && st.State != localapi.NotSetUp
	paused := setUp && st.PausedBy != ""
	problems := "No problems"
	switch {
	case !answers:
		problems = "Problems…"
	case st.Problems == 1:
		problems = "1 problem…"
	case st.Problems > 1:
		problems = fmt.Sprintf("%d problems…", st.Problems)
	}
	open := "Open dashboard"
	if answers && !setUp {
		open = "Set up…"
	}
	return []Item{
		{Label: title},
		{Label: sentence},
		{},
		{Action: Restore, Label: "Restore a file…", Enabled: setUp},
		{Action: Rewind, Label: "Rewind a folder…", Enabled: setUp},
		{},
		{Action: Backup, Label: "Back up now", Enabled: setUp && !paused},
		{Label: "Pause", Enabled: setUp, Items: []Item{
			{Action: PauseHour, Label: "For 1 hour", Enabled: setUp},
			{Action: PauseDay, Label: "Until tomorrow", Enabled: setUp},
			{Action: PauseOpen, Label: "Until I resume", Enabled: setUp, Checked: paused && st.PausedUntil == nil},
		}},
		{Action: Resume, Label: "Resume", Enabled: paused && st.PausedBy == localapi.PausedByYou},
		{},
		{Action: Problems, Label: problems, Enabled: setUp && st.Problems > 0},
		{Action: Folders, Label: "Folders…", Enabled: setUp},
		{Action: Kit, Label: "Recovery kit…", Enabled: setUp},
		{Action: Dashboard, Label: open, Enabled: true},
		{Action: About, Label: "About", Enabled: answers},
		{},
		{Action: QuitTheIcon, Label: "Quit icon (protection goes on)", Enabled: true},
	}
}

// Refresh is how long a view may stay as it is though nothing changes: it says how
// long ago something was.
func Refresh(in Input, now time.Time) time.Duration {
	if in.Reach == Answers && in.Status.LastSafe != nil && now.Sub(*in.Status.LastSafe) < time.Minute {
		return 10 * time.Second
	}
	return time.Minute
}
