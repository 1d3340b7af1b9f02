package agent

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"backstay/agent/conditions"
)

// connected returns an agent's work with a connection, and what reading from that ends
// with.
func connected(t *testing.T) (*work, net.Conn, <-chan error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &work{
		agent: &agent{log: slog.New(slog.DiscardHandler), roots: []root{{path: "/docs"}}}, gate: newGate(conditions.Default(), func() {}),
		rescans: map[string]string{}, wake: make(chan struct{}, 1), again: make(chan struct{}, 1),
	}
	c, err := w.line.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ended := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	return w, c, ended
}

func TestAwake(t *testing.T) {
	w, _, ended := connected(t)
	_, decided := w.gate.now()
	w.awake(0)
	if err := <-ended; !errors.Is(err, errAwake) {
		t.Errorf("the session ends with %v", err)
	}
	if w.rescans["/docs"] == "" {
		t.Error("nothing is looked at again")
	}
	for name, c := range map[string]<-chan struct{}{"retry at once": w.again, "decide anew": decided, "wake plan": w.wake} {
		select {
		case <-c:
		default:
			t.Errorf("did not %s", name)
		}
	}
}

func TestMoved(t *testing.T) {
	w, c, ended := connected(t)
	w.moved([]netip.Addr{netip.MustParseAddr("192.0.2.7")})
	select {
	case err := <-ended:
		t.Fatalf("the session over the loopback ends with %v", err)
	case <-w.again:
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}
