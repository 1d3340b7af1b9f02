package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the CPU time, user and system, that a running process has taken, all
// its threads together, those that ended included.
func cpuTime(pid int) (time.Duration, error) {
	// The clock of another process, as clock_getcpuclockid(3) numbers it.
	const scheduled = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// memory returns the resident memory of a process in bytes, and the most it had
// since it started or since resetPeak.
func memory(pid int) (now, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	field := func(name string) int64 {
		_, rest, found := bytes.Cut(status, []byte("\n"+name+":"))
		words := bytes.Fields(rest)
		if !found || len(words) == 0 {
			err = fmt.Errorf("process %d has no %s; it has ended", pid, name)
			return 0
		}
		kib, bad := strconv.ParseInt(string(words[0]), 10, 64)
		if bad != nil {
			err = bad
		}
		return kib << 10
	}
	now, peak = field("VmRSS"), field("VmHWM")
	return now, peak, err
}

// resetPeak forgets the peak memory of a process.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// flush writes what the page cache holds to the disks.
func flush() { unix.Sync() }

// memoryFolder is a folder that is held in memory, with its free bytes.
func memoryFolder() (dir string, free int64) {
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return "", 0
	}
	return shm, int64(st.Bavail) * st.Bsize
}
