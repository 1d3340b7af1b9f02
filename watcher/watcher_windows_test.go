package watcher

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/sys/windows"
)

func underWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

// TestFoldersAreFree renames and deletes folders that are open here.
func TestFoldersAreFree(t *testing.T) {
	dir := tempDir(t)
	root := filepath.Join(dir, "root")
	write(t, root+"/f", "1")
	b := newBackend()
	defer b.close()
	f, err := openDir(root, false)
	must(t, err)
	defer f.Close()
	_, err = b.watch(f, true, newQueue())
	must(t, err)
	must(t, os.Rename(root, root+"2"))
	must(t, os.Remove(root+"2/f"))
	must(t, os.Remove(root+"2"))
}

// TestHandlesAreClosed begins and ends many watches, some with changes under way.
func TestHandlesAreClosed(t *testing.T) {
	dir := tempDir(t)
	b := newBackend().(*changes)
	f, err := openDir(dir, false)
	must(t, err)
	defer f.Close()
	for range 200 {
		q := newQueue()
		id, err := b.watch(f, true, q)
		must(t, err)
		if again, err := b.watch(f, true, q); again != id || err != nil {
			t.Fatalf("the same watch: %d and %d, %v", id, again, err)
		}
		write(t, dir+"/f", "1")
		b.unwatch(id, q)
	}
	b.close()
	if len(b.folders) != 0 {
		t.Errorf("%d handles left", len(b.folders))
	}
}

func TestExtended(t *testing.T) {
	long := strings.Repeat("x", 250)
	for _, c := range []struct{ name, path, want string }{
		{"short", `C:\a`, `C:\a`},
		{"long", `C:\` + long, `\\?\C:\` + long},
		{"long share", `\\host\share\` + long, `\\?\UNC\host\share\` + long},
		{"done before", `\\?\C:\` + long, `\\?\C:\` + long},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := extended(c.path); got != c.want {
				t.Errorf("extended = %q", got)
			}
		})
	}
}

func TestLongName(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/A long folder name/f~1", "1")
	path, err := windows.UTF16PtrFromString(filepath.Join(dir, "A long folder name"))
	must(t, err)
	buf := make([]uint16, 1000)
	n, err := windows.GetShortPathName(path, &buf[0], uint32(len(buf)))
	must(t, err)
	short := filepath.Base(windows.UTF16ToString(buf[:n]))
	for _, c := range []struct{ name, in, want string }{
		{"plain", "A long folder name", "A long folder name"},
		{"short form", short + `\f~1`, `A long folder name\f~1`},
		{"gone", `gone~1\x`, `gone~1\x`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := longName(dir, c.in); got != c.want {
				t.Errorf("longName(%q) = %q", c.in, got)
			}
		})
	}
}

// information makes FILE_NOTIFY_INFORMATION.
func information(changes ...change) []byte {
	var all []byte
	for i, c := range changes {
		name := utf16.Encode([]rune(c.name))
		size := (12 + 2*len(name) + 3) &^ 3
		next := uint32(size)
		if i == len(changes)-1 {
			next = 0
		}
		one := binary.LittleEndian.AppendUint32(nil, next)
		one = binary.LittleEndian.AppendUint32(one, c.action)
		one = binary.LittleEndian.AppendUint32(one, uint32(2*len(name)))
		for _, u := range name {
			one = binary.LittleEndian.AppendUint16(one, u)
		}
		all = append(all, append(one, make([]byte, size-len(one))...)...)
	}
	return all
}

func TestParseChanges(t *testing.T) {
	want := []change{{1, "a"}, {3, `d\Grüße 😀`}, {2, ""}}
	buf := information(want...)
	if got := slices.Collect(parseChanges(buf)); !slices.Equal(got, want) {
		t.Errorf("parsed %v", got)
	}
	for n := range buf {
		if got := slices.Collect(parseChanges(buf[:n])); len(got) >= len(want) {
			t.Errorf("%d of %d bytes gave %v", n, len(buf), got)
		}
	}
}

func FuzzParseChanges(f *testing.F) {
	f.Add(information(change{1, "a"}, change{5, `d\new`}))
	f.Add([]byte{8, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, buf []byte) {
		n := 0
		for range parseChanges(buf) {
			if n++; n > len(buf) {
				t.Fatal("more changes than bytes")
			}
		}
	})
}
