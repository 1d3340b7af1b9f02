package restore

import (
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// holds reports whether a name can be a single component here: without a
// separator, a stream, a device or an end that the system drops.
func holds(name string) bool {
	return utf8.ValidString(name) && filepath.IsLocal(name) && !strings.ContainsAny(name, `<>:"/\|?*`) &&
		!strings.HasSuffix(name, ".") && !strings.HasSuffix(name, " ") &&
		strings.IndexFunc(name, func(r rune) bool { return r < ' ' }) < 0
}
