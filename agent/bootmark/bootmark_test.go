package bootmark

import (
	"testing"
	"time"
)

func TestMark(t *testing.T) {
	state := t.TempDir()
	boot := time.Unix(1_700_000_000, 0)
	for _, step := range []struct {
		name    string
		boot    time.Time
		clear   bool
		unclean bool
	}{
		{"first start", boot, false, false},
		{"killed, same boot", boot.Add(time.Second), false, false},
		{"the system went down", boot.Add(time.Hour), false, true},
		{"killed before anybody answered", boot.Add(time.Hour), true, true},
		{"answered", boot.Add(time.Hour), true, false},
		{"ended, then booted", boot.Add(2 * time.Hour), false, false},
	} {
		got, err := set(state, step.boot)
		if err != nil || got.IsZero() == step.unclean {
			t.Errorf("%s: %v, %v", step.name, got, err)
		}
		if step.clear {
			if err := Clear(state); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestBootTime(t *testing.T) {
	boot, err := bootTime()
	if err != nil || boot.After(time.Now()) || time.Since(boot) > 20*365*24*time.Hour {
		t.Fatalf("%v, %v", boot, err)
	}
}
