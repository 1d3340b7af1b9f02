package cut

import "golang.org/x/sys/cpu"

// kernels returns those that the CPU can run, the fastest first.
func kernels() []kernel {
	var all []kernel
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ {
		all = append(all, kernel{"AVX-512", 64, skipAVX512})
	}
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ {
		all = append(all, kernel{"AES-NI", 8, skipAESNI})
	}
	return all
}

//go:noescape
func skipAESNI(k *keys, buf []byte, mask uint32) int

//go:noescape
func skipAVX512(k *keys, buf []byte, mask uint32) int
