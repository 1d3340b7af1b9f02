package accounts

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"backstay/internal/durable"
	"backstay/protocol/vault"
)

// seenEvery is how often what devices were seen is written down: seldom, because a
// disk may sleep and nothing depends on it.
const seenEvery = 5 * time.Minute

// Run writes down now and then when devices came last, and once more when ctx ends.
func (a *Accounts) Run(ctx context.Context) {
	if a.o.SeenFile == "" {
		return
	}
	var last []byte
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		now := a.seen()
		if bytes.Equal(now, last) {
			continue
		}
		if err := durable.WriteFile(a.o.SeenFile, now, 0o600); err != nil {
			a.o.Log.Warn("when devices were last seen is not kept", "err", err)
			continue
		}
		last = now
	}
}

// seen returns the file's content: a line for each device with its id and the
// nanoseconds since 1970.
func (a *Accounts) seen() []byte {
	var b []byte
	for _, d := range a.Devices("") {
		if ns := d.seen.Load(); ns != 0 {
			b = fmt.Appendf(b, "%v %d\n", d.ID, ns)
		}
	}
	return b
}

// loadSeen takes what it can from the file: it is for information only.
func (a *Accounts) loadSeen() {
	if a.o.SeenFile == "" {
		return
	}
	data, err := os.ReadFile(a.o.SeenFile)
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var id []byte
		var ns int64
		if _, err := fmt.Sscanf(lines.Text(), "%x %d", &id, &ns); err != nil || len(id) != len(vault.DeviceID{}) {
			continue
		}
		if d := a.devices[vault.DeviceID(id)]; d != nil {
			d.seen.Store(ns)
		}
	}
}
