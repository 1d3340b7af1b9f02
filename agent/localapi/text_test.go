package localapi_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"backstay/agent/localapi"
)

func TestSummary(t *testing.T) {
	now := time.Date(2026, 11, 20, 14, 0, 0, 0, time.FixedZone("here", 3600))
	ago := func(d time.Duration) *time.Time { at := now.Add(-d).UTC(); return &at }
	for _, tt := range []struct {
		name string
		st   localapi.Status
		want string
	}{
		{"protected", localapi.Status{State: localapi.Protected, LastSafe: ago(12 * time.Second)},
			"Protected · last change safe 12 s ago"},
		{"working", localapi.Status{State: localapi.Working, LastSafe: ago(time.Second), Waiting: 3},
			"Backing up · last change safe just now · 3 waiting"},
		{"first pass, nothing yet", localapi.Status{State: localapi.FirstPass, Waiting: 1200},
			"First backup · nothing safe yet · 1200 waiting"},
		{"paused for good", localapi.Status{State: localapi.Paused, PausedBy: "you", LastSafe: ago(3 * time.Hour), Waiting: 1},
			"Paused · last change safe 3 h ago · 1 waiting"},
		{"paused until", localapi.Status{State: localapi.Paused, PausedBy: "you", PausedUntil: ago(-time.Hour), LastSafe: ago(50 * time.Hour)},
			"Paused until 15:00 · last change safe 2 days ago"},
		{"paused until tomorrow, by something", localapi.Status{State: localapi.Paused, PausedBy: "battery", PausedUntil: ago(-17 * time.Hour), LastSafe: ago(59 * time.Minute)},
			"Paused until Sat 07:00 (battery) · last change safe 59 min ago"},
		{"offline", localapi.Status{State: localapi.Offline, Reason: "no route to host", LastSafe: ago(time.Minute), Waiting: 7},
			"Offline · last change safe 1 min ago · 7 waiting · no route to host"},
		{"attention", localapi.Status{State: localapi.Attention, Problems: 1, LastSafe: ago(-time.Hour)},
			"Attention · last change safe just now · 1 problem"},
		{"failing", localapi.Status{State: localapi.Failing, Problems: 2, Reason: "no room"},
			"Failing · nothing safe yet · 2 problems · no room"},
		{"alarm", localapi.Status{State: localapi.Alarm, Problems: 1, Reason: "line\nbreak\u202e and\x1b[31m more"},
			"Alarm · nothing safe yet · 1 problem · line break and [31m more"},
		{"not set up", localapi.Status{State: localapi.NotSetUp, Reason: "join first"},
			"Not set up · join first"},
		{"a state of a later agent", localapi.Status{State: "dreaming"}, "dreaming · nothing safe yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.st.Summary(now); got != tt.want {
				t.Errorf("%q,\nwant %q", got, tt.want)
			}
		})
	}
}

func TestSummaryFitsWhateverItIsToSay(t *testing.T) {
	now := time.Now()
	until, safe := now.Add(1e5*time.Hour), time.Unix(0, 0)
	for _, hostile := range []string{
		strings.Repeat("word ", 1000), strings.Repeat("𝕏", 500), strings.Repeat("ü", 500), strings.Repeat("a\u0301", 300),
		strings.Repeat("\xff\x00\n", 500), strings.Repeat(" ", 1000),
	} {
		for _, s := range append(localapi.States(), localapi.State(hostile)) {
			st := localapi.Status{
				State: s, Reason: hostile, PausedBy: hostile, PausedUntil: &until, LastSafe: &safe,
				Problems: 1 << 40, Waiting: 1 << 40, Server: hostile, Device: hostile,
			}
			got := st.Summary(now)
			if n := len(utf16.Encode([]rune(got))); n > localapi.SummaryLimit {
				t.Errorf("%d units: %q", n, got)
			}
			if strings.ContainsAny(got, "\n\x00\ufffe") || !strings.HasPrefix(got, s.Title()) {
				t.Errorf("%q", got)
			}
			if s != localapi.NotSetUp && len(s) < 20 && !strings.Contains(got, "problems") {
				t.Errorf("the reason leaves no room for the rest: %q", got)
			}
		}
	}
}

func TestEveryStateHasItsWords(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range localapi.States() {
		if s.Title() == "" || s.Sentence() == "" || seen[s.Title()] || seen[s.Sentence()] {
			t.Errorf("%s: %q, %q", s, s.Title(), s.Sentence())
		}
		seen[s.Title()], seen[s.Sentence()] = true, true
	}
	if len(seen) != 18 {
		t.Errorf("%d texts for nine states", len(seen))
	}
}
