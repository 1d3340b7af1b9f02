package tray

import (
	"time"

	"backstay/agent/localapi"
)

// Notice is a notification: something is wrong that was not, or it is well again.
type Notice struct {
	Title, Text string
	// Icon is a name of tray/icons.
	Icon string
	// Urgent: it stays until it is seen, where the desktop can do that.
	Urgent bool
}

// Quiet is how long after a notice the same trouble is not told again: what comes and
// goes would teach a person to look away.
const Quiet = 30 * time.Minute

// Notices decides what a person is told of without looking: that attention is needed,
// that nothing can be protected, an alarm, and that what was told is over. It is not
// safe for concurrent use; the zero value is ready.
type Notices struct {
	started bool
	// told is the trouble that the person knows of, at when each was told last.
	told trouble
	at   [alarm + 1]time.Time
}

// trouble is how bad a state is.
type trouble int

const (
	fine trouble = iota
	attention
	failing
	alarm
)

// troubleOf says how bad a state is; known is false for one that says nothing of
// trouble, because the agent is paused or the server away.
func troubleOf(s localapi.State) (t trouble, known bool) {
	switch s {
	case localapi.Attention:
		return attention, true
	case localapi.Failing:
		return failing, true
	case localapi.Alarm:
		return alarm, true
	case localapi.Protected, localapi.Working, localapi.FirstPass:
		return fine, true
	}
	return fine, false
}

// Next returns what to tell of a status, if anything. It is given every status, and
// the last one again now and then: what was held back is told when Quiet is over if it
// is still true. What needed attention before the first status is no news.
func (n *Notices) Next(st localapi.Status, now time.Time) (Notice, bool) {
	t, known := troubleOf(st.State)
	first := !n.started
	n.started = n.started || known
	switch {
	case !known || t == n.told:
		return Notice{}, false
	case first && t == attention:
		n.told = t
		return Notice{}, false
	case t > n.told:
		if last := n.at[t]; !last.IsZero() && now.Sub(last) < Quiet {
			return Notice{}, false
		}
		n.told, n.at[t] = t, now
		return Notice{Title: "Backstay: " + st.State.Title(), Text: textOf(st), Icon: string(st.State), Urgent: t == alarm}, true
	}
	n.told = t
	if t > fine {
		return Notice{}, false // less bad is not well
	}
	return Notice{Title: "Backstay: " + st.State.Title(), Text: "What was wrong is over. " + st.State.Sentence(), Icon: string(st.State)}, true
}

// maxNotice bounds a notice's text, in characters: a bubble is no page.
const maxNotice = 240

func textOf(st localapi.Status) string {
	text := st.State.Sentence()
	if st.Reason != "" {
		text += " " + localapi.Line(st.Reason)
	}
	if r := []rune(text); len(r) > maxNotice {
		return string(r[:maxNotice-1]) + "…"
	}
	return text
}
