package conditions

import (
	"fmt"
	"slices"
	"strings"
)

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// UnmarshalText reads a window: days, hours, or both, as in "Mon-Fri 22:00-06:00",
// "Sat,Sun" or "12:00-13:30". Without days it is every day, without hours all day.
func (w *Window) UnmarshalText(b []byte) error {
	text := string(b)
	bad := func(why string) error {
		return fmt.Errorf("%q is no window: %s; write it as \"Mon-Fri 22:00-06:00\", \"Sat,Sun\" or \"12:00-13:30\"", text, why)
	}
	*w = Window{end: 24 * 60}
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > 2 {
		return bad("it has days and hours")
	}
	if hours := fields[len(fields)-1]; strings.Contains(hours, ":") {
		from, to, _ := strings.Cut(hours, "-")
		var ok1, ok2 bool
		w.start, ok1 = clock(from)
		w.end, ok2 = clock(to)
		if !ok1 || !ok2 || w.start == 24*60 {
			return bad("hours go from 00:00 to 24:00")
		}
		if w.start == w.end {
			return bad("it ends when it begins")
		}
		fields = fields[:len(fields)-1]
	}
	switch len(fields) {
	case 0:
		w.days = [7]bool{true, true, true, true, true, true, true}
		return nil
	case 2:
		return bad("hours go from 00:00 to 24:00")
	}
	for part := range strings.SplitSeq(strings.ToLower(fields[0]), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, last := slices.Index(days, from), slices.Index(days, to)
		if first < 0 || last < 0 {
			return bad("days are Mon, Tue, Wed, Thu, Fri, Sat, Sun")
		}
		for d := first; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == last {
				break
			}
		}
	}
	return nil
}

// clock reads hh:mm as minutes since midnight.
func clock(text string) (int, bool) {
	if len(text) != 5 || text[2] != ':' {
		return 0, false
	}
	digit := func(i int) int {
		if text[i] < '0' || text[i] > '9' {
			return 1000
		}
		return int(text[i] - '0')
	}
	hours, minutes := 10*digit(0)+digit(1), 10*digit(3)+digit(4)
	at := 60*hours + minutes
	return at, minutes < 60 && at <= 24*60
}
