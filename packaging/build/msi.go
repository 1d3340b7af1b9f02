package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"backstay/agent/service"
)

// msi is the package for Windows, made by wixl from packaging/windows/backstay.wxs.
func (b *build) msi(ctx context.Context, file string) error {
	work, err := os.MkdirTemp(b.work, "msi-")
	if err != nil {
		return err
	}
	notices, err := b.notices(ctx, "windows", "agent", "tray")
	if err != nil {
		return err
	}
	files := map[string]string{
		"LICENSE.txt": filepath.Join(b.root, "LICENSE"), "third-party.txt": notices,
		"README.md": filepath.Join(b.root, "README.md"), "app.ico": filepath.Join(b.root, "tray/icons/ico/app.ico"),
	}
	for _, name := range []string{"agent", "tray"} {
		if files[name+".exe"], err = b.program(ctx, name, "windows", "amd64"); err != nil {
			return err
		}
	}
	for name, src := range files {
		if err := b.stage(src, filepath.Join(work, name), 0o644); err != nil {
			return err
		}
	}
	source, err := template.ParseFiles(filepath.Join(b.root, "packaging/windows/backstay.wxs"))
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := source.Execute(&text, map[string]string{
		"Version": b.version.numbers(), "Next": b.version.next(), "Maker": maintainer, "Service": service.Name,
		// Builds between two releases are products of their own, which replace
		// each other.
		"Product": guid("product", b.version.String()),
	}); err != nil {
		return err
	}
	wxs := filepath.Join(work, "backstay.wxs")
	if err := os.WriteFile(wxs, text.Bytes(), 0o644); err != nil {
		return err
	}
	// wixl orders some tables by where things lie in its memory. So that this is the
	// same each time, so is all that it sees, and where the system puts it.
	if _, err := output(ctx, work, nil, "setarch", "--addr-no-randomize", "env", "-i", "PATH="+os.Getenv("PATH"), "LC_ALL=C",
		"wixl", "--arch", "x64", "--output", "out.msi", "backstay.wxs"); err != nil {
		return fmt.Errorf("%w (Debian: wixl, util-linux)", err)
	}
	data, err := os.ReadFile(filepath.Join(work, "out.msi"))
	if err != nil {
		return err
	}
	if err := settle(data, b.time); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// stage puts a copy of a file where it is packed from, with the time that all have.
func (b *build) stage(src, dst string, mode os.FileMode) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(dst, data, mode), os.Chmod(dst, mode), os.Chtimes(dst, b.time, b.time))
}

// guid derives an identifier from words, as Windows writes one.
func guid(words ...string) string {
	sum := sha256.Sum256([]byte("backstay\x00" + strings.Join(words, "\x00")))
	g := sum[:16]
	g[6], g[8] = g[6]&0x0f|0x80, g[8]&0x3f|0x80 // version 8, by whoever makes it; RFC 9562
	return strings.ToUpper(fmt.Sprintf("{%x-%x-%x-%x-%x}", g[:4], g[4:6], g[6:8], g[8:10], g[10:]))
}

// The property set "SummaryInformation" (MS-OLEPS): its format, the properties that
// wixl makes anew each time, and their types.
var summaryFormat = []byte{0xe0, 0x85, 0x9f, 0xf2, 0xf9, 0x4f, 0x68, 0x10, 0xab, 0x91, 0x08, 0x00, 0x2b, 0x27, 0xb3, 0xd9}

const (
	packageCode = 9
	created     = 12
	saved       = 13
	typeString  = 30
	typeTime    = 64
)

// settle replaces what differs between two runs of wixl on the same files: the code of
// the package by one derived from all its bytes, and the times by t. It fails where the
// file is not as wixl writes it, rather than leave any of them.
func settle(msi []byte, t time.Time) error {
	odd := errors.New("the summary of the MSI is not where wixl puts it")
	at := bytes.Index(msi, summaryFormat)
	// The stream begins with a header of 28 bytes, then come format and offset.
	if at < 28 || at+20 > len(msi) || bytes.Contains(msi[at+1:], summaryFormat) {
		return odd
	}
	stream := msi[at-28:]
	number := func(offset uint32) uint32 {
		if uint64(offset)+4 > uint64(len(stream)) {
			return 0
		}
		return binary.LittleEndian.Uint32(stream[offset:])
	}
	section := number(44)
	value := func(property, kind uint32, size int) []byte {
		for i := range min(number(section+4), 64) {
			if number(section+8+8*i) != property {
				continue
			}
			offset := section + number(section+12+8*i)
			if number(offset) != kind || uint64(offset)+4+uint64(size) > uint64(len(stream)) {
				return nil
			}
			return stream[offset+4:][:size]
		}
		return nil
	}
	const length = 38 // of a GUID in braces
	code := value(packageCode, typeString, 4+length+1)
	times := [][]byte{value(created, typeTime, 8), value(saved, typeTime, 8)}
	if code == nil || times[0] == nil || times[1] == nil || binary.LittleEndian.Uint32(code) != length+1 || code[4] != '{' || code[4+length] != 0 {
		return odd
	}
	// Units of 100 ns since 1601.
	for _, v := range times {
		binary.LittleEndian.PutUint64(v, uint64(t.Unix()+11644473600)*1e7)
	}
	code = code[4:][:length]
	copy(code, strings.Repeat("0", length))
	copy(code, guid("package", string(msi)))
	return nil
}
