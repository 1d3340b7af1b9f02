package config

import (
	"cmp"
	"os"
	"path/filepath"
)

// System returns the config and the state folder of the machine's own agent, which
// its service uses.
func System() (folder, state string) {
	folder = filepath.Join(cmp.Or(os.Getenv("ProgramData"), `C:\ProgramData`), "Backstay")
	return folder, filepath.Join(folder, "State")
}
