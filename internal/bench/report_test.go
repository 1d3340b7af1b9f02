package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the goldens")

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for _, tt := range []struct {
		name   string
		values []int
		p      float64
		want   int
	}{
		{"none", nil, 0.5, 0},
		{"one", []int{7}, 0.99, 7},
		{"least", []int{3, 1, 2}, 0, 1},
		{"median of three", []int{3, 1, 2}, 0.5, 2},
		{"median of two", []int{9, 1}, 0.5, 1},
		{"p99 of a hundred", hundred, 0.99, 99},
		{"most", hundred, 1, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := quantile(tt.values, tt.p); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, 0},
		{"one", []float64{2}, 2},
		{"two", []float64{4, 1}, 2.5},
		{"three", []float64{4, 1, 2}, 2},
		{"four", []float64{8, 4, 1, 2}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.values); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func measured(data string, op operation, peer string, storedMB int64, cpu ...float64) *result {
	r := &result{Data: data, Operation: op, Peer: peer}
	for _, s := range cpu {
		d := time.Duration(s * float64(time.Second))
		c := cost{CPU: d, Wall: d / 2, ClientPeak: 50e6}
		if peer != "borg" {
			c.ServerPeak = 20e6
		}
		r.Costs, r.Stored = append(r.Costs, c), append(r.Stored, storedMB*1e6)
	}
	return r
}

func TestReport(t *testing.T) {
	results := []*result{
		measured("A", opFirst, own, 100, 7, 6, 9),
		measured("A", opFirst, "restic", 101, 10, 12, 11),
		measured("A", opFirst, "borg", 150, 20, 21, 22),
		measured("A", opOne, own, 101, 0.6, 0.7, 0.8),
		measured("C", opFirst, own, 100, 1, 1, 1),
		measured("C", opUnchanged, own, 100, 1, 1, 1),
		measured("C", opUnchanged, "restic", 100, 1.5, 1, 1),
		measured("C", opBig, own, 130, 4, 4, 4),
		measured("C", opBig, "borg", 130, 5, 5, 5),
	}
	rep := &report{Scale: 0.5, Runs: 3, Restored: "memory", Results: results, Verdicts: judge(results),
		Tools: map[string]string{own: "this checkout", "restic": "restic 9"}}
	var b strings.Builder
	if err := rep.markdown(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.md")
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the report differs from %s; it is\n%s", golden, b.String())
	}
}

func TestJudgeWithoutPeers(t *testing.T) {
	for _, v := range judge([]*result{measured("A", opFirst, own, 100, 1), measured("A", opOne, own, 100, 0.6)}) {
		if v.Data == "A" && v.What != string(opOne)+", wall" {
			t.Errorf("%+v was compared with nobody", v)
		}
		if v.Data == "A" && v.Reached {
			t.Errorf("%+v reached", v)
		}
	}
}

func TestSame(t *testing.T) {
	write := func(t *testing.T, path, content string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(1e9, 5)
		for _, p := range []string{path, filepath.Dir(path)} {
			if err := os.Chtimes(p, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, root string)
		want  string
	}{
		{"same", func(*testing.T, string) {}, ""},
		{"other time of the top folder", func(t *testing.T, root string) {
			if err := os.Chtimes(root, time.Time{}, time.Unix(5, 0)); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"other content", func(t *testing.T, root string) { write(t, root+"/dir/file", "hellO", 0o644) }, "content"},
		{"shorter", func(t *testing.T, root string) { write(t, root+"/dir/file", "hell", 0o644) }, "content"},
		{"other mode", func(t *testing.T, root string) {
			if err := os.Chmod(root+"/dir/file", 0o400); err != nil {
				t.Fatal(err)
			}
		}, "mode"},
		{"other time", func(t *testing.T, root string) {
			if err := os.Chtimes(root+"/dir/file", time.Time{}, time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		}, "time"},
		{"other time of a folder", func(t *testing.T, root string) {
			if err := os.Chtimes(root+"/dir", time.Time{}, time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		}, "time"},
		{"missing", func(t *testing.T, root string) {
			if err := os.RemoveAll(root + "/dir"); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"one more", func(t *testing.T, root string) { write(t, root+"/more", "", 0o644) }, "entries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, tree := range []string{"want", "got"} {
				write(t, filepath.Join(dir, tree, "dir/file"), "hello", 0o644)
			}
			tt.spoil(t, filepath.Join(dir, "got"))
			err := same(filepath.Join(dir, "want"), filepath.Join(dir, "got"))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
