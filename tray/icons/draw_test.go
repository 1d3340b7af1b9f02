package icons_test

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"math"
)

// The pictures are drawn here and nowhere else, on a grid of 16 units; what is
// committed is what Go files cannot hold: pictures. A picture is a body with a mark on
// it. In colour the mark is painted; in a template, which macOS colours itself, it is
// cut out. So the shape alone says which picture it is.
//
// Straight edges are put on whole pixels at every size; round ones are smoothed.

type picture struct {
	body color.NRGBA
	mark color.NRGBA
	draw func(pen) (body, mark shape)
}

var (
	green = color.NRGBA{0x2a, 0x9d, 0x4a, 255}
	blue  = color.NRGBA{0x2b, 0x7c, 0xd9, 255}
	grey  = color.NRGBA{0x80, 0x86, 0x8e, 255}
	amber = color.NRGBA{0xe8, 0x96, 0x00, 255}
	red   = color.NRGBA{0xd6, 0x36, 0x36, 255}
	white = color.NRGBA{255, 255, 255, 255}
	black = color.NRGBA{0x20, 0x18, 0x00, 255}
)

var pictures = map[string]picture{
	"protected": {green, white, func(p pen) (shape, shape) {
		return p.disc(0), p.line(2.1, 4.4, 8.3, 7, 10.9, 11.7, 5.7)
	}},
	"working": {blue, white, func(p pen) (shape, shape) {
		return p.disc(0), either(p.box(3, 7, 11, 9), p.line(2.1, 8.3, 4.6, 11.7, 8, 8.3, 11.4))
	}},
	"first_pass": {blue, white, func(p pen) (shape, shape) {
		ring := but(p.disc(0), p.disc(1.7))
		quarter := both(p.disc(1), p.box(8, 0, 16, 8))
		return either(ring, quarter), none
	}},
	"paused": {grey, white, func(p pen) (shape, shape) {
		return either(p.bar(3, 2, 7, 14), p.bar(9, 2, 13, 14)), none
	}},
	"offline": {grey, white, func(p pen) (shape, shape) {
		cloud := either(p.circle(4.2, 9.6, 3.7), p.circle(8.4, 7.2, 4.7), p.circle(12.2, 9.9, 3.4), p.box(4, 8, 12, 13.3))
		return cloud, either(p.dot(4.5, 9.5), p.dot(8, 9.5), p.dot(11.5, 9.5))
	}},
	"attention": {amber, black, func(p pen) (shape, shape) {
		return both(p.polygon(1.1, 8, 2, 14.5, 14.2, 1.5, 14.2), p.box(0, 0, 16, 15)), either(p.box(7, 5, 9, 10), p.box(7, 11, 9, 13))
	}},
	"failing": {red, white, func(p pen) (shape, shape) {
		return p.bar(1, 1, 15, 15), either(p.line(2.2, 5, 5, 11, 11), p.line(2.2, 11, 5, 5, 11))
	}},
	"alarm": {red, white, func(p pen) (shape, shape) {
		return p.shield(0), either(p.box(7, 4, 9, 9), p.box(7, 10, 9, 12))
	}},
	"not_set_up": {grey, white, func(p pen) (shape, shape) {
		return but(p.shield(0), p.shield(1.8)), none
	}},
	"not_running": {grey, white, func(p pen) (shape, shape) {
		ring := but(but(p.disc(0), p.disc(1.9)), p.box(5, 0, 11, 7))
		return either(ring, p.box(7, 0, 9, 8)), none
	}},
	// app is the program's own, for menus and installers.
	"app": {blue, white, func(p pen) (shape, shape) {
		return p.shield(0), p.line(2, 4.8, 7.8, 7.2, 10.2, 11.3, 5.4)
	}},
}

// sizes are those of panels and menus, with their doubles; the program's own picture
// is drawn larger, too.
var (
	sizes    = []int{16, 22, 24, 32, 48, 64}
	appSizes = []int{128, 256}
	icoSizes = []int{16, 24, 32, 48}
	// templateSize is twice what macOS shows.
	templateSize = 32
)

// shape says whether a point, in pixels, lies in it.
type shape func(x, y float64) bool

func none(x, y float64) bool { return false }

func either(shapes ...shape) shape {
	return func(x, y float64) bool {
		for _, s := range shapes {
			if s(x, y) {
				return true
			}
		}
		return false
	}
}
func both(a, b shape) shape { return func(x, y float64) bool { return a(x, y) && b(x, y) } }
func but(a, b shape) shape  { return func(x, y float64) bool { return a(x, y) && !b(x, y) } }

// pen makes shapes of a size in pixels from units of a sixteenth of it.
type pen struct{ size int }

func (p pen) px(units float64) float64 { return units * float64(p.size) / 16 }

// edge is on a whole pixel.
func (p pen) edge(units float64) float64 { return math.Floor(p.px(units) + 0.5) }

func (p pen) circle(cx, cy, r float64) shape {
	cx, cy, r = p.px(cx), p.px(cy), p.px(r)
	return func(x, y float64) bool { return (x-cx)*(x-cx)+(y-cy)*(y-cy) <= r*r }
}

// disc fills the picture but for a margin of whole pixels and what is given.
func (p pen) disc(less float64) shape {
	return p.circle(8, 8, 8-p.edge(0.5)*16/float64(p.size)-less)
}

// box has its edges on whole pixels, and lies in the middle of the picture if it
// is meant to.
func (p pen) box(x0, y0, x1, y1 float64) shape {
	l, t, r, b := p.edge(x0), p.edge(y0), p.edge(x1), p.edge(y1)
	if x0+x1 == 16 {
		r = float64(p.size) - l
	}
	if y0+y1 == 16 {
		b = float64(p.size) - t
	}
	return func(x, y float64) bool { return x >= l && x < r && y >= t && y < b }
}

// bar is a box with round corners.
func (p pen) bar(x0, y0, x1, y1 float64) shape {
	l, t, r, b := p.edge(x0), p.edge(y0), float64(p.size)-p.edge(16-x1), float64(p.size)-p.edge(16-y1)
	round := p.px(math.Min(2.6, (x1-x0)/4))
	return func(x, y float64) bool {
		if x < l || x >= r || y < t || y >= b {
			return false
		}
		dx, dy := math.Max(math.Max(l+round-x, x-(r-round)), 0), math.Max(math.Max(t+round-y, y-(b-round)), 0)
		return dx*dx+dy*dy <= round*round
	}
}

// dot is a small square on whole pixels.
func (p pen) dot(cx, cy float64) shape {
	side := 2 * math.Max(1, math.Floor(p.px(1.9)/2+0.5)) // even, as the picture is
	l, t := math.Floor(p.px(cx)-side/2+0.5), math.Floor(p.px(cy)-side/2+0.5)
	if cx == 8 {
		l = (float64(p.size) - side) / 2
	}
	round := side / 4
	return func(x, y float64) bool {
		dx, dy := math.Max(math.Max(l+round-x, x-(l+side-round)), 0), math.Max(math.Max(t+round-y, y-(t+side-round)), 0)
		return dx*dx+dy*dy <= round*round
	}
}

// line joins points with a stroke that ends round.
func (p pen) line(width float64, at ...float64) shape {
	w := p.px(width) / 2
	return func(x, y float64) bool {
		for i := 0; i+3 < len(at); i += 2 {
			if distance(x, y, p.px(at[i]), p.px(at[i+1]), p.px(at[i+2]), p.px(at[i+3])) <= w {
				return true
			}
		}
		return false
	}
}

func distance(x, y, ax, ay, bx, by float64) float64 {
	dx, dy := bx-ax, by-ay
	t := math.Max(0, math.Min(1, ((x-ax)*dx+(y-ay)*dy)/(dx*dx+dy*dy)))
	return math.Hypot(x-ax-t*dx, y-ay-t*dy)
}

// polygon is convex, its points clockwise, grown by round.
func (p pen) polygon(round float64, at ...float64) shape {
	edge := p.line(2*round, append(append([]float64{}, at...), at[0], at[1])...)
	n := len(at)
	return func(x, y float64) bool {
		side := 0
		for i := 0; i < n; i += 2 {
			ax, ay, bx, by := p.px(at[i]), p.px(at[i+1]), p.px(at[(i+2)%n]), p.px(at[(i+3)%n])
			if (bx-ax)*(y-ay)-(by-ay)*(x-ax) > 0 {
				side++
			} else {
				side--
			}
		}
		return side == n/2 || side == -n/2 || edge(x, y)
	}
}

// shield has a peak above and a point below; less is how much smaller it is all round.
func (p pen) shield(less float64) shape {
	return func(x, y float64) bool {
		u, v := math.Abs(x*16/float64(p.size)-8), y*16/float64(p.size)
		const shoulder, waist = 2.6, 7.5
		width, top, point := 7-less, 0.3+1.1*less, 15.9-1.3*less
		switch {
		case v < top || v > point || u > width:
			return false
		case v < shoulder+less:
			return u <= width*(v-top)/(shoulder+less-top)
		case v < waist:
			return true
		}
		down := (v - waist) / (point - waist)
		return u <= width*(1-math.Pow(down, 1.9))
	}
}

// fine is how many points a pixel is asked for in each direction.
const fine = 8

// render draws a picture; a template is black with the mark cut out.
func (pic picture) render(size int, template bool) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	body, mark := pic.draw(pen{size})
	for py := range size {
		for px := range size {
			inBody, inMark := 0, 0
			for i := range fine {
				for j := range fine {
					x, y := float64(px)+(float64(j)+0.5)/fine, float64(py)+(float64(i)+0.5)/fine
					switch {
					case !body(x, y):
					case mark(x, y):
						inMark++
					default:
						inBody++
					}
				}
			}
			if template {
				img.SetNRGBA(px, py, color.NRGBA{A: uint8(inBody * 255 / (fine * fine))})
			} else if all := inBody + inMark; all > 0 {
				mix := func(b, m uint8) uint8 { return uint8((int(b)*inBody + int(m)*inMark) / all) }
				img.SetNRGBA(px, py, color.NRGBA{
					mix(pic.body.R, pic.mark.R), mix(pic.body.G, pic.mark.G), mix(pic.body.B, pic.mark.B), uint8(all * 255 / (fine * fine)),
				})
			}
		}
	}
	return img
}

func encodePNG(img image.Image) []byte {
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img); err != nil {
		panic(err) // memory does not fail
	}
	return b.Bytes()
}

// encodeICO makes a Windows icon of bitmaps, which every version reads: 32 bits a
// pixel, the lowest row first, and a mask that nobody looks at.
func encodeICO(pic picture, sizes []int) []byte {
	le := binary.LittleEndian
	head := le.AppendUint16(le.AppendUint16(le.AppendUint16(nil, 0), 1), uint16(len(sizes)))
	var data []byte
	at := 6 + 16*len(sizes)
	for _, size := range sizes {
		img := pic.render(size, false)
		mask := make([]byte, (size+31)/32*4*size)
		dib := le.AppendUint32(nil, 40)
		dib = le.AppendUint32(dib, uint32(size))
		dib = le.AppendUint32(dib, uint32(2*size)) // with the mask
		dib = le.AppendUint16(dib, 1)
		dib = le.AppendUint16(dib, 32)
		dib = le.AppendUint32(dib, 0) // not compressed
		dib = le.AppendUint32(dib, uint32(4*size*size+len(mask)))
		dib = append(dib, make([]byte, 16)...)
		for y := size - 1; y >= 0; y-- {
			for x := range size {
				c := img.NRGBAAt(x, y)
				dib = append(dib, c.B, c.G, c.R, c.A)
			}
		}
		dib = append(dib, mask...)
		head = append(head, byte(size), byte(size), 0, 0)
		head = le.AppendUint16(le.AppendUint16(head, 1), 32)
		head = le.AppendUint32(le.AppendUint32(head, uint32(len(dib))), uint32(at+len(data)))
		data = append(data, dib...)
	}
	return append(head, data...)
}
