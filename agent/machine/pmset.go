package machine

import (
	"regexp"
	"strconv"
	"strings"
)

var percentage = regexp.MustCompile(`\t(\d{1,3})%;`)

// parsePmset reads what "pmset -g batt" prints on macOS.
func parsePmset(out string) (onBattery bool, percent int) {
	percent = -1
	if found := percentage.FindStringSubmatch(out); found != nil {
		percent, _ = strconv.Atoi(found[1])
	}
	first, _, _ := strings.Cut(out, "\n")
	return strings.Contains(first, "'Battery Power'"), percent
}
