package icons_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backstay/agent/localapi"
)

var (
	update = flag.Bool("update", false, "draw the pictures anew")
	sheet  = flag.String("sheet", "", "write a picture of all pictures to this `file`, to be looked at")
)

// files returns what is to be committed.
func files() map[string][]byte {
	f := map[string][]byte{}
	for name, pic := range pictures {
		all := sizes
		if name == "app" {
			all = append(slices.Clone(sizes), appSizes...)
		}
		for _, size := range all {
			f[fmt.Sprintf("png/%s-%d.png", name, size)] = encodePNG(pic.render(size, false))
		}
		f["ico/"+name+".ico"] = encodeICO(pic, icoSizes)
		if name != "app" {
			f["template/"+name+".png"] = encodePNG(pic.render(templateSize, true))
		}
	}
	return f
}

// TestPictures compares what is committed with what is drawn. Pictures are compared by
// their pixels: how they are compressed may change with Go.
func TestPictures(t *testing.T) {
	want := files()
	if *update {
		for _, dir := range []string{"png", "ico", "template"} {
			if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		for name, data := range want {
			if err := os.WriteFile(filepath.FromSlash(name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	var have []string
	for _, dir := range []string{"png", "ico", "template"} {
		err := fs.WalkDir(os.DirFS("."), dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				have = append(have, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if drawn := slices.Sorted(maps.Keys(want)); !slices.Equal(slices.Sorted(slices.Values(have)), drawn) {
		t.Fatalf("committed:\n%v\ndrawn:\n%v\nrun go generate ./tray/icons", have, drawn)
	}
	for _, name := range have {
		data, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		same := bytes.Equal(data, want[name])
		if strings.HasSuffix(name, ".png") {
			same = bytes.Equal(pixels(t, data), pixels(t, want[name]))
		}
		if !same {
			t.Errorf("%s is not what is drawn; run go generate ./tray/icons", name)
		}
	}
}

func pixels(t *testing.T, data []byte) []byte {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewNRGBA(img.Bounds())
	draw.Draw(out, out.Bounds(), img, img.Bounds().Min, draw.Src)
	return append(out.Pix, fmt.Sprint(img.Bounds())...)
}

func TestEveryStateHasAPicture(t *testing.T) {
	for _, s := range localapi.States() {
		if _, ok := pictures[string(s)]; !ok {
			t.Errorf("none for %s", s)
		}
	}
}

// Whoever sees no colour has to tell the states apart: in 16 pixels, by shape alone.
func TestStatesDifferInShape(t *testing.T) {
	const enough = 28 // of 256 pixels
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(pictures)), func(n string) bool { return n == "app" })
	for i, a := range names {
		for _, b := range names[:i] {
			x, y := pictures[a].render(16, true), pictures[b].render(16, true)
			differ := 0
			for i := 3; i < len(x.Pix); i += 4 {
				if d := int(x.Pix[i]) - int(y.Pix[i]); d > 100 || d < -100 {
					differ++
				}
			}
			if differ < enough {
				t.Errorf("%s and %s differ in %d pixels only", a, b, differ)
			}
		}
	}
}

// Panels are light or dark, and the program does not know which.
func TestPicturesShowOnEveryPanel(t *testing.T) {
	for name, pic := range pictures {
		for _, panel := range []color.NRGBA{{250, 250, 250, 255}, {35, 38, 41, 255}} {
			if c := contrast(pic.body, panel); c < 2.2 {
				t.Errorf("%s on %v: contrast %.1f", name, panel, c)
			}
		}
		if c := contrast(pic.body, pic.mark); c < 3 {
			t.Errorf("%s: the mark has a contrast of %.1f", name, c)
		}
	}
}

// contrast is that of WCAG 2.
func contrast(a, b color.NRGBA) float64 {
	light := func(c color.NRGBA) float64 {
		linear := func(v uint8) float64 {
			s := float64(v) / 255
			if s <= 0.04045 {
				return s / 12.92
			}
			return math.Pow((s+0.055)/1.055, 2.4)
		}
		return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
	}
	x, y := light(a), light(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// TestSheet draws all pictures on a light and a dark panel, as they are and enlarged.
func TestSheet(t *testing.T) {
	if *sheet == "" {
		return // nothing to look at was asked for
	}
	names := slices.Sorted(maps.Keys(pictures))
	const zoom, cell = 4, 270
	out := image.NewNRGBA(image.Rect(0, 0, 2*cell+600, len(names)*100))
	for half, panel := range []color.NRGBA{{238, 238, 238, 255}, {35, 38, 41, 255}} {
		x0 := half * out.Rect.Dx() / 2
		draw.Draw(out, image.Rect(x0, 0, x0+out.Rect.Dx()/2, out.Rect.Dy()), image.NewUniform(panel), image.Point{}, draw.Src)
		for row, name := range names {
			x := x0 + 8
			for _, size := range []int{16, 22, 24, 32, 48, 64} {
				img := pictures[name].render(size, false)
				draw.Draw(out, img.Rect.Add(image.Pt(x, row*100+8)), img, image.Point{}, draw.Over)
				x += size + 8
			}
			for _, size := range []int{16, 22} {
				img := pictures[name].render(size, false)
				for py := range size * zoom {
					for px := range size * zoom {
						at := image.Pt(x+px, row*100+4+py)
						draw.Draw(out, image.Rectangle{at, at.Add(image.Pt(1, 1))}, image.NewUniform(img.At(px/zoom, py/zoom)), image.Point{}, draw.Over)
					}
				}
				x += size*zoom + 8
			}
		}
	}
	if err := os.WriteFile(*sheet, encodePNG(out), 0o644); err != nil {
		t.Fatal(err)
	}
}
