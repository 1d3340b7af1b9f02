// Package icons holds the pictures of the tray: one for each state, told apart by
// their shape. They are drawn by the package's test, which compares them with the
// files that are committed; png and ico serve the installers, too.
package icons

//go:generate go test . -run TestPictures -update

// Of returns the picture of a name, in the format that this system's tray takes: PNG,
// on Windows ICO, on macOS a template whose colour the system chooses. There is one for
// every localapi.State and "not_running"; for any other name it is empty.
func Of(name string) []byte {
	data, _ := files.ReadFile(dir + name + suffix) // what is not there is empty
	return data
}
