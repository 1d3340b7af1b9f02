//go:build !darwin || cgo

package systray

import (
	"context"
	"sync"
	"time"

	"fyne.io/systray"

	"backstay/tray"
	"backstay/tray/icons"
)

// Run shows each view until ctx ends, from the first on, which it waits for. It calls
// chosen when a person chooses something, one call at a time for each entry. It takes
// the main thread, has to be called from the main goroutine, and only once.
func Run(ctx context.Context, views <-chan tray.View, chosen func(tray.Action)) error {
	var group sync.WaitGroup
	stop := context.AfterFunc(ctx, systray.Quit)
	defer stop()
	systray.Run(func() {
		select {
		case v := <-views:
			s := &screen{ctx: ctx, group: &group, chosen: chosen}
			systray.SetTitle("Backstay")
			s.show(v)
			group.Go(func() { s.follow(views) })
		case <-ctx.Done():
		}
	}, nil)
	group.Wait()
	return nil
}

// screen is what is on it. Only one goroutine uses it at a time.
type screen struct {
	ctx    context.Context
	group  *sync.WaitGroup
	chosen func(tray.Action)

	icon, tooltip string
	entries       []*entry
}

// entry is an entry of the menu on the screen; item is nil for a line.
type entry struct {
	item *systray.MenuItem
	is   tray.Item
	sub  []*entry
}

// settled is how long the toolkit may take until it takes part on the bus: what it is
// told just before can be lost.
const settled = time.Second

func (s *screen) follow(views <-chan tray.View) {
	var last tray.View
	again := time.After(settled)
	for {
		select {
		case last = <-views:
		case <-again:
			again = nil
			if last.Icon == "" {
				continue
			}
			s.icon, s.tooltip = "", ""
		case <-s.ctx.Done():
			return
		}
		s.show(last)
	}
}

// show changes what is different.
func (s *screen) show(v tray.View) {
	if v.Icon != s.icon {
		setIcon(icons.Of(v.Icon))
		s.icon = v.Icon
	}
	if v.Tooltip != s.tooltip {
		systray.SetTooltip(v.Tooltip)
		s.tooltip = v.Tooltip
	}
	if s.entries == nil {
		s.entries = s.build(v.Menu, nil)
		return
	}
	change(s.entries, v.Menu)
}

// build makes a menu. Its shape never changes afterwards.
func (s *screen) build(items []tray.Item, parent *systray.MenuItem) []*entry {
	var entries []*entry
	for _, it := range items {
		e := &entry{is: it}
		label := escape(it.Label)
		switch {
		case it.Label == "" && parent == nil:
			systray.AddSeparator()
		case it.Label == "":
			parent.AddSeparator()
		case parent == nil:
			e.item = systray.AddMenuItem(label, "")
		default:
			e.item = parent.AddSubMenuItemCheckbox(label, "", it.Checked)
		}
		if e.item != nil {
			if !it.Enabled {
				e.item.Disable()
			}
			e.sub = s.build(it.Items, e.item)
			if it.Action != "" {
				s.group.Go(func() { s.wait(e.item, it.Action) })
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// wait tells of clicks on an entry.
func (s *screen) wait(item *systray.MenuItem, action tray.Action) {
	for {
		select {
		case _, ok := <-item.ClickedCh:
			if !ok {
				return
			}
			s.chosen(action)
		case <-s.ctx.Done():
			return
		}
	}
}

func change(entries []*entry, items []tray.Item) {
	for i, it := range items {
		e := entries[i]
		if e.item == nil {
			continue
		}
		if it.Label != e.is.Label {
			e.item.SetTitle(escape(it.Label))
		}
		if it.Enabled != e.is.Enabled {
			if it.Enabled {
				e.item.Enable()
			} else {
				e.item.Disable()
			}
		}
		if it.Checked != e.is.Checked {
			if it.Checked {
				e.item.Check()
			} else {
				e.item.Uncheck()
			}
		}
		change(e.sub, it.Items)
		e.is = it
	}
}
