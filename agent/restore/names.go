package restore

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"backstay/protocol/vault"
)

// split returns the components of an absolute path as the system of its device
// writes it: Unix, or Windows with a drive or a share. Nothing in the result is
// empty, "." or "..", or holds a separator of any system that could be walked.
//
// The drive of a Windows path becomes a component without its colon.
func split(path []byte) ([]string, error) {
	s, sep := string(path), `\`
	switch {
	case strings.HasPrefix(s, "/"):
		s, sep = s[1:], "/"
	case len(s) >= 3 && s[1:3] == `:\`:
		s = s[:1] + s[2:]
	case strings.HasPrefix(s, `\\`):
		s = s[2:]
	default:
		return nil, fmt.Errorf("%w: path %q is not absolute", ErrRecord, path)
	}
	if s = strings.TrimSuffix(s, sep); s == "" {
		return nil, nil // the root itself
	}
	parts := strings.Split(s, sep)
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "/\x00") {
			return nil, fmt.Errorf("%w: path %q", ErrRecord, path)
		}
	}
	return parts, nil
}

// below returns where a record's path lies below the target: components with "/"
// between them, the root's own replaced by as. It is false outside the root.
func below(name []byte, root []string, as string) (string, bool, error) {
	parts, err := split(name)
	if err != nil || len(parts) < len(root) || !slices.Equal(parts[:len(root)], root) {
		return "", false, err
	}
	path := strings.Join(parts[len(root):], "/")
	switch {
	case as == "":
		return path, true, nil
	case path == "":
		return as, true, nil
	}
	return as + "/" + path, true, nil
}

// cutPath splits a path below the target into its folder and its last component.
func cutPath(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// suffixed is the n-th name for what cannot have its own, n counting from 2.
func suffixed(name string, n int) string {
	suffix := " (restored " + strconv.Itoa(n) + ")"
	return shorten(name, 255-len(suffix)) + suffix
}

// plain replaces in a name what some system does not hold. Only the suffix that
// goes with it keeps it apart from others.
func plain(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || strings.ContainsRune(`<>:"/\|?*`, r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	name = strings.TrimRight(name, ". ")
	stem, _, _ := strings.Cut(name, ".")
	switch stem = strings.ToUpper(strings.TrimSpace(stem)); {
	case stem == "", stem == "CON", stem == "PRN", stem == "AUX", stem == "NUL",
		len(stem) > 3 && (strings.HasPrefix(stem, "COM") || strings.HasPrefix(stem, "LPT")):
		name = "_" + name
	}
	return shorten(name, 100) // some encrypting file systems hold 143 bytes
}

// partName is the name under which the content of a record is written. It comes
// from the record, so that a run after a crash finds what to replace.
func partName(name string, record vault.ObjectID) string {
	return fmt.Sprintf("%s.part-%x", shorten(name, 100), record[:4])
}

// shorten cuts a name to at most n bytes without breaking a character.
func shorten(name string, n int) string {
	if len(name) <= n {
		return name
	}
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}

// isAny reports whether err is one of some.
func isAny[E error](err error, some ...E) bool {
	for _, e := range some {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
