package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/accounts"
	"backstay/server/storage/storagetest"
)

// benchData names the data folder of a server that BenchmarkIdleSessions runs apart
// from its clients.
const benchData = "BACKSTAY_BENCH_DATA"

// benchDevices have benchSessions each.
const benchDevices, benchSessions = 125, 8

func TestMain(m *testing.M) {
	if data := os.Getenv(benchData); data != "" {
		if err := benchServer(data); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func benchIdentity(n int) (*vault.Identity, error) {
	return vault.NewIdentity(vault.RoleDevice, vault.Key{1, byte(n)})
}

// benchServer enrols all devices, serves, and says where and with which pin.
func benchServer(data string) error {
	debug.SetMemoryLimit(40 << 20) // as the program does
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c := DefaultConfig()
	c.Listen, c.Metrics, c.MaxSessions, c.MaxPerAddress = "127.0.0.1:0", "off", 2000, 2000
	s, err := Open(ctx, Options{Data: data, Config: c})
	if err != nil {
		return err
	}
	defer s.Close()
	root, err := vault.NewIdentity(vault.RoleRoot, vault.NewKey())
	if err != nil {
		return err
	}
	log := vault.NewMembers(vault.NewID())
	var keys *vault.Keyring
	for n := range benchDevices {
		id, err := benchIdentity(n)
		if err != nil {
			return err
		}
		i, err := s.accounts.Invite(ctx, "", 0)
		if err != nil {
			return err
		}
		if _, err := s.accounts.Redeem(ctx, wire.SignEnroll(nil, i, id.Public(), "x")); err != nil {
			return err
		}
		grow := func(raw []byte, err error) error {
			if err == nil {
				err = log.Append(raw)
			}
			if err == nil {
				_, err = s.accounts.Append(ctx, accounts.DefaultAccount, raw)
			}
			return err
		}
		if n == 0 {
			if err := grow(log.SignGenesis(root, time.Now())); err != nil {
				return err
			}
			if keys, err = log.Unlock(root, vault.EntryHash{}); err != nil {
				return err
			}
		}
		if err := grow(log.SignAdd(root, keys, id.Public(), "x", time.Now())); err != nil {
			return err
		}
	}
	go func() { fmt.Println(s.Addr(ctx), wire.PinOf(s.key.Public().(ed25519.PublicKey))) }()
	return s.Run(ctx)
}

// benchProcess starts a server apart from this process, and stops it at the end.
func benchProcess(b *testing.B) (addr string, pin wire.Pin, pid int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchData+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
	var text string
	if _, err = fmt.Fscan(out, &addr, &text); err == nil {
		err = pin.UnmarshalText([]byte(text))
	}
	if err != nil {
		b.Fatal(err)
	}
	return addr, pin, cmd.Process.Pid
}

func benchIdentities(b *testing.B) (ids []*vault.Identity) {
	for n := range benchDevices {
		id, err := benchIdentity(n)
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// BenchmarkIdleSessions reports what each of 1,000 sessions that do nothing takes of
// a server's resident memory.
func BenchmarkIdleSessions(b *testing.B) {
	ids := benchIdentities(b)
	for b.Loop() {
		addr, pin, pid := benchProcess(b)
		before := resident(b, pid, "VmRSS")
		for _, id := range ids {
			for range benchSessions {
				session(b, addr, pin, id)
			}
		}
		after := resident(b, pid, "VmRSS")
		b.ReportMetric(float64(after-before)/(benchDevices*benchSessions), "KB/session")
		b.ReportMetric(float64(after)/1000, "MB")
	}
}

// BenchmarkManyUploads reports the most memory that a server takes while all devices
// send as much at once as it lets them, and how much of that is told to come later.
func BenchmarkManyUploads(b *testing.B) {
	ids := benchIdentities(b)
	for b.Loop() {
		addr, pin, pid := benchProcess(b)
		var wg sync.WaitGroup
		var done, busy atomic.Int64
		for n, id := range ids {
			c, _ := session(b, addr, pin, id)
			for stream := range 8 {
				wg.Go(func() {
					object := storagetest.Chunk(bytes.Repeat([]byte{byte(n), byte(stream)}, 1<<20))
					data := append(wire.AppendObjectHead(nil, len(object)), object...)
					s, err := c.Open(b.Context(), wire.TypePut, wire.AppendEmpty(nil), true)
					if err != nil {
						b.Error(err)
						return
					}
					defer s.Close()
					if _, err := s.Write(data); err == nil {
						s.CloseWrite()
					}
					switch _, err := s.Message(); {
					case err == nil:
						done.Add(1)
					case errors.Is(err, wire.ErrBusy):
						busy.Add(1)
					default:
						b.Error(err)
					}
				})
			}
		}
		wg.Wait()
		b.ReportMetric(float64(resident(b, pid, "VmHWM"))/1000, "MB")
		b.ReportMetric(float64(done.Load()), "done")
		b.ReportMetric(float64(busy.Load()), "busy")
	}
}

// resident returns the resident memory of a process in KB: VmRSS now, VmHWM at most.
func resident(b *testing.B, pid int, which string) (kb int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, which+":"); ok {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb
}
