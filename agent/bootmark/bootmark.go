// Package bootmark tells whether the system stopped under a running program: by
// power loss or a crash of the kernel, after which files that were being written may
// have lost their content.
package bootmark

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"backstay/internal/durable"
)

// fileName is the mark in the state folder: the time of the boot under which a
// program runs, in seconds since 1970.
const fileName = "running"

// slack is how far two readings of one boot's time may be apart: some systems
// compute it from a clock that is set meanwhile.
const slack = 2 * time.Minute

// Set marks that a program runs on a state folder. It returns the time of this boot
// if an earlier program was running when the system went down and nobody has
// answered for that since, else the zero time.
func Set(state string) (time.Time, error) {
	boot, err := bootTime()
	if err != nil {
		return time.Time{}, fmt.Errorf("time of boot: %w", err)
	}
	return set(state, boot)
}

func set(state string, boot time.Time) (time.Time, error) {
	path := filepath.Join(state, fileName)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, err
	}
	unclean := false
	if err == nil {
		before, perr := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		unclean = perr != nil || boot.Sub(time.Unix(before, 0)).Abs() > slack
	}
	if unclean {
		// The mark stays as it is until Clear: whatever ends this program, the
		// next one still has to ask.
		return boot, nil
	}
	return time.Time{}, durable.WriteFile(path, strconv.AppendInt(nil, boot.Unix(), 10), 0o600)
}

// Clear removes the mark: the program ends as it should, and nothing is left to be
// asked.
func Clear(state string) error {
	err := os.Remove(filepath.Join(state, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
