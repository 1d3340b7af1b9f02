package cmd_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// accessibility returns what is wrong with the page that is shown.
//
//go:embed testdata/dashboard/check.js
var accessibility string

// browser is a page in a browser without a window.
type browser struct {
	*lab
	ctx context.Context
	// shots is where pictures of the pages go.
	shots string
}

// newBrowser starts the browser.
func newBrowser(l *lab) *browser {
	l.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			l.Fatal("no Chromium is installed")
		}
		l.Skip("no Chromium is installed")
	}
	b := &browser{lab: l, shots: os.Getenv("BACKSTAY_ARTEFACTS")}
	if b.shots == "" {
		b.shots = l.TempDir()
	} else if err := os.MkdirAll(b.shots, 0o755); err != nil {
		l.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.WindowSize(1280, 900), chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("lang", "en"))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	l.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*patience)
	l.Cleanup(cancel)
	b.ctx, cancel = chromedp.NewContext(ctx)
	l.Cleanup(cancel)
	return b
}

// do runs actions, each within patience.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	for i, a := range actions {
		done := make(chan error, 1)
		go func() { done <- chromedp.Do(b.ctx, a) }()
		select {
		case err := <-done:
			if err != nil {
				b.broken("action %d: %v", i, err)
			}
		case <-time.After(patience):
			b.broken("action %d does not end", i)
		}
	}
}

// broken ends the test with a picture of where it broke.
func (b *browser) broken(format string, args ...any) {
	b.Helper()
	b.shot("broken")
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`)) // what there is
	b.Fatalf(format+"\n%s", append(args, text)...)
}

// shot takes a picture of the page.
func (b *browser) shot(name string) {
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if data, err := chromedp.Run(ctx, chromedp.FullScreenshot(100)); err == nil {
		err = os.WriteFile(filepath.Join(b.shots, name+".png"), data, 0o644)
		if err != nil {
			b.Error(err)
		}
	}
}

// eval returns the value of an expression in the page.
func eval[T any](b *browser, expression string) (value T) {
	b.Helper()
	b.do(func(ctx context.Context, t *chromedp.Target) (_ chromedp.Void, err error) {
		value, err = chromedp.Evaluate[T](expression)(ctx, t)
		return
	})
	return value
}

// run runs a statement in the page.
func (b *browser) run(statement string) {
	b.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](statement))
}

// until waits for an expression to be true.
func (b *browser) until(expression string) {
	b.Helper()
	deadline := time.Now().Add(patience)
	for {
		// Between two pages there is nothing to ask.
		if is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")")); err == nil && is {
			return
		}
		if time.Now().After(deadline) {
			b.broken("never true: %s", expression)
		}
		b.do(chromedp.Sleep(50 * time.Millisecond))
	}
}

// shows waits for a text on the page.
func (b *browser) shows(text string) {
	b.Helper()
	b.until(fmt.Sprintf("document.body.innerText.includes(%s)", quoted(text)))
}

func quoted(text string) string {
	q, _ := json.Marshal(text) // cannot fail
	return string(q)
}

// control is an expression for the control with an accessible name.
func control(name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("button, a[href], summary")].filter((e) => e.checkVisibility() && (!document.querySelector("dialog[open]") || e.closest("dialog[open]"))).find((e) => (e.getAttribute("aria-label") || e.textContent).trim() === %s)`, quoted(name))
}

// press presses the control with a name, as soon as it is there.
func (b *browser) press(name string) {
	b.Helper()
	b.until(control(name) + " && !" + control(name) + ".disabled")
	b.run(control(name) + ".click()")
}

// dark switches between the two sets of colours.
func (b *browser) dark(on bool) {
	b.Helper()
	value := map[bool]string{true: "dark", false: "light"}[on]
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}})
		return err
	}))
}

// size sets the window's.
func (b *browser) size(width, height int64) {
	b.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// accessible checks the page as it is, in both sets of colours and in a narrow window,
// and takes pictures of it.
func (b *browser) accessible(name string) {
	b.Helper()
	for _, mode := range []struct {
		name  string
		dark  bool
		width int64
	}{{"light", false, 1280}, {"dark", true, 1280}, {"narrow", false, 380}} {
		b.dark(mode.dark)
		b.size(mode.width, 900)
		for _, f := range eval[[]string](b, accessibility) {
			b.Errorf("%s, %s: %s", name, mode.name, f)
		}
		b.shot(name + "-" + mode.name)
	}
	b.dark(false)
	b.size(1280, 900)
}

// tab presses Tab until the control with a name has the focus.
func (b *browser) tab(name string) {
	b.Helper()
	for range 200 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if eval[bool](b, fmt.Sprintf(`(document.activeElement.labels?.[0]?.textContent || document.activeElement.getAttribute("aria-label") || document.activeElement.textContent).trim() === %s`, quoted(name))) {
			return
		}
	}
	b.broken("Tab never reaches %q", name)
}

// key presses keys where the focus is.
func (b *browser) key(keys string) {
	b.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// dashboard starts the dashboard of the lab's machine and returns its address.
func (l *lab) dashboard(flags ...string) (*process, string) {
	l.Helper()
	p := start(l, l.dir, l.homeEnv(), "agent", append([]string{"dashboard", "--no-browser", "--config", l.conf, "--state", l.state}, flags...)...)
	m, err := p.wait(`(http://127\.0\.0\.1:\d+/enter\S+)`)
	if err != nil {
		l.Fatal(err)
	}
	return p, m[1]
}

// homeEnv is the environment of a person whose folders are the lab's.
func (l *lab) homeEnv() []string {
	env := []string{"HOME=" + l.dir, "USERPROFILE=" + l.dir, "XDG_DOCUMENTS_DIR=" + l.docs}
	for _, name := range []string{"CONFIG", "STATE", "DATA", "CACHE", "RUNTIME"} {
		env = append(env, "XDG_"+name+"_HOME="+filepath.Join(l.dir, "home-"+strings.ToLower(name)))
	}
	return append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "XDG_") || strings.HasPrefix(e, "HOME=") }), env...)
}

// invite makes an invitation.
func (l *lab) invite() string {
	l.Helper()
	var made struct{ Invitation string }
	if err := json.Unmarshal([]byte(l.must(0, "server", "invite", "--json", "--data", l.data)), &made); err != nil {
		l.Fatal(err)
	}
	return made.Invitation
}

// await waits until the agent's status is one that is wanted.
func (l *lab) await(what string, is func(status) bool) status {
	l.Helper()
	deadline := time.Now().Add(patience)
	for {
		var st status
		cmd := exec.Command(program("agent"), "status", "--json", "--config", l.conf, "--state", l.state)
		if out, err := cmd.Output(); err == nil {
			if err := json.Unmarshal(out, &st); err != nil {
				l.Fatal(err)
			}
			if is(st) {
				return st
			}
		}
		if time.Now().After(deadline) {
			l.Fatalf("the agent is never %s: %+v", what, st)
		}
	}
}

type status struct {
	State     string
	Protected int
	Waiting   int
	Problems  int
	LastSafe  *time.Time `json:"last_safe"`
}

// A person sets up a machine with an invitation: from nothing to the first safe file,
// and to a recovery kit that is put away.
func TestDashboardFirstRun(t *testing.T) {
	l := newLab(t)
	b := newBrowser(l)
	l.serve()
	for n := range 40 {
		l.write(fmt.Sprintf("letters/%d.txt", n), strings.Repeat("dear ", 100*n))
	}
	_, address := l.dashboard()
	invitation := l.invite()
	b.do(chromedp.Navigate(address))
	b.shows("Set up Backstay")
	// A link with an invitation fills it in; a second process only opens the address.
	second, linked := l.dashboard("--invitation", invitation)
	if code, err := second.exit(); code != 0 || err != nil {
		t.Errorf("the second process ends with %d, %v", code, err)
	}
	b.do(chromedp.Navigate(linked))
	b.until("document.querySelector('textarea')?.value === " + quoted(invitation))
	b.do(chromedp.Navigate(strings.SplitN(address, "/enter", 2)[0] + "/welcome"))
	b.until(`document.querySelector("textarea")?.value === ""`)
	b.until(`!document.body.innerText.includes("counting")`)
	b.accessible("welcome")

	// What starts the agent, as soon as there is something to protect.
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(l.conf, "vault.info")); err == nil {
				break
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		cmd := exec.CommandContext(t.Context(), program("agent"), "run", "--config", l.conf, "--state", l.state)
		_ = cmd.Run() // ended with the test
	}()

	began, actions := time.Now(), 0
	b.do(chromedp.SendKeys("textarea", invitation))
	actions++
	b.press("Start protecting")
	actions++
	l.await("safe in part", func(st status) bool { return st.LastSafe != nil })
	t.Logf("from an invitation to the first safe file: %d actions, %v", actions, time.Since(began).Round(time.Millisecond))
	if actions > 3 {
		t.Errorf("%d actions until the first file is safe, want 3 at most", actions)
	}

	b.shows("Your 24 words")
	b.accessible("kit")
	l.await("all safe", func(st status) bool { return st.Waiting == 0 && st.Protected >= 40 })
	if st := l.await("asking for the kit", func(st status) bool { return st.Waiting == 0 }); st.State != "attention" || st.Problems != 1 {
		t.Errorf("with the kit not put away the status is %+v", st)
	}
	kit := filepath.Join(l.conf, "kit.pending")
	kept, err := os.ReadFile(kit)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(kit); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kit on disk: %v, %v", info, err)
	}
	// What was shown is what gets everything back.
	shown := eval[[]string](b, `[...document.querySelectorAll(".words li")].map((e) => e.textContent)`)
	if !strings.Contains(string(kept), strings.Join(shown, " ")) {
		t.Error("the words shown are not those of the kit")
	}
	b.press("Later")
	b.shows("Your recovery kit is not put away.")
	b.shows("The recovery kit is not put away: if this machine is lost")
	b.accessible("overview-kit")
	b.press("Open the recovery kit")
	b.press("I have put it away")
	b.shows("Type these two words")
	b.accessible("kit-asked")
	asked := eval[[]string](b, `[...document.querySelectorAll("form label")].map((e) => e.textContent)`)
	answer := func(word func(int) string) {
		t.Helper()
		for i, label := range asked {
			var n int
			if _, err := fmt.Sscanf(label, "Word %d", &n); err != nil {
				t.Fatalf("%q: %v", label, err)
			}
			b.do(chromedp.SetValue(fmt.Sprintf("form .field:nth-of-type(%d) input", i+1), word(n)))
		}
		b.press("Confirm")
	}
	answer(func(n int) string { return shown[n%len(shown)] })
	b.shows("is another one")
	if _, err := os.Stat(kit); err != nil {
		t.Fatalf("wrong words end it: %v", err)
	}
	answer(func(n int) string { return " " + strings.ToUpper(shown[n-1]) })
	b.shows("Everything is safe on the server.")
	if _, err := os.Stat(kit); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the kit is still on this machine: %v", err)
	}
	l.await("protected", func(st status) bool { return st.State == "protected" })
	b.shows("Safe lately")
	b.accessible("overview")

	// With what was shown, on an empty machine.
	if err := os.WriteFile(l.kit, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "back")
	l.must(0, "agent", "recover", "--phrase-file", l.kit, "--to", to)
	restored, err := filepath.Glob(filepath.Join(to, "*", strings.TrimPrefix(l.docs, filepath.VolumeName(l.docs)), "letters", "39.txt"))
	if err != nil || len(restored) != 1 {
		t.Errorf("recovered %v, %v", restored, err)
	}
}

// A second machine of an account is let in by the first.
func TestDashboardSecondMachine(t *testing.T) {
	l, m := newLab(t), newLab(t)
	b := newBrowser(l)
	l.serve()
	l.write("a.txt", "a")
	l.join()
	m.write("b.txt", "b")
	m.data = l.data
	_, first := l.dashboard("--page", "settings")
	_, second := m.dashboard()
	b.do(chromedp.Navigate(second))
	b.shows("Set up Backstay")
	b.do(chromedp.SendKeys("textarea", m.invite()))
	b.press("Start protecting")
	b.shows("Code from the other machine")
	b.accessible("pairing")
	b.do(chromedp.SendKeys("main input", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"))
	b.press("Continue")
	b.shows("Waiting for the other machine")
	b.do(chromedp.SendKeys("main input", "no code"))
	b.press("Continue")
	b.until(`document.querySelector("[role=alert]")`)

	b.do(chromedp.Navigate(first))
	b.press("Show a code")
	b.until(`document.querySelector(".big")`)
	code := eval[string](b, `document.querySelector(".big").textContent`)

	b.do(chromedp.Navigate(strings.SplitN(second, "/enter", 2)[0] + "/welcome"))
	b.shows("Code from the other machine")
	b.do(chromedp.SendKeys("main input", code))
	b.press("Continue")
	b.shows("The agent is not running")
	if _, err := os.Stat(filepath.Join(m.conf, "kit.pending")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a kit for a vault that has one: %v", err)
	}
	b.do(chromedp.Navigate(strings.SplitN(first, "/enter", 2)[0] + "/settings"))
	b.until(`document.querySelectorAll(".card li strong").length === 2`)
	b.do(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("button")].find((e) => e.textContent === "Shut out…").click()`))
	b.press("Shut it out")
	b.shows("shut out")
	m.agent(4, "devices")
}

// picture writes a picture below docs.
func (l *lab) picture(name string) {
	l.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 320, 200))
	for x := range 320 {
		for y := range 200 {
			m.Set(x, y, color.RGBA{uint8(x / 2), uint8(60 + y/2), 140, 255})
		}
	}
	f, err := os.Create(filepath.Join(l.docs, name))
	if err == nil {
		err = errors.Join(png.Encode(f, m), f.Close())
	}
	if err != nil {
		l.Fatal(err)
	}
}

// A person looks around, finds a file, moves a folder back in time, and undoes it.
func TestDashboardFiles(t *testing.T) {
	l := newLab(t)
	b := newBrowser(l)
	l.serve()
	l.write("report.txt", "the first draft\n")
	l.write("notes/plan.txt", "plan A\n")
	l.write("notes/evil.html", "<script>document.title = 'owned'</script>")
	l.picture("sea.png")
	l.join()
	agent := l.watch()
	l.await("protected", func(st status) bool { return st.State == "protected" && st.Protected >= 5 })
	then := *l.await("safe", func(st status) bool { return st.LastSafe != nil }).LastSafe
	// A person names whole seconds: what follows comes after the next.
	moment := then.Truncate(time.Second).Add(time.Second)
	for time.Now().Before(moment.Add(100 * time.Millisecond)) {
		b.do(chromedp.Sleep(50 * time.Millisecond))
	}
	l.write("report.txt", "the second draft, much longer\n")
	l.write("new.txt", "came later\n")
	if err := os.Remove(filepath.Join(l.docs, "notes", "plan.txt")); err != nil {
		t.Fatal(err)
	}
	// listed waits until the server has been told what there is in a folder.
	listed := func(name string, is func(string) bool) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for out := l.agent(0, "ls", filepath.Join(l.docs, name), "--json"); !is(out); out = l.agent(0, "ls", filepath.Join(l.docs, name), "--json") {
			if time.Now().After(deadline) {
				t.Fatal(out)
			}
		}
	}
	listed("", func(out string) bool { return strings.Contains(out, "new.txt") })
	listed("notes", func(out string) bool { return !strings.Contains(out, "plan.txt") })
	l.await("protected again", func(st status) bool { return st.State == "protected" && st.LastSafe.After(then) })

	_, address := l.dashboard("--page", "files")
	b.do(chromedp.Navigate(address))
	b.press(l.docs)
	b.shows("sea.png")
	b.accessible("files")

	// The versions of a file; a picture and a text are shown, a page is not run.
	b.press("Versions of sea.png")
	b.shows("Versions of sea.png")
	b.until(`[...document.querySelectorAll("button")].some((e) => e.textContent === "Preview")`)
	b.run(`[...document.querySelectorAll("button")].find((e) => e.textContent === "Preview").click()`)
	b.until(`document.querySelector("img.picture")?.naturalWidth === 320 && document.querySelector("img.picture").width > 100`)
	b.accessible("versions")
	b.press("All folders")
	b.press(l.docs)
	b.press("notes")
	b.press("Versions of evil.html")
	b.until(`[...document.querySelectorAll("button")].some((e) => e.textContent === "Preview")`)
	b.run(`[...document.querySelectorAll("button")].find((e) => e.textContent === "Preview").click()`)
	b.until(`document.querySelector("pre")?.textContent.includes("owned")`)
	if eval[string](b, `document.title`) == "owned" {
		t.Error("a page that was backed up ran")
	}

	// Search finds what was deleted, and it comes back beside.
	b.do(chromedp.SendKeys("input[type=search]", "PLAN"+kb.Enter))
	b.shows("1 match")
	b.accessible("search")
	b.press("plan.txt")
	b.until(`document.querySelectorAll("main ol.list li").length === 2`)
	b.until(`[...document.querySelectorAll("button")].some((e) => e.textContent === "Restore…")`)
	b.run(`[...document.querySelectorAll("button")].find((e) => e.textContent === "Restore…").click()`)
	b.shows("Beside what is there now")
	b.accessible("restore")
	b.press("Restore")
	b.shows("plan.txt is restored")
	beside, err := filepath.Glob(filepath.Join(l.docs, "notes", "plan.txt (restored *)"))
	if err != nil || len(beside) != 1 {
		t.Fatalf("beside: %v, %v", beside, err)
	}
	b.accessible("restored")
	if err := os.Remove(beside[0]); err != nil {
		t.Fatal(err)
	}
	b.press("Close the notice about plan.txt")
	listed("notes", func(out string) bool { return !strings.Contains(out, "restored") })

	// The timeline: what differs, back, and undone.
	b.press("Timeline")
	b.shows("What has happened since")
	b.until(`document.querySelector("input[type=range]")`)
	b.run(fmt.Sprintf(`(() => {
		const e = document.querySelector("input[type=datetime-local]"), d = new Date(%d);
		e.value = new Date(d - d.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
		e.dispatchEvent(new Event("change"));
	})()`, moment.UnixMilli()))
	b.until(`document.querySelector("main details summary")`)
	b.shows("1 changed")
	b.shows("1 deleted")
	b.shows("1 added")
	b.accessible("timeline")
	b.press("Move back to this moment…")
	b.press("Restore")
	b.shows("docs is restored")
	content := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(l.docs, filepath.FromSlash(name)))
		if want == "" {
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is there: %v", name, err)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	content("report.txt", "the first draft\n")
	content("notes/plan.txt", "plan A\n")
	content("new.txt", "")
	b.accessible("rewound")
	b.press("Undo: put them back")
	b.shows("was undone")
	content("report.txt", "the second draft, much longer\n")
	content("new.txt", "came later\n")
	agent.end()
}

// Problems, folders, rules and settings; and it works without an agent.
func TestDashboardRest(t *testing.T) {
	l := newLab(t)
	b := newBrowser(l)
	l.serve()
	l.write("a.txt", "a")
	l.write("b.tmp", "bbbb")
	l.write("build/c.o", "cccccc")
	l.lines = []string{filepath.Join(l.dir, "gone")}
	l.join()
	l.transfer()
	_, address := l.dashboard()
	b.do(chromedp.Navigate(address))
	b.shows("The agent is not running, so nothing new is protected.")
	b.shows("agent service install")
	b.accessible("not-running")
	l.watch()
	b.shows("Some of your files are not protected.")

	b.press("Problems1")
	b.shows("One thing needs you.")
	b.shows(filepath.Join(l.dir, "gone"))
	b.accessible("problems")

	b.press("Folders")
	b.shows("Protected folders")
	b.do(chromedp.SendKeys("main form input", "*.tmp"))
	b.shows("1 file would not be protected any more, 4 B")
	b.accessible("rules")
	b.press("Save the rule")
	b.until(`[...document.querySelectorAll("code")].some((e) => e.textContent === "*.tmp")`)
	b.do(chromedp.SendKeys("main form input", "[[:x:]]"))
	b.shows("not supported")
	b.press("Stop protecting " + filepath.Join(l.dir, "gone"))
	b.shows("Stop protecting this folder?")
	b.accessible("confirm")
	b.press("Stop protecting")
	b.until(`!document.querySelector("main").innerText.includes("gone")`)
	transfer, err := os.ReadFile(filepath.Join(l.conf, "transfer.info"))
	if err != nil || strings.Contains(string(transfer), "gone") || !strings.Contains(string(transfer), "\n!*.tmp\n") {
		t.Errorf("transfer.info: %q, %v", transfer, err)
	}
	b.press("Remove the rule *.tmp")
	b.shows("1 file would be protected again, 4 B")
	b.press("Cancel")
	l.await("protected", func(st status) bool { return st.State == "protected" })

	b.press("Settings")
	b.shows("Last change safe")
	b.press("Until I resume")
	l.await("paused", func(st status) bool { return st.State == "paused" })
	b.shows("Paused until you resume.")
	b.press("Resume")
	l.await("protected", func(st status) bool { return st.State == "protected" })
	b.press("Show a code")
	b.shows("Waiting for the other machine")
	b.accessible("settings")
	b.press("Cancel")
	b.press("Show")
	b.until(`document.querySelector("main pre").textContent.includes("watch limit") || document.querySelector("main pre").textContent.includes("round trip")`)
	text := eval[string](b, `document.querySelector("main pre").textContent`)
	if strings.Contains(text, l.docs) {
		t.Errorf("the diagnostics name a folder:\n%s", text)
	}
	b.accessible("diagnostics")
}

// Everything by the keyboard alone.
func TestDashboardKeyboard(t *testing.T) {
	l := newLab(t)
	b := newBrowser(l)
	l.serve()
	l.write("letter.txt", "dear you\n")
	l.join()
	l.watch()
	l.await("protected", func(st status) bool { return st.State == "protected" })
	_, address := l.dashboard()
	b.do(chromedp.Navigate(address))
	b.shows("Everything is safe on the server.")
	b.tab("Skip to the content")
	b.shot("skip")
	b.key(kb.Enter)
	b.until(`document.activeElement.id === "main" || location.hash === "#main"`)
	b.tab("Pause")
	b.key(kb.Enter)
	b.tab("For 1 hour")
	b.shot("pause")
	b.key(kb.Enter)
	l.await("paused", func(st status) bool { return st.State == "paused" })
	b.tab("Resume")
	b.key(" ")
	l.await("protected", func(st status) bool { return st.State == "protected" })
	b.tab("Files")
	b.key(kb.Enter)
	b.until(`document.activeElement.tagName === "H1" && document.activeElement.textContent === "Files"`)
	b.tab("Search")
	b.key("letter" + kb.Enter)
	b.shows("1 match")
	b.tab("letter.txt")
	b.key(kb.Enter)
	b.shows("Versions of letter.txt")
	b.until(`[...document.querySelectorAll("button")].some((e) => e.textContent === "Restore…")`)
	name := eval[string](b, `[...document.querySelectorAll("button")].find((e) => e.textContent === "Restore…").getAttribute("aria-label")`)
	b.tab(name)
	b.key(kb.Enter)
	b.until(`document.querySelector("dialog[open]")?.contains(document.activeElement)`)
	b.shot("dialog")
	b.key(kb.Escape)
	b.until(`!document.querySelector("dialog") && document.activeElement.textContent === "Restore…" && !document.activeElement.ariaBusy`)
	b.key(kb.Enter)
	b.until(`document.querySelector("dialog[open]")`)
	b.tab("Restore")
	b.shot("focus")
	b.key(kb.Enter)
	b.shows("letter.txt is restored")
	if beside, err := filepath.Glob(filepath.Join(l.docs, "letter.txt (restored *)")); err != nil || len(beside) != 1 {
		t.Errorf("beside: %v, %v", beside, err)
	}
	b.tab("Timeline")
	b.key(kb.Enter)
	b.until(`document.querySelector("input[type=range]")`)
	b.tab("Moment")
	b.key(kb.ArrowLeft)
	b.until(`document.querySelector("input[type=range]").value !== document.querySelector("input[type=range]").max || document.querySelector("input[type=range]").max === "0"`)
}

// From a navigation to the first text on the page, of a machine that is set up.
func BenchmarkDashboardFirstPaint(bench *testing.B) {
	l := newLab(bench)
	b := newBrowser(l)
	l.serve()
	l.write("a.txt", "a")
	l.join()
	l.watch()
	_, address := l.dashboard()
	b.do(chromedp.Navigate(address))
	b.shows("Last 14 days")
	page := strings.SplitN(address, "/enter", 2)[0] + "/"
	var sum float64
	bench.ResetTimer()
	for range bench.N {
		b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(page))
		b.until(`performance.getEntriesByName("first-contentful-paint").length`)
		sum += eval[float64](b, `performance.getEntriesByName("first-contentful-paint")[0].startTime`)
	}
	bench.ReportMetric(sum/float64(bench.N), "ms/paint")
	bench.ReportMetric(0, "ns/op")
}
