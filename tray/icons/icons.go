// Package icons holds the pictures of the tray: one for each state, told apart by
// their shape. They are drawn by the package's test, which compares them with the
// files that are committed; png and ico serve the installers, too.
package icons

//go:generate go test . -run TestPictures -update

// Of returns the picture of a name in the sizes, the smallest first, and the format
// that this system's tray takes: PNG; on Windows one ICO that holds all sizes, on macOS
// one template whose colour the system chooses. There is one for every localapi.State
// and "not_running"; for any other name it is empty.
func Of(name string) [][]byte {
	var list [][]byte
	for _, suffix := range suffixes {
		if data, err := files.ReadFile(dir + name + suffix); err == nil {
			list = append(list, data)
		}
	}
	return list
}
