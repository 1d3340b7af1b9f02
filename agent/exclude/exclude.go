// Package exclude decides which paths the `!` lines of transfer.info leave out.
//
// The patterns are those of gitignore, relative to every root alike: the last one
// that matches a path decides, `!` before a pattern takes a path in again, and
// what lies in an excluded folder cannot be taken in again. The one invariant: a
// pattern that cannot be honoured is refused with its text, never half obeyed.
//
// It answers as git does, which a test holds it to, except that upper and lower
// case always count, that `?` and classes take one character where git takes one
// byte, that `#` at the start is an ordinary character (transfer.info has its own
// comments), and that a few odd forms git knows are refused: named classes such
// as [[:digit:]], a `]` or a trailing `-` as members of a class, and on Windows
// the backslash.
//
// The package reads no file; .gitignore files inside a root are no rule.
package exclude

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Rules are compiled patterns. They do not change and are safe for concurrent
// use. A nil *Rules excludes nothing.
type Rules struct {
	patterns []pattern
}

// A PatternError names a pattern that cannot be honoured.
type PatternError struct {
	Pattern string // as given to Compile
	Reason  string
}

// Error returns the pattern, the reason and what to do.
func (e *PatternError) Error() string {
	return fmt.Sprintf("exclude pattern %q: %s; correct or remove this line of transfer.info", e.Pattern, e.Reason)
}

// Compile compiles patterns, given in the order of the file and without the
// leading `!` of their lines. It returns nil for no pattern. Every pattern that
// cannot be honoured adds a *PatternError to the joined error.
func Compile(patterns []string) (*Rules, error) {
	var r Rules
	var errs []error
	for _, text := range patterns {
		p, reason := parse(text)
		if reason != "" {
			errs = append(errs, &PatternError{text, reason})
			continue
		}
		r.patterns = append(r.patterns, p)
	}
	if len(errs) > 0 || len(r.patterns) == 0 {
		return nil, errors.Join(errs...)
	}
	return &r, nil
}

// Match reports whether path is excluded, by itself or with a folder above it.
// path and root are absolute, dir says whether path is a folder. The root itself
// and paths outside it are never excluded.
func (r *Rules) Match(root, path string, dir bool) bool {
	const sep = string(filepath.Separator)
	if r == nil {
		return false
	}
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(root, sep)+sep)
	if !ok || rel == "" {
		return false
	}
	components := strings.Split(rel, sep)
	for i := 1; i < len(components); i++ {
		if r.entry(components[:i], true) {
			return true
		}
	}
	return r.entry(components, dir)
}

// Entry returns the quick form of Match for a walk, which comes from above: it
// takes the components of the path below the root and relies on none of the
// folders above being excluded. It returns nil for a nil *Rules, so that a walk
// without rules pays nothing.
func (r *Rules) Entry() func(components []string, dir bool) bool {
	if r == nil {
		return nil
	}
	return r.entry
}

func (r *Rules) entry(components []string, dir bool) bool {
	for i := len(r.patterns) - 1; i >= 0; i-- {
		if p := &r.patterns[i]; p.match(components, dir) {
			return !p.again
		}
	}
	return false
}

// A pattern matches one path, not what lies below it.
type pattern struct {
	again   bool     // takes in again
	dirOnly bool     // matches folders only
	name    bool     // without a slash: matches the last component anywhere
	globs   []string // one for each component; ** stands for any number of them
}

func parse(text string) (p pattern, reason string) {
	body, again := strings.CutPrefix(text, "!")
	body = trimSpaces(body)
	switch {
	case strings.Trim(body, "/") == "":
		return p, "it names nothing"
	case filepath.Separator == '\\' && strings.Contains(body, `\`):
		return p, "folders are separated by / and nothing can be quoted with a backslash on this system"
	}
	body, dirOnly := strings.CutSuffix(body, "/")
	p = pattern{again: again, dirOnly: dirOnly, name: !strings.Contains(body, "/")}
	p.globs = strings.Split(strings.TrimPrefix(body, "/"), "/")
	for i, g := range p.globs {
		if g, ok := glob(g); ok {
			p.globs[i] = g
			continue
		}
		return p, "it is malformed, or uses a form of [...] that is not supported"
	}
	if last := len(p.globs) - 1; last > 0 && p.globs[last] == "**" {
		p.globs = append(p.globs, "*") // a/** is what lies in a, not a itself
	}
	return p, ""
}

// trimSpaces removes trailing spaces up to one quoted by a backslash.
func trimSpaces(s string) string {
	trimmed := strings.TrimRight(s, " ")
	backslashes := len(trimmed) - len(strings.TrimRight(trimmed, `\`))
	if backslashes%2 == 1 && len(trimmed) < len(s) {
		trimmed += " "
	}
	return trimmed
}

// glob turns one component from git's form into that of path.Match.
func glob(g string) (string, bool) {
	var b strings.Builder
	class := false // inside [...]
	for i := 0; i < len(g); i++ {
		c := g[i]
		b.WriteByte(c)
		switch {
		case c == '\\' && i+1 < len(g):
			i++
			b.WriteByte(g[i])
		case class && strings.HasPrefix(g[i:], "[:"):
			return "", false
		case class:
			class = c != ']'
		case c == '[':
			class = true
			if strings.HasPrefix(g[i:], "[!") {
				i++
				b.WriteByte('^')
			}
		}
	}
	_, err := path.Match(b.String(), "")
	return b.String(), err == nil
}

func (p *pattern) match(components []string, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if p.name {
		components = components[len(components)-1:]
	}
	return match(p.globs, components)
}

func match(globs, components []string) bool {
	for len(globs) > 0 {
		if globs[0] == "**" && len(globs) > 1 {
			for i := range components {
				if match(globs[1:], components[i:]) {
					return true
				}
			}
			return false
		}
		if len(components) == 0 {
			return false
		}
		if ok, err := path.Match(globs[0], components[0]); err != nil || !ok {
			return false // malformed ones were refused by parse
		}
		globs, components = globs[1:], components[1:]
	}
	return len(components) == 0
}
