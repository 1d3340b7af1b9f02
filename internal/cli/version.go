package cli

import "runtime/debug"

// version is what the linker was told, as it is when packages are built.
var version string

// Version returns the version of the program: that of the package it came in, else what
// the toolchain knows of the sources it was built from.
func Version() string {
	if version != "" {
		return version
	}
	if build, ok := debug.ReadBuildInfo(); ok && build.Main.Version != "" {
		return build.Main.Version
	}
	return "unknown"
}
