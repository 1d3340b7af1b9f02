package cmd_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"backstay/agent/localapi"
	"backstay/tray"
	"backstay/tray/icons"
)

// desktop is an X server with a window manager and a session bus; a panel is started
// on it apart.
type desktop struct {
	t   *testing.T
	env []string
	bus *dbus.Conn
	// artefacts takes screenshots and figures: the folder BACKSTAY_ARTEFACTS, or one
	// that goes with the test.
	artefacts string

	mu      sync.Mutex // guards what follows
	notices []string
}

const (
	watcherName = "org.kde.StatusNotifierWatcher"
	itemFace    = "org.kde.StatusNotifierItem"
)

// newDesktop starts one, or skips the test where a program for that is missing.
func newDesktop(t *testing.T) *desktop {
	for _, tool := range []string{"Xvfb", "openbox", "dbus-daemon", "xfce4-panel", "xdotool", "import"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("BACKSTAY_REQUIRE") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	d := &desktop{t: t, artefacts: cmp.Or(os.Getenv("BACKSTAY_ARTEFACTS"), t.TempDir())}
	if err := os.MkdirAll(d.artefacts, 0o755); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	d.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, "config"),
		"XDG_CACHE_HOME=" + filepath.Join(home, "cache"), "XDG_DATA_HOME=" + filepath.Join(home, "data"),
		"XDG_RUNTIME_DIR=" + filepath.Join(home, "run"), "NO_AT_BRIDGE=1", "GTK_A11Y=none", "LC_ALL=C.UTF-8",
	}
	d.write(filepath.Join(home, "config/xfce4/xfconf/xfce-perchannel-xml/xfce4-panel.xml"), panelConfig)
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.env = append(d.env, "DISPLAY=:"+d.saying("Xvfb", "-displayfd", "3", "-screen", "0", "640x480x24", "-nolisten", "tcp"))
	address := d.saying("dbus-daemon", "--session", "--nofork", "--print-address=3")
	d.env = append(d.env, "DBUS_SESSION_BUS_ADDRESS="+address)
	d.run("openbox")
	var err error
	if d.bus, err = dbus.Connect(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.bus.Close() })
	if err := d.bus.Export(notifications{d}, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.bus.RequestName("org.freedesktop.Notifications", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return d
}

// panelConfig is a panel with nothing but the tray.
const panelConfig = `<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="length" type="uint" value="100"/>
      <property name="size" type="uint" value="28"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/></property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="systray"><property name="square-icons" type="bool" value="true"/></property>
  </property>
</channel>
`

// notifications is the desktop's service that shows them.
type notifications struct{ d *desktop }

// Notify implements org.freedesktop.Notifications.
func (n notifications) Notify(_ string, _ uint32, _, title, text string, _ []string, hints map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.notices = append(n.d.notices, fmt.Sprintf("%s | %s | urgency %v, picture %v", title, text, hints["urgency"].Value(), hints["image-data"].Value() != nil))
	return 7, nil
}

func (d *desktop) told() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.notices, "\n")
}

func (d *desktop) write(file, text string) {
	d.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
		d.t.Fatal(err)
	}
}

// run starts a program that lives as long as the test; stop ends it before.
func (d *desktop) run(name string, args ...string) (cmd *exec.Cmd, stop func()) {
	d.t.Helper()
	cmd = exec.Command(name, args...)
	return cmd, d.start(cmd)
}

func (d *desktop) start(cmd *exec.Cmd) (stop func()) {
	d.t.Helper()
	cmd.Env = d.env
	var said bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if d.t.Failed() {
			d.t.Logf("%s said:\n%s", cmd.Path, said.String())
		}
	})
	d.t.Cleanup(stop)
	return stop
}

// saying starts a program and returns the line that it writes to its third descriptor.
func (d *desktop) saying(name string, args ...string) string {
	d.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(name, args...)
	cmd.ExtraFiles = []*os.File{w}
	d.start(cmd)
	w.Close()
	r.SetReadDeadline(time.Now().Add(patience))
	line := make([]byte, 0, 256)
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			d.t.Fatalf("%s: %v", name, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

// until waits for a condition; f says what it sees.
func (d *desktop) until(what string, f func() (seen any, ok bool)) {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		seen, ok := f()
		if ok {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%s does not come; there is: %v", what, seen)
		}
	}
}

// host waits until the panel shows tray icons, or does not any more.
func (d *desktop) host(want bool) {
	d.t.Helper()
	d.until("tray host "+strconv.FormatBool(want), func() (any, bool) {
		var has bool
		err := d.bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, watcherName).Store(&has)
		return err, err == nil && has == want
	})
}

// item waits until the tray with a process id is shown.
func (d *desktop) item(pid int) *item {
	d.t.Helper()
	name := fmt.Sprintf("org.kde.StatusNotifierItem-%d-1", pid)
	d.until("tray icon", func() (any, bool) {
		var owner string
		if err := d.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, name).Store(&owner); err != nil {
			return err, false
		}
		v, err := d.bus.Object(watcherName, "/StatusNotifierWatcher").GetProperty(watcherName + ".RegisteredStatusNotifierItems")
		if err != nil {
			return err, false
		}
		list, _ := v.Value().([]string)
		return list, slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, owner) || strings.HasPrefix(s, name) })
	})
	return &item{d, name}
}

// screenshot leaves a picture of the screen, once the panel shows an icon: its main
// colour, in the panel.
func (d *desktop) screenshot(name, icon string) {
	d.t.Helper()
	body := mainColour(decode(d.t, icons.Of(icon)[0]))
	d.until(icon+" on the screen", func() (any, bool) {
		shown, near := d.grab(name), 0
		for at := range 28 * 28 {
			c := shown.NRGBAAt(at%28, at/28)
			if max(apart(c.R, body.R), apart(c.G, body.G), apart(c.B, body.B)) < 12 {
				near++
			}
		}
		return near, near > 20
	})
}

// grab leaves a picture of the screen as it is, and returns it.
func (d *desktop) grab(name string) *image.NRGBA {
	d.t.Helper()
	file := filepath.Join(d.artefacts, "tray-"+name+".png")
	cmd := exec.Command("import", "-window", "root", file)
	cmd.Env = d.env
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	return decode(d.t, data)
}

func apart(a, b uint8) int { return max(int(a)-int(b), int(b)-int(a)) }

func decode(t *testing.T, data []byte) *image.NRGBA {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewNRGBA(img.Bounds())
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Src)
	return out
}

// mainColour is the most frequent one that is not transparent.
func mainColour(img *image.NRGBA) color.NRGBA {
	count := map[color.NRGBA]int{}
	var most color.NRGBA
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			if c := img.NRGBAAt(x, y); c.A == 255 {
				if count[c]++; count[c] > count[most] {
					most = c
				}
			}
		}
	}
	return most
}

// note leaves a figure.
func (d *desktop) note(format string, args ...any) {
	d.t.Helper()
	line := fmt.Sprintf(format, args...)
	d.t.Log(line)
	f, err := os.OpenFile(filepath.Join(d.artefacts, "tray-figures.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// item is an icon in the panel, as the panel reads it.
type item struct {
	d    *desktop
	name string
}

func (i *item) property(name string, to any) error {
	v, err := i.d.bus.Object(i.name, "/StatusNotifierItem").GetProperty(itemFace + "." + name)
	if err != nil {
		return err
	}
	return dbus.Store([]any{v.Value()}, to)
}

func (i *item) tooltip() string {
	var tip struct {
		Name        string
		Icons       []pixels
		Title, Text string
	}
	if err := i.property("ToolTip", &tip); err != nil {
		return err.Error()
	}
	return tip.Title
}

type pixels struct {
	W, H int32
	ARGB []byte
}

// icon is the name of the picture that is shown, the same in all sizes.
func (i *item) icon() string {
	var list []pixels
	if err := i.property("IconPixmap", &list); err != nil {
		return err.Error()
	}
	for _, name := range append(names(), tray.IconNotRunning) {
		if slices.EqualFunc(icons.Of(name), list, func(data []byte, shown pixels) bool {
			want := decode(i.d.t, data)
			var argb []byte
			for p := range slices.Chunk(want.Pix, 4) {
				argb = append(argb, p[3], p[0], p[1], p[2])
			}
			return bytes.Equal(argb, shown.ARGB) && int(shown.W) == want.Rect.Dx()
		}) {
			return name
		}
	}
	return "another picture"
}

func names() []string {
	var list []string
	for _, s := range localapi.States() {
		list = append(list, string(s))
	}
	return list
}

// entry is an entry of the menu, as the panel reads it.
type entry struct {
	id      int32
	label   string
	enabled bool
	checked bool
}

type layout struct {
	ID    int32
	Props map[string]dbus.Variant
	Sub   []dbus.Variant
}

// menu reads the whole menu.
func (i *item) menu() []entry {
	var revision uint32
	var root layout
	if err := i.d.bus.Object(i.name, "/StatusNotifierItem/menu").Call("com.canonical.dbusmenu.GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root); err != nil {
		return []entry{{label: err.Error()}}
	}
	var list []entry
	var read func(l layout)
	read = func(l layout) {
		for _, v := range l.Sub {
			var sub layout
			if err := dbus.Store([]any{v.Value()}, &sub); err != nil {
				list = append(list, entry{label: err.Error()})
				return
			}
			e := entry{id: sub.ID}
			e.label, _ = sub.Props["label"].Value().(string)
			e.label = strings.ReplaceAll(e.label, "__", "_")
			e.enabled, _ = sub.Props["enabled"].Value().(bool)
			state, _ := sub.Props["toggle-state"].Value().(int32)
			e.checked = state == 1
			list = append(list, e)
			read(sub)
		}
	}
	read(root)
	return list
}

// expected is a menu as menu reads it.
func expected(items []tray.Item) []entry {
	var list []entry
	for _, it := range items {
		list = append(list, entry{label: it.Label, enabled: it.Enabled, checked: it.Checked})
		list = append(list, expected(it.Items)...)
	}
	return list
}

// click chooses an entry of the menu as the panel does.
func (i *item) click(label string) {
	i.d.t.Helper()
	var id int32
	i.d.until(label+", to be chosen", func() (any, bool) {
		menu := i.menu() // the first time its top only
		at := slices.IndexFunc(menu, func(e entry) bool { return e.label == label && e.enabled })
		if at < 0 {
			return menu, false
		}
		id = menu[at].id
		return nil, true
	})
	err := i.d.bus.Object(i.name, "/StatusNotifierItem/menu").Call("com.canonical.dbusmenu.Event", 0, id, "clicked", dbus.MakeVariant(0), uint32(0)).Err
	if err != nil {
		i.d.t.Fatal(err)
	}
}

// shows waits until what is shown is what follows from the agent's status.
func (i *item) shows(in tray.Input) {
	i.d.t.Helper()
	i.d.until(string(in.Status.State), func() (any, bool) {
		icon, tip, menu := i.icon(), i.tooltip(), i.menu()
		for n := range menu {
			menu[n].id = 0
		}
		// The age of what is safe goes on.
		for back := range 15 {
			want := tray.Render(in, time.Now().Add(-time.Duration(back)*time.Second))
			if icon == want.Icon && tip == want.Tooltip && slices.Equal(menu, expected(want.Menu)) {
				return nil, true
			}
		}
		want := tray.Render(in, time.Now())
		return fmt.Sprintf("%s, %q, %v\nwant %s, %q, %v", icon, tip, menu, want.Icon, want.Tooltip, expected(want.Menu)), false
	})
}

// TestTrayInAPanel shows every state in a real panel, and does what is chosen.
func TestTrayInAPanel(t *testing.T) {
	d := newDesktop(t)
	_, stopPanel := d.run("xfce4-panel", "--disable-wm-check")
	d.host(true)

	// The agent's program beside the tray writes down how it was called.
	dir, state := t.TempDir(), t.TempDir()
	called := filepath.Join(dir, "called")
	d.write(filepath.Join(dir, "agent"), "#!/bin/sh\necho \"$@\" >>"+called+"\n")
	data, err := os.ReadFile(program("tray"))
	if err != nil {
		t.Fatal(err)
	}
	d.write(filepath.Join(dir, "tray"), string(data))
	cmd, _ := d.run(filepath.Join(dir, "tray"), "--state", state, "--config", dir)
	it := d.item(cmd.Process.Pid)
	it.shows(tray.Input{})
	d.screenshot("not_running", tray.IconNotRunning)

	safe := time.Now().Add(-12 * time.Second)
	until := time.Now().Add(time.Hour)
	s := newScripted()
	first := localapi.Status{State: localapi.Protected, LastSafe: &safe, Protected: 1000}
	s.set(first)
	stop := s.serve(t, state)
	it.shows(tray.Input{Reach: tray.Answers, Status: first})

	signals := make(chan *dbus.Signal, 100)
	if err := d.bus.AddMatchSignal(dbus.WithMatchInterface(itemFace), dbus.WithMatchMember("NewIcon")); err != nil {
		t.Fatal(err)
	}
	d.bus.Signal(signals)
	var took []time.Duration
	for _, st := range []localapi.Status{
		{State: localapi.NotSetUp},
		{State: localapi.Alarm, LastSafe: &safe, Problems: 1, Reason: "the server has lost backups that it had acknowledged"},
		{State: localapi.Failing, LastSafe: &safe, Problems: 1, Waiting: 3, Reason: "the server has no room"},
		{State: localapi.Attention, LastSafe: &safe, Problems: 3, Reason: "a_b & c"},
		{State: localapi.Offline, LastSafe: &safe, Waiting: 12, Reason: "no route to host"},
		{State: localapi.Paused, LastSafe: &safe, PausedBy: localapi.PausedByYou, PausedUntil: &until, Waiting: 2},
		{State: localapi.FirstPass, Waiting: 52000},
		{State: localapi.Working, LastSafe: &safe, Waiting: 3},
		{State: localapi.Protected, LastSafe: &safe},
		{State: localapi.Paused, LastSafe: &safe, PausedBy: localapi.PausedByYou},
	} {
		for len(signals) > 0 {
			<-signals
		}
		began := time.Now()
		s.set(st)
		select {
		case <-signals:
			took = append(took, time.Since(began))
		case <-time.After(patience):
			t.Fatalf("no new icon for %s", st.State)
		}
		it.shows(tray.Input{Reach: tray.Answers, Status: st})
		d.screenshot(string(st.State), string(st.State))
	}
	slices.Sort(took)
	d.note("status to new icon: median %v, most %v of %d", took[len(took)/2].Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond), len(took))

	// It has asked to be set up, once and never again.
	asked := "dashboard --config " + dir + " --state " + state + "\n"
	d.until("a welcome", func() (any, bool) {
		data, _ := os.ReadFile(called)
		return string(data), strings.Count(string(data), asked) == 1
	})
	s.set(localapi.Status{State: localapi.NotSetUp})
	it.shows(tray.Input{Reach: tray.Answers, Status: localapi.Status{State: localapi.NotSetUp}})
	if data, err := os.ReadFile(called); err != nil || strings.Count(string(data), asked) != 1 {
		t.Errorf("called: %s, %v", data, err)
	}

	// What is chosen is done.
	paused := localapi.Status{State: localapi.Paused, LastSafe: &safe, PausedBy: localapi.PausedByYou}
	s.set(paused)
	it.shows(tray.Input{Reach: tray.Answers, Status: paused})
	it.click("For 1 hour")
	d.until("a pause", func() (any, bool) { return s.done(), s.done() == "pause-1h" })
	it.click("Until tomorrow")
	d.until("a pause", func() (any, bool) { return s.done(), strings.HasSuffix(s.done(), "pause-until-07:00") })
	it.click("Until I resume")
	d.until("a pause", func() (any, bool) { return s.done(), strings.HasSuffix(s.done(), " pause") })
	it.click("Resume")
	d.until("the end of a pause", func() (any, bool) { return s.done(), strings.HasSuffix(s.done(), " resume") })
	attention := localapi.Status{State: localapi.Attention, Problems: 2}
	s.set(attention)
	it.shows(tray.Input{Reach: tray.Answers, Status: attention})
	it.click("Back up now")
	d.until("a backup", func() (any, bool) { return s.done(), strings.HasSuffix(s.done(), " backup[]") })
	for label, args := range map[string]string{
		"Restore a file…": "--page restore ", "Rewind a folder…": "--page rewind ", "2 problems…": "--page problems ",
		"Folders…": "--page folders ", "Recovery kit…": "--page kit ", "About": "--page settings ", "Open dashboard": "",
	} {
		it.click(label)
		want := "dashboard " + args + "--config " + dir + " --state " + state + "\n"
		d.until(label, func() (any, bool) {
			data, _ := os.ReadFile(called)
			return string(data), strings.Contains(string(data), want)
		})
	}

	// A person with mouse and keyboard pauses for an hour.
	d.menuByMouse("menu")
	d.until("a pause", func() (any, bool) { return s.done(), strings.HasSuffix(s.done(), " pause-1h") })

	// The icon comes back with another panel, and another agent.
	stopPanel()
	d.host(false)
	d.run("xfce4-panel", "--disable-wm-check")
	d.host(true)
	it = d.item(cmd.Process.Pid)
	it.shows(tray.Input{Reach: tray.Answers, Status: attention})
	d.screenshot("panel-restarted", "attention")
	stop()
	it.shows(tray.Input{})
	s.serve(t, state)
	it.shows(tray.Input{Reach: tray.Answers, Status: attention})

	told := d.told()
	for _, want := range []string{
		"Backstay: Alarm | Something unusual happened to what is kept for you. Look at it before anything else. the server has lost backups that it had acknowledged | urgency 2, picture true",
		"Backstay: Backing up | What was wrong is over.", "Backstay: Attention | Some of your files are not protected. | urgency 1",
	} {
		if !strings.Contains(told, want) && !strings.Contains(told, strings.Replace(want, "Backing up", "First backup", 1)) {
			t.Errorf("notices:\n%s\nlack: %s", told, want)
		}
	}
	d.note("tray resident: %d KiB", resident(t, cmd.Process.Pid))

	// A second tray does not start; the icon goes when a person says so.
	second := exec.Command(filepath.Join(dir, "tray"), "--state", state)
	second.Env = d.env
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "another tray is running") {
		t.Errorf("a second tray: %v, %s", err, out)
	}
	it.click("Quit icon (protection goes on)")
	if err := cmd.Wait(); err != nil {
		t.Errorf("quit: %v", err)
	}
}

// menuByMouse clicks on the icon, which is the panel's first, goes to the first entry
// below Pause and chooses it.
func (d *desktop) menuByMouse(name string) {
	d.t.Helper()
	do := func(args ...string) {
		d.t.Helper()
		cmd := exec.Command("xdotool", args...)
		cmd.Env = d.env
		if out, err := cmd.CombinedOutput(); err != nil {
			d.t.Fatalf("%v: %s", err, out)
		}
	}
	// The screen is black where there is no window.
	window := func(x, y int) {
		d.t.Helper()
		d.until("a menu", func() (any, bool) { c := d.grab(name).NRGBAAt(x, y); return c, c.R > 100 })
	}
	do("mousemove", "14", "14", "click", "1")
	window(200, 60)
	do("key", "--delay", "100", "Down", "Down", "Down", "Down", "Right")
	window(440, 200)
	do("key", "Return")
}

var residentLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// resident is the memory of a process in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := residentLine.FindSubmatch(data)
	if m == nil {
		t.Fatalf("%s", data)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTrayAndAgent pauses a real agent with a click in a real panel.
func TestTrayAndAgent(t *testing.T) {
	d := newDesktop(t)
	d.run("xfce4-panel", "--disable-wm-check")
	d.host(true)
	work := t.TempDir()
	docs, conf, state := filepath.Join(work, "docs"), filepath.Join(work, "c"), filepath.Join(work, "s")
	d.write(filepath.Join(state, "tray.welcomed"), "") // no browser here
	d.write(filepath.Join(docs, "a.txt"), "one")
	server := start(t, work, d.env, "server", "run", "--listen", "127.0.0.1:0", "--metrics", "off", "--data", filepath.Join(work, "data"))
	if _, err := server.wait(`^listening on (\S+),`); err != nil {
		t.Fatal(err)
	}
	agent := func(args ...string) string {
		t.Helper()
		name := "agent"
		if args[0] == "invite" {
			name = "server"
		}
		cmd := exec.Command(program(name), args...)
		cmd.Dir, cmd.Env = work, d.env
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	invitation := regexp.MustCompile(`"invitation":"([^"]+)"`).FindStringSubmatch(agent("invite", "--json", "--data", filepath.Join(work, "data")))

	cmd, _ := d.run(program("tray"), "--state", state, "--config", conf)
	it := d.item(cmd.Process.Pid)
	icon := func(want string) {
		t.Helper()
		d.until(want, func() (any, bool) { got := it.icon(); return got, got == want })
	}
	icon("not_set_up")
	agent("join", invitation[1], docs, "--config", conf, "--state", state, "--phrase-file", filepath.Join(work, "kit"))
	running := start(t, work, d.env, "agent", "run", "--config", conf, "--state", state)
	icon("protected")
	it.click("Until I resume")
	icon("paused")
	if got := agent("status", "--state", state); !strings.HasPrefix(got, "Paused · ") {
		t.Errorf("status: %s", got)
	}
	d.write(filepath.Join(docs, "b.txt"), "two")
	d.until("what waits", func() (any, bool) { got := it.tooltip(); return got, strings.Contains(got, " waiting · ") })
	it.click("Resume")
	icon("protected")
	if err := os.Rename(docs, docs+" gone"); err != nil {
		t.Fatal(err)
	}
	icon("attention")
	if err := os.Rename(docs+" gone", docs); err != nil {
		t.Fatal(err)
	}
	icon("protected")
	running.kill()
	icon(tray.IconNotRunning)
	start(t, work, d.env, "agent", "run", "--config", conf, "--state", state)
	icon("protected")
	d.note("tray resident beside a real agent: %d KiB", resident(t, cmd.Process.Pid))
}

// TestTrayWithoutADesktop says what is missing, and starts nothing by itself.
func TestTrayWithoutADesktop(t *testing.T) {
	d := newDesktop(t)
	state := t.TempDir()
	d.write(filepath.Join(state, "tray.welcomed"), "")
	cmd := exec.Command(program("tray"), "--state", state)
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	d.start(cmd)
	w.Close()
	out.SetReadDeadline(time.Now().Add(patience))
	said := make([]byte, 4096)
	n, _ := out.Read(said)
	if want := "tray: this desktop shows no tray icons. The icon will appear when there is a tray; until then everything is shown by: agent dashboard\n"; string(said[:n]) != want {
		t.Errorf("without a host: %q", said[:n])
	}
	d.until("a notice", func() (any, bool) {
		return d.told(), strings.HasPrefix(d.told(), "Backstay: this desktop shows no tray icons | ")
	})
	d.run("xfce4-panel", "--disable-wm-check")
	d.host(true)
	d.item(cmd.Process.Pid)

	bare := exec.Command(program("tray"), "--state", t.TempDir())
	bare.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "XDG_RUNTIME_DIR=" + t.TempDir()}
	if out, err := bare.CombinedOutput(); err == nil || string(out) != "tray: there is no desktop session here: no D-Bus session bus, so no tray; the same is shown by: agent dashboard\n" {
		t.Errorf("without a session: %v, %s", err, out)
	}
}
