package agent

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"backstay/agent/localapi"
)

// underway is what is being sent, by path: what a person looks at, and nothing else
// relies on.
type underway struct {
	mu   sync.Mutex // guards sent
	sent map[string]int64
}

// note follows events.
func (u *underway) note(e Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch e.Kind {
	case Sent:
		// What is never heard of again, as after a lost session, must not pile up.
		if _, known := u.sent[e.Path]; known || len(u.sent) < 4*localapi.ActivityLimit {
			if u.sent == nil {
				u.sent = map[string]int64{}
			}
			u.sent[e.Path] += e.Size
		}
	case Safe, Problem:
		delete(u.sent, e.Path)
	case Settled, Offline, Connected:
		clear(u.sent)
	}
}

func (u *underway) list() map[string]int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.sent)
}

// Activity implements localapi.Service.
func (w *work) Activity(ctx context.Context) (localapi.Activity, error) {
	a := localapi.Activity{Sending: []localapi.Transfer{}, Waiting: []localapi.Transfer{}, Recent: []localapi.Batch{}}
	dest, _, err := w.destination(ctx)
	if err != nil {
		return a, err
	}
	recent, err := dest.Recent(ctx)
	if err != nil {
		return a, err
	}
	for _, b := range recent[:min(len(recent), localapi.ActivityLimit)] {
		text, raw := localapi.Text(b.Path)
		a.Recent = append(a.Recent, localapi.Batch{Time: b.At.UTC(), Path: text, PathBytes: raw, Changes: b.Changes, Bytes: b.Bytes})
	}
	sent := w.underway.list()
	for _, path := range slices.Sorted(maps.Keys(sent)) {
		if len(a.Sending) < localapi.ActivityLimit {
			a.Sending = append(a.Sending, transferOf(path, sent[path]))
		}
	}
	for _, path := range w.queue.first(localapi.ActivityLimit) {
		a.Waiting = append(a.Waiting, transferOf(path, 0))
	}
	return a, nil
}

func transferOf(path string, sent int64) localapi.Transfer {
	t := localapi.Transfer{Sent: max(sent, 0)}
	t.Path, t.PathBytes = localapi.Text(path)
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		t.Size = info.Size()
	}
	return t
}

// shownDays is how many days a chart may show.
const shownDays = 60

// Days implements localapi.Service.
func (w *work) Days(ctx context.Context) ([]localapi.Day, error) {
	dest, _, err := w.destination(ctx)
	if err != nil {
		return nil, err
	}
	days, err := dest.Days(ctx, time.Now().AddDate(0, 0, 1-shownDays))
	list := []localapi.Day{}
	for _, d := range days {
		list = append(list, localapi.Day{Date: d.Date.Format(time.DateOnly), Changes: d.Changes, Bytes: d.Bytes, Gap: int64(d.Gap / time.Second)})
	}
	return list, err
}

// gapEvery is how often it is looked whether changes wait that cannot be sent. A
// machine that slept meanwhile was not changed, so no more than twice this counts.
const gapEvery = time.Minute

// gaps adds up how long changes wait and cannot be sent, until ctx ends.
func (w *work) gaps(ctx context.Context) error {
	ticker := time.NewTicker(gapEvery)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := time.Now()
		span := min(now.Sub(last), 2*gapEvery)
		last = now
		st, err := w.Status(ctx)
		if err == nil && gap(st) {
			dest, _, derr := w.destination(ctx)
			if err = derr; err == nil {
				err = dest.AddGap(ctx, now, span)
			}
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
	}
}

// gap says whether changes wait that cannot be sent.
func gap(st localapi.Status) bool {
	switch st.State {
	case localapi.Failing, localapi.Offline, localapi.Paused:
		return st.Waiting > 0
	}
	return false
}
