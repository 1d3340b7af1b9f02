// Build makes the packages that people install, on Linux, from a checkout:
//
//	go run ./packaging/build                      all of them, into dist
//	go run ./packaging/build -o /tmp/x '*.deb'    those whose names match
//
// The same commit and the same Go give the same bytes. Besides Go it takes git and, for
// Windows, wixl; nfpm comes as a module, at a fixed version. SHA256SUMS names what was
// made.
//
// The packages' version is that of the checkout, which [version] explains; -version
// names another one. All times in them are the commit's, or SOURCE_DATE_EPOCH.
//
// Nothing is signed unless the environment says how; see [build.sign].
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("build", flag.ExitOnError)
	out := flags.String("o", "dist", "folder for the packages")
	named := flags.String("version", "", "their version, as 1.2.3 (default: from git)")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: build [-o FOLDER] [-version X.Y.Z] [NAME-PATTERN...]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	b, err := newBuild(ctx, *named)
	if err != nil {
		return err
	}
	if b.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	return b.all(ctx, flags.Args())
}

// build is one run: what all packages have in common.
type build struct {
	root    string // of the repository
	work    string // a folder that is gone in the end
	out     string
	version version
	time    time.Time // of everything in a package
	made    io.Writer // is told the path of each package
	// compiled are the programs and notices made so far, below work.
	compiled map[string]string
}

func newBuild(ctx context.Context, named string) (*build, error) {
	b := &build{made: os.Stdout, compiled: map[string]string{}}
	mod, err := output(ctx, "", nil, "go", "env", "GOMOD")
	if err != nil {
		return nil, err
	}
	b.root = filepath.Dir(mod)
	if _, err := os.Stat(filepath.Join(b.root, "packaging")); err != nil {
		return nil, errors.New("this is not a checkout of Backstay; run it in one")
	}
	if b.version, err = versionOf(ctx, b.root, named); err != nil {
		return nil, err
	}
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		if seconds, err = output(ctx, b.root, nil, "git", "log", "-1", "--format=%ct"); err != nil {
			return nil, fmt.Errorf("%w; without git, SOURCE_DATE_EPOCH has to say the time of the sources", err)
		}
	}
	epoch, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("time of the sources: %w", err)
	}
	b.time = time.Unix(epoch, 0).UTC()
	return b, nil
}

// recipe makes one package, as the file it is given.
type recipe func(ctx context.Context, file string) error

// recipes returns every package by the name of its file.
func (b *build) recipes() map[string]recipe {
	all := map[string]recipe{}
	add := func(name, arch, kind string, r recipe) {
		all[fmt.Sprintf("%s_%s_%s%s", name, b.version, arch, kind)] = r
	}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, kind := range []string{"deb", "rpm", "apk"} {
			add("backstay", arch, "."+kind, b.desktop(kind, arch))
			add("backstay-server", arch, "."+kind, b.server(kind, arch))
		}
		add("backstay", "macos_"+arch, ".zip", b.app(arch))
	}
	add("backstay", "amd64", ".msi", b.msi)
	return all
}

// all makes the packages whose names match one of the patterns, all if there is none.
func (b *build) all(ctx context.Context, patterns []string) (err error) {
	if b.work, err = os.MkdirTemp("", "backstay-build-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	recipes := b.recipes()
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(recipes)) {
		chosen := len(patterns) == 0
		for _, p := range patterns {
			match, err := path.Match(p, name)
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			chosen = chosen || match
		}
		if !chosen {
			continue
		}
		file := filepath.Join(b.out, name)
		if err := recipes[name](ctx, file); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := b.sign(ctx, file); err != nil {
			return err
		}
		sum, err := sha256Of(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sum, name)
		fmt.Fprintln(b.made, file)
	}
	if sums.Len() == 0 {
		return fmt.Errorf("no package has a name like %s", strings.Join(patterns, " or "))
	}
	file := filepath.Join(b.out, "SHA256SUMS")
	if err := os.WriteFile(file, []byte(sums.String()), 0o644); err != nil {
		return err
	}
	return b.sign(ctx, file)
}

func sha256Of(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// sign has a file signed in place by the command that the environment names for its
// kind, with the file's path as its last argument: BACKSTAY_SIGN_EXE (programs for
// Windows), _APP (the folder Backstay.app), _DEB, _RPM, _APK, _MSI, _ZIP, and _SUMS,
// which may write beside SHA256SUMS instead. Without one, nothing is done. What was
// changed after the commit is never signed.
func (b *build) sign(ctx context.Context, file string) error {
	kind := strings.ToUpper(strings.TrimPrefix(filepath.Ext(file), "."))
	if kind == "" {
		kind = "SUMS"
	}
	command := os.Getenv("BACKSTAY_SIGN_" + kind)
	if command == "" {
		return nil
	}
	if b.version.changed {
		return fmt.Errorf("%s is not signed: the checkout has changes that no commit has", filepath.Base(file))
	}
	_, err := output(ctx, b.root, nil, "sh", "-c", command+` "$1"`, "sign", file)
	return err
}

// output runs a program and returns what it printed, without the last line's end. An
// error holds what it printed about it.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", name, err, out, said.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
