package cut

import "golang.org/x/sys/cpu"

// kernels returns those that the CPU can run, the fastest first.
func kernels() []kernel {
	if cpu.ARM64.HasAES && cpu.ARM64.HasPMULL {
		return []kernel{{"NEON", 8, skipNEON}}
	}
	return nil
}

//go:noescape
func skipNEON(k *keys, buf []byte, mask uint32) int
