package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// seed decides all content. generator is counted up when the same seed makes other
// data, so that kept data is made again.
const (
	seed      = 0x6261636b73746179
	generator = 1
)

// appended is how much noise the change of data set C appends to each file. It does
// not scale: what is judged is how much more than that is stored.
const appended = 10 << 20

type content int

const (
	source content = iota // program text: many lines are repeated
	prose                 // words, repeated seldom
	object                // machine code: patterns, zeros, noise
	noise                 // does not compress
	image                 // a virtual machine's disk: zeros, repeated extents, source, noise
)

// file is one file of a data set, enough to write it.
type file struct {
	path    string // below the data set's folder
	size    int64
	content content
	mode    fs.FileMode
	seed    uint64
	// big: a change inserts one byte after a third and appends noise, instead of
	// inserting 16 bytes in the middle.
	big bool
}

// dataSets are the four kinds of data, in the order in which they are measured.
var dataSets = []struct {
	name, what string
	plan       func(scale float64) []file
}{
	{"A", "source tree", func(scale float64) []file { return plan(1, scaled(78_579, scale), scaled(5_097, scale), sourceFile) }},
	{"B", "home", func(scale float64) []file { return plan(2, scaled(4_451, scale), scaled(300, scale), homeFile) }},
	{"C", "two big files", bigFiles},
	{"D", "tiny files", func(scale float64) []file { return tinyFiles(scaled(100_020, scale), scaled(10_215, scale)) }},
}

func scaled(n int, scale float64) int { return max(1, int(math.Round(float64(n)*scale))) }

// plan lists n files in the given number of folders, all of which hold at least one.
func plan(set uint64, n, folders int, describe func(i int, rng *rand.Rand) file) []file {
	folders = min(folders, n)
	names := make([]string, folders) // names[0] is the data set's folder itself
	for i := 1; i < folders; i++ {
		names[i] = filepath.Join(names[(i-1)/6], fmt.Sprintf("%s%d", words[i%len(words)], i))
	}
	files := make([]file, n)
	for i := range files {
		rng := rand.New(rand.NewPCG(seed, set<<32|uint64(i)))
		folder := i
		if i >= folders {
			folder = rng.IntN(folders)
		}
		f := describe(i, rng)
		f.path = filepath.Join(names[folder], f.path)
		f.seed = rng.Uint64()
		files[i] = f
	}
	return files
}

// sourceFile: half of the files are smaller than 6.3 KB, and the mean is 16.8 KB.
func sourceFile(i int, rng *rand.Rand) file {
	f := file{size: int64(min(6300*math.Exp(1.4*rng.NormFloat64()), 15e6)), mode: 0o644}
	name := words[rng.IntN(len(words))] + "_" + words[rng.IntN(len(words))]
	switch p := rng.IntN(100); {
	case p < 2:
		f.content, f.path = object, fmt.Sprintf("%s-%d.o", name, i)
	case p < 4:
		f.mode, f.path = 0o755, fmt.Sprintf("%s-%d.sh", name, i)
	default:
		f.path = fmt.Sprintf("%s-%d.c", name, i)
	}
	return f
}

// homeFile: 10 KB to 5 MB, 450 KB in the mean, every other one incompressible.
func homeFile(i int, rng *rand.Rand) file {
	f := file{size: int64(10e3 * math.Pow(500, math.Pow(rng.Float64(), 2.02))), mode: 0o644}
	if i%2 == 0 {
		f.content, f.path = noise, fmt.Sprintf("IMG_%04d.jpg", i)
	} else {
		f.content, f.path = prose, fmt.Sprintf("%s %d.txt", words[rng.IntN(len(words))], i)
	}
	return f
}

func bigFiles(scale float64) []file {
	size := int64(scaled(800_000_000, scale))
	return []file{
		{path: "disk.img", size: size, content: image, mode: 0o600, seed: seed, big: true},
		{path: "video.mkv", size: size, content: noise, mode: 0o644, seed: seed + 1, big: true},
	}
}

func tinyFiles(files, folders int) []file {
	return plan(4, files, folders, func(i int, rng *rand.Rand) file {
		return file{path: fmt.Sprintf("%s.%d", words[rng.IntN(len(words))], i), size: rng.Int64N(1260), content: prose, mode: 0o644}
	})
}

// data is a data set on the disk.
type data struct {
	name  string
	root  string
	files []file
	bytes int64
}

// makeData writes the files into the folder root, or finds them there from an
// earlier time: they are kept with a note beside them that says so.
func makeData(name, root string, files []file) (*data, error) {
	d := &data{name: name, root: root, files: files}
	for _, f := range files {
		d.bytes += f.size
	}
	if note, err := os.ReadFile(d.note()); err == nil && string(note) == d.signature() {
		return d, nil
	}
	if err := errors.Join(d.spoil(), os.RemoveAll(root)); err != nil {
		return nil, err
	}
	all := make([]int, len(files))
	folders := map[string]bool{}
	for i, f := range files {
		all[i] = i
		for dir := filepath.Dir(f.path); !folders[dir]; dir = filepath.Dir(dir) {
			folders[dir] = true
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, f.path)), 0o755); err != nil {
			return nil, err
		}
	}
	if err := d.write(all, 0); err != nil {
		return nil, err
	}
	for dir := range folders {
		if err := setTime(filepath.Join(root, dir), uint64(len(dir))*seed); err != nil {
			return nil, err
		}
	}
	return d, os.WriteFile(d.note(), []byte(d.signature()), 0o644)
}

func (d *data) note() string { return d.root + ".made" }

func (d *data) signature() string {
	return fmt.Sprintf("generator %d, %d files, %d bytes\n", generator, len(d.files), d.bytes)
}

// spoil says that the data are not, from now on, what makeData makes.
func (d *data) spoil() error {
	if err := os.Remove(d.note()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// warm reads everything, so that each program finds it in the page cache, which a
// virtual machine may lose between two of them.
func (d *data) warm() error {
	for _, f := range d.files {
		r, err := os.Open(filepath.Join(d.root, f.path))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// changing are the files that change touches: one in a hundred, and of big files all.
func (d *data) changing() []int {
	var list []int
	for i, f := range d.files {
		if f.big || i%100 == min(50, len(d.files)-1) {
			list = append(list, i)
		}
	}
	return list
}

// change makes another version of the files that changing lists.
func (d *data) change(version uint64) error {
	return errors.Join(d.spoil(), d.write(d.changing(), version))
}

// restore makes what change altered as it was.
func (d *data) restore() error {
	if err := d.write(d.changing(), 0); err != nil {
		return err
	}
	return os.WriteFile(d.note(), []byte(d.signature()), 0o644)
}

// write writes a version of the files with the given numbers; 0 is the first one.
func (d *data) write(numbers []int, version uint64) error {
	var (
		wg    sync.WaitGroup
		queue = make(chan int)
		fail  = make(chan error, runtime.NumCPU())
	)
	for range runtime.NumCPU() {
		wg.Go(func() {
			var buf []byte
			var failed error
			for i := range queue {
				if failed == nil {
					failed = d.writeFile(d.files[i], version, &buf)
				}
			}
			fail <- failed
		})
	}
	for _, i := range numbers {
		queue <- i
	}
	close(queue)
	wg.Wait()
	close(fail)
	var errs []error
	for err := range fail {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (d *data) writeFile(f file, version uint64, buf *[]byte) (err error) {
	path := filepath.Join(d.root, f.path)
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, f.mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if version > 0 {
		return f.writeChanged(w, version, buf)
	}
	if err := f.writeTo(w, buf); err != nil {
		return err
	}
	return setTime(path, f.seed)
}

// setTime gives a path a time as those of a machine in use: past, with a fraction.
func setTime(path string, n uint64) error {
	t := time.Unix(1_600_000_000+int64(n%100_000_000), int64(n%1_000_000_000))
	return os.Chtimes(path, t, t)
}

func (f file) writeChanged(w io.Writer, version uint64, buf *[]byte) error {
	rng := rand.New(rand.NewPCG(f.seed, version))
	at, extra, tail := f.size/2, make([]byte, 16), 0
	if f.big {
		at, extra, tail = f.size/3, extra[:1], appended
	}
	fillNoise(extra, rng)
	if err := f.writeTo(&inserter{w: w, at: at, extra: extra}, buf); err != nil {
		return err
	}
	more := make([]byte, min(tail, 1<<20))
	for range tail / (1 << 20) {
		fillNoise(more, rng)
		if _, err := w.Write(more); err != nil {
			return err
		}
	}
	if f.size == 0 {
		_, err := w.Write(extra)
		return err
	}
	return nil
}

// inserter writes extra once at bytes have gone through.
type inserter struct {
	w     io.Writer
	at    int64
	extra []byte
}

func (i *inserter) Write(p []byte) (int, error) {
	n := int64(len(p))
	if i.extra == nil || i.at >= n {
		i.at -= n
		return i.w.Write(p)
	}
	joined := make([]byte, 0, len(p)+len(i.extra))
	joined = append(append(append(joined, p[:i.at]...), i.extra...), p[i.at:]...)
	i.extra = nil
	_, err := i.w.Write(joined)
	return len(p), err
}

// piece is how much of a big file is made at once.
const piece = 1 << 20

// writeTo writes the file's first version. *buf is room that is used again.
func (f file) writeTo(w io.Writer, buf *[]byte) error {
	rng := rand.New(rand.NewPCG(seed, f.seed))
	for left := f.size; left > 0; {
		n := int(min(left, piece))
		if cap(*buf) < n+longestLine {
			*buf = make([]byte, 0, piece+longestLine)
		}
		b := (*buf)[:n]
		f.fill(b, rng)
		if _, err := w.Write(b); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// fill fills b, which has room for a line more than its length.
func (f file) fill(b []byte, rng *rand.Rand) {
	switch f.content {
	case source:
		fillText(b, rng, sourceText)
	case prose:
		fillText(b, rng, proseText)
	case object:
		fillObject(b, rng)
	case noise:
		fillNoise(b, rng)
	case image:
		fillImage(b, rng)
	}
}

func fillNoise(b []byte, rng *rand.Rand) {
	for len(b) >= 8 {
		v := rng.Uint64()
		b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		b[4], b[5], b[6], b[7] = byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56)
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

// longestLine bounds a line of text.
const longestLine = 512

// wording says how much a text repeats.
type wording struct {
	// vocabulary is how many words the text takes from the language's.
	vocabulary int
	// again and boilerplate are how many of a hundred lines are an earlier line
	// with another word in it, and one of a stock that all texts share.
	again, boilerplate int
}

// The figures give programs that compress what real source and real letters give.
var (
	sourceText = wording{vocabulary: 80, again: 64, boilerplate: 18}
	proseText  = wording{vocabulary: 3000, again: 2}
)

// fillText writes lines into b, which has room for longestLine more.
func fillText(b []byte, rng *rand.Rand, w wording) {
	own := make([]string, min(w.vocabulary, len(b)/4+1)) // more would not be used
	for i := range own {
		own[i] = words[frequent[rng.Uint32()&0xffff]]
	}
	var recent [64][2]int // where lines begin and end
	lines := 0
	out, end := b[:0], len(b)
	for len(out) < end {
		begin := len(out)
		switch p := rng.IntN(100); {
		case p < w.again && lines > 0:
			line := recent[rng.IntN(min(lines, len(recent)))]
			at := line[0] + rng.IntN(line[1]-line[0])
			out = append(out, out[line[0]:at]...)
			out = append(out, own[rng.IntN(len(own))]...)
			if rest := out[at:line[1]]; line[1]-line[0] < longestLine/4 {
				out = append(out, rest...)
			} else {
				out = append(out, '\n')
			}
		case p < w.again+w.boilerplate:
			out = append(out, stock[rng.IntN(len(stock))]...)
		default:
			out = appendLine(out, rng, own)
		}
		recent[lines%len(recent)] = [2]int{begin, len(out)}
		lines++
	}
}

// appendLine writes up to ten words of a vocabulary, its first ones more often.
func appendLine(out []byte, rng *rand.Rand, own []string) []byte {
	bits := rng.Uint64()
	for range bits & 3 {
		out = append(out, '\t')
	}
	n := 2 + bits>>2%8
	var picks uint64
	for i := range n {
		if i%4 == 0 {
			picks = rng.Uint64()
		}
		out = append(out, own[int(picks&0xff)*int(picks>>8&0xff)*len(own)>>16]...)
		out = append(out, between[bits>>(8+4*i)&15]...)
		picks >>= 16
	}
	if bits>>60 == 0 {
		out = fmt.Appendf(out, "%#x", rng.Uint32())
	}
	return append(out, '\n')
}

func fillObject(b []byte, rng *rand.Rand) {
	for len(b) > 0 {
		n := min(16<<rng.IntN(4), len(b))
		switch rng.IntN(4) {
		case 0:
			clear(b[:n])
		case 1:
			fillNoise(b[:n], rng)
		default:
			for i := 0; i < n; i += 8 {
				copy(b[i:n], patterns[rng.IntN(len(patterns))][:])
			}
		}
		b = b[n:]
	}
}

// extent is the unit in which a disk image changes its character.
const extent = 64 << 10

func fillImage(b []byte, rng *rand.Rand) {
	var room [extent + longestLine]byte
	for len(b) > 0 {
		n := min(extent<<rng.IntN(4), len(b))
		switch p := rng.IntN(100); {
		case p < 35:
			clear(b[:n])
		case p < 50:
			// One of sixty-four extents that come again and again.
			again := rand.New(rand.NewPCG(seed, rng.Uint64N(64)))
			fillText(room[:extent], again, sourceText)
			for i := 0; i < n; i += extent {
				copy(b[i:n], room[:extent])
			}
		case p < 80:
			for i := 0; i < n; i += extent {
				m := min(extent, n-i)
				fillText(room[:m], rng, sourceText)
				copy(b[i:], room[:m])
			}
		default:
			fillNoise(b[:n], rng)
		}
		b = b[n:]
	}
}

// The vocabulary: words are frequent as 1/(rank+3), as in any language.
var (
	words    = makeWords()
	frequent = makeFrequent()
	between  = [16]string{" ", " ", " ", " ", " ", " ", " ", "_", "_", "->", ", ", "(", ") ", " = ", "; ", "."}
	stock    = makeStock()
	patterns = makePatterns()
)

func makeWords() (list [4096]string) {
	rng := rand.New(rand.NewPCG(seed, 1))
	seen := map[string]bool{}
	for i := 0; i < len(list); {
		var w bytes.Buffer
		for range 1 + rng.IntN(4) {
			w.WriteByte("bcdfghklmnprstvw"[rng.IntN(16)])
			w.WriteByte("aeiou"[rng.IntN(5)])
			if rng.IntN(3) == 0 {
				w.WriteByte("lnrstx"[rng.IntN(6)])
			}
		}
		if !seen[w.String()] {
			seen[w.String()] = true
			list[i] = w.String()
			i++
		}
	}
	return list
}

func makeFrequent() (table [1 << 16]uint16) {
	var sum float64
	for r := range words {
		sum += 1 / float64(r+3)
	}
	var upTo float64
	next := 0
	for r := range words {
		upTo += 1 / float64(r+3) / sum
		for ; next < len(table) && float64(next) < upTo*float64(len(table)); next++ {
			table[next] = uint16(r)
		}
	}
	return table
}

func makeStock() (lines [600][]byte) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for i := range lines {
		lines[i] = appendLine(nil, rng, words[:])
	}
	return lines
}

func makePatterns() (list [256][8]byte) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for i := range list {
		fillNoise(list[i][:], rng)
	}
	return list
}
