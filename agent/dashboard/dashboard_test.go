package dashboard

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is for what must happen; nothing is measured by it.
const patience = 30 * time.Second

func options(t *testing.T) (Options, chan string) {
	t.Helper()
	opened := make(chan string, 4)
	dir := t.TempDir()
	return Options{
		Folder: filepath.Join(dir, "config"), State: filepath.Join(dir, "state"),
		Open: func(address string) error { opened <- address; return nil },
	}, opened
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing happens")
	}
	return v
}

func TestSecondAsksTheFirst(t *testing.T) {
	o, opened := options(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	first := await(t, opened)

	o.Page, o.Invitation = "files", "backstay:x y"
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	second := await(t, opened)
	host := regexp.MustCompile(`^http://127\.0\.0\.1:\d+/`)
	if host.FindString(first) == "" || host.FindString(second) != host.FindString(first) || second == first || !strings.Contains(second, "page=files") || !strings.Contains(second, "invitation=backstay%3Ax+y") {
		t.Errorf("first %s, second %s", first, second)
	}
	cancel()
	if err := await(t, ended); err != nil {
		t.Fatal(err)
	}
	// And then there is a first again.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- Run(ctx, o) }()
	await(t, opened)
	cancel()
	if err := await(t, ended); err != nil {
		t.Fatal(err)
	}
}

func TestEndsWhenNobodyLooks(t *testing.T) {
	o, opened := options(t)
	o.Idle = 20 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), o) }()
	await(t, opened)
	if err := await(t, ended); err != nil {
		t.Fatal(err)
	}
}

func TestStaysWhileSomebodyLooksOrARestoreRuns(t *testing.T) {
	d := newDashboard(t.Context(), Options{Idle: time.Minute}, "127.0.0.1:1")
	late := time.Now().Add(time.Hour)
	if !d.idle(late) {
		t.Error("it stays though nobody looks")
	}
	d.open = 1
	if d.idle(late) {
		t.Error("it ends under an open page")
	}
	d.open = 0
	r := &running{job: job{State: "running"}, cancel: func() {}}
	d.jobs.all = append(d.jobs.all, r)
	if d.idle(late) {
		t.Error("it ends in a restore")
	}
	r.State = "done"
	if !d.idle(late) {
		t.Error("it stays after a restore")
	}
}

func TestUndo(t *testing.T) {
	for _, tt := range []struct {
		name string
		// then is done after the restore, before undo.
		then  func(t *testing.T, original string)
		after []string // names and contents
	}{
		{"nothing happened since", func(*testing.T, string) {}, []string{"a=mine"}},
		{"the restored was changed since", func(t *testing.T, original string) { write(t, original, "restored and changed") }, []string{"a=mine", "a (undone)=restored and changed"}},
		{"the restored was replaced since", func(t *testing.T, original string) {
			write(t, original+".new", "new")
			rename(t, original+".new", original)
		}, []string{"a=mine", "a (undone)=new"}},
		{"the restored is gone", func(t *testing.T, original string) { remove(t, original) }, []string{"a=mine"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			k := keptPath{original: filepath.Join(dir, "a"), kept: filepath.Join(dir, "a (replaced)")}
			write(t, k.kept, "mine")
			write(t, k.original, "restored")
			var err error
			if k.restored, err = os.Lstat(k.original); err != nil {
				t.Fatal(err)
			}
			tt.then(t, k.original)
			if err := k.back(" (undone)"); err != nil {
				t.Fatal(err)
			}
			if got := contents(t, dir); !slices.Equal(got, tt.after) {
				t.Errorf("%q, want %q", got, tt.after)
			}
		})
	}
	t.Run("what was kept is gone", func(t *testing.T) {
		dir := t.TempDir()
		k := keptPath{original: filepath.Join(dir, "a"), kept: filepath.Join(dir, "a (replaced)")}
		write(t, k.original, "restored")
		if err := k.back(" (undone)"); err == nil {
			t.Error("no error")
		}
		if got := contents(t, dir); !slices.Equal(got, []string{"a=restored"}) {
			t.Errorf("%q", got)
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e.Name()+"="+string(data))
	}
	return list
}

func TestBounded(t *testing.T) {
	b := bounded{most: 5}
	if n, err := b.Write([]byte("abc")); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := b.Write([]byte("defg")); n != 2 || err != errEnough || b.String() != "abcde" {
		t.Errorf("%d, %v, %q", n, err, b.String())
	}
}

// Every text that a script or the page names is there, and none is left over.
func TestTexts(t *testing.T) {
	var all map[string]string
	if err := json.Unmarshal([]byte(texts), &all); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(texts, "</") {
		t.Error("a text could end the script that holds it")
	}
	entries, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".js" || ext == ".html" {
			data, err := assets.ReadFile("assets/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			code.Write(data)
		}
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile("(?:\\bt\\(|list\\(|text |\\? |: |\\[|, )\"([a-z]+(?:[._][a-z]+)*)\"").FindAllStringSubmatch(code.String(), -1) {
		used[m[1]] = true
	}
	for _, m := range regexp.MustCompile("\\bt\\(\"([^\"]+)\"").FindAllStringSubmatch(code.String(), -1) {
		if all[m[1]] == "" {
			t.Errorf("there is no text %q", m[1])
		}
	}
	var prefixes []string
	for _, m := range regexp.MustCompile("`([a-z]+\\.)\\$\\{").FindAllStringSubmatch(code.String(), -1) {
		prefixes = append(prefixes, m[1])
	}
	for key := range all {
		if !used[key] && !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			t.Errorf("nothing shows the text %q", key)
		}
	}
	if len(prefixes) == 0 || len(used) < 100 {
		t.Error("the check does not see the code")
	}
}
