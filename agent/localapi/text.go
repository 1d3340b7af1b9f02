package localapi

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"backstay/internal/cli"
)

// All that a person reads about the agent's state is written here, so that tray,
// command line and dashboard say the same, and another language has one place to
// go. Titles and sentences stand for themselves; [Status.Summary] is the one line
// that has room for nothing else.

// texts holds the title of each state, two words at most, and the sentence that
// explains it.
var texts = map[State]struct{ title, sentence string }{
	NotSetUp:  {"Not set up", "Nothing is protected yet: say what to protect, and where its copy goes."},
	Alarm:     {"Alarm", "Something unusual happened to what is kept for you. Look at it before anything else."},
	Failing:   {"Failing", "Nothing new can be protected until you act."},
	Attention: {"Attention", "Some of your files are not protected."},
	Offline:   {"Offline", "The server cannot be reached. Changes are kept here and sent when it is back."},
	Paused:    {"Paused", "Nothing is sent until the pause ends. Changes are still noticed."},
	FirstPass: {"First backup", "Everything is sent for the first time. What has not been sent is not protected yet."},
	Working:   {"Backing up", "Changes are on their way to the server."},
	Protected: {"Protected", "Everything is safe on the server."},
}

// States lists every state, the worst first.
func States() []State {
	return []State{NotSetUp, Alarm, Failing, Attention, Offline, Paused, FirstPass, Working, Protected}
}

// Title is the state in two words at most, for a person.
func (s State) Title() string {
	if t, ok := texts[s]; ok {
		return t.title
	}
	return clip(string(s), 40) // a newer agent's
}

// Sentence explains the state.
func (s State) Sentence() string {
	if t, ok := texts[s]; ok {
		return t.sentence
	}
	return "The agent is of a newer version than what shows this."
}

// What there is to say when there is no status.
const (
	NotRunningTitle    = "Not running"
	NotRunningSentence = "The agent is not running, so nothing new is protected."
	NoAnswerTitle      = "No answer"
	NoAnswerSentence   = "The agent does not answer, so nobody knows what is protected."
)

// SummaryLimit is how long a Summary may be, in UTF-16 code units: as long as a
// tooltip on Windows.
const SummaryLimit = 127

// Summary is the status in one line of at most SummaryLimit, for example
//
//	Protected · last change safe 12 s ago · 3 waiting
//
// whatever the agent's reasons contain. Times of day are in now's zone.
func (st Status) Summary(now time.Time) string {
	parts := []string{st.headline(now)}
	if st.State != NotSetUp {
		parts = append(parts, st.lastSafe(now))
	}
	if st.Problems > 0 {
		parts = append(parts, count(st.Problems, "problem", "problems"))
	}
	if st.Waiting > 0 {
		parts = append(parts, count(st.Waiting, "waiting", "waiting"))
	}
	if st.Reason != "" {
		parts = append(parts, st.Reason)
	}
	return clip(strings.Join(parts, " · "), SummaryLimit)
}

// headline is the title, and for how long and why where the agent is paused.
func (st Status) headline(now time.Time) string {
	s := st.State.Title()
	if st.State != Paused {
		return s
	}
	if st.PausedUntil != nil {
		s += " until " + Clock(*st.PausedUntil, now)
	}
	if st.PausedBy != "" && st.PausedBy != PausedByYou {
		s += " (" + clip(st.PausedBy, 20) + ")"
	}
	return s
}

func (st Status) lastSafe(now time.Time) string {
	if st.LastSafe == nil {
		return "nothing safe yet"
	}
	return "last change safe " + Age(now.Sub(*st.LastSafe))
}

// Details are the lines that say more than the Summary: what the state means, why it
// is what it is, and what is protected where.
func (st Status) Details(now time.Time) []string {
	lines := []string{st.State.Sentence()}
	if st.Reason != "" {
		lines = append(lines, Line(st.Reason))
	}
	if st.State == NotSetUp {
		return lines
	}
	counts := fmt.Sprintf("%d protected (%s), %d waiting, %d excluded by rule, %s",
		st.Protected, cli.Bytes(st.Bytes), st.Waiting, st.Excluded, count(st.Problems, "problem", "problems"))
	if st.Rate > 0 {
		counts += ", " + cli.Bytes(st.Rate) + "/s"
	}
	return append(lines, counts, fmt.Sprintf("server %s, device %s", Line(st.Server), Line(st.Device)))
}

// Age says how long ago something was: "just now", "12 s ago", "3 min ago". What lies
// ahead, because a clock was set, is just now.
func Age(d time.Duration) string {
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/(24*time.Hour))
}

// Clock is a time to come as short as it is clear: the time of day, with the day
// unless it is today, in now's zone.
func Clock(at, now time.Time) string {
	at = at.In(now.Location())
	switch y, m, d := at.Date(); {
	case at.Sub(now) >= 6*24*time.Hour:
		return at.Format("2 Jan 2006 15:04")
	case time.Date(y, m, d, 0, 0, 0, 0, at.Location()).After(now):
		return at.Format("Mon 15:04")
	}
	return at.Format("15:04")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Line is text that cannot break the line or turn its direction: what does not print
// becomes a space.
func Line(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}

// clip makes s one line of at most limit UTF-16 code units.
func clip(s string, limit int) string {
	s = Line(s)
	n, end := 0, 0 // units up to here; where the ellipsis would go
	for i, r := range s {
		if n <= limit-1 {
			end = i
		}
		if n += utf16.RuneLen(r); n > limit {
			return strings.TrimRight(s[:end], " ·") + "…"
		}
	}
	return s
}
