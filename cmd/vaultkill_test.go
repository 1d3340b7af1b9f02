package cmd_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backstay/agent/history"
	"backstay/agent/metadata/treetest"
)

var (
	vaultKills = flag.Int("vaultkills", 0, "how often TestKillBoth kills; default 220, or 40 with the race detector")
	vaultSeed  = flag.Uint64("vaultseed", 0, "the seed of TestKillBoth; default random")
)

// TestKillBoth kills the agent, the server, or one and then the other, without
// warning and at random moments, while files are written, changed, renamed and
// deleted. Whatever the agent has called safe must be had back in the end, also if
// it was changed or deleted since; and when all is quiet, what is recovered with
// the kit must equal the disk.
func TestKillBoth(t *testing.T) {
	kills := *vaultKills
	switch {
	case kills > 0:
	case raceEnabled:
		kills = 40
	default:
		kills = 220
	}
	seed := *vaultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (-vaultseed)", seed)
	l := newLab(t)
	if err := os.WriteFile(filepath.Join(l.conf, "agent.toml"), []byte("settle = \"20ms\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.serve()
	l.join()

	w := newScribe(l, seed)
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() { w.work(ctx) })
	defer writing.Wait()
	defer stop()

	moment := rand.New(rand.NewPCG(seed, 99))
	var a *process
	var listening sync.WaitGroup
	begin := func() {
		if a == nil {
			p := l.watch()
			a = p
			listening.Go(func() { w.listen(p) })
			l.wait(p, `^connected to`)
		}
	}
	end := func(p **process) {
		if *p != nil {
			(*p).kill()
			*p = nil
			kills--
		}
	}
	wanted := kills
	for kills > 0 {
		if l.server == nil {
			l.serve()
		}
		begin()
		// After some acknowledgements, and then at a random moment on the way
		// to the next.
		for range moment.IntN(10) {
			select {
			case <-w.acks:
			case <-time.After(patience):
				t.Fatalf("nothing becomes safe; the agent says:\n%s\nthe server:\n%s", stacks(a), stacks(l.server))
			}
		}
		time.Sleep(time.Duration(moment.IntN(20_000)) * time.Microsecond)
		switch moment.IntN(20) {
		case 0: // the agent stays and finds the server again
			end(&l.server)
		case 1, 2, 3, 4, 5, 6:
			end(&l.server)
			time.Sleep(time.Duration(moment.IntN(3000)) * time.Microsecond)
			end(&a)
		case 7, 8, 9, 10, 11, 12:
			end(&a)
			time.Sleep(time.Duration(moment.IntN(3000)) * time.Microsecond)
			end(&l.server)
		default:
			end(&a)
		}
		if t.Failed() {
			return
		}
	}
	stop()
	writing.Wait()
	if l.server == nil {
		l.serve()
	}
	if a != nil {
		l.end(a)
	}
	listening.Wait()
	out := l.agent(0, "backup")
	if strings.Contains(out, "ALARM") {
		t.Errorf("an alarm: %s", out)
	}
	l.agent(0, "verify", "--all")
	treetest.Compare(t, l.docs, l.recover(0), treetest.Options{SkipSetID: true})
	w.check(t, wanted/2)
}

// stacks ends a program that hangs, and returns its output with, where the system can
// ask for that, what all its goroutines were at.
func stacks(p *process) string {
	if p.cmd.Process.Signal(syscall.SIGQUIT) != nil {
		p.cmd.Process.Kill()
	}
	<-p.done
	out, _ := p.output()
	return out
}

// A scribe changes files and remembers what the agent called safe.
type scribe struct {
	l    *lab
	rng  *rand.Rand
	acks chan struct{}

	mu sync.Mutex // guards what follows
	// live are the paths that exist. Names are used once, except by rename.
	live  []string
	files map[string]*script
	made  int
	safe  int
}

// script is the life of one path.
type script struct {
	// versions are the seeds of the contents it had, in order.
	versions []uint64
	// safe counts how often it was called safe; at is how many versions there
	// were at the last time.
	safe, at int
	// acked are the versions that were certainly among those called safe.
	acked map[int]bool
	// wild: it is changed whether or not the version before is safe, in place,
	// so nobody outside can tell which one a "safe" is about.
	wild bool
}

func newScribe(l *lab, seed uint64) *scribe {
	return &scribe{l: l, rng: rand.New(rand.NewPCG(seed, 1)), acks: make(chan struct{}, 4096), files: map[string]*script{}}
}

// work changes files until ctx ends.
func (w *scribe) work(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		err := w.step()
		w.mu.Unlock()
		if err != nil {
			w.l.Errorf("write: %v", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(w.rng.IntN(8)) * time.Millisecond):
		}
	}
}

// step does one thing. The caller holds mu.
func (w *scribe) step() error {
	const few, many = 20, 120
	n := w.rng.IntN(10)
	switch {
	case len(w.live) < few || n < 4 && len(w.live) < many:
		w.made++
		path := filepath.Join(w.l.docs, fmt.Sprintf("folder %d", w.rng.IntN(6)), fmt.Sprintf("file %d", w.made))
		w.files[path] = &script{wild: w.rng.IntN(4) == 0, acked: map[int]bool{}}
		w.live = append(w.live, path)
		return w.put(path)
	case n < 7:
		path := w.live[w.rng.IntN(len(w.live))]
		f := w.files[path]
		if !f.wild && f.safe == 0 || !f.wild && f.at < len(f.versions) {
			return nil // not before the version before is safe
		}
		return w.put(path)
	case n < 8:
		i := w.rng.IntN(len(w.live))
		w.made++
		from, to := w.live[i], filepath.Join(filepath.Dir(w.live[i]), fmt.Sprintf("renamed %d", w.made))
		old := w.files[from]
		w.files[to] = &script{wild: old.wild, acked: map[int]bool{}, versions: old.versions[len(old.versions)-1:]}
		w.live[i] = to
		return os.Rename(from, to)
	default:
		i := w.rng.IntN(len(w.live))
		path := w.live[i]
		w.live = slices.Delete(w.live, i, i+1)
		return os.Remove(path)
	}
}

// put gives a path new content.
func (w *scribe) put(path string) error {
	f, seed := w.files[path], w.rng.Uint64()
	content := content(seed)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if f.wild {
		f.versions = append(f.versions, seed)
		return os.WriteFile(path, content, 0o600)
	}
	// At once, so that no half of it can be what is called safe.
	temp := filepath.Join(w.l.dir, "temp")
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return err
	}
	f.versions = append(f.versions, seed)
	return os.Rename(temp, path)
}

// content is what a version consists of: in its record, in one chunk, or in several.
func content(seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	size := rng.IntN(6 << 10)
	if rng.IntN(20) == 0 {
		size = rng.IntN(1 << 20)
	}
	return []byte(random(rng, 8+size)) // never twice the same
}

// listen notes what an agent calls safe, to the last line it prints before it dies.
func (w *scribe) listen(p *process) {
	read := 0
	for {
		out, grown := p.output()
		for {
			line, _, whole := strings.Cut(out[read:], "\n")
			if !whole {
				break
			}
			read += len(line) + 1
			w.line(line)
		}
		select {
		case <-grown:
		case <-p.done:
			if rest, _ := p.output(); len(rest) == len(out) {
				return
			}
		}
	}
}

func (w *scribe) line(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(line, "NOT protected") && !strings.Contains(line, "it changes all the time") ||
		strings.Contains(line, "ALARM") || strings.Contains(line, "another copy") || strings.Contains(line, "panic") {
		w.l.Errorf("the agent says: %s", line)
	}
	path, ok := strings.CutSuffix(line, " safe")
	if !ok {
		return
	}
	w.safe++
	select {
	case w.acks <- struct{}{}:
	default:
	}
	f := w.files[path]
	if f == nil {
		w.l.Errorf("%q is called safe and was never there", path)
		return
	}
	if !f.wild {
		// A version is written only after the one before was called safe, so
		// this is about the newest one then at least: a capture that was under
		// way when the newest was written may be acknowledged once more.
		if len(f.versions) == 1 {
			f.acked[0] = true
		} else if f.at > 0 {
			f.acked[f.at-1] = true
		}
	}
	f.safe, f.at = f.safe+1, len(f.versions)
}

// check finds every version that was called safe in the history; there must be some.
func (w *scribe) check(t *testing.T, some int) {
	r, err := history.Open(t.Context(), w.l.conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var group sync.WaitGroup
	paths := make(chan string)
	versions := make([]int, 8)
	for i := range versions {
		group.Go(func() {
			for path := range paths {
				f := w.files[path]
				if len(f.acked) == 0 {
					continue
				}
				kept, err := r.Of(t.Context(), path)
				if err != nil {
					t.Errorf("%s: %v", path, err)
					continue
				}
				for v := range f.acked {
					versions[i]++
					want := content(f.versions[v])
					sum, hash := sha256.Sum256(want), r.Keys.Hash(want)
					if !slices.ContainsFunc(kept, func(k history.Version) bool {
						switch c := k.Content; {
						case c.Sum != nil:
							return *c.Sum == sum
						case len(c.Entries) == 1:
							return c.Entries[0].Hash == hash
						default:
							return bytes.Equal(c.Inline, want)
						}
					}) {
						t.Errorf("%s: version %d of %d was called safe and is not in the history of %d", path, v+1, len(f.versions), len(kept))
					}
				}
			}
		})
	}
	for path := range w.files {
		paths <- path
	}
	close(paths)
	group.Wait()
	total := 0
	for _, n := range versions {
		total += n
	}
	t.Logf("%d paths, %d times safe, %d versions certain", len(w.files), w.safe, total)
	if total < some {
		t.Errorf("only %d versions are certain: the test proves nothing", total)
	}
}
