package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// fewWatches is a limit that a home folder easily exceeds.
const fewWatches = 65_536

// systemFindings looks at what this system limits.
func systemFindings() []finding {
	f := finding{Check: "watch limit", OK: true}
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_user_watches")
	n, perr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || perr != nil {
		return nil // not this kernel's way
	}
	f.Text = fmt.Sprintf("%d folders can be watched", n)
	if n < fewWatches {
		f.OK = false
		f.Fix = "run as root: echo fs.inotify.max_user_watches=524288 > /etc/sysctl.d/90-backstay.conf && sysctl --system; until then folders beyond it are polled"
	}
	return []finding{f}
}
