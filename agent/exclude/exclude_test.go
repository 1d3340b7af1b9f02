package exclude_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"backstay/agent/exclude"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		name     string
		patterns []string
		path     string // below the root; a trailing slash means a folder
		want     bool
	}{
		{"no rules", nil, "a", false},
		{"name anywhere", []string{"*.tmp"}, "a/b/c.tmp", true},
		{"other name", []string{"*.tmp"}, "a/b/c.txt", false},
		{"folder by name", []string{"node_modules"}, "p/node_modules/", true},
		{"below a folder", []string{"node_modules"}, "p/node_modules/x/y.js", true},
		{"folders only, a folder", []string{"build/"}, "build/", true},
		{"folders only, a file", []string{"build/"}, "build", false},
		{"folders only, below", []string{"build/"}, "build/x", true},
		{"anchored at the root", []string{"/a"}, "a", true},
		{"anchored elsewhere", []string{"/a"}, "b/a", false},
		{"slash in the middle anchors", []string{"doc/x"}, "a/doc/x", false},
		{"two stars lead", []string{"**/doc/x"}, "a/b/doc/x", true},
		{"two stars between", []string{"a/**/z"}, "a/b/c/z", true},
		{"two stars between nothing", []string{"a/**/z"}, "a/z", true},
		{"two stars trail", []string{"a/**"}, "a/x/y", true},
		{"two stars trail, the folder itself", []string{"a/**"}, "a/", false},
		{"two stars trail, one taken in again", []string{"a/**", "!a/keep"}, "a/keep", false},
		{"two stars in a name", []string{"a**b"}, "axxb", true},
		{"star stops at a slash", []string{"a/*.c"}, "a/b/x.c", false},
		{"last rule decides", []string{"*.log", "!keep.log"}, "keep.log", false},
		{"last rule decides, other way", []string{"!keep.log", "*.log"}, "keep.log", true},
		{"nothing comes back out of an excluded folder", []string{"out/", "!out/keep"}, "out/keep", true},
		{"class", []string{"[ab].c"}, "a.c", true},
		{"class negated with !", []string{"[!ab].c"}, "a.c", false},
		{"class negated with ^", []string{"[^ab].c"}, "c.c", true},
		{"hash is a character", []string{"#x#"}, "#x#", true},
		{"trailing spaces do not count", []string{"x  "}, "x", true},
		{"case counts", []string{"*.TMP"}, "a.tmp", false},
		{"a name that is not UTF-8", []string{"*.tmp"}, "\xff\xfe.tmp", true},
		{"a name with a newline", []string{"*.tmp"}, "a\nb.tmp", true},
		{"two stars are tried again", []string{"a/**/b/c"}, "a/b/x/b/c", true},
		{"a folder taken in again, what is in it not", []string{"?", "!/b/"}, "b/a", true},
		{"a quoted space", []string{`x\ `}, "x ", true},
		{"a quoted space and another", []string{`x\  `}, "x ", true},
	}
	root := filepath.Join(t.TempDir(), "root")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rules, err := exclude.Compile(test.patterns)
			if err != nil {
				t.Fatal(err)
			}
			path, dir := strings.CutSuffix(test.path, "/")
			if got := rules.Match(root, root+"/"+path, dir); got != test.want {
				t.Errorf("Match(%q) = %v, want %v", test.path, got, test.want)
			}
		})
	}
}

func TestMatchRootAndOutside(t *testing.T) {
	rules, err := exclude.Compile([]string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/r", "/other", "/rx", "/"} {
		if rules.Match("/r", path, true) {
			t.Errorf("Match(/r, %s): excluded", path)
		}
	}
	if !rules.Match("/", "/x", false) {
		t.Error("Match(/, /x): not excluded")
	}
}

func TestEntry(t *testing.T) {
	if f := (*exclude.Rules)(nil).Entry(); f != nil {
		t.Error("no rules, but a function to call for every file")
	}
	rules, err := exclude.Compile([]string{"a/*.o"})
	if err != nil {
		t.Fatal(err)
	}
	if f := rules.Entry(); !f([]string{"a", "x.o"}, false) || f([]string{"b", "x.o"}, false) {
		t.Error("Entry and Match differ")
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := []struct{ name, pattern string }{
		{"open class", "a[b"},
		{"class with a closing bracket first", "[]a]"},
		{"named class", "[[:digit:]]"},
		{"lone backslash", `a\`},
		{"empty", ""},
		{"spaces", "   "},
		{"only a slash", "/"},
		{"negated nothing", "!"},
		{"class ending in a dash", "[a-]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rules, err := exclude.Compile([]string{"good", test.pattern})
			if rules != nil {
				t.Error("rules in spite of an error")
			}
			pe, ok := errors.AsType[*exclude.PatternError](err)
			if !ok || pe.Pattern != test.pattern || !strings.Contains(err.Error(), fmt.Sprintf("%q", test.pattern)) {
				t.Errorf("Compile(%q): %v", test.pattern, err)
			}
		})
	}
}

// TestAgainstGit compares with git itself on random patterns over a small tree.
// It leaves out what the package documents as different.
func TestAgainstGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("git is not installed: ", err)
	}
	root := t.TempDir()
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+root)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if ee, ok := errors.AsType[*exec.ExitError](err); ok && ee.ExitCode() == 1 {
			err = nil // none is ignored
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	git("", "init", "-q")
	names := []string{"a", "b", "ab", "a.c"}
	var paths []string
	isDir := map[string]bool{}
	var grow func(dir string, depth int)
	grow = func(dir string, depth int) {
		for i, name := range names {
			p := filepath.Join(dir, name)
			paths = append(paths, p)
			if isDir[p] = i < 2 && depth > 0; isDir[p] {
				if err := os.Mkdir(filepath.Join(root, p), 0o700); err != nil {
					t.Fatal(err)
				}
				grow(p, depth-1)
			} else if err := os.WriteFile(filepath.Join(root, p), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	grow("", 3)

	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	for range 150 {
		var patterns []string
		for range 1 + rnd.IntN(3) {
			p := pick("", "", "!") + pick("", "", "/", "**/") + pick("a", "b", "*", "a*", "[!b]", "?", "*.c", "a**c")
			if rnd.IntN(2) == 0 {
				p += "/" + pick("a", "b", "*", "?b", "**", "**/a", "**/b/a", "a/**/*b", `\a`)
			}
			patterns = append(patterns, p+pick("", "", "/"))
		}
		rules, err := exclude.Compile(patterns)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, ".git/info/exclude"), []byte(strings.Join(patterns, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ignored := map[string]bool{}
		for p := range strings.SplitSeq(git(strings.Join(paths, "\x00"), "check-ignore", "-z", "--no-index", "--stdin"), "\x00") {
			ignored[p] = true
		}
		for _, p := range paths {
			if got := rules.Match(root, filepath.Join(root, p), isDir[p]); got != ignored[p] {
				t.Errorf("patterns %q, path %q: excluded %v, git says %v (seed %d)", patterns, p, got, ignored[p], seed)
			}
		}
		if t.Failed() {
			return
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, p := range []string{"*.tmp", "a/**/b/", "!keep", `\!x`, "[!a-z]*", "[", "**", "a[/]b", "\xff"} {
		f.Add(p, "a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		rules, err := exclude.Compile([]string{pattern})
		if (rules == nil) != (err != nil) {
			t.Fatalf("Compile(%q) = %v, %v", pattern, rules, err)
		}
		rules.Match("/r", "/r/"+path, true)
	})
}
