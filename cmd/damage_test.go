package cmd_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backstay/protocol/vault"
)

// TestDamage flips bits in the pack of a stopped server. What is hit is named; what
// is not comes back whole; and nothing else ever comes back in a file's place.
func TestDamage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newLab(t)
	want := map[string]string{}
	for i := range 40 {
		// Some in their record, some in one chunk, some in several.
		size := []int{100, 3000, 20_000, 200_000, 2_000_000}[i%5]
		want[fmt.Sprintf("folder %d/file %d", i%4, i)] = random(rng, size)
	}
	for name, content := range want {
		l.write(name, content)
	}
	l.serve()
	l.join()
	l.agent(0, "backup")
	l.stop()
	packs, err := filepath.Glob(filepath.Join(l.data, "store", "packs", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("%d packs, want 1; %v", len(packs), err)
	}
	whole, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	for round := range 9 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			damaged := slices.Clone(whole)
			// In turn: nothing at all, anywhere, near the end, where records
			// and commits are.
			from := 0
			if round%3 == 2 {
				from = max(0, len(damaged)-40<<10)
			}
			for range min(round, 1+rng.IntN(3)) {
				damaged[from+rng.IntN(len(damaged)-from)] ^= 1 << rng.IntN(8)
			}
			if round%3 == 0 {
				damaged = whole
			}
			outcomes[l.damaged(t, packs[0], damaged, want)]++
		})
	}
	t.Logf("%v", outcomes)
	if outcomes["whole"] < 3 || outcomes["damaged"] == 0 {
		t.Errorf("%v: 3 rounds without damage must end well, and some with it must not", outcomes)
	}
}

// damaged runs the server on a damaged pack and asks for everything.
func (l *lab) damaged(t *testing.T, file string, pack []byte, want map[string]string) string {
	if err := os.WriteFile(file, pack, 0o600); err != nil {
		t.Fatal(err)
	}
	l.serve()
	defer l.stop()
	out, code := run(t, l.dir, "agent", "verify", "--all", "--json", "--config", l.conf, "--state", l.state)
	to := filepath.Join(t.TempDir(), "out")
	restored, rcode := run(t, l.dir, "agent", "restore", l.docs, "--to", to, "--config", l.conf, "--state", l.state)
	got := map[string]string{}
	if _, err := os.Stat(to); err == nil {
		got = files(t, filepath.Join(to, filepath.Base(l.docs)))
	}
	var verified struct {
		Failed []struct{ Path, Error string }
	}
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &verified); err != nil {
		t.Fatalf("verify lists nothing: exit %d, %v\n%s", code, err, out)
	}
	if code != rcode || code != 0 && code != 5 {
		t.Errorf("verify exits %d, restore %d, want both 0 or both 5\n%s\n%s", code, rcode, out, restored)
	}
	named := map[string]bool{}
	for _, f := range verified.Failed {
		named[f.Path] = true
	}
	if n := strings.Count(restored, "is NOT restored"); n != len(verified.Failed) {
		t.Errorf("restore names %d paths, verify %d\n%s\n%s", n, len(verified.Failed), restored, out)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		path := filepath.Join(l.docs, filepath.FromSlash(name))
		content, ok := got[name]
		switch {
		case ok && content != want[name]:
			t.Errorf("%s came back as something else", name)
		case ok && named[path]:
			t.Errorf("%s came back, and verify says that it is damaged", name)
		case !ok && named[path]:
			if !strings.Contains(restored, path+" is NOT restored") {
				t.Errorf("%s did not come back, and restore does not say so\n%s", name, restored)
			}
		case !ok:
			t.Errorf("%s did not come back, and nobody says so\n%s\n%s", name, out, restored)
		}
	}
	if damage := len(verified.Failed) > 0; damage != (code == 5) || !damage && len(got) != len(want) {
		t.Errorf("exit %d with %d damaged, %d of %d files back", code, len(verified.Failed), len(got), len(want))
	}
	if code == 0 {
		return "whole"
	}
	return "damaged"
}

// packEntry is where an entry's body lies in a pack (SPEC.md 3.1).
type packEntry struct {
	kind     byte
	off, len int
}

// entries lists the entries of a whole pack.
func entries(pack []byte) (list []packEntry) {
	for off := 32; off < len(pack); {
		e := packEntry{pack[off+8], off + 68, int(binary.LittleEndian.Uint32(pack[off+12:]))}
		list = append(list, e)
		off = e.off + e.len
	}
	return list
}

// spoil flips a bit in the middle of those entries of the only pack that are chosen,
// and returns their bodies as they were.
func (l *lab) spoil(choose func(e packEntry, body []byte) bool) (bodies [][]byte) {
	l.Helper()
	packs, err := filepath.Glob(filepath.Join(l.data, "store", "packs", "*.pack"))
	if err != nil || len(packs) != 1 {
		l.Fatalf("%d packs, want 1; %v", len(packs), err)
	}
	pack, err := os.ReadFile(packs[0])
	if err != nil {
		l.Fatal(err)
	}
	for _, e := range entries(pack) {
		body := pack[e.off:][:e.len]
		if choose(e, body) {
			bodies = append(bodies, bytes.Clone(body))
			body[e.len/2] ^= 1
		}
	}
	if err := os.WriteFile(packs[0], pack, 0o600); err != nil {
		l.Fatal(err)
	}
	return bodies
}

// TestHealing damages content and a record: verify names what is hit and has it sent
// again, by the next backup or by the agent that runs.
func TestHealing(t *testing.T) {
	l := newLab(t)
	rng := rand.New(rand.NewPCG(1, 0))
	big, inline := random(rng, 3_000_000), random(rng, 3500)
	l.write("big", big)
	l.write("small", inline)
	l.write("other", "other")
	l.serve()
	l.join()
	l.agent(0, "backup")
	first := time.Now()
	if err := os.Chtimes(filepath.Join(l.docs, "big"), time.Time{}, first.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	l.agent(0, "backup")
	l.stop()
	content := func(e packEntry, body []byte) bool {
		h, _, err := vault.ParseHeader(body)
		return e.kind == 1 && err == nil && (h.Type == vault.TypeChunk || h.Type == vault.TypeRecord && e.len > 3500)
	}
	chunks := l.spoil(content)
	if len(chunks) < 3 {
		t.Fatalf("%d entries damaged", len(chunks))
	}
	l.serve()
	damaged := func() {
		t.Helper()
		out := l.agent(5, "verify", "--all")
		for _, want := range []string{filepath.Join(l.docs, "big") + ": ", filepath.Join(l.docs, "small") + ": ", "2 of them will be sent again"} {
			if !strings.Contains(out, want) {
				t.Fatalf("verify does not say %q:\n%s", want, out)
			}
		}
	}
	whole := func() {
		t.Helper()
		l.agent(0, "verify", "--all")
		for at, n := range map[string]int{"": 3, first.Format(time.RFC3339Nano): 1} {
			to := filepath.Join(t.TempDir(), "out")
			path := l.docs
			if at != "" {
				path = filepath.Join(l.docs, "big")
			}
			l.agent(0, "restore", path, "--at", at, "--to", to)
			if got := files(t, to); len(got) != n || got[strings.Repeat("docs/", n/3)+"big"] != big {
				t.Fatalf("at %q: %d files, or others", at, len(got))
			}
		}
	}
	// A restore names what it can not give.
	if out := l.agent(5, "restore", l.docs, "--to", filepath.Join(l.dir, "out")); !strings.Contains(out, filepath.Join(l.docs, "small")+" is NOT restored") {
		t.Errorf("restore does not name the damaged record:\n%s", out)
	}
	damaged()
	l.agent(0, "backup")
	whole()
	// The new copies can come to harm as well, and an agent that runs sees to it.
	l.stop()
	l.spoil(content)
	l.serve()
	a := l.watch()
	l.status("protected")
	damaged()
	l.wait(a, `small safe$`)
	l.wait(a, `big safe$`)
	l.status("protected")
	whole()
	l.end(a)
	// What this machine does not hold any more is said to be lost.
	l.write("gone", random(rng, 100_000))
	l.agent(0, "backup")
	l.stop()
	l.spoil(content)
	if err := os.Remove(filepath.Join(l.docs, "gone")); err != nil {
		t.Fatal(err)
	}
	l.serve()
	if out := l.agent(5, "verify", "--all"); !strings.Contains(out, filepath.Join(l.docs, "gone")+": this machine no longer holds it") {
		t.Errorf("verify does not say what is lost:\n%s", out)
	}
}

// TestDamagedCommits damages commits in their pack, where the index has a copy, and
// there as well.
func TestDamagedCommits(t *testing.T) {
	l := newLab(t)
	l.serve()
	l.join()
	for i := range 3 {
		l.write("file", fmt.Sprint("version ", i))
		l.write(fmt.Sprint("file ", i), "content")
		l.agent(0, "backup")
	}
	l.stop()
	commits := l.spoil(func(e packEntry, _ []byte) bool { return e.kind == 2 })
	if len(commits) < 3 {
		t.Fatalf("%d commits", len(commits))
	}
	l.serve()
	l.agent(0, "verify", "--all")
	l.agent(0, "restore", l.docs, "--to", filepath.Join(l.dir, "all damaged in the pack"))
	l.write("file", "whole again")
	l.agent(0, "backup")
	l.agent(0, "verify", "--all")
	l.stop()

	inIndex := func(commit []byte) {
		t.Helper()
		name := filepath.Join(l.data, "store", "index.db")
		index, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tail := commit[len(commit)-50:]
		if i := bytes.Index(index, tail); i < 0 {
			t.Fatal("the index has no copy of the commit")
		} else {
			index[i] ^= 1
		}
		if err := os.WriteFile(name, index, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inIndex(commits[1])
	l.serve()
	out := l.agent(5, "verify", "--all")
	if !strings.Contains(out, "commit 2, after ") || !strings.Contains(out, "failed: 0") {
		t.Errorf("verify does not name the commit, or does not go on:\n%s", out)
	}
	l.agent(0, "restore", l.docs, "--to", filepath.Join(l.dir, "an older one is lost"))
	l.stop()

	// The newest: nothing can be proven without it, until the index is made anew.
	newest := l.spoil(func(e packEntry, _ []byte) bool { return e.kind == 2 })
	inIndex(newest[len(newest)-1])
	l.serve()
	for _, command := range []string{"backup", "verify"} {
		if out := l.agent(5, command); !strings.Contains(out, "stored data is damaged") {
			t.Errorf("%s: %s", command, out)
		}
	}
	l.stop()
	if err := os.Remove(filepath.Join(l.data, "store", "index.db")); err != nil {
		t.Fatal(err)
	}
	l.serve()
	if out := l.agent(0, "backup"); !strings.Contains(out, "ALARM") {
		t.Errorf("the loss is not told:\n%s", out)
	}
	a := l.watch()
	l.status("alarm")
	l.agent(0, "problems", "--acknowledge")
	l.end(a)
	l.agent(0, "verify", "--all")
	if got, want := files(t, l.recover(0)), files(t, l.docs); !maps.Equal(got, want) {
		t.Errorf("recovered %v, want %v", got, want)
	}
}
