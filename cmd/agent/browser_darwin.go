package main

import "os/exec"

// openBrowser opens an address in the person's browser.
func openBrowser(address string) error { return exec.Command("open", address).Run() }
