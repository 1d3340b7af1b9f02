package v3

import (
	"crypto/aes"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// TestCBCKernelIsUsed makes sure that the other tests are about the kernel.
func TestCBCKernelIsUsed(t *testing.T) {
	d, err := NewDecrypter(io.Discard, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.mode.(*cbcKernel); ok != cpu.X86.HasAES {
		t.Errorf("%T on a CPU with AES instructions: %v", d.mode, cpu.X86.HasAES)
	}
}

func TestCBCKernelPrintsNoKey(t *testing.T) {
	if !cpu.X86.HasAES {
		t.Skip("the CPU has no AES instructions")
	}
	k := newCBCKernel(testKey.bytes(), make([]byte, aes.BlockSize))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, k); got != redacted {
			t.Errorf("%s shows %s", verb, got)
		}
		d := &Decrypter{mode: k}
		if got := fmt.Sprintf(verb+verb, d, *d); strings.Contains(got, fmt.Sprintf(verb, k.keys[0])) {
			t.Errorf("%s of a Decrypter shows %s", verb, got)
		}
	}
}
