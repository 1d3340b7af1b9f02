package service

import (
	"bytes"
	"embed"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// Kind is a manager's kind of service.
type Kind string

// The kinds that a text describes. Windows keeps its services in the registry.
const (
	Systemd Kind = "systemd"
	Launchd Kind = "launchd"
)

//go:embed unit
var units embed.FS

// Unit returns the text that tells a manager about the service: a systemd unit or a
// launchd property list. Packages ship the same text as Install writes.
func Unit(kind Kind, s Service) ([]byte, error) {
	words := append([]string{s.Executable}, s.arguments()...)
	for _, w := range words {
		if !utf8.ValidString(w) || strings.ContainsFunc(w, unicode.IsControl) {
			return nil, fmt.Errorf("%q cannot be written into the description of a service; give it a plain name", w)
		}
	}
	if !rooted(s.Executable) {
		return nil, fmt.Errorf("the program's path %q is not absolute", s.Executable)
	}
	var name string
	var data any
	switch {
	case kind == Systemd:
		// systemd takes no program with these in its path, however they are written.
		if strings.ContainsAny(s.Executable, `"'\`) {
			return nil, fmt.Errorf("systemd does not start programs with quotes or backslashes in their paths, as in %q; put the program elsewhere", s.Executable)
		}
		name = "systemd-user.service"
		if s.System {
			name = "systemd-system.service"
		}
		quoted := []string{systemdQuote(words[0], false)}
		for _, w := range words[1:] {
			quoted = append(quoted, systemdQuote(w, true))
		}
		var writable []string
		for _, dir := range []string{s.Config, s.State} {
			if dir != "" && dir != "/etc/backstay" && dir != "/var/lib/backstay" {
				writable = append(writable, systemdQuote(dir, false))
			}
		}
		data = struct {
			Command  string
			Writable []string
		}{strings.Join(quoted, " "), writable}
	case kind == Launchd:
		name = "launchd.plist"
		escaped := make([]string, len(words))
		for i, w := range words {
			var b strings.Builder
			if err := xml.EscapeText(&b, []byte(w)); err != nil {
				return nil, err
			}
			escaped[i] = b.String()
		}
		data = struct {
			Label string
			Args  []string
		}{Label, escaped}
	default:
		return nil, fmt.Errorf("no text describes a service for %q", kind)
	}
	t, err := template.ParseFS(units, "unit/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.Bytes(), err
}

// rooted says whether a path is absolute on the systems that have unit files, or here.
func rooted(path string) bool { return strings.HasPrefix(path, "/") || filepath.IsAbs(path) }

// systemdQuote writes a word so that systemd reads it as it is (systemd.service(5),
// "Command lines"; specifiers are expanded within quotes too). Variables are expanded
// in arguments, not in the program's path.
func systemdQuote(word string, argument bool) string {
	escapes := []string{`%`, `%%`, `\`, `\\`, `"`, `\"`}
	if argument {
		escapes = append(escapes, `$`, `$$`)
	}
	escaped := strings.NewReplacer(escapes...).Replace(word)
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("/-_.,:@%+", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		return escaped
	}
	return `"` + escaped + `"`
}
