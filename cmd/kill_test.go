package cmd_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"backstay/agent/v3"
	"backstay/server"
)

var kills = flag.Int("kills", 0, "how often TestKillServer kills the server; default 110, or 20 with the race detector")

// TestKillServer kills the server without warning, again and again, at random
// moments while clients send, and looks each time whether everything acknowledged
// is there: the newest version of every file must be the one acknowledged last, or
// one that was on its way when the server died.
func TestKillServer(t *testing.T) {
	cycles := *kills
	switch {
	case cycles > 0:
	case raceEnabled:
		cycles = 20
	default:
		cycles = 110
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	clients := make([]*killClient, 4)
	for i := range clients {
		clients[i] = &killClient{name: fmt.Sprintf("client%d", i), rng: rand.New(rand.NewPCG(seed, uint64(i))), files: map[string]*killFile{}}
	}
	moment := rand.New(rand.NewPCG(seed, 99))
	acked := 0
	acks := make(chan struct{}, 1024)
	for cycle := range cycles {
		s := start(t, dir, nil, "server", "run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", data)
		m, err := s.wait(`^listening on (\S+),`)
		if err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var sending sync.WaitGroup
		for _, c := range clients {
			sending.Go(func() { c.send(ctx, t, m[1], acks) })
		}
		// After a random number of acknowledgements, and then at a random
		// moment on the way to the next. In the first cycle every client gets
		// to register: a name whose owner never heard of its id is taken.
		for range cmp.Or(moment.IntN(20), 1) {
			select {
			case <-acks:
			case <-time.After(patience):
				t.Fatalf("cycle %d: nothing is acknowledged", cycle)
			}
		}
		if cycle == 0 {
			for slices.ContainsFunc(clients, func(c *killClient) bool { return !c.registered.Load() }) {
				<-acks
			}
		}
		time.Sleep(time.Duration(moment.IntN(3000)) * time.Microsecond)
		s.kill()
		cancel()
		sending.Wait()
		if cycle%10 == 9 || cycle == cycles-1 {
			acked = verifyKilled(t, data, clients)
		}
	}
	if acked < cycles {
		t.Fatalf("only %d files were acknowledged in %d cycles: the test proves nothing", acked, cycles)
	}
	t.Logf("%d files acknowledged, %d cycles", acked, cycles)
}

// killClient is a client that sends without end and remembers what was acknowledged.
type killClient struct {
	name string
	rng  *rand.Rand
	id   *v3.Identity
	// registered is set when id is.
	registered atomic.Bool
	files      map[string]*killFile
	acked      int
}

// killFile is what may be the newest version of a file.
type killFile struct {
	acked bool
	// may holds the digest acknowledged last and those sent after it.
	may [][sha256.Size]byte
}

func (c *killClient) send(ctx context.Context, t *testing.T, addr string, acks chan<- struct{}) {
	session, err := v3.Dial(ctx, v3.Options{
		Address: addr, Name: c.name, Identity: c.id,
		Save: func(id v3.Identity) error {
			if c.id != nil {
				t.Errorf("%s: the server has forgotten the client", c.name)
			}
			c.id = &id
			c.registered.Store(true)
			return nil
		},
	})
	if err != nil {
		return
	}
	defer session.Close()
	for ctx.Err() == nil {
		name := fmt.Sprintf("file%d", c.rng.IntN(8))
		size := c.rng.IntN(8 << 10)
		if c.rng.IntN(8) == 0 {
			size = c.rng.IntN(3 << 20)
		}
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(c.rng.Uint32())
		}
		f := c.files[name]
		if f == nil {
			f = &killFile{}
			c.files[name] = f
		}
		sum := sha256.Sum256(content)
		f.may = append(f.may, sum)
		if _, err := session.Send(ctx, name, &memorySource{bytes.NewReader(content), content}); err != nil {
			return
		}
		f.acked, f.may = true, [][sha256.Size]byte{sum}
		c.acked++
		select {
		case acks <- struct{}{}:
		default:
		}
	}
}

// verifyKilled opens the store of the dead server and returns how many files were
// acknowledged so far.
func verifyKilled(t *testing.T, data string, clients []*killClient) (acked int) {
	t.Helper()
	config := server.DefaultConfig()
	config.Listen = "127.0.0.1:0"
	s, err := server.Open(t.Context(), server.Options{Data: data, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range clients {
		acked += c.acked
		for name, f := range c.files {
			if !f.acked {
				continue
			}
			h := sha256.New()
			if err := s.V3Get(t.Context(), c.name, name, h); err != nil {
				t.Fatalf("%s of %s was acknowledged: %v", name, c.name, err)
			}
			if got := [sha256.Size]byte(h.Sum(nil)); !slices.Contains(f.may, got) {
				t.Fatalf("%s of %s is neither what was acknowledged last nor sent later", name, c.name)
			}
		}
	}
	return acked
}

// memorySource is content that does not change.
type memorySource struct {
	*bytes.Reader
	content []byte
}

func (m *memorySource) Size() int64  { return int64(len(m.content)) }
func (m *memorySource) Check() error { return nil }
func (m *memorySource) Rewind() error {
	_, err := m.Seek(0, io.SeekStart)
	return err
}
