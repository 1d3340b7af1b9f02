// Package info reads and writes the three small text files beside the
// programs, transfer.info, me.info and port.info (SPEC.md, "Files beside the
// programs"), from and to bytes.
//
// Persons edit these files and other programs write them, so the parsers take
// every variant in circulation, and every refusal is an [Error] that names the
// line and what to do about it. What a person wrote in transfer.info is never
// lost: a [Transfer] keeps comments, order and line ends through every edit.
//
// The package opens no file and does not look at the folders a file names.
package info

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// DefaultPort is the port where neither transfer.info nor port.info names
	// one.
	DefaultPort = 1256
	// MaxName is the longest client name in bytes; the name field of protocol
	// version 3 holds no longer one.
	MaxName = 254
	// MaxTransferSize is the size of the largest transfer.info accepted, room
	// for tens of thousands of folders.
	MaxTransferSize = 4 << 20
	// MaxMeSize is the size of the largest me.info accepted.
	MaxMeSize = 64 << 10
	// MaxPortSize is the size of the largest port.info accepted.
	MaxPortSize = 1 << 10
)

const (
	transferFile = "transfer.info"
	meFile       = "me.info"
	portFile     = "port.info"

	bom = "\xef\xbb\xbf"
)

// An Error says what is wrong with a file. Its text is one line for a person:
// where, what, and what to do.
type Error struct {
	File   string // transfer.info, me.info or port.info
	Line   int    // from 1, or 0 where the file as a whole is meant
	Reason string
	Fix    string
}

// Error returns the whole text.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s; %s", e.File, e.Reason, e.Fix)
	}
	return fmt.Sprintf("%s line %d: %s; %s", e.File, e.Line, e.Reason, e.Fix)
}

// A Secret is key material. It prints as REDACTED.
type Secret []byte

// Format prints REDACTED for every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "REDACTED") }

// LogValue returns REDACTED.
func (Secret) LogValue() slog.Value { return slog.StringValue("REDACTED") }

// Me is the content of me.info.
type Me struct {
	Name string
	ID   [16]byte
	// Key is the private key, opaque here: PKCS#8 DER for protocol version 3,
	// the device's seed for version 4.
	Key Secret
}

// ParseMe reads me.info: the name, the id as 32 hex digits of either case, and
// base64 on all lines from the third, joined. Errors are [*Error] and hold no
// part of the key.
func ParseMe(b []byte) (Me, error) {
	fail := func(line int, reason, fix string) (Me, error) {
		return Me{}, &Error{meFile, line, reason, fix}
	}
	const restore = "restore the file from a copy, or remove it and register this machine anew"
	lines, err := split(meFile, b, MaxMeSize)
	if err != nil {
		return Me{}, err
	}
	if len(lines) < 3 {
		return fail(len(lines)+1, "the file ends before name, id and key are complete", restore)
	}
	var me Me
	me.Name = strings.TrimSpace(lines[0].text)
	if reason := checkName(me.Name); reason != "" {
		return fail(1, reason, restore)
	}
	id := strings.TrimSpace(lines[1].text)
	if len(id) != hex.EncodedLen(len(me.ID)) {
		return fail(2, fmt.Sprintf("the id has %d characters, not 32", len(id)), restore)
	}
	if _, err := hex.Decode(me.ID[:], []byte(id)); err != nil {
		return fail(2, "the id is not hexadecimal", restore)
	}
	var key []byte
	var ends []int // offset in key behind each line
	for _, l := range lines[2:] {
		for i := range len(l.text) {
			if c := l.text[i]; c != ' ' && c != '\t' && c != '\r' {
				key = append(key, c)
			}
		}
		ends = append(ends, len(key))
	}
	if len(key) == 0 {
		return fail(3, "the private key is missing", restore)
	}
	me.Key = make(Secret, base64.StdEncoding.DecodedLen(len(key)))
	n, err := base64.StdEncoding.Strict().Decode(me.Key, key)
	if at, ok := errors.AsType[base64.CorruptInputError](err); ok {
		at := min(int(at), len(key)-1)
		line := 3 + slices.IndexFunc(ends, func(end int) bool { return at < end })
		return fail(line, "the private key is not valid base64", restore)
	}
	me.Key = me.Key[:n]
	return me, nil
}

// Bytes returns the file as ParseMe reads it, with the key on one line. It is
// a secret and wants mode 0600. The error is an [*Error] for a name that
// ParseMe would refuse or an empty key.
func (m Me) Bytes() ([]byte, error) {
	if reason := checkName(m.Name); reason != "" {
		return nil, &Error{meFile, 1, reason, "choose another name"}
	}
	if len(m.Key) == 0 {
		return nil, &Error{meFile, 3, "there is no private key", "make one first"}
	}
	b := append([]byte(m.Name), '\n')
	b = hex.AppendEncode(b, m.ID[:])
	b = append(b, '\n')
	b = base64.StdEncoding.AppendEncode(b, m.Key)
	return append(b, '\n'), nil
}

// ParsePort reads port.info: a decimal number from 1 to 65535. Errors are
// [*Error].
func ParsePort(b []byte) (uint16, error) {
	lines, err := split(portFile, b, MaxPortSize)
	if err != nil {
		return 0, err
	}
	text, at := "", 1
	for i, l := range lines {
		t := strings.TrimSpace(l.text)
		if t == "" {
			continue
		}
		if text != "" {
			return 0, &Error{portFile, i + 1, "there is a second line", "leave the port number alone in the file"}
		}
		text, at = t, i+1
	}
	port, reason := parsePort(text)
	if reason != "" {
		return 0, &Error{portFile, at, reason, "write a number from 1 to 65535, such as 1256"}
	}
	return port, nil
}

// FormatPort returns port.info for port.
func FormatPort(port uint16) []byte {
	return append(strconv.AppendUint(nil, uint64(port), 10), '\n')
}

func parsePort(s string) (port uint16, reason string) {
	if s == "" {
		return 0, "the port is missing"
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Sprintf("%.20q is no port", s)
	}
	return uint16(n), ""
}

// checkName returns what is wrong with a client name, or "".
func checkName(name string) string {
	switch {
	case name == "":
		return "the client name is missing"
	case len(name) > MaxName:
		return fmt.Sprintf("the client name has %d bytes, more than %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return "the client name is not UTF-8"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "the client name contains a character that does not print"
	case strings.TrimSpace(name) != name:
		return "the client name begins or ends with a space"
	}
	return ""
}

// A line is one line of a file, its end apart.
type line struct {
	text string
	end  string // "\n", "\r\n", or "" on the last line
}

// split cuts b into lines after judging it as a whole. A leading byte order
// mark is dropped.
func split(file string, b []byte, limit int) ([]line, error) {
	if len(b) > limit {
		return nil, &Error{file, 0, fmt.Sprintf("the file has %d bytes, more than %d", len(b), limit), "check that it is the right file"}
	}
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return nil, &Error{file, 0, "the file is UTF-16", "save it as UTF-8 or plain text"}
	}
	var lines []line
	for raw := range strings.Lines(strings.TrimPrefix(string(b), bom)) {
		l := line{text: raw}
		if text, ok := strings.CutSuffix(raw, "\n"); ok {
			l = line{text, "\n"}
		}
		if text, ok := strings.CutSuffix(l.text, "\r"); ok {
			l = line{text, "\r" + l.end}
		}
		if strings.IndexByte(l.text, 0) >= 0 {
			return nil, &Error{file, len(lines) + 1, "the line contains a zero byte", "remove it, or restore the file from a copy"}
		}
		lines = append(lines, l)
	}
	return lines, nil
}
