package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer is one backup program with an empty store of its own and one folder to
// protect. Each call is a new process of the client.
type peer interface {
	// backup makes everything durable that changed since the last call.
	backup(ctx context.Context) (cost, error)
	// restore writes a path back below the folder to, newest version, and returns
	// where it is there.
	restore(ctx context.Context, path, to string) (string, cost, error)
	// stored is how many bytes the store takes when all programs rest.
	stored(ctx context.Context) (int64, error)
	close() error
}

// tool makes peers of one kind.
type tool struct {
	name string
	// what it is, for the report: versions, and how the client reaches the store.
	what string
	// open makes a peer whose files, but the source, are below dir.
	open func(ctx context.Context, dir, source string) (peer, error)
}

const password = "not a secret: what it protects is made up"

// build makes Backstay's programs from the module that this command is part of.
func build(ctx context.Context, dir string) (tool, error) {
	module, err := output(exec.CommandContext(ctx, "go", "env", "GOMOD"))
	if err != nil {
		return tool{}, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./cmd/agent", "./cmd/server")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(module)))
	if _, err := output(cmd); err != nil {
		return tool{}, err
	}
	return tool{
		name: "backstay",
		what: "this checkout, agent and server over loopback",
		open: func(ctx context.Context, home, source string) (peer, error) {
			return openBackstay(ctx, dir, home, source)
		},
	}, nil
}

// backstay is a server, and an agent that joined it.
type backstay struct {
	bin, dir string
	source   string
	address  string
	server   *service
}

func openBackstay(ctx context.Context, bin, dir, source string) (*backstay, error) {
	b := &backstay{bin: bin, dir: dir, source: source}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if b.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := b.serve(ctx); err != nil {
		return nil, err
	}
	if err := b.join(ctx, "", source); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// serve starts the server.
func (b *backstay) serve(ctx context.Context) error {
	var err error
	b.server, err = startService(b.command(ctx, "server", "run", "--data", b.store(), "--listen", b.address, "--metrics", "off"), nil)
	if err != nil {
		return err
	}
	if err := b.server.reachable(ctx, b.address); err != nil {
		return errors.Join(err, b.close())
	}
	return nil
}

// command is one of the programs, kept away from what this machine is set up for.
func (b *backstay) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, program), args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(b.dir, "xdg"), "XDG_STATE_HOME="+filepath.Join(b.dir, "xdg"))
	return cmd
}

// agent is an agent's command; each name, "" is the first, is a device of its own.
func (b *backstay) agent(ctx context.Context, name string, args ...string) *exec.Cmd {
	return b.command(ctx, "agent", append(args, "--config", filepath.Join(b.dir, "config"+name), "--state", filepath.Join(b.dir, "state"+name))...)
}

func (b *backstay) join(ctx context.Context, name, source string) error {
	answer, err := output(b.command(ctx, "server", "invite", "--data", b.store(), "--account", "account"+name, "--json"))
	if err != nil {
		return err
	}
	var invite struct{ Invitation string }
	if err := json.Unmarshal(answer, &invite); err != nil {
		return fmt.Errorf("server invite: %w", err)
	}
	_, err = output(b.agent(ctx, name, "join", invite.Invitation, source, "--phrase-file", filepath.Join(b.dir, "kit"+name)))
	return err
}

func (b *backstay) backup(ctx context.Context) (cost, error) {
	return measure(b.agent(ctx, "", "backup"), b.server)
}

func (b *backstay) restore(ctx context.Context, path, to string) (string, cost, error) {
	c, err := measure(b.agent(ctx, "", "restore", path, "--to", to), b.server)
	return filepath.Join(to, filepath.Base(path)), c, err
}

func (b *backstay) store() string { return filepath.Join(b.dir, "store") }
func (b *backstay) close() error  { return b.server.stop() }

// stored stops the server meanwhile: while it runs, what its index learned last is
// on the disk twice, in the index's log, too.
func (b *backstay) stored(ctx context.Context) (int64, error) {
	if err := b.close(); err != nil {
		return 0, err
	}
	n, err := size(b.store())
	return n, errors.Join(err, b.serve(ctx))
}

// findRestic looks for restic and the best of the servers for it that is here.
func findRestic(ctx context.Context) (tool, error) {
	version, err := output(exec.CommandContext(ctx, "restic", "version"))
	if err != nil {
		return tool{}, errors.New("restic is not here; install it with: apt-get install restic")
	}
	t := tool{name: "restic", what: strings.TrimSpace(string(version))}
	// Each is given the address and the folder.
	servers := []struct {
		program string
		args    func(address, store string) []string
	}{
		{"rest-server", func(address, store string) []string {
			return []string{"--no-auth", "--listen", address, "--path", store}
		}},
		{"rclone", func(address, store string) []string { return []string{"serve", "restic", "--addr", address, store} }},
	}
	for _, s := range servers {
		if _, err := exec.LookPath(s.program); err != nil {
			continue
		}
		t.what += ", to " + s.program + " over loopback"
		t.open = func(ctx context.Context, dir, source string) (peer, error) {
			r := newRestic(dir, source)
			address, err := freeAddress()
			if err != nil {
				return nil, err
			}
			if r.server, err = startService(exec.CommandContext(ctx, s.program, s.args(address, r.store())...), nil); err != nil {
				return nil, err
			}
			if err := r.server.reachable(ctx, address); err != nil {
				return nil, errors.Join(err, r.close())
			}
			r.repository = "rest:http://" + address + "/"
			return r, r.init(ctx)
		}
		return t, nil
	}
	t.what += ", to a local folder without a server (rest-server and rclone are not here; apt-get install rclone)"
	t.open = func(ctx context.Context, dir, source string) (peer, error) {
		r := newRestic(dir, source)
		return r, r.init(ctx)
	}
	return t, nil
}

type restic struct {
	dir, source, repository string
	server                  *service // nil without one
}

func newRestic(dir, source string) *restic {
	r := &restic{dir: dir, source: source}
	r.repository = r.store()
	return r
}

func (r *restic) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "restic", args...)
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+r.repository, "RESTIC_PASSWORD="+password,
		"RESTIC_CACHE_DIR="+filepath.Join(r.dir, "cache"))
	return cmd
}

func (r *restic) init(ctx context.Context) error {
	if _, err := output(r.command(ctx, "init")); err != nil {
		return errors.Join(err, r.close())
	}
	return nil
}

func (r *restic) backup(ctx context.Context) (cost, error) {
	return measure(r.command(ctx, "backup", "--quiet", r.source), r.server)
}

func (r *restic) restore(ctx context.Context, path, to string) (string, cost, error) {
	args := []string{"restore", "--quiet", "latest", "--target", to}
	if path != r.source {
		args = append(args, "--include", path)
	}
	c, err := measure(r.command(ctx, args...), r.server)
	return filepath.Join(to, path), c, err
}

func (r *restic) store() string { return filepath.Join(r.dir, "store") }

func (r *restic) stored(context.Context) (int64, error) { return size(r.store()) }

func (r *restic) close() error {
	if r.server == nil {
		return nil
	}
	return r.server.stop()
}

func findBorg(ctx context.Context) (tool, error) {
	version, err := output(exec.CommandContext(ctx, "borg", "--version"))
	if err != nil {
		return tool{}, errors.New("borg is not here; install it with: apt-get install borgbackup")
	}
	return tool{
		name: "borg",
		what: strings.TrimSpace(string(version)) + `, to "borg serve" through pipes`,
		open: func(ctx context.Context, dir, source string) (peer, error) {
			b := &borg{dir: dir, source: source}
			_, err := output(b.command(ctx, "init", "--encryption", "repokey-blake2", "--make-parent-dirs", b.repository()))
			return b, err
		},
	}, nil
}

// borg's server is a child of its client, which waits for it.
type borg struct {
	dir, source string
	archives    int
}

func (b *borg) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "borg", args...)
	cmd.Env = append(os.Environ(), "BORG_BASE_DIR="+filepath.Join(b.dir, "home"), "BORG_PASSPHRASE="+password,
		// What would go to another machine by ssh starts here, without the host's name.
		`BORG_RSH=sh -c 'shift; exec "$@"' rsh`)
	return cmd
}

func (b *borg) repository() string { return "ssh://here" + b.store() }
func (b *borg) archive() string    { return fmt.Sprintf("%s::%d", b.repository(), b.archives) }

func (b *borg) backup(ctx context.Context) (cost, error) {
	b.archives++
	return measure(b.command(ctx, "create", b.archive(), b.source), nil)
}

func (b *borg) restore(ctx context.Context, path, to string) (string, cost, error) {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", cost{}, err
	}
	cmd := b.command(ctx, "extract", b.archive(), strings.TrimPrefix(path, string(filepath.Separator)))
	cmd.Dir = to
	c, err := measure(cmd, nil)
	return filepath.Join(to, path), c, err
}

func (b *borg) store() string { return filepath.Join(b.dir, "store") }

func (b *borg) stored(context.Context) (int64, error) { return size(b.store()) }
func (b *borg) close() error                          { return nil }

// size is the sum of the sizes of all files below dir.
func size(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a server tidies while we look
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
