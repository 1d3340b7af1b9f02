package cut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// lengths cuts data to its end, fed all at once.
func lengths(c *Cutter, data []byte) (out []int) {
	for len(data) > 0 {
		n := c.Cut(data, 0)
		if n == 0 {
			n = len(data)
		}
		out = append(out, n)
		data = data[n:]
	}
	return out
}

// positions returns all windows of data with a value that is zero under mask.
func positions(c *Cutter, data []byte, mask uint32) (out []int) {
	for at := 0; ; at++ {
		n := c.scan(data[at:], mask)
		if n < 0 {
			return out
		}
		at += n
		out = append(out, at)
	}
}

// TestCutRules applies the rules to all positions there are.
func TestCutRules(t *testing.T) {
	c := New(testKey)
	data := random(30, 24<<20)
	clear(data[5<<20 : 11<<20]) // has a chunk of the greatest length
	strong := map[int]bool{}
	for _, at := range positions(c, data, maskBelow) {
		strong[at+windowSize] = true
	}
	weak := map[int]bool{}
	for _, at := range positions(c, data, maskAbove) {
		weak[at+windowSize] = true
	}
	var want []int
	for start, n := 0, 0; start < len(data); n = 0 {
		for n++; start+n < len(data); n++ {
			if n >= 256<<10 && (n < 1<<20 && strong[start+n] || n >= 1<<20 && weak[start+n] || n == 4<<20) {
				break
			}
		}
		want = append(want, n)
		start += n
	}
	if got := lengths(c, data); !slices.Equal(got, want) {
		t.Errorf("chunks of %d, want %d", got, want)
	}
	if !slices.Contains(want, c.Max()) || slices.Min(want) >= average {
		t.Errorf("chunks of %d do not show all rules", want)
	}
}

// TestCutLimits looks at each length at which a rule changes.
func TestCutLimits(t *testing.T) {
	c := New(testKey)
	data := random(30, 24<<20)
	last := 0 // the last position of the strong kind
	strong, weak := 0, 0
	for _, at := range positions(c, data, maskAbove) {
		end := at + windowSize
		if c.scan(data[at:end], maskBelow) == 0 {
			strong++
			if got := c.Cut(data[max(0, end-average+1):end], 0); end-last > average && got != average-1 {
				t.Errorf("end before the average: %d", got)
			}
			last = end
			if got := c.Cut(data[end-minSize:end], 0); got != minSize {
				t.Errorf("end at the shortest length: %d", got)
			}
			if got := c.Cut(data[end-minSize+1:end], 0); got != 0 {
				t.Errorf("end before the shortest length: %d", got)
			}
		} else if end-last > average {
			weak++
			if got := c.Cut(data[end-average:end], 0); got != average {
				t.Errorf("weak end at the average: %d", got)
			}
			if got := c.Cut(data[end-average:end], average-1); got != average {
				t.Errorf("weak end at the average, all before seen: %d", got)
			}
			if got := c.Cut(data[end-average+1:end], 0); got != 0 {
				t.Errorf("weak end before the average: %d", got)
			}
		}
	}
	if strong == 0 || weak == 0 {
		t.Errorf("%d strong and %d weak ends do not show all limits", strong, weak)
	}
	zeros := make([]byte, maxSize+1)
	for _, tt := range []struct {
		name      string
		got, want int
	}{
		{"nothing", c.Cut(nil, 0), 0},
		{"all seen", c.Cut(zeros[:minSize], minSize), 0},
		{"one less than the greatest length", c.Cut(zeros[:maxSize-1], 0), 0},
		{"the greatest length", c.Cut(zeros[:maxSize], maxSize-1), maxSize},
		{"the greatest length at once", c.Cut(zeros[:maxSize], 0), maxSize},
		{"more than the greatest length", c.Cut(zeros, 0), maxSize},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// TestFeeding feeds data in pieces of random lengths.
func TestFeeding(t *testing.T) {
	c := New(testKey)
	data := random(31, 12<<20)
	clear(data[3<<20 : 8<<20])
	want := lengths(c, data)
	rnd := rand.New(rand.NewPCG(31, 0))
	for _, longest := range []int{3000, 70_000, 600_000, 6 << 20} {
		var got []int
		for rest := data; len(rest) > 0; {
			n, fed := 0, 0
			for n == 0 && fed < len(rest) {
				seen := fed
				fed = min(fed+1+rnd.IntN(longest), len(rest))
				n = c.Cut(rest[:fed:fed], seen)
			}
			if n == 0 {
				n = len(rest)
			}
			got = append(got, n)
			rest = rest[n:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pieces of up to %d bytes, chunks of %d, want %d", longest, got, want)
		}
	}
}

func TestMeanLength(t *testing.T) {
	data := random(32, 32<<20)
	chunks, total := 0, 0
	for i := range uint64(8) {
		all := lengths(New([32]byte(random(i, 32))), data)
		for _, n := range all[:len(all)-1] { // the last one is cut short
			chunks++
			total += n
		}
	}
	if mean := total / chunks; mean < 1_140_000 || mean > 1_260_000 {
		t.Errorf("chunks of random data have %d bytes on average, want about 1,196,500", mean)
	}
}

// TestStructuredData counts chunks that no position ended. Of random data, one in
// 200,000 is such.
func TestStructuredData(t *testing.T) {
	const size = 16 << 20
	for _, tt := range []struct {
		name string
		most int // percent of the chunks
		each func(b []byte, i int, rnd *rand.Rand) []byte
	}{
		{"log", 1, func(b []byte, i int, rnd *rand.Rand) []byte {
			return fmt.Appendf(b, "2026-03-01T12:%02d:%02d.%03dZ INFO request done method=GET status=200 user=%d\n",
				i/20_000%60, i/333%60, i*3%1000, rnd.IntN(50))
		}},
		{"log of four messages in bursts, little of it new", 60, func(b []byte, i int, rnd *rand.Rand) []byte {
			return fmt.Appendf(b, "Mar 01 12:%02d:%02d host kernel: usb 1-%d: reset high-speed device\n", i/6000%60, i/100%60, rnd.IntN(4))
		}},
		{"counter of 4 bytes", 1, func(b []byte, i int, _ *rand.Rand) []byte { return binary.LittleEndian.AppendUint32(b, uint32(i)) }},
		{"counter of 8 bytes", 1, func(b []byte, i int, _ *rand.Rand) []byte { return binary.BigEndian.AppendUint64(b, uint64(i)) }},
		{"counter in decimal", 1, func(b []byte, i int, _ *rand.Rand) []byte { return fmt.Appendf(b, "%d\n", i) }},
		{"records of 16 bytes", 1, func(b []byte, i int, rnd *rand.Rand) []byte {
			b = binary.LittleEndian.AppendUint32(b, uint32(i))
			b = append(b, 1, 0, 0, 0, byte(rnd.IntN(8)), 0)
			return append(b, "abcdef"...)
		}},
		{"records of 16 bytes without a number", 1, func(b []byte, _ int, rnd *rand.Rand) []byte {
			return append(b, 1, 0, 0, 0, 0, 0, byte(rnd.IntN(16)), byte(rnd.IntN(16)), 0, 0, 0, 0, byte(rnd.IntN(16)), 0, 0, 0)
		}},
		{"records of 64 bytes", 1, func(b []byte, i int, _ *rand.Rand) []byte {
			return append(binary.LittleEndian.AppendUint64(b, uint64(i)), make([]byte, 56)...)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(33, 0))
			data := make([]byte, 0, size+128)
			for i := 0; len(data) < size; i++ {
				data = tt.each(data, i, rnd)
			}
			chunks, longest := 0, 0
			for i := range uint64(2) {
				for _, n := range lengths(New([32]byte(random(40+i, 32))), data) {
					chunks++
					if n == maxSize {
						longest++
					}
				}
			}
			if longest*100 > chunks*tt.most {
				t.Errorf("%d of %d chunks have the greatest length, want %d %% at most", longest, chunks, tt.most)
			}
		})
	}
}

// TestResynchronisation counts how many chunks an edit makes new.
func TestResynchronisation(t *testing.T) {
	const edits, around = 100, 8 << 20
	c := New(testKey)
	data := random(34, 3*around)
	ends := map[int]bool{0: true}
	end := 0
	for _, n := range lengths(c, data) {
		end += n
		ends[end] = true
	}
	rnd := rand.New(rand.NewPCG(34, 0))
	chunks := 0
	for range edits {
		from := rnd.IntN(around)
		to := from + rnd.IntN(2)*rnd.IntN(2000)
		inserted := data[2*around:][:rnd.IntN(2000)]
		shift := len(inserted) - (to - from)
		start := from
		for !ends[start] {
			start--
		}
		rest := slices.Concat(data[start:from], inserted, data[to:to+around])
		for end := start; end-shift < to || !ends[end-shift]; chunks++ {
			n := c.Cut(rest, 0)
			if n == 0 {
				t.Fatalf("no common end in %d bytes after an edit of %d to %d", around, from, to)
			}
			rest = rest[n:]
			end += n
		}
	}
	if chunks > 2*edits {
		t.Errorf("%d edits make %d chunks new", edits, chunks)
	}
	t.Logf("%.2f chunks for each edit", float64(chunks)/edits)
}

// TestKeysAreIndependent compares the positions of two keys.
func TestKeysAreIndependent(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"random", random(35, 1<<20)},
		{"text", func() (b []byte) {
			for i := 0; len(b) < 1<<20; i++ {
				b = fmt.Appendf(b, "line %d of a text\n", i)
			}
			return b
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := testKey
			other[31] ^= 1
			a, b := positions(New(testKey), tt.data, 0xff), positions(New(other), tt.data, 0xff)
			shared := 0
			for _, at := range a {
				if _, ok := slices.BinarySearch(b, at); ok {
					shared++
				}
			}
			if len(a) < 3800 || len(a) > 4400 || shared < 2 || shared > 35 {
				t.Errorf("%d and %d positions, %d shared; want about 4096 and 16", len(a), len(b), shared)
			}
		})
	}
}

func TestCutterPrintsNoKey(t *testing.T) {
	c := New(testKey)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb+verb, c, *c); got != redacted+redacted {
			t.Errorf("%s shows %s", verb, got)
		}
		field := struct {
			p *Cutter
			c Cutter
		}{c, *c}
		got := fmt.Sprintf(verb, field)
		for _, secret := range [][]byte{c.keys.fold[:], c.keys.rounds[:16]} {
			if s := fmt.Sprintf(verb, secret); strings.Contains(got, strings.Trim(s, "[]{}")) {
				t.Errorf("%s of a field shows %s", verb, got)
			}
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "cutter", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "cutter", *c)
	if strings.Count(log.String(), redacted) != 2 {
		t.Errorf("the log has %s", log.Bytes())
	}
}

func BenchmarkCut(b *testing.B) {
	c := New(testKey)
	data := random(36, 32<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		lengths(c, data)
	}
}
