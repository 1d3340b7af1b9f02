//go:build unix

package cmd_test

import (
	"runtime"
	"syscall"
)

// peakMB is the most resident memory that an ended program ever had.
func peakMB(p *process) float64 {
	peak := float64(p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	if runtime.GOOS == "darwin" {
		return peak / 1e6
	}
	return peak * 1024 / 1e6
}
