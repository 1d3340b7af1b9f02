package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the goldens")

// need skips the test, or fails it where everything is required, if a tool is missing.
func need(t *testing.T, tools ...string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("packages are made on Linux")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("BACKSTAY_REQUIRE") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// aBuild is a build of this checkout as version 1.2.3. Its programs and notices are
// texts, until forget.
func aBuild(t *testing.T) *build {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	b := &build{
		root: root, out: t.TempDir(), made: io.Discard, compiled: map[string]string{},
		version: version{major: 1, minor: 2, patch: 3}, time: time.Unix(1700000000, 0).UTC(),
	}
	fakes := t.TempDir()
	for _, key := range []string{
		"agent-linux-amd64", "agent-linux-arm64", "tray-linux-amd64", "tray-linux-arm64", "server-linux-amd64", "server-linux-arm64",
		"agent-windows-amd64", "tray-windows-amd64", "agent-darwin-amd64", "agent-darwin-arm64",
		"notices-linux-agent-tray", "notices-linux-server", "notices-windows-agent-tray", "notices-darwin-agent",
	} {
		b.compiled[key] = filepath.Join(fakes, key)
		if err := os.WriteFile(b.compiled[key], []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// forget has the build compile.
func (b *build) forget() *build {
	clear(b.compiled)
	return b
}

// list returns what is in a package: a line for each file and folder, and the content
// of each file that is there to be run or read by a program.
func list(t *testing.T, file string) (string, map[string]string) {
	t.Helper()
	var lines []string
	content := map[string]string{}
	add := func(mode fs.FileMode, owner, name string, r io.Reader) {
		name = strings.Trim(strings.TrimPrefix(name, "."), "/")
		if name == "" || mode.IsDir() {
			return
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", mode, name, owner)))
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		content[name] = string(data)
	}
	tarred := func(data []byte) {
		r := tar.NewReader(bytes.NewReader(data))
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			add(h.FileInfo().Mode(), h.Uname+":"+h.Gname, h.Name, r)
		}
	}
	run := func(script string) []byte {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", file)
		cmd.Stderr = t.Output()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return out
	}
	switch filepath.Ext(file) {
	case ".deb":
		tarred(run(`dpkg-deb --fsys-tarfile "$1"`))
		for _, name := range []string{"control", "conffiles", "postinst", "prerm", "postrm"} {
			content["DEBIAN/"+name] = string(run(`dpkg-deb --info "$1" ` + name + ` 2>/dev/null || true`))
		}
	case ".rpm":
		dir := t.TempDir()
		run(`f=$(realpath "$1"); cd ` + dir + `; rpm2cpio "$f" | cpio --extract --make-directories --no-absolute-filenames --quiet`)
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			add(info.Mode(), "", strings.TrimPrefix(path, dir), f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	case ".apk":
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Two archives, the first without an end, so that they are one.
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if data, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
		tarred(data)
	case ".zip":
		z, err := zip.OpenReader(file)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			add(f.Mode(), "", f.Name, r)
			r.Close()
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", content
}

// TestPackages makes every package twice, at different times in different folders, of
// programs that are none: what is in each is as written down, and both are the same.
func TestPackages(t *testing.T) {
	need(t, "dpkg-deb", "rpm2cpio", "cpio", "wixl")
	b, again := aBuild(t), aBuild(t)
	if err := b.all(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := again.all(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(b.out, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(b.recipes()))
	if n := strings.Count(string(sums), "\n"); n != len(names) || n != 15 {
		t.Errorf("%d sums of %d packages", n, len(names))
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--quiet", "SHA256SUMS")
	check.Dir = b.out
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if same, err := os.ReadFile(filepath.Join(again.out, "SHA256SUMS")); err != nil || string(same) != string(sums) {
		t.Errorf("the second build differs, %v:\n%s\n%s", err, sums, same)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".msi") {
			continue // Windows lists it: TestMSI
		}
		t.Run(name, func(t *testing.T) {
			got, content := list(t, filepath.Join(b.out, name))
			golden := filepath.Join("testdata", strings.NewReplacer("_1.2.3", "", "amd64", "any", "arm64", "any").Replace(name)+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("in it is\n%s, want\n%s", got, want)
			}
			arch := "amd64"
			if strings.Contains(name, "arm64") {
				arch = "arm64"
			}
			for path, text := range map[string]string{
				"usr/bin/backstay": "agent-linux-" + arch, "usr/bin/backstay-tray": "tray-linux-" + arch, "usr/bin/backstay-server": "server-linux-" + arch,
				"Backstay.app/Contents/MacOS/backstay": "agent-darwin-" + arch,
			} {
				if got, ok := content[path]; ok && got != text {
					t.Errorf("%s is %q", path, got)
				}
			}
			for path, text := range content {
				if strings.HasPrefix(text, "#!/bin/sh") {
					check := exec.CommandContext(t.Context(), "sh", "-n")
					check.Stdin = strings.NewReader(text)
					if out, err := check.CombinedOutput(); err != nil {
						t.Errorf("%s: %v\n%s", path, err, out)
					}
				}
			}
			for path, want := range map[string]string{
				".PKGINFO":       "pkgver = 1.2.3-r0\n",
				"DEBIAN/control": "Version: 1.2.3\n",
				"usr/lib/systemd/user/backstay-agent.service": "ExecStart=/usr/bin/backstay service run\n",
				"etc/xdg/autostart/backstay-agent.desktop":    "Exec=/usr/bin/backstay service keep\n",
				"etc/xdg/autostart/backstay-tray.desktop":     "/usr/bin/backstay-tray",
				"usr/share/applications/backstay.desktop":     "dashboard\n",
				"LaunchAgents/backstay.agent.plist":           "<string>/Applications/Backstay.app/Contents/MacOS/backstay</string>",
				"Backstay.app/Contents/Info.plist":            "<string>1.2.3</string>",
			} {
				if got, ok := content[path]; ok && !strings.Contains(got, want) {
					t.Errorf("%s is\n%s, without %q", path, got, want)
				}
			}
			if strings.HasPrefix(name, "backstay-server") && strings.HasSuffix(name, ".deb") && content["DEBIAN/conffiles"] != "/etc/backstay/server.toml\n" {
				t.Errorf("conffiles: %q", content["DEBIAN/conffiles"])
			}
		})
	}
}

// TestSameBytes builds the server's deb in two checkouts of the same files.
func TestSameBytes(t *testing.T) {
	if raceEnabled {
		t.Skip("the plain run does it")
	}
	need(t, "git")
	first, second := aBuild(t).forget(), aBuild(t).forget()
	second.root = filepath.Join(t.TempDir(), "elsewhere")
	files := exec.CommandContext(t.Context(), "sh", "-ec", `git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory="$1"`, "sh", second.root)
	files.Dir = first.root
	if err := os.Mkdir(second.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := files.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var sums []string
	for _, b := range []*build{first, second} {
		if err := b.all(t.Context(), []string{"backstay-server_*_amd64.deb"}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(b.out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(data))
	}
	if sums[0] != sums[1] {
		t.Errorf("different: %s", sums)
	}
}

func TestSign(t *testing.T) {
	need(t)
	b := aBuild(t)
	t.Setenv("BACKSTAY_SIGN_DEB", "printf signed >>")
	t.Setenv("BACKSTAY_SIGN_SUMS", `f() { cp "$1" "$1.sig"; }; f`)
	name := "backstay-server_1.2.3_amd64.deb"
	if err := b.all(t.Context(), []string{name}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(b.out, name))
	if err != nil || !bytes.HasSuffix(data, []byte("signed")) {
		t.Errorf("the deb is not signed, %v", err)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--quiet", "SHA256SUMS.sig")
	check.Dir = b.out
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("the sums are not signed, or not of what is: %v\n%s", err, out)
	}

	b.version.changed = true
	if err := b.all(t.Context(), []string{"backstay-server_*_amd64.deb"}); err == nil {
		t.Error("what no commit has is signed")
	}
	t.Setenv("BACKSTAY_SIGN_DEB", "false")
	b.version.changed = false
	if err := b.all(t.Context(), []string{name}); err == nil {
		t.Error("a failure to sign is no failure")
	}
}

func TestNothingMatches(t *testing.T) {
	need(t)
	if err := aBuild(t).all(t.Context(), []string{"*.exe"}); err == nil {
		t.Error("nothing is made, and that is no error")
	}
}

func TestSettleRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"no stream before it", summaryFormat},
		{"ends with it", append(make([]byte, 28), summaryFormat...)},
		{"a section beyond its end", append(append(make([]byte, 28), summaryFormat...), 0xff, 0xff, 0xff, 0xff)},
		{"no properties", append(append(make([]byte, 28), summaryFormat...), 48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if settle(tt.data, time.Unix(0, 0)) == nil {
				t.Error("not refused")
			}
		})
	}
}
