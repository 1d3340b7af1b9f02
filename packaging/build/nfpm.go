package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"backstay/agent/service"
	"backstay/tray"
)

const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2"

const maintainer = "The Backstay authors"

// linuxPackage is what deb, rpm and apk have in common.
type linuxPackage struct {
	name, description, section string
	depends                    []string
	// files are the paths in the package with what is put there: the path of a
	// file, of the repository or absolute.
	files map[string]string
	// texts are the paths in the package with the text that is put there.
	texts map[string]string
	// settings are the paths, of files or texts, that an upgrade leaves as the
	// administrator made them.
	settings []string
	// scripts are the files in packaging/linux that the package manager runs, by
	// the name nfpm has for when.
	scripts map[string]string
}

// desktop is the package with the agent and the tray.
func (b *build) desktop(kind, arch string) recipe {
	return func(ctx context.Context, file string) error {
		p := linuxPackage{
			name:        "backstay",
			section:     "utils",
			description: "keeps a second copy of your folders on a server you control\nBackstay sends every change within seconds, sealed before it leaves the machine, and\ngives any of it back as it was at any second.",
			files:       map[string]string{},
			texts: map[string]string{
				"/usr/share/applications/backstay.desktop": tray.MenuEntry("/usr/bin/backstay"),
				"/etc/xdg/autostart/backstay-tray.desktop": tray.DesktopEntry("/usr/bin/backstay-tray"),
			},
		}
		for _, size := range []string{"16", "22", "24", "32", "48", "64", "128", "256"} {
			p.files["/usr/share/icons/hicolor/"+size+"x"+size+"/apps/backstay.png"] = "tray/icons/png/app-" + size + ".png"
		}
		if kind == "apk" {
			// No systemd: the agent is a program of the desktop's session there,
			// with a keeper that starts it again.
			p.files["/etc/xdg/autostart/backstay-agent.desktop"] = "packaging/linux/backstay-agent.desktop"
		} else {
			unit, err := service.Unit(service.Systemd, service.Service{Executable: "/usr/bin/backstay"})
			if err != nil {
				return err
			}
			p.texts["/usr/lib/systemd/user/"+service.Name+".service"] = string(unit)
			p.files["/usr/lib/systemd/user/"+service.Name+".service.d/people.conf"] = "packaging/linux/people.conf"
			p.scripts = map[string]string{"postinstall": "backstay.postinst", "preremove": "backstay.prerm", "postremove": "backstay.postrm"}
		}
		if err := b.documents(ctx, &p, "agent", "tray"); err != nil {
			return err
		}
		return b.nfpm(ctx, kind, arch, file, p, map[string]string{"agent": "/usr/bin/backstay", "tray": "/usr/bin/backstay-tray"})
	}
}

// server is the package with the server.
func (b *build) server(kind, arch string) recipe {
	return func(ctx context.Context, file string) error {
		p := linuxPackage{
			name:        "backstay-server",
			section:     "net",
			description: "keeps what Backstay sends from desktops, and can read none of it\nThe server of Backstay: every version of every file, sealed, durable before it is\nacknowledged.",
			files:       map[string]string{"/etc/backstay/server.toml": "packaging/linux/server.toml"},
			texts:       map[string]string{},
			settings:    []string{"/etc/backstay/server.toml"},
		}
		if kind == "apk" {
			p.files["/etc/init.d/backstay-server"] = "packaging/linux/backstay-server.openrc"
			p.depends = []string{"openrc"}
			p.scripts = map[string]string{"preinstall": "backstay-server.apk-pre-install", "preremove": "backstay-server.apk-pre-deinstall"}
		} else {
			p.files["/usr/lib/systemd/system/backstay-server.service"] = "packaging/linux/backstay-server.service"
			p.files["/usr/lib/sysusers.d/backstay-server.conf"] = "packaging/linux/backstay-server.sysusers"
			p.scripts = map[string]string{"postinstall": "backstay-server.postinst", "preremove": "backstay-server.prerm", "postremove": "backstay-server.postrm"}
		}
		if err := b.documents(ctx, &p, "server"); err != nil {
			return err
		}
		return b.nfpm(ctx, kind, arch, file, p, map[string]string{"server": "/usr/bin/backstay-server"})
	}
}

// documents adds what is there to be read.
func (b *build) documents(ctx context.Context, p *linuxPackage, programs ...string) error {
	notices, err := b.notices(ctx, "linux", programs...)
	if err != nil {
		return err
	}
	doc := "/usr/share/doc/" + p.name + "/"
	p.files[doc+"copyright"] = "LICENSE"
	p.files[doc+"third-party"] = notices
	p.files[doc+"README.md"] = "README.md"
	p.files[doc+"CHANGELOG.md"] = "CHANGELOG.md"
	return nil
}

// nfpm has the package made, with programs at the paths given.
func (b *build) nfpm(ctx context.Context, kind, arch, file string, p linuxPackage, programs map[string]string) error {
	work, err := os.MkdirTemp(b.work, "nfpm-")
	if err != nil {
		return err
	}
	type info struct {
		Mode  int       `json:"mode"`
		Owner string    `json:"owner"`
		Group string    `json:"group"`
		MTime time.Time `json:"mtime"`
	}
	type content struct {
		Src  string `json:"src"`
		Dst  string `json:"dst"`
		Type string `json:"type,omitempty"`
		Info info   `json:"file_info"`
	}
	var contents []content
	add := func(src, dst string, mode int) {
		c := content{src, dst, "", info{mode, "root", "root", b.time}}
		if slices.Contains(p.settings, dst) {
			c.Type = "config|noreplace"
		}
		contents = append(contents, c)
	}
	for name, dst := range programs {
		src, err := b.program(ctx, name, "linux", arch)
		if err != nil {
			return err
		}
		add(src, dst, 0o755)
	}
	for dst, src := range p.files {
		if !filepath.IsAbs(src) {
			src = filepath.Join(b.root, src)
		}
		mode := 0o644
		if strings.HasPrefix(dst, "/etc/init.d/") {
			mode = 0o755
		}
		add(src, dst, mode)
	}
	for dst, text := range p.texts {
		src := filepath.Join(work, filepath.Base(dst))
		if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
			return err
		}
		add(src, dst, 0o644)
	}
	slices.SortFunc(contents, func(a, b content) int { return strings.Compare(a.Dst, b.Dst) })
	scripts := maps.Clone(p.scripts)
	for when, name := range scripts {
		scripts[when] = filepath.Join(b.root, "packaging/linux", name)
	}
	summary, _, _ := strings.Cut(p.description, "\n")
	v, release := b.version.String(), ""
	switch kind {
	case "apk":
		v, release = b.version.apk(), "0"
		p.description = summary // its format has one line for it
	case "rpm":
		release = "1"
	}
	// Its settings are YAML, and JSON is that, too.
	settings, err := json.Marshal(map[string]any{
		"name": p.name, "arch": arch, "platform": "linux", "version_schema": "none", "version": v, "release": release,
		"section": p.section, "priority": "optional", "maintainer": maintainer, "vendor": maintainer, "license": "MIT",
		"description": p.description, "depends": p.depends, "mtime": b.time, "disable_globbing": true,
		"contents": contents, "scripts": scripts,
		// The defaults are this machine's name and its clock.
		"rpm": map[string]any{"buildhost": "localhost", "summary": summary},
	})
	if err != nil {
		return err
	}
	config := filepath.Join(work, "nfpm.json")
	if err := os.WriteFile(config, settings, 0o644); err != nil {
		return err
	}
	if _, err := output(ctx, b.root, []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.time.Unix()), "GOFLAGS="},
		"go", "run", nfpm, "package", "--config", config, "--packager", kind, "--target", file); err != nil {
		return err
	}
	return nil
}
