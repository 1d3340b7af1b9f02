package info

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Transfer is the content of transfer.info, line by line. [Transfer.Bytes]
// gives back exactly what was parsed, apart from the edits. Reading it is safe
// for concurrent use, editing is not.
//
// The first line that is no comment names the server, the next the client; no
// blank line may stand before or between the two, as the next line would
// otherwise be taken for the missing one. Of the lines after them, blank ones
// and those that start with # mean nothing, those that start with ! are exclude
// patterns, and every other is a path, byte for byte: spaces at either end
// belong to it, as they may belong to a file's name.
type Transfer struct {
	mark  string // byte order mark or nothing
	lines []line

	server, name int // their lines' index
	host, client string
	port         uint16
}

// ParseTransfer reads transfer.info. Errors are [*Error]. A file without paths
// is valid: nothing is to be sent.
func ParseTransfer(b []byte) (*Transfer, error) {
	lines, err := split(transferFile, b, MaxTransferSize)
	if err != nil {
		return nil, err
	}
	t := &Transfer{lines: lines}
	if strings.HasPrefix(string(b[:min(len(b), len(bom))]), bom) {
		t.mark = bom
	}
	t.server = t.nextLine(0)
	if t.server == len(lines) {
		return nil, &Error{transferFile, len(lines) + 1, "the server is missing", "write host:port as the first line"}
	}
	if t.host, t.port, err = parseServer(lines[t.server].text, t.server+1); err != nil {
		return nil, err
	}
	t.name = t.nextLine(t.server + 1)
	if t.name == len(lines) {
		return nil, &Error{transferFile, len(lines) + 1, "the client name is missing", "write it as the second line"}
	}
	t.client = strings.TrimSpace(lines[t.name].text)
	if err := checkClient(t.client, t.name+1); err != nil {
		return nil, err
	}
	for i, l := range lines[t.name+1:] {
		if l.text == "!" {
			return nil, &Error{transferFile, t.name + 2 + i, "the exclude pattern is missing", "write it behind the ! or remove the line"}
		}
	}
	return t, nil
}

// nextLine returns the index of the first line from i on that is no comment.
func (t *Transfer) nextLine(i int) int {
	for i < len(t.lines) && strings.HasPrefix(t.lines[i].text, "#") {
		i++
	}
	return i
}

// NewTransfer returns a transfer.info without paths. A port of 0 leaves the
// port out. Errors are [*Error], for what ParseTransfer would refuse.
func NewTransfer(host string, port uint16, name string) (*Transfer, error) {
	host, port, err := parseServer(formatServer(host, port), 1)
	if err != nil {
		return nil, err
	}
	if err := checkClient(name, 2); err != nil {
		return nil, err
	}
	return ParseTransfer([]byte(formatServer(host, port) + "\n" + name + "\n"))
}

// Bytes returns the file.
func (t *Transfer) Bytes() []byte {
	b := []byte(t.mark)
	for _, l := range t.lines {
		b = append(b, l.text...)
		b = append(b, l.end...)
	}
	return b
}

// Host returns the server's name or address, an IPv6 address without brackets.
func (t *Transfer) Host() string { return t.host }

// Port returns the port of the first line, or 0 where it names none.
func (t *Transfer) Port() uint16 { return t.port }

// Address returns the server as host:port for net.Dial. Where the file names
// no port, fallback is used, the one of port.info; a fallback of 0 means
// [DefaultPort].
func (t *Transfer) Address(fallback uint16) string {
	port := t.port
	if port == 0 {
		port = fallback
	}
	if port == 0 {
		port = DefaultPort
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(port)))
}

// Name returns the client's name: UTF-8, printing characters only.
func (t *Transfer) Name() string { return t.client }

// Paths returns the folders and files to send, as raw bytes, in file order.
func (t *Transfer) Paths() []string {
	var paths []string
	for _, l := range t.lines[t.name+1:] {
		if isPath(l.text) {
			paths = append(paths, l.text)
		}
	}
	return paths
}

// Excludes returns the exclude patterns in file order, without their leading
// exclamation mark. They are in gitignore syntax, where order matters, and
// hold for every path.
func (t *Transfer) Excludes() []string {
	var patterns []string
	for _, l := range t.lines[t.name+1:] {
		if p, ok := strings.CutPrefix(l.text, "!"); ok {
			patterns = append(patterns, p)
		}
	}
	return patterns
}

// SetServer replaces the first line. Errors are [*Error] and change nothing.
func (t *Transfer) SetServer(host string, port uint16) error {
	host, port, err := parseServer(formatServer(host, port), t.server+1)
	if err != nil {
		return err
	}
	t.host, t.port = host, port
	t.lines[t.server].text = formatServer(host, port)
	return nil
}

// AddPath appends a line for path unless there is one, and reports whether it
// did. The error is an [*Error] for a path that a line cannot hold: an empty or
// blank one, one with a line end or zero byte, and one that starts with # or !.
func (t *Transfer) AddPath(path string) (added bool, err error) {
	fail := func(reason, fix string) (bool, error) {
		return false, &Error{transferFile, len(t.lines) + 1, reason, fix}
	}
	switch {
	case strings.ContainsAny(path, "\n\x00"), strings.HasSuffix(path, "\r"):
		return fail(fmt.Sprintf("%q contains a line end or zero byte", path), "add the folder that contains it")
	case !isPath(path):
		return fail(fmt.Sprintf("%q cannot stand on a line of its own", path), "give the full path")
	}
	if slices.Contains(t.Paths(), path) {
		return false, nil
	}
	t.add(path)
	return true, nil
}

// add appends a line that ends as the others do.
func (t *Transfer) add(text string) {
	last := &t.lines[len(t.lines)-1]
	end := t.lines[t.server].end
	if last.end == "" || last.end == "\r" {
		last.end = end
	}
	t.lines = append(t.lines, line{text, end})
}

// AddExclude appends a line for an exclude pattern, given without its leading
// exclamation mark, unless there is one, and reports whether it did. The error is an
// [*Error] for one that a line cannot hold. Whether it can be honoured is not judged.
func (t *Transfer) AddExclude(pattern string) (added bool, err error) {
	if strings.TrimSpace(pattern) == "" || strings.ContainsAny(pattern, "\n\x00") || strings.HasSuffix(pattern, "\r") {
		return false, &Error{transferFile, len(t.lines) + 1, fmt.Sprintf("%q is no exclude pattern", pattern), "write what is to be left out, such as *.tmp or /cache/"}
	}
	if slices.Contains(t.Excludes(), pattern) {
		return false, nil
	}
	t.add("!" + pattern)
	return true, nil
}

// RemoveExclude removes every line for an exclude pattern and reports whether there
// was one.
func (t *Transfer) RemoveExclude(pattern string) bool {
	kept := slices.DeleteFunc(t.lines[t.name+1:], func(l line) bool { return l.text == "!"+pattern })
	before := len(t.lines)
	t.lines = t.lines[:t.name+1+len(kept)]
	return len(t.lines) < before
}

// RemovePath removes every line for path and reports whether there was one.
func (t *Transfer) RemovePath(path string) bool {
	if !isPath(path) {
		return false
	}
	kept := slices.DeleteFunc(t.lines[t.name+1:], func(l line) bool { return l.text == path })
	before := len(t.lines)
	t.lines = t.lines[:t.name+1+len(kept)]
	return len(t.lines) < before
}

// isPath reports whether a line below the name is a path.
func isPath(text string) bool {
	return strings.TrimSpace(text) != "" && text[0] != '#' && text[0] != '!'
}

// checkClient refuses what is no client name, and what is more likely the first
// path of a file whose name line was forgotten.
func checkClient(name string, lineNo int) error {
	reason := checkName(name)
	switch {
	case reason != "":
	case name[0] == '#':
		reason = "the client name begins with #, the mark of a comment"
	case name[0] == '/', name[0] == '\\', strings.HasPrefix(name, "~/"), len(name) > 2 && name[1] == ':' && strings.ContainsAny(name[2:3], `/\`):
		reason = "a path stands where the client name belongs"
	default:
		return nil
	}
	return &Error{transferFile, lineNo, reason, "write this machine's name as the second line"}
}

func formatServer(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(int(port))
}

// parseServer reads the forms host, host:port, an IPv6 address alone, and one
// in brackets with or without a port.
func parseServer(text string, lineNo int) (host string, port uint16, err error) {
	fail := func(reason string) (string, uint16, error) {
		return "", 0, &Error{transferFile, lineNo, reason, "write the server as host:port, such as backup.example.org:1256"}
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return fail("the server is missing")
	case text[0] == '#':
		return fail(fmt.Sprintf("%.80q begins with #, the mark of a comment", text))
	case strings.Contains(text, "/"):
		return fail(fmt.Sprintf("%.80q is an address with a slash", text))
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fail(fmt.Sprintf("%.80q contains a space or a character that does not print", text))
	}
	if isIPv6(text) {
		return text, 0, nil
	}
	rest, hasPort := "", false
	if bracketed, ok := strings.CutPrefix(text, "["); ok {
		var after string
		if host, after, ok = strings.Cut(bracketed, "]"); !ok || !isIPv6(host) {
			return fail(fmt.Sprintf("%.80q holds no IPv6 address in its brackets", text))
		}
		if rest, hasPort = strings.CutPrefix(after, ":"); !hasPort && after != "" {
			return fail(fmt.Sprintf("there is %.20q behind the bracket", after))
		}
	} else if host, rest, hasPort = strings.Cut(text, ":"); strings.Contains(rest, ":") {
		return fail(fmt.Sprintf("%.80q has more than one colon and is no IPv6 address", text))
	}
	if host == "" {
		return fail("the host is missing")
	}
	if hasPort {
		var reason string
		if port, reason = parsePort(rest); reason != "" {
			return fail(reason)
		}
	}
	return host, port, nil
}

func isIPv6(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6()
}
