package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// program builds cmd/NAME for a system, once, and returns the file's path.
func (b *build) program(ctx context.Context, name, goos, goarch string) (string, error) {
	key := name + "-" + goos + "-" + goarch
	if file, ok := b.compiled[key]; ok {
		return file, nil
	}
	file := filepath.Join(b.work, key)
	flags := "-s -w -X backstay/internal/cli.version=" + b.version.String()
	if goos == "windows" {
		file += ".exe"
		if name == "tray" {
			flags += " -H=windowsgui"
		}
	}
	// Whatever whoever builds has set for their own work counts for nothing.
	_, err := output(ctx, b.root, []string{
		"GOOS=" + goos, "GOARCH=" + goarch, "GOAMD64=v1", "GOARM64=v8.0", "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off",
	}, "go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", file, "./cmd/"+name)
	if err != nil {
		return "", err
	}
	if goos == "windows" {
		if err := b.sign(ctx, file); err != nil {
			return "", err
		}
	}
	b.compiled[key] = file
	return file, nil
}

// notices writes down the licenses of everything that the programs of a system hold,
// and returns the file's path.
func (b *build) notices(ctx context.Context, goos string, programs ...string) (string, error) {
	key := "notices-" + goos + "-" + strings.Join(programs, "-")
	if file, ok := b.compiled[key]; ok {
		return file, nil
	}
	args := []string{"list", "-mod=readonly", "-deps", "-json=Module"}
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	listed, err := output(ctx, b.root, []string{"GOOS=" + goos, "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}, "go", args...)
	if err != nil {
		return "", err
	}
	goroot, err := output(ctx, b.root, nil, "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	type module struct {
		Path, Dir string
		Main      bool
	}
	used := []module{{Path: "Go", Dir: goroot}}
	for d := json.NewDecoder(strings.NewReader(listed)); ; {
		var p struct{ Module *module }
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", err
		}
		if m := p.Module; m != nil && !m.Main && !slices.Contains(used, *m) {
			used = append(used, *m)
		}
	}
	slices.SortFunc(used[1:], func(a, b module) int { return cmp.Compare(a.Path, b.Path) })
	var text bytes.Buffer
	text.WriteString("Backstay holds parts of these works, each under its license.\n")
	for _, m := range used {
		files, err := licenses(m.Dir)
		if err != nil {
			return "", fmt.Errorf("%s: %w", m.Path, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&text, "\n\n---- %s: %s\n\n%s\n", m.Path, filepath.Base(file), bytes.TrimSpace(data))
		}
	}
	file := filepath.Join(b.work, key)
	b.compiled[key] = file
	return file, os.WriteFile(file, text.Bytes(), 0o644)
}

// licenses returns the files of a module that its license asks to hand on.
func licenses(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		for _, start := range []string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS", "UNLICENSE"} {
			if e.Type().IsRegular() && strings.HasPrefix(name, start) {
				found = append(found, filepath.Join(dir, e.Name()))
				break
			}
		}
	}
	if found == nil {
		return nil, errors.New("no license in " + dir)
	}
	return found, nil
}
