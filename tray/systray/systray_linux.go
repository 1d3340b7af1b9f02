package systray

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"

	"backstay/tray"
	"backstay/tray/icons"
)

// The tray is an object on the session's bus, and its menu another, which a panel asks
// and is told to ask again: org.kde.StatusNotifierItem and com.canonical.dbusmenu.
// docs/design/0016 says why they are spoken here.
const (
	watcherName = "org.kde.StatusNotifierWatcher"
	itemFace    = "org.kde.StatusNotifierItem"
	menuFace    = "com.canonical.dbusmenu"
	propsFace   = "org.freedesktop.DBus.Properties"
	itemPath    = dbus.ObjectPath("/StatusNotifierItem")
	menuPath    = dbus.ObjectPath("/StatusNotifierItem/menu")
)

// Run shows each view until ctx ends, from the first on, which it waits for. It calls
// chosen, which must not block, when a person chooses something. It is called once,
// from the main goroutine, which other systems ask for.
func Run(ctx context.Context, views <-chan tray.View, chosen func(tray.Action)) error {
	conn, err := session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	i := &item{conn: conn, chosen: chosen, asked: map[dbus.Sender]bool{}}
	select {
	case v := <-views:
		i.show(v)
	case <-ctx.Done():
		return nil
	}
	for _, e := range []error{
		conn.Export(onItem{i}, itemPath, itemFace), conn.Export(properties{i.itemProperties}, itemPath, propsFace),
		conn.Export(onMenu{i}, menuPath, menuFace), conn.Export(properties{i.menuProperties}, menuPath, propsFace),
	} {
		if e != nil {
			return fmt.Errorf("take part on the session's bus: %w", e)
		}
	}
	name := fmt.Sprintf("%s-%d-1", itemFace, os.Getpid())
	if _, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil {
		return fmt.Errorf("take part on the session's bus: %w", err)
	}
	// A panel that starts, again or for the first time, does not know of us.
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	err = conn.AddMatchSignal(dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, watcherName))
	if err != nil {
		return fmt.Errorf("take part on the session's bus: %w", err)
	}
	register := func() {
		// Without a panel this fails, and is done when there is one.
		conn.Object(watcherName, "/StatusNotifierWatcher").Go(watcherName+".RegisterStatusNotifierItem", dbus.FlagNoReplyExpected, nil, name)
	}
	register()
	for {
		select {
		case v := <-views:
			i.show(v)
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("%w any more: the bus has gone", ErrNoSession)
			}
			if owner, _ := s.Body[len(s.Body)-1].(string); owner != "" {
				register()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// item is the tray on the bus.
type item struct {
	conn   *dbus.Conn
	chosen func(tray.Action)

	mu    sync.Mutex // guards what follows
	view  tray.View
	nodes []node
	// asked are the panels that have read the menu before.
	asked map[dbus.Sender]bool
}

// node is an entry of the menu; its id is its place in nodes, where 0 is the menu.
type node struct {
	tray.Item
	sub []int32
}

// show makes v what is asked for, and tells of what is different.
func (i *item) show(v tray.View) {
	nodes := []node{{}}
	nodes[0].sub = number(&nodes, v.Menu)
	i.mu.Lock()
	before, old := i.view, i.nodes
	i.view, i.nodes = v, nodes
	i.mu.Unlock()
	if len(old) == 0 {
		return // nobody has asked yet
	}
	// Signals are lost only with the bus, which ends Run.
	if v.Icon != before.Icon {
		i.conn.Emit(itemPath, itemFace+".NewIcon")
	}
	if v.Tooltip != before.Tooltip {
		i.conn.Emit(itemPath, itemFace+".NewToolTip")
	}
	var changed []group
	for id := range nodes {
		if nodes[id].Label != old[id].Label || nodes[id].Enabled != old[id].Enabled || nodes[id].Checked != old[id].Checked {
			changed = append(changed, group{int32(id), nodes[id].properties()})
		}
	}
	if len(changed) > 0 {
		i.conn.Emit(menuPath, menuFace+".ItemsPropertiesUpdated", changed, []removed{})
	}
}

// number adds entries and what is below them, and returns their ids.
func number(nodes *[]node, items []tray.Item) []int32 {
	var ids []int32
	for _, it := range items {
		id := len(*nodes)
		ids = append(ids, int32(id))
		*nodes = append(*nodes, node{Item: it})
		sub := number(nodes, it.Items)
		(*nodes)[id].sub = sub
	}
	return ids
}

// properties are those of an entry.
func (n node) properties() map[string]dbus.Variant {
	p := map[string]dbus.Variant{}
	switch {
	case n.Label == "" && len(n.sub) == 0:
		p["type"] = dbus.MakeVariant("separator")
		return p
	case len(n.sub) > 0:
		p["children-display"] = dbus.MakeVariant("submenu")
	}
	// An underscore alone marks the key of an entry.
	p["label"] = dbus.MakeVariant(strings.ReplaceAll(n.Label, "_", "__"))
	p["enabled"] = dbus.MakeVariant(n.Enabled)
	if n.Checked {
		p["toggle-type"], p["toggle-state"] = dbus.MakeVariant("checkmark"), dbus.MakeVariant(int32(1))
	} else {
		p["toggle-type"], p["toggle-state"] = dbus.MakeVariant(""), dbus.MakeVariant(int32(0))
	}
	return p
}

// now returns what is to be shown.
func (i *item) now() (tray.View, []node) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.view, i.nodes
}

// pixmap is a picture as the bus carries it: width, height, and pixels of alpha, red,
// green, blue.
type pixmap struct {
	W, H int32
	ARGB []byte
}

func pixmaps(icon string) []pixmap {
	var list []pixmap
	for _, data := range icons.Of(icon) {
		img, err := decode(data)
		if err != nil {
			continue // a test decodes all
		}
		p := pixmap{int32(img.Rect.Dx()), int32(img.Rect.Dy()), nil}
		for px := range slices.Chunk(img.Pix, 4) {
			p.ARGB = append(p.ARGB, px[3], px[0], px[1], px[2])
		}
		list = append(list, p)
	}
	return list
}

func decode(data []byte) (*image.NRGBA, error) {
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out := image.NewNRGBA(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Src)
	return out, nil
}

func (i *item) itemProperties() map[string]dbus.Variant {
	v, _ := i.now()
	return map[string]dbus.Variant{
		"Category": dbus.MakeVariant("ApplicationStatus"), "Id": dbus.MakeVariant("backstay"), "Title": dbus.MakeVariant("Backstay"),
		"Status": dbus.MakeVariant("Active"), "IconName": dbus.MakeVariant(""), "IconPixmap": dbus.MakeVariant(pixmaps(v.Icon)),
		"ItemIsMenu": dbus.MakeVariant(true), "Menu": dbus.MakeVariant(menuPath),
		"ToolTip": dbus.MakeVariant(struct {
			Icon        string
			Pictures    []pixmap
			Title, Text string
		}{Title: v.Tooltip}),
	}
}

func (i *item) menuProperties() map[string]dbus.Variant {
	return map[string]dbus.Variant{
		"Version": dbus.MakeVariant(uint32(3)), "TextDirection": dbus.MakeVariant("ltr"),
		"Status": dbus.MakeVariant("normal"), "IconThemePath": dbus.MakeVariant([]string{}),
	}
}

// properties answers org.freedesktop.DBus.Properties of an object with one interface
// of its own.
type properties struct {
	all func() map[string]dbus.Variant
}

func (p properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	v, ok := p.all()[name]
	if !ok {
		return v, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{name})
	}
	return v, nil
}

func (p properties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) { return p.all(), nil }

// onItem answers org.kde.StatusNotifierItem. A panel opens the menu by itself.
type onItem struct{ *item }

func (o onItem) Activate(_, _ int32) *dbus.Error {
	o.chosen(tray.Dashboard)
	return nil
}
func (onItem) SecondaryActivate(_, _ int32) *dbus.Error { return nil }
func (onItem) ContextMenu(_, _ int32) *dbus.Error       { return nil }
func (onItem) Scroll(int32, string) *dbus.Error         { return nil }

// onMenu answers com.canonical.dbusmenu. The names of properties that are asked for
// are not looked at: there are few.
type onMenu struct{ *item }

type layout struct {
	ID    int32
	Props map[string]dbus.Variant
	Sub   []dbus.Variant
}

type group struct {
	ID    int32
	Props map[string]dbus.Variant
}

type removed struct {
	ID    int32
	Props []string
}

// The shape of the menu never changes, so it has one revision. But panels built on
// libdbusmenu-gtk lose what is in a submenu that they read together with the entry that
// opens it. So each is given the top of the menu first, and told of the whole when it
// has had the time to make the entries.
const (
	topRevision   = uint32(1)
	wholeRevision = uint32(2)
	wholeAfter    = 150 * time.Millisecond
)

func (o onMenu) GetLayout(sender dbus.Sender, parent, depth int32, _ []string) (uint32, layout, *dbus.Error) {
	_, nodes := o.now()
	if !known(nodes, parent) {
		return 0, layout{}, noEntry(parent)
	}
	o.mu.Lock()
	first := !o.asked[sender]
	o.asked[sender] = true
	o.mu.Unlock()
	if first && parent == 0 {
		time.AfterFunc(wholeAfter, func() { o.conn.Emit(menuPath, menuFace+".LayoutUpdated", wholeRevision, int32(0)) })
		return topRevision, lay(nodes, parent, 1), nil
	}
	return wholeRevision, lay(nodes, parent, depth), nil
}

// lay is an entry and, down to a depth unless that is negative, those below.
func lay(nodes []node, id, depth int32) layout {
	l := layout{id, nodes[id].properties(), []dbus.Variant{}}
	if depth != 0 {
		for _, sub := range nodes[id].sub {
			l.Sub = append(l.Sub, dbus.MakeVariant(lay(nodes, sub, depth-1)))
		}
	}
	return l
}

func known(nodes []node, id int32) bool { return id >= 0 && int(id) < len(nodes) }

func noEntry(id int32) *dbus.Error {
	return dbus.NewError("com.canonical.dbusmenu.Error", []any{fmt.Sprintf("no entry %d", id)})
}

func (o onMenu) GetGroupProperties(ids []int32, _ []string) ([]group, *dbus.Error) {
	_, nodes := o.now()
	groups := []group{}
	for _, id := range ids {
		if known(nodes, id) {
			groups = append(groups, group{id, nodes[id].properties()})
		}
	}
	return groups, nil
}

func (o onMenu) GetProperty(id int32, name string) (dbus.Variant, *dbus.Error) {
	_, nodes := o.now()
	if !known(nodes, id) {
		return dbus.Variant{}, noEntry(id)
	}
	return properties{nodes[id].properties}.Get("", name)
}

func (o onMenu) Event(id int32, event string, _ dbus.Variant, _ uint32) *dbus.Error {
	_, nodes := o.now()
	if !known(nodes, id) {
		return noEntry(id)
	}
	if n := nodes[id]; event == "clicked" && n.Action != "" && n.Enabled {
		o.chosen(n.Action)
	}
	return nil
}

func (o onMenu) EventGroup(events []struct {
	ID    int32
	Event string
	Data  dbus.Variant
	Time  uint32
}) ([]int32, *dbus.Error) {
	bad := []int32{}
	for _, e := range events {
		if o.Event(e.ID, e.Event, e.Data, e.Time) != nil {
			bad = append(bad, e.ID)
		}
	}
	return bad, nil
}

func (onMenu) AboutToShow(int32) (bool, *dbus.Error) { return false, nil }
func (onMenu) AboutToShowGroup([]int32) (update, bad []int32, err *dbus.Error) {
	return []int32{}, []int32{}, nil
}

// session connects to the session's bus, if there is one: the library would start a
// bus of its own, which nobody else is on and nobody ends. The caller closes it.
func session(ctx context.Context) (*dbus.Conn, error) {
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
		if _, err := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")); err != nil || os.Getenv("XDG_RUNTIME_DIR") == "" {
			return nil, fmt.Errorf("%w: no D-Bus session bus", ErrNoSession)
		}
	}
	conn, err := dbus.ConnectSessionBus(dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSession, err)
	}
	return conn, nil
}

// Host says whether there is something that shows tray icons: nil, [ErrNoHost] or
// [ErrNoSession].
func Host(ctx context.Context) error {
	conn, err := session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var has bool
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, watcherName).Store(&has); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSession, err)
	}
	if !has {
		return ErrNoHost
	}
	return nil
}

// shown is the notification that the next one replaces.
var shown atomic.Uint32

// Notify shows a notification in the place of the one before.
func Notify(ctx context.Context, n tray.Notice) error {
	conn, err := session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	urgency := byte(1)
	if n.Urgent {
		urgency = 2
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency), "desktop-entry": dbus.MakeVariant("backstay")}
	if sizes := icons.Of(n.Icon); len(sizes) > 0 {
		if img, err := decode(sizes[len(sizes)-1]); err == nil {
			hints["image-data"] = dbus.MakeVariant(struct {
				Width, Height, Stride int32
				Alpha                 bool
				Bits, Channels        int32
				Data                  []byte
			}{int32(img.Rect.Dx()), int32(img.Rect.Dy()), int32(img.Stride), true, 8, 4, img.Pix})
		}
	}
	// The body is markup.
	text := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(n.Text)
	var id uint32
	err = conn.Object("org.freedesktop.Notifications", "/org/freedesktop/Notifications").CallWithContext(ctx,
		"org.freedesktop.Notifications.Notify", 0, "Backstay", shown.Load(), "", n.Title, text, []string{}, hints, int32(-1)).Store(&id)
	if err != nil {
		return fmt.Errorf("show a notification: %w", err)
	}
	shown.Store(id)
	return nil
}
