package main

import (
	"archive/zip"
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"

	"backstay/agent/service"
)

// app is the package for macOS: Backstay.app and a property list in a zip. The tray is
// not in it, because its toolkit has to be compiled on a Mac.
func (b *build) app(arch string) recipe {
	return func(ctx context.Context, file string) error {
		work, err := os.MkdirTemp(b.work, "app-")
		if err != nil {
			return err
		}
		agent, err := b.program(ctx, "agent", "darwin", arch)
		if err != nil {
			return err
		}
		notices, err := b.notices(ctx, "darwin", "agent")
		if err != nil {
			return err
		}
		const contents = "Backstay.app/Contents/"
		for _, f := range []struct {
			dst, src string
			mode     os.FileMode
		}{
			{contents + "MacOS/backstay", agent, 0o755},
			{contents + "MacOS/launch", "packaging/macos/launch", 0o755},
			{contents + "Resources/README.md", "README.md", 0o644},
			{contents + "Resources/LICENSE.txt", "LICENSE", 0o644},
			{contents + "Resources/third-party.txt", notices, 0o644},
			{"README.txt", "packaging/macos/README.txt", 0o644},
		} {
			src := f.src
			if !filepath.IsAbs(src) {
				src = filepath.Join(b.root, src)
			}
			if err := b.stage(src, filepath.Join(work, f.dst), f.mode); err != nil {
				return err
			}
		}
		source, err := template.ParseFiles(filepath.Join(b.root, "packaging/macos/Info.plist"))
		if err != nil {
			return err
		}
		var info bytes.Buffer
		if err := source.Execute(&info, map[string]string{"Version": b.version.String(), "Numbers": b.version.numbers()}); err != nil {
			return err
		}
		agentd, err := service.Unit(service.Launchd, service.Service{Executable: "/Applications/Backstay.app/Contents/MacOS/backstay"})
		if err != nil {
			return err
		}
		for dst, text := range map[string][]byte{contents + "Info.plist": info.Bytes(), "LaunchAgents/" + service.Label + ".plist": agentd} {
			dst = filepath.Join(work, dst)
			if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(dst, text, 0o644); err != nil {
				return err
			}
		}
		if err := b.sign(ctx, filepath.Join(work, "Backstay.app")); err != nil {
			return err
		}
		return b.zip(work, file)
	}
}

// zip packs all files of a folder, in order.
func (b *build) zip(dir, file string) error {
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: filepath.ToSlash(name), Method: zip.Deflate, Modified: b.time}
		h.SetMode(info.Mode())
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = to.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, packed.Bytes(), 0o644)
}
