package cmd_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDamage flips bits in the pack of a stopped server. What is hit is named, or
// counted where its name is lost with it; what is not comes back whole; and nothing
// else ever comes back in a file's place.
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
		// What everything else is compared with is hit itself: a commit. Without
		// the newest nothing can be proven, so nothing is restored as if it could;
		// the others are not needed for that.
		if code != 5 || !strings.Contains(out, "damaged") {
			t.Errorf("verify lists nothing: exit %d\n%s", code, out)
		}
		if rcode != 5 && (rcode != 0 || !maps.Equal(got, want)) {
			t.Errorf("restore exits %d with %d of %d files\n%s", rcode, len(got), len(want), restored)
		}
		return "commit"
	}
	if code != rcode || code != 0 && code != 5 {
		t.Errorf("verify exits %d, restore %d, want both 0 or both 5\n%s\n%s", code, rcode, out, restored)
	}
	named, nameless := map[string]bool{}, 0
	for _, f := range verified.Failed {
		if f.Path == "" {
			nameless++
		}
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
			if nameless--; nameless < 0 {
				t.Errorf("%s did not come back, and nobody says so\n%s\n%s", name, out, restored)
			}
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
