package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestVersionOf(t *testing.T) {
	// Each row goes on where the one before it ended.
	dir := t.TempDir()
	git := func(t *testing.T, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func(t *testing.T) { git(t, "commit", "--quiet", "--allow-empty", "-m", "x") }
	write := func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git(t, "init", "--quiet")
	for _, tt := range []struct {
		name, named string
		do          func(*testing.T)
		want, apk   string // H stands for the hash
	}{
		{"before any release", "", commit, "0.0.0+1.gH", "0.0.0_git1"},
		{"a tag that is no version", "", func(t *testing.T) { git(t, "tag", "nice"); commit(t) }, "0.0.0+2.gH", "0.0.0_git2"},
		{"a release", "", func(t *testing.T) { git(t, "tag", "v1.20.3") }, "1.20.3", "1.20.3"},
		{"changed at a release", "", write, "1.20.3+0.gH.changed", "1.20.3_git0"},
		{"named and changed", "4.5.6", func(*testing.T) {}, "4.5.6+0.gH.changed", "4.5.6_git0"},
		{"named", "4.5.6", func(t *testing.T) { git(t, "add", "."); commit(t) }, "4.5.6", "4.5.6"},
		{"after a release", "", commit, "1.20.3+2.gH", "1.20.3_git2"},
		{"the next release", "", func(t *testing.T) { git(t, "tag", "-a", "v1.21.0", "-m", "x") }, "1.21.0", "1.21.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.do(t)
			v, err := versionOf(t.Context(), dir, tt.named)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(tt.want, "H", git(t, "rev-parse", "--short=12", "HEAD"))
			if v.String() != want || v.apk() != tt.apk {
				t.Errorf("%s and %s, want %s and %s", v, v.apk(), want, tt.apk)
			}
		})
	}
	t.Run("a tag beyond what an MSI can say", func(t *testing.T) {
		commit(t)
		git(t, "tag", "v1.256.0")
		if v, err := versionOf(t.Context(), dir, ""); err == nil {
			t.Errorf("%s", v)
		}
	})
	t.Run("a shallow clone", func(t *testing.T) {
		from := dir
		git(t, "tag", "-d", "v1.256.0", "v1.21.0", "v1.20.3")
		dir = t.TempDir()
		git(t, "clone", "--quiet", "--depth=1", "file://"+from, ".")
		if v, err := versionOf(t.Context(), dir, ""); err == nil {
			t.Errorf("%s, which counts only what is there", v)
		}
	})
}

func TestParseNumbers(t *testing.T) {
	for _, tt := range []struct{ s, next string }{
		{"0.0.0", "0.0.1"},
		{"v1.2.3", "1.2.4"},
		{"255.255.65534", "255.255.65535"},
		{"1.2", ""},
		{"1.2.3-rc1", ""},
		{"01.2.3", ""},
		{"256.0.0", ""},
		{"0.256.0", ""},
		{"0.0.65535", ""},
	} {
		v, err := parseNumbers(tt.s)
		if (err == nil) != (tt.next != "") || err == nil && v.next() != tt.next {
			t.Errorf("%s: next %s, %v", tt.s, v.next(), err)
		}
	}
}

func TestGUID(t *testing.T) {
	a, b := guid("a"), guid("b")
	if a == b || a != guid("a") || !regexp.MustCompile(`^\{[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}\}$`).MatchString(a) {
		t.Errorf("%s, %s", a, b)
	}
}
