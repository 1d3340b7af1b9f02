package storagetest

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"testing"
	"time"
)

// Machine is a simulated computer with a disk that loses what was not flushed
// when its power is cut.
type Machine struct {
	// Backend opens the stores of the machine's disk, each with its folder.
	Backend
	// Dir is the folder of the store to crash.
	Dir string
	// Watch has flush called before each flush of that store takes effect.
	Watch func(flush func())
	// Crashes returns the folders, each with a name for its state, that may be
	// found instead of Dir when the power goes now and comes back. The machine
	// itself runs on. The suite removes the folders.
	Crashes func() iter.Seq2[string, string]
}

// RunCrashes cuts the power at every flush of a fixed workload and at its end.
// Whatever was acknowledged by then must be found in each state the disk can be
// in, what was not wholly or not at all, and the store must work on.
func RunCrashes(t *testing.T, m Machine) {
	cuts, errs := crash(t, m, false)
	for _, err := range errs {
		t.Error(err)
	}
	if cuts < 50 {
		t.Errorf("only %d power cuts: flushes are not seen", cuts)
	}
	t.Logf("%d power cuts", cuts)
}

// RunCrashControl does as RunCrashes does with a machine that breaks a promise of
// durability, and fails when that goes unnoticed.
func RunCrashControl(t *testing.T, m Machine) {
	cuts, errs := crash(t, m, true)
	if len(errs) == 0 {
		t.Fatalf("none of %d power cuts showed the loss", cuts)
	}
	t.Logf("of %d power cuts: %v", cuts, errs[0])
}

// crash runs the script on m and returns what the power cuts showed; with first,
// up to the first cut that showed anything.
func crash(t *testing.T, m Machine, first bool) (cuts int, errs []error) {
	steps, w := script()
	flushes, cont := make(chan struct{}), make(chan struct{})
	var o outcome
	cut := func() {
		if first && len(errs) > 0 {
			return
		}
		doing := "the end"
		if o.open != nil {
			doing = o.open.name
		}
		var wg sync.WaitGroup
		var mu sync.Mutex // guards errs
		for name, dir := range m.Crashes() {
			cuts++
			wg.Go(func() {
				s, err := m.Open(dir, time.Now)
				if err == nil {
					err = o.settle(s, w, func() (Store, error) { return m.reopen(dir, time.Now) })
				}
				if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("power cut during %q after %d changes, %s: %w", doing, len(o.acked), name, err))
				}
			})
		}
		wg.Wait()
	}
	// during runs f elsewhere and cuts the power at each flush it comes by.
	during := func(f func() error) {
		t.Helper()
		done := make(chan error)
		go func() { done <- f() }()
		for {
			select {
			case <-flushes:
				cut()
				cont <- struct{}{}
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	m.Watch(func() { flushes <- struct{}{}; <-cont })
	var s Store
	during(func() (err error) {
		s, err = m.Open(m.Dir, time.Now)
		return err
	})
	for _, st := range steps {
		o.open = &st
		during(func() error { return st.do(s) })
		o.open = nil
		o.acked = append(o.acked, st)
	}
	cut()
	during(s.Close)
	return cuts, errs
}
