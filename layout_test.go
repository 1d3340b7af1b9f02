package backstay_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers says for each tree of this module which other trees it may import. What
// is not listed is not allowed, so imports point down and the agent and the server
// share nothing but what lies below both.
var layers = []struct {
	tree string
	may  []string
}{
	{"internal/mux", []string{"protocol", "internal"}}, // moves the protocol's frames for both sides
	{"internal", nil},
	{"protocol", []string{"internal"}},
	{"watcher", []string{"internal"}},
	{"server", []string{"protocol", "internal"}},
	{"agent", []string{"watcher", "protocol", "internal"}},
	{"tray", []string{"agent/localapi", "internal"}},
	{"cmd/agent", []string{"agent", "protocol", "internal"}},
	{"cmd/server", []string{"server", "protocol", "internal"}},
	{"cmd/tray", []string{"tray", "agent/localapi", "agent/config", "internal"}},
	{"cmd", []string{"agent", "server", "tray", "protocol", "internal"}}, // tests of all programs together
	{"packaging", []string{"agent/service", "tray", "internal"}},         // ships their texts and pictures
}

// alone says for packages of others which tree alone may import them.
var alone = map[string]string{
	"fyne.io/systray":            "tray/systray",
	"github.com/gen2brain/beeep": "tray/systray",
}

// exceptions are single files that may import one tree more: "agent try" runs a
// private server beside the agent.
var exceptions = map[string]string{
	"cmd/agent/try.go": "server",
}

func TestImportsPointDown(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && file != ".") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		files++
		file = filepath.ToSlash(file)
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if imported, ok := strings.CutPrefix(name, "backstay/"); ok && !allowed(file, imported) {
				t.Errorf("%s imports %s, which the layers do not allow", file, name)
			}
			if tree, ok := alone[name]; ok && !within(file, tree) {
				t.Errorf("%s imports %s, which is for %s alone", file, name, tree)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("looked at %d files only: the test does not see the tree", files)
	}
}

func allowed(file, imported string) bool {
	for _, l := range layers {
		if within(file, l.tree) {
			return within(imported, l.tree) || slices.ContainsFunc(append(l.may, exceptions[file]), func(tree string) bool {
				return tree != "" && within(imported, tree)
			})
		}
	}
	return path.Dir(file) == "." // the module's root holds tests only
}

func within(p, tree string) bool { return p == tree || strings.HasPrefix(p, tree+"/") }

func TestAllowedRefuses(t *testing.T) {
	for _, tt := range []struct {
		file, imported string
		want           bool
	}{
		{"agent/agent.go", "server/storage", false},
		{"server/server.go", "agent/config", false},
		{"protocol/v3/v3.go", "watcher", false},
		{"internal/cli/cli.go", "protocol/info", false},
		{"cmd/agent/run.go", "server", false},
		{"cmd/agent/try.go", "server", true},
		{"tray/tray.go", "agent/config", false},
		{"tray/tray.go", "agent/localapi", true},
		{"cmd/tray/main.go", "agent/v4", false},
		{"server/v3/area.go", "protocol/v3", true},
		{"elsewhere/x.go", "internal/cli", false},
	} {
		if got := allowed(tt.file, tt.imported); got != tt.want {
			t.Errorf("allowed(%s, %s) = %v", tt.file, tt.imported, got)
		}
	}
}
