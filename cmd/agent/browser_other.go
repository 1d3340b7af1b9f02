//go:build !windows && !darwin

package main

import (
	"errors"
	"os"
	"os/exec"
)

// openBrowser opens an address in the person's browser.
func openBrowser(address string) error {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return errors.New("there is no desktop here")
	}
	return exec.Command("xdg-open", address).Run()
}
