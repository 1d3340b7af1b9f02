//go:build !windows && !darwin

package config

// System returns the config and the state folder of the machine's own agent, which
// its service uses.
func System() (folder, state string) { return "/etc/backstay", "/var/lib/backstay" }
