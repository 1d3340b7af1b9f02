package cli

import (
	"fmt"
	"strconv"
	"time"
)

// Span reads a span of time as a person writes it: what time.ParseDuration reads,
// and whole days and weeks as 7d and 2w. It is more than zero.
func Span(text string) (time.Duration, error) {
	each := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	d, err := time.ParseDuration(text)
	if n := len(text); n > 1 && each[text[n-1]] > 0 {
		var count int
		count, err = strconv.Atoi(text[:n-1])
		if d = time.Duration(count) * each[text[n-1]]; count > 10_000 {
			d = 0
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no span of time; write 90m, 24h, 7d or 2w", text)
	}
	return d, nil
}
