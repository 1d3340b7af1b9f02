package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"backstay/server/storage"
)

// Fault is what happens to one call that a store makes to what it lies on.
type Fault int

const (
	// NoFault lets the call through.
	NoFault Fault = iota
	// IOError fails the call with EIO or its like, having done nothing.
	IOError
	// NoSpace fails the call for want of room, having done half of a write.
	NoSpace
	// ShortWrite does half of a write and says so without an error.
	ShortWrite
)

func (f Fault) String() string {
	return [...]string{"no fault", "I/O error", "no space", "short write"}[f]
}

// CallKind tells which faults a call can meet.
type CallKind int

const (
	// CallRead reads or closes: it can meet an IOError.
	CallRead CallKind = iota
	// CallGrow may need room: it can meet an IOError and NoSpace.
	CallGrow
	// CallWrite writes data: it can meet every fault.
	CallWrite
)

func (k CallKind) faults() []Fault {
	return []Fault{IOError, NoSpace, ShortWrite}[:k+1]
}

// FaultBackend is a backend whose calls to what it lies on can be made to fail.
type FaultBackend struct {
	Backend
	// OpenFaulty opens as Open does; the store asks next before each call.
	OpenFaulty func(dir string, next func(CallKind) Fault) (Store, error)
}

// injector fails call number at with fault.
type injector struct {
	kinds []CallKind
	at    int
	fault Fault
}

func (i *injector) next(k CallKind) Fault {
	i.kinds = append(i.kinds, k)
	if len(i.kinds) == i.at {
		return i.fault
	}
	return NoFault
}

// RunFaults runs a fixed workload once for every call the store makes and every
// fault that call can meet. Whatever was acknowledged must be there, then and
// after opening again; what was not, wholly or not at all; and the store must work
// on, at once when it was only full.
func RunFaults(t *testing.T, b FaultBackend) {
	var record injector
	if err := runFault(t, b, &record); err != nil {
		t.Fatal("without a fault:", err)
	}
	if len(record.kinds) < 20 {
		t.Fatalf("the store made %d calls: faults are not injected", len(record.kinds))
	}
	// The runs wait for the disk rather than for a processor.
	const workers = 8
	work := make(chan *injector)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for in := range work {
				if err := runFault(t, b, in); err != nil {
					t.Errorf("%v at call %d of %d: %v", in.fault, in.at, len(record.kinds), err)
				}
			}
		})
	}
	runs := 0
	for i, k := range record.kinds {
		for _, f := range k.faults() {
			runs++
			work <- &injector{at: i + 1, fault: f}
		}
	}
	close(work)
	wg.Wait()
	t.Logf("%d faults", runs)
}

func runFault(t *testing.T, b FaultBackend, in *injector) error {
	steps, w := script()
	dir := t.TempDir()
	var o outcome
	// Calls of Open count, those made for checking do not.
	on := true
	s, err := b.OpenFaulty(dir, func(k CallKind) Fault {
		if !on {
			return NoFault
		}
		return in.next(k)
	})
	if err != nil && in.at == 0 {
		return err
	}
	if err == nil {
		if o, err = play(s, steps); err != nil {
			return errors.Join(err, s.Close())
		}
		on = false
		told := o
		told.open = nil // what failed must not show while the process lives
		if err := told.verify(s, w); err != nil {
			return errors.Join(fmt.Errorf("in the same process: %w", err), s.Close())
		}
		s.Close() // may say that the store failed
	}
	if s, err = b.Open(dir, time.Now); err != nil {
		return fmt.Errorf("open without faults: %w", err)
	}
	return o.settle(s, w, func() (Store, error) { return b.reopen(dir, time.Now) })
}

// reopen opens the closed store of dir again, with nothing but what it cannot
// rebuild.
func (b Backend) reopen(dir string, now func() time.Time) (Store, error) {
	if b.Forget != nil {
		if err := b.Forget(dir); err != nil {
			return nil, err
		}
	}
	return b.Open(dir, now)
}

// play runs the steps, repeating one for which there was no room.
func play(s Store, steps []step) (o outcome, err error) {
	for _, st := range steps {
		err := st.do(s)
		if errors.Is(err, storage.ErrFull) {
			if err = st.do(s); err != nil {
				return o, fmt.Errorf("%s, when there was room again: %w", st.name, err)
			}
		}
		switch {
		case err == nil && o.open != nil:
			return o, fmt.Errorf("%s: acknowledged by a store that has failed", st.name)
		case err == nil:
			o.acked = append(o.acked, st)
		case errors.Is(err, storage.ErrFailed):
			if o.open == nil {
				o.open = &st
			}
		case errors.Is(err, storage.ErrCorrupt):
			// It could not read what it needed, and changed nothing; what
			// builds on it is refused in turn, by the model too.
			return o, nil
		default:
			return o, fmt.Errorf("%s: %w", st.name, err)
		}
	}
	return o, nil
}
