package cmd_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkUploadV3 sends one file of 1 GiB from the real agent to the real server
// over loopback, durable at the end. Besides the rate it reports the peak resident
// memory of both programs and, to compare runs on different machines, the time of
// copying the file and syncing it.
func BenchmarkUploadV3(b *testing.B) {
	const size = 1 << 30
	for _, kind := range []string{"random", "text"} {
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				b.StopTimer()
				dir := b.TempDir()
				server := start(b, dir, nil, "server", "run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", filepath.Join(dir, "data"))
				m, err := server.wait(`^listening on (\S+),`)
				if err != nil {
					b.Fatal(err)
				}
				writeBig(b, filepath.Join(dir, "big"), kind, size)
				if err := os.WriteFile(filepath.Join(dir, "transfer.info"), []byte(m[1]+"\nada\nbig\n"), 0o600); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				agent := start(b, dir, nil, "agent", "backup", "--protocol", "3", "--config", dir, "--state", filepath.Join(dir, "state"))
				code, err := agent.exit()
				b.StopTimer()
				if err != nil || code != 0 {
					out, _ := agent.output()
					b.Fatalf("exit %d, %v: %s", code, err, out)
				}
				if _, err := server.end(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(peakMB(agent), "agent-MB")
				b.ReportMetric(peakMB(server), "server-MB")
				b.ReportMetric(cpuSeconds(agent), "agent-cpu-s")
				b.ReportMetric(cpuSeconds(server), "server-cpu-s")
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func cpuSeconds(p *process) float64 {
	s := p.cmd.ProcessState
	return (s.UserTime() + s.SystemTime()).Seconds()
}

func writeBig(b *testing.B, path, kind string, size int64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rng := rand.NewChaCha8([32]byte{1})
	if kind == "random" {
		_, err = io.CopyN(f, rng, size)
	} else {
		r := rand.New(rng)
		buf := make([]byte, 0, 1<<20)
		for written := int64(0); written < size && err == nil; written += int64(len(buf)) {
			buf = buf[:0]
			for len(buf) < cap(buf)-64 {
				buf = fmt.Appendf(buf, "%08x INFO request %d served in %d ms\n", r.Uint32(), r.IntN(1000), r.IntN(100))
			}
			buf = buf[:min(int64(len(buf)), size-written)]
			_, err = f.Write(buf)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
}
