package info

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseTransfer(t *testing.T) {
	for _, v := range []struct {
		name, in        string
		address, client string
		paths, excludes []string
	}{
		{"plain", "127.0.0.1:23112\nada\nnotes.bin\n", "127.0.0.1:23112", "ada", []string{"notes.bin"}, nil},
		{"no last newline", "h:1\nada\nnotes.bin", "h:1", "ada", []string{"notes.bin"}, nil},
		{"CRLF", "h:1\r\nada\r\nC:\\Users\\ada\r\n", "h:1", "ada", []string{`C:\Users\ada`}, nil},
		{"CRLF cut short", "h:1\r\nada\r\n/a\r", "h:1", "ada", []string{"/a"}, nil},
		{"host alone", "backup.example.org\nada\n/a\n", "backup.example.org:9999", "ada", []string{"/a"}, nil},
		{"byte order mark", "\xef\xbb\xbfh:1\nada\n/a\n", "h:1", "ada", []string{"/a"}, nil},
		{"IPv6 with port", "[::1]:1256\nada\n", "[::1]:1256", "ada", nil, nil},
		{"IPv6 in brackets", "[::1]\nada\n", "[::1]:9999", "ada", nil, nil},
		{"IPv6 bare", "2001:db8::7\nada\n", "[2001:db8::7]:9999", "ada", nil, nil},
		{"IPv6 zone", "[fe80::1%eth0]:7\nada\n", "[fe80::1%eth0]:7", "ada", nil, nil},
		{"spaces around server and name", " h:1 \n\tada \n/a\n", "h:1", "ada", []string{"/a"}, nil},
		{"comments anywhere", "# my\nh:1\n#x\nada\n# y\n/a\n#!z\n", "h:1", "ada", []string{"/a"}, nil},
		{"blank lines below", "h:1\nada\n\n/a\n   \n\n/b\n\n", "h:1", "ada", []string{"/a", "/b"}, nil},
		{"spaces belong to paths", "h:1\nada\n /a \n/b\t\n", "h:1", "ada", []string{" /a ", "/b\t"}, nil},
		{"raw bytes", "h:1\nada\n/\xff\xfe\x01\n", "h:1", "ada", []string{"/\xff\xfe\x01"}, nil},
		{"excludes", "h:1\nada\n!*.tmp\n/a\n!!keep.tmp\n! x \n", "h:1", "ada", []string{"/a"}, []string{"*.tmp", "!keep.tmp", " x "}},
		{"name of 254", "h:1\n" + strings.Repeat("n", 254) + "\n", "h:1", strings.Repeat("n", 254), nil, nil},
		{"name with umlaut and space", "h:1\nBüro 2\n", "h:1", "Büro 2", nil, nil},
		{"name with a domain", "h:1\nWORK\\ada\n", "h:1", `WORK\ada`, nil, nil},
		{"highest port", "h:65535\nada\n", "h:65535", "ada", nil, nil},
	} {
		t.Run(v.name, func(t *testing.T) {
			got, err := ParseTransfer([]byte(v.in))
			if err != nil {
				t.Fatal(err)
			}
			if a := got.Address(9999); a != v.address {
				t.Errorf("Address = %q, want %q", a, v.address)
			}
			if got.Name() != v.client {
				t.Errorf("Name = %q, want %q", got.Name(), v.client)
			}
			if !slices.Equal(got.Paths(), v.paths) {
				t.Errorf("Paths = %q, want %q", got.Paths(), v.paths)
			}
			if !slices.Equal(got.Excludes(), v.excludes) {
				t.Errorf("Excludes = %q, want %q", got.Excludes(), v.excludes)
			}
			if b := got.Bytes(); string(b) != v.in {
				t.Errorf("Bytes = %q, want %q", b, v.in)
			}
		})
	}
}

func TestParseTransferRefuses(t *testing.T) {
	for _, v := range []struct {
		name, in string
		line     int
		text     string
	}{
		{"empty", "", 1, "the server is missing"},
		{"blank first line", "\nh:1\nada\n", 1, "the server is missing"},
		{"only comments", "# a\n# b\n", 3, "the server is missing"},
		{"no name", "h:1\n", 2, "the client name is missing"},
		{"blank name", "h:1\n\n/home/ada\n", 2, "the client name is missing"},
		{"path for name", "h:1\n/home/ada\n", 2, "a path stands where"},
		{"Windows path for name", "h:1\nC:\\Users\n", 2, "a path stands where"},
		{"name too long", "h:1\n" + strings.Repeat("n", 255) + "\n", 2, "255 bytes, more than 254"},
		{"name with control character", "h:1\na\x07\n", 2, "does not print"},
		{"name not UTF-8", "h:1\n\xff\n", 2, "not UTF-8"},
		{"port 0", "h:0\nada\n", 1, `"0" is no port`},
		{"port too high", "h:65536\nada\n", 1, `"65536" is no port`},
		{"port signed", "h:+1\nada\n", 1, `"+1" is no port`},
		{"port missing", "h:\nada\n", 1, "the port is missing"},
		{"host missing", ":1256\nada\n", 1, "the host is missing"},
		{"URL", "https://h:1\nada\n", 1, "address with a slash"},
		{"two colons", "h:1:2\nada\n", 1, "more than one colon"},
		{"open bracket", "[::1\nada\n", 1, "no IPv6 address in its brackets"},
		{"name in brackets", "[h]:1\nada\n", 1, "no IPv6 address in its brackets"},
		{"behind the bracket", "[::1]1256\nada\n", 1, `"1256" behind the bracket`},
		{"space in host", "a b:1\nada\n", 1, "contains a space"},
		{"zero byte", "h:1\nada\n/a\n/\x00b\n", 4, "a zero byte"},
		{"no pattern", "h:1\nada\n/a\n!\n", 4, "exclude pattern is missing"},
		{"UTF-16", "\xff\xfeh\x00:\x001\x00", 0, "UTF-16"},
		{"too large", "h:1\nada\n" + strings.Repeat("x", MaxTransferSize), 0, "more than 4194304"},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, err := ParseTransfer([]byte(v.in))
			checkError(t, err, "transfer.info", v.line, v.text)
		})
	}
}

func checkError(t *testing.T, err error, file string, line int, text string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error %v (%T), want an *Error", err, err)
	}
	if e.File != file || e.Line != line || !strings.Contains(e.Reason, text) || e.Fix == "" {
		t.Errorf("error %+v, want %s line %d with %q and a fix", *e, file, line, text)
	}
	if strings.ContainsAny(e.Error(), "\r\n") {
		t.Errorf("error %q is more than one line", e.Error())
	}
}

func TestTransferEdits(t *testing.T) {
	for _, v := range []struct {
		name, in string
		edit     func(*Transfer) error
		want     string
	}{
		{"add", "# c\nh:1\nada\n/a\n# end\n", add("/b"), "# c\nh:1\nada\n/a\n# end\n/b\n"},
		{"add keeps CRLF", "h:1\r\nada\r\n/a", add("/b"), "h:1\r\nada\r\n/a\r\n/b\r\n"},
		{"add after the name alone", "h:1\nada", add("/b"), "h:1\nada\n/b\n"},
		{"add what is there", "h:1\nada\n/a", add("/a"), "h:1\nada\n/a"},
		{"remove", "h:1\nada\n# first\n/a\n\n!*.o\n/b\n/a\n", remove("/a"), "h:1\nada\n# first\n\n!*.o\n/b\n"},
		{"remove what is not there", "h:1\nada\n/a\n", remove("/b"), "h:1\nada\n/a\n"},
		{"remove no comment", "h:1\nada\n# x\n!y\n\n", func(tr *Transfer) error {
			for _, s := range []string{"# x", "!y", ""} {
				if tr.RemovePath(s) {
					return fmt.Errorf("removed %q", s)
				}
			}
			return nil
		}, "h:1\nada\n# x\n!y\n\n"},
		{"remove spares server and name", "h\nada\nada\nh\n", func(tr *Transfer) error {
			tr.RemovePath("ada")
			tr.RemovePath("h")
			return nil
		}, "h\nada\n"},
		{"server", "\xef\xbb\xbf# c\r\nh:1\r\nada\r\n", func(tr *Transfer) error {
			if err := tr.SetServer("2001:db8::7", 1300); err != nil {
				return err
			}
			if got := tr.Address(0); got != "[2001:db8::7]:1300" {
				return fmt.Errorf("address %s", got)
			}
			return nil
		}, "\xef\xbb\xbf# c\r\n[2001:db8::7]:1300\r\nada\r\n"},
	} {
		t.Run(v.name, func(t *testing.T) {
			tr, err := ParseTransfer([]byte(v.in))
			if err != nil {
				t.Fatal(err)
			}
			if err := v.edit(tr); err != nil {
				t.Fatal(err)
			}
			if got := string(tr.Bytes()); got != v.want {
				t.Errorf("got  %q\nwant %q", got, v.want)
			}
			if _, err := ParseTransfer(tr.Bytes()); err != nil {
				t.Errorf("the result does not parse: %v", err)
			}
		})
	}
}

func add(path string) func(*Transfer) error {
	return func(t *Transfer) error {
		want := !slices.Contains(t.Paths(), path)
		got, err := t.AddPath(path)
		if err == nil && got != want {
			err = fmt.Errorf("AddPath = %v, want %v", got, want)
		}
		return err
	}
}

func remove(path string) func(*Transfer) error {
	return func(t *Transfer) error {
		if want, got := slices.Contains(t.Paths(), path), t.RemovePath(path); got != want {
			return fmt.Errorf("RemovePath = %v, want %v", got, want)
		}
		return nil
	}
}

func TestTransferEditsRefused(t *testing.T) {
	const in = "h:1\nada\n/a\n"
	tr, err := ParseTransfer([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "  ", "#x", "!x", "/a\n/b", "/a\r", "/a\x00"} {
		_, err := tr.AddPath(path)
		checkError(t, err, "transfer.info", 4, "")
	}
	for _, host := range []string{"", "a b", "h\n", "#h", "h:1", "h/x"} {
		checkError(t, tr.SetServer(host, 1), "transfer.info", 1, "")
	}
	if got := string(tr.Bytes()); got != in {
		t.Errorf("refused edits changed the file to %q", got)
	}
}

func TestNewTransfer(t *testing.T) {
	tr, err := NewTransfer("::1", 0, "ada")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(tr.Bytes()); got != "[::1]\nada\n" {
		t.Errorf("Bytes = %q", got)
	}
	if got := tr.Address(0); got != "[::1]:1256" {
		t.Errorf("Address = %q", got)
	}
	for _, name := range []string{"", "#ada", "ada\n/etc", " ada", "/etc"} {
		_, err := NewTransfer("h", 1, name)
		checkError(t, err, "transfer.info", 2, "")
	}
	_, err = NewTransfer("h\nada\n", 1, "x")
	checkError(t, err, "transfer.info", 1, "")
}

const id = "6bb8d928b1924803a43b1693756a9d63"

func TestParseMe(t *testing.T) {
	key := bytes.Repeat([]byte{1, 2, 3, 251}, 40)
	text := base64.StdEncoding.EncodeToString(key)
	for _, v := range []struct{ name, in string }{
		{"one line", "ada\n" + id + "\n" + text + "\n"},
		{"no last newline", "ada\n" + id + "\n" + text},
		{"wrapped", "ada\n" + id + "\n" + text[:72] + "\n" + text[72:144] + "\n" + text[144:] + "\n\n"},
		{"wrapped, CRLF", "ada\r\n" + id + "\r\n" + text[:71] + "\r\n" + text[71:] + "\r\n"},
		{"byte order mark and spaces", "\xef\xbb\xbfada \n " + id + "\n" + text[:8] + " \n\t" + text[8:]},
		{"upper-case id", "ada\n" + strings.ToUpper(id) + "\n" + text},
	} {
		t.Run(v.name, func(t *testing.T) {
			me, err := ParseMe([]byte(v.in))
			if err != nil {
				t.Fatal(err)
			}
			if me.Name != "ada" || fmt.Sprintf("%x", me.ID) != id || !bytes.Equal(me.Key, key) {
				t.Errorf("ParseMe = %q, %x, %x", me.Name, me.ID, []byte(me.Key))
			}
			b, err := me.Bytes()
			if want := "ada\n" + id + "\n" + text + "\n"; err != nil || string(b) != want {
				t.Errorf("Bytes = %q, %v; want %q", b, err, want)
			}
		})
	}
}

func TestParseMeRefuses(t *testing.T) {
	for _, v := range []struct {
		name, in string
		line     int
		text     string
	}{
		{"empty", "", 1, "ends before"},
		{"no key line", "ada\n" + id + "\n", 3, "ends before"},
		{"blank key", "ada\n" + id + "\n\n", 3, "private key is missing"},
		{"no name", "\n" + id + "\nAAAA\n", 1, "name is missing"},
		{"name too long", strings.Repeat("n", 255) + "\n" + id + "\nAAAA\n", 1, "255 bytes"},
		{"short id", "ada\n" + id[1:] + "\nAAAA\n", 2, "31 characters"},
		{"UUID with dashes", "ada\n6bb8d928-b192-4803-a43b-1693756a9d63\nAAAA\n", 2, "36 characters"},
		{"id not hex", "ada\n" + id[1:] + "g\nAAAA\n", 2, "not hexadecimal"},
		{"key not base64", "ada\n" + id + "\nAA*A\n", 3, "not valid base64"},
		{"key damaged further down", "ada\n" + id + "\nAAAA\nAAAA\nA?AA\n", 5, "not valid base64"},
		{"key cut", "ada\n" + id + "\nAAAAAA\n", 3, "not valid base64"},
		{"key not canonical", "ada\n" + id + "\nAB==\n", 3, "not valid base64"},
		{"text behind the key", "ada\n" + id + "\nAA==\nAAAA\n", 4, "not valid base64"},
		{"too large", "ada\n" + id + "\n" + strings.Repeat("A", MaxMeSize), 0, "more than 65536"},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, err := ParseMe([]byte(v.in))
			checkError(t, err, "me.info", v.line, v.text)
		})
	}
	_, err := Me{Name: "a\nb", Key: Secret{1}}.Bytes()
	checkError(t, err, "me.info", 1, "does not print")
	_, err = Me{Name: "ada"}.Bytes()
	checkError(t, err, "me.info", 3, "no private key")
}

func TestKeyNeverPrints(t *testing.T) {
	me := Me{Name: "ada", Key: Secret("hush hush")}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&out, verb, me)
		fmt.Fprintf(&out, verb, &me)
		fmt.Fprintf(&out, verb, me.Key)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", me.Key)
	s := out.String()
	for _, leak := range []string{"hush", fmt.Sprintf("%x", "hush"), "104"} {
		if strings.Contains(s, leak) {
			t.Errorf("the key shows in %q", s)
		}
	}
	if strings.Count(s, "REDACTED") != 22 {
		t.Errorf("REDACTED not everywhere in %q", s)
	}
}

func TestParsePort(t *testing.T) {
	for _, v := range []struct {
		name, in string
		want     uint16
	}{
		{"newline", "1256\n", 1256},
		{"no newline", "1256", 1256},
		{"CRLF and blank line", " 1256 \r\n\r\n", 1256},
		{"byte order mark", "\xef\xbb\xbf1\n", 1},
		{"highest", "65535", 65535},
	} {
		t.Run(v.name, func(t *testing.T) {
			got, err := ParsePort([]byte(v.in))
			if err != nil || got != v.want {
				t.Errorf("ParsePort = %d, %v; want %d", got, err, v.want)
			}
			if back, err := ParsePort(FormatPort(got)); err != nil || back != got {
				t.Errorf("FormatPort does not round-trip: %d, %v", back, err)
			}
		})
	}
	for _, v := range []struct {
		name, in string
		line     int
		text     string
	}{
		{"empty", "", 1, "missing"},
		{"zero", "0\n", 1, "no port"},
		{"too high", "\n65536\n", 2, "no port"},
		{"word", "http\n", 1, "no port"},
		{"second line", "1\n2\n", 2, "second line"},
		{"too large", strings.Repeat("1", 2000), 0, "more than 1024"},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, err := ParsePort([]byte(v.in))
			checkError(t, err, "port.info", v.line, v.text)
		})
	}
}

// TestCaptured reads the files of the recorded version 3 clients.
func TestCaptured(t *testing.T) {
	dirs, err := filepath.Glob("../testdata/v3/*/me.info")
	if err != nil || len(dirs) != 5 {
		t.Fatalf("found %d recorded sessions, %v", len(dirs), err)
	}
	for _, me := range dirs {
		dir := filepath.Dir(me)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			b, err := os.ReadFile(me)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ParseMe(b)
			if err != nil || m.Name != "ada" || len(m.Key) < 630 {
				t.Errorf("ParseMe = %v, %v", m, err)
			}
			if b, err = os.ReadFile(filepath.Join(dir, "transfer.info")); err != nil {
				t.Fatal(err)
			}
			tr, err := ParseTransfer(b)
			if err != nil {
				t.Fatal(err)
			}
			if tr.Host() != "127.0.0.1" || tr.Name() != "ada" || !slices.Equal(tr.Paths(), []string{"notes.bin"}) {
				t.Errorf("ParseTransfer = %q, %q, %q", tr.Host(), tr.Name(), tr.Paths())
			}
		})
	}
}
