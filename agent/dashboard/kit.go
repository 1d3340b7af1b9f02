package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rsc.io/qr"

	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/protocol/vault"
)

// askedBack is how many words a person has to show to have kept.
const askedBack = 2

// kitQuestion is which words are asked for: the same until they are right.
type kitQuestion struct {
	mu    sync.Mutex // guards asked
	asked []int      // from 0
}

func (q *kitQuestion) words(of int) []int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked == nil {
		q.asked = rand.Perm(of)[:askedBack]
		slices.Sort(q.asked)
	}
	return q.asked
}

func (q *kitQuestion) again() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = nil
}

// kitPage is the recovery kit as it is shown and printed.
type kitPage struct {
	// Pending: it is not put away, and all that follows is set.
	Pending bool      `json:"pending"`
	Since   time.Time `json:"since"`
	// Due: it cannot be put off any more.
	Due    bool     `json:"due"`
	Words  []string `json:"words"`
	Server string   `json:"server"`
	Pin    string   `json:"pin"`
	Vault  string   `json:"vault"`
	// Ask are the numbers, from 1, of the words that are asked for.
	Ask []int `json:"ask"`
	QR  code  `json:"qr"`
}

// code is a QR code: a path of squares in a box of Size.
type code struct {
	Size int    `json:"size"`
	Path string `json:"path"`
}

// kitView shows the kit while it is not put away. Afterwards this machine has none.
func (d *dashboard) kitView(*http.Request) (kitPage, error) {
	kit, since, err := enrol.PendingKit(d.o.Folder)
	if errors.Is(err, fs.ErrNotExist) {
		return kitPage{}, nil
	}
	if err != nil {
		return kitPage{}, err
	}
	// Of a set-up that was broken off; another vault was made since.
	if dev, err := device.Load(d.o.Folder); err == nil && kit.Vault != nil && dev.Vault != (vault.ID{}) && *kit.Vault != dev.Vault {
		return kitPage{}, fmt.Errorf("%s is the recovery kit of another vault, not of this machine's; move it away", filepath.Join(d.o.Folder, enrol.KitFile))
	}
	p := kitPage{Pending: true, Since: since, Due: time.Since(since) > enrol.KitGrace, Words: strings.Fields(vault.Phrase(kit.Seed)), Server: strings.Join(kit.Servers, ", ")}
	if kit.Pin != nil {
		p.Pin = fmt.Sprintf("%x", *kit.Pin)
	}
	if kit.Vault != nil {
		p.Vault = kit.Vault.String()
	}
	for _, i := range d.kit.words(len(p.Words)) {
		p.Ask = append(p.Ask, i+1)
	}
	p.QR, err = qrOf(kitLines(kit))
	return p, err
}

// kitLines is the kit without its explanation: what "agent recover" reads.
func kitLines(kit vault.Kit) string {
	var lines []string
	for line := range strings.Lines(string(kit.Bytes())) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// qrMargin is the quiet zone that readers need, in modules.
const qrMargin = 4

func qrOf(text string) (code, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return code{}, err
	}
	var b strings.Builder
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			from := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+qrMargin, y+qrMargin, x-from, x-from)
			}
		}
	}
	return code{c.Size + 2*qrMargin, b.String()}, nil
}

// kitFile gives the kit as the file that "agent recover" takes.
func (d *dashboard) kitFile(w http.ResponseWriter, r *http.Request) {
	kit, _, err := enrol.PendingKit(d.o.Folder)
	if err != nil {
		d.respond(w, r, nil, fault{http.StatusNotFound, err})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="backstay-recovery-kit.txt"`)
	w.Write(kit.Bytes())
}

// confirmKit removes the kit from this machine, when the words that were asked for
// are given.
func (d *dashboard) confirmKit(_ context.Context, in struct {
	Words []string `json:"words"`
}) (struct{}, error) {
	var none struct{}
	kit, _, err := enrol.PendingKit(d.o.Folder)
	if err != nil {
		return none, err
	}
	words := strings.Fields(vault.Phrase(kit.Seed))
	for i, n := range d.kit.words(len(words)) {
		if i >= len(in.Words) || !strings.EqualFold(strings.TrimSpace(in.Words[i]), words[n]) {
			return none, wrong("word %d is another one; look at your copy, not at this page", n+1)
		}
	}
	d.kit.again()
	return none, enrol.ConfirmKit(d.o.Folder)
}
