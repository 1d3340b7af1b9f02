package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Listen string        `toml:"listen"`
	Idle   time.Duration `toml:"-"`
	Limits struct {
		Sessions int `toml:"sessions"`
	} `toml:"limits"`
}

func TestLoad(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"every key", "listen = 'b:2'\n[limits]\nsessions = 3\n", ""},
		{"empty", "", ""},
		{"unknown key", "listen = 'b:2'\n\nlissen = 'c'\n", `s.toml:3: unknown key "lissen"`},
		{"unknown key in table", "[limits]\nsession = 3\n", `s.toml:2: unknown key "limits.session"`},
		{"wrong type", "listen = 'b:2'\n[limits]\nsessions = 'many'\n", "s.toml:3: "},
		{"no TOML", "listen\n", "s.toml:1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s.toml")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			var v sample
			err := Load(path, &v)
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestLoadKeepsDefaultsWithoutFile(t *testing.T) {
	v := sample{Listen: "default"}
	if err := Load(filepath.Join(t.TempDir(), "none.toml"), &v); err != nil || v.Listen != "default" {
		t.Fatalf("%v, %v", v, err)
	}
}
