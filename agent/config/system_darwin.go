package config

// System returns the config and the state folder of the machine's own agent, which
// its service uses.
func System() (folder, state string) {
	const folders = "/Library/Application Support/Backstay"
	return folders, folders + "/State"
}
