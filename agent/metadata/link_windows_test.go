package metadata

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/windows"
)

func TestJunction(t *testing.T) {
	const target = `\??\C:\Users\Zoë`
	b, err := junction(target)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseTarget(b); err != nil || string(got) != target {
		t.Errorf("%q, %v", got, err)
	}
	if int(binary.LittleEndian.Uint16(b[4:])) != len(b)-reparseHeader {
		t.Errorf("states %d bytes of %d", binary.LittleEndian.Uint16(b[4:]), len(b))
	}
}

func FuzzParseTarget(f *testing.F) {
	b, err := junction(`\??\C:\x`)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	link := bytes.Clone(b)
	binary.LittleEndian.PutUint32(link, windows.IO_REPARSE_TAG_SYMLINK)
	f.Add(link)
	f.Fuzz(func(t *testing.T, b []byte) {
		if target, err := parseTarget(b); err == nil && len(target) == 0 {
			t.Error("an empty target")
		}
	})
}
