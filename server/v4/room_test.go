package v4

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// TestManyWhoNeverFinish has many sessions send all they may with requests that they
// never end. What the server holds of it is bounded, and another device gets on.
func TestManyWhoNeverFinish(t *testing.T) {
	const devices, each = 20, 6 // limits of enrolment and of sessions are not the subject
	h := newHome(t, nil)
	for _, b := range []*budget{h.server.uploads, h.server.downloads} {
		b.patience = time.Second
	}
	honest := h.enrol("honest").found()
	var hostile []*device
	var sessions []*client
	for i := range devices {
		d := h.enrol(fmt.Sprint("hostile", i)).found()
		hostile = append(hostile, d)
		for range each {
			sessions = append(sessions, h.mustDial(d.id.TLS()))
		}
	}
	heap := func() int64 {
		for range 2 { // what pools hold outlives one
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	// The head of an object of which all comes but the last byte the credit allows.
	data := wire.AppendObjectHead(nil, 4<<20)
	data = append(data, make([]byte, credit-1-len(data))...)
	var sending sync.WaitGroup
	full := make(chan struct{}, len(sessions)*requests)
	for _, c := range sessions {
		for range requests {
			sending.Go(func() {
				defer func() { full <- struct{}{} }()
				s, err := c.Open(t.Context(), wire.TypePut, wire.AppendEmpty(nil), true)
				if err != nil {
					return // the session was ended for another one's slowness
				}
				_, err = s.Write(data)
				full <- struct{}{}
				for err == nil { // nothing more is sent until the server ends it
					_, err = s.Message()
				}
				s.Close()
			})
		}
	}
	for range len(sessions) * requests {
		<-full
	}
	h.server.requests.mu.Lock()
	free := h.server.requests.free
	h.server.requests.mu.Unlock()
	const sent = devices * each * requests * credit
	// The heap is that of the clients, too.
	if used := heap() - before; free < 0 || used > sent/2 {
		t.Errorf("%d MiB are held of %d sent, %d free of the room", used>>20, sent>>20, free)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		err := honest.put(randomChunk(3 << 20))
		if err == nil {
			break
		}
		if !errors.Is(err, wire.ErrBusy) || time.Now().After(deadline) {
			t.Fatalf("an honest device: %v", err)
		}
	}
	honest.save("file")
	for _, c := range sessions {
		c.Close()
	}
	sending.Wait()
	for deadline := time.Now().Add(time.Minute); ; {
		h.server.requests.mu.Lock()
		free, left := h.server.requests.free, len(h.server.requests.taken)
		h.server.requests.mu.Unlock()
		if free == requestBytes && left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are not given back, of %d devices", requestBytes-free, left)
		}
		runtime.Gosched()
	}
	runtime.KeepAlive(hostile)
}

func TestTheRoomIsShared(t *testing.T) {
	r := room{free: 100, share: 40}
	one, two, three := r.of(vault.DeviceID{1}), r.of(vault.DeviceID{2}), r.of(vault.DeviceID{3})
	for i, tt := range []struct {
		ok, want bool
	}{
		{one.Take(30), true}, {one.Take(20), false}, {one.Take(10), true}, {one.Take(1), false},
		{two.Take(40), true}, {three.Take(30), false}, {three.Take(20), true}, {three.Take(1), false},
	} {
		if tt.ok != tt.want {
			t.Errorf("step %d: %v", i, tt.ok)
		}
	}
	one.Give(30)
	if !three.Take(20) || one.Take(31) || !one.Take(10) {
		t.Error("what was given back is not there for everybody")
	}
	one.Give(20)
	two.Give(40)
	three.Give(40)
	if r.free != 100 || len(r.taken) != 0 {
		t.Errorf("left %+v", r.taken)
	}
}
