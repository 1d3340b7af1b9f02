package cli

import (
	"fmt"
	"io"
	"strings"

	"rsc.io/qr"
)

// quiet is the margin of a QR code, in modules: readers need it to find the code.
const quiet = 2

// QR draws text as a QR code, for a terminal on which a line is two modules high.
// It is drawn light on dark, as most terminals are dark; readers take both.
func QR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("draw a QR code: %w", err)
	}
	black := func(x, y int) bool { return x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString([]string{"█", "▄", "▀", " "}[index(black(x, y))*2+index(black(x, y+1))])
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}
