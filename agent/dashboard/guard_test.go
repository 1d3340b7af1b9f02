package dashboard

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backstay/agent/history"
	"backstay/agent/restore"
)

// page is a browser with a session.
type page struct {
	testing.TB
	*dashboard
	client *http.Client
	base   string
	key    string
}

// newPage starts a dashboard of empty folders and enters it.
func newPage(t testing.TB) *page {
	t.Helper()
	p := &page{TB: t}
	srv := httptest.NewUnstartedServer(nil)
	dir := t.TempDir()
	p.dashboard = newDashboard(t.Context(), Options{
		Folder: filepath.Join(dir, "config"), State: filepath.Join(dir, "state"), Version: "test",
		Tools: Tools{
			Find:    func(string, func(Found)) error { return nil },
			Behind:  func(*history.Reader, *restore.Moment) (string, error) { return "", nil },
			Doctor:  func(context.Context) []Finding { return []Finding{{"folder", false, "/home/ada/secret: denied"}} },
			Explain: func(err error) error { return err },
		},
	}, srv.Listener.Addr().String())
	srv.Config.Handler = p.handler()
	srv.Start()
	t.Cleanup(srv.Close)
	p.base = "http://" + p.guard.host
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return p
}

// enter redeems an address.
func (p *page) enter(address string) *http.Response {
	p.Helper()
	resp, err := p.client.Get(address)
	if err != nil {
		p.Fatal(err)
	}
	resp.Body.Close()
	if to, err := resp.Location(); err == nil {
		q, err := url.ParseQuery(to.Fragment)
		if err != nil {
			p.Fatal(err)
		}
		p.key = q.Get("key")
	}
	return resp
}

// ask makes a request; edit may change it.
func (p *page) ask(method, path, body string, edit func(*http.Request)) (*http.Response, string) {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set(keyHeader, p.key)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if edit != nil {
		edit(req)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	return resp, string(text)
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func TestWhoIsLetIn(t *testing.T) {
	p := newPage(t)
	resp := p.enter(p.address("files", ""))
	if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), "/files#key=") {
		t.Fatalf("entering: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is %v", c)
	}
	without := func(r *http.Request) { r.Header.Del("Cookie"); r.Header.Del(keyHeader) }
	for _, tt := range []struct {
		name, method, path string
		edit               func(*http.Request)
		bare               bool // a browser that was never let in
		want               int
	}{
		{"a page", "GET", "/", nil, false, 200},
		{"the interface", "GET", "/api/state", nil, false, 200},
		{"an asset", "GET", "/assets/app.js", nil, false, 200},
		{"from the page itself", "GET", "/api/state", func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			r.Header.Set("Origin", p.base)
		}, false, 200},
		{"typed into the browser", "GET", "/files", header("Sec-Fetch-Site", "none"), false, 200},
		{"a page without a cookie", "GET", "/", without, true, 403},
		{"the interface without a cookie", "GET", "/api/state", nil, true, 403},
		{"an asset without a cookie", "GET", "/assets/app.js", without, true, 403},
		{"a picture without a cookie", "GET", "/raw/x", without, true, 403},
		{"a change without a cookie", "POST", "/api/pause", nil, true, 403},
		{"a cookie and no key", "GET", "/api/state", func(r *http.Request) { r.Header.Del(keyHeader) }, false, 403},
		{"a cookie and another key", "GET", "/api/state", header(keyHeader, "x"), false, 403},
		{"a change with a cookie and no key", "POST", "/api/pause", func(r *http.Request) { r.Header.Del(keyHeader) }, false, 403},
		{"a name that points here", "GET", "/api/state", func(r *http.Request) { r.Host = "evil.example" }, false, 421},
		{"localhost", "GET", "/", func(r *http.Request) { r.Host = strings.Replace(p.guard.host, "127.0.0.1", "localhost", 1) }, false, 421},
		{"another port", "GET", "/api/state", func(r *http.Request) { r.Host = "127.0.0.1:1" }, false, 421},
		{"a forged name at the door", "GET", "/enter?token=x", func(r *http.Request) { r.Host = "evil.example" }, false, 421},
		{"another site, by its origin", "POST", "/api/pause", header("Origin", "https://evil.example"), false, 403},
		{"another port, by its origin", "POST", "/api/pause", header("Origin", "http://127.0.0.1:1"), false, 403},
		{"another site, as the browser says", "POST", "/api/pause", header("Sec-Fetch-Site", "cross-site"), false, 403},
		{"another port, as the browser says", "POST", "/api/pause", header("Sec-Fetch-Site", "same-site"), false, 403},
		{"another site that reads", "GET", "/api/state", header("Sec-Fetch-Site", "cross-site"), false, 403},
		{"another site that reads, by its origin", "GET", "/api/state", header("Origin", "https://evil.example"), false, 403},
		{"another site that embeds", "GET", "/assets/app.js", header("Sec-Fetch-Site", "cross-site"), false, 403},
		{"a form", "POST", "/api/pause", header("Content-Type", "application/x-www-form-urlencoded"), false, 400},
		{"text that could be a form", "POST", "/api/pause", header("Content-Type", "text/plain"), false, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := *p
			q.TB = t
			if tt.bare {
				q.client = &http.Client{}
			}
			body := ""
			if tt.method == "POST" {
				body = `{"until":"2026-01-01T00:00:00Z"}`
			}
			resp, text := q.ask(tt.method, tt.path, body, tt.edit)
			if resp.StatusCode != tt.want {
				t.Errorf("%s: %s", resp.Status, text)
			}
			csp := resp.Header.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", resp.Header)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	p := newPage(t)
	address := p.address("", "")
	if resp := p.enter(address); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("first: %s", resp.Status)
	}
	if resp, _ := p.ask("GET", "/api/state", "", nil); resp.StatusCode != 200 {
		t.Fatalf("in: %s", resp.Status)
	}
	// Whoever comes second is refused, and the first, who may be the thief, is put out.
	first := *p
	if resp := (&page{TB: t, dashboard: p.dashboard, client: &http.Client{}, base: p.base}).enter(address); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a used token: %s", resp.Status)
	}
	if resp, _ := first.ask("GET", "/api/state", "", nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("after its token was tried again: %s", resp.Status)
	}
	old := p.address("", "")
	p.guard.now = func() time.Time { return time.Now().Add(addressLife + time.Second) }
	if resp := p.enter(old); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an old token: %s", resp.Status)
	}
	p.guard.now = time.Now
	for _, address := range []string{p.base + "/enter", p.base + "/enter?token=", p.base + "/enter?token=x"} {
		if resp := p.enter(address); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", address, resp.Status)
		}
	}
	// A HEAD, as of a program that looks at links, uses nothing up.
	fresh := p.address("", "")
	if resp, err := p.client.Head(fresh); err != nil || resp.StatusCode == http.StatusSeeOther {
		t.Fatalf("HEAD: %v, %v", resp, err)
	}
	if resp := p.enter(fresh); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("after a HEAD: %s", resp.Status)
	}
	evil := p.base + "/enter?token=" + p.guard.token() + "&page=" + url.QueryEscape("/evil.example")
	if resp := p.enter(evil); !strings.HasPrefix(resp.Header.Get("Location"), "/#") {
		t.Errorf("it leads to %q", resp.Header.Get("Location"))
	}
}

// tree is everything in the folders of a dashboard.
func (p *page) tree() string {
	p.Helper()
	var b strings.Builder
	err := filepath.WalkDir(filepath.Dir(p.o.Folder), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var data []byte
			data, err = os.ReadFile(path)
			fmt.Fprintf(&b, "%s %x\n", path, data)
		}
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return b.String()
}

func TestNothingIsChangedByGet(t *testing.T) {
	p := newPage(t)
	p.enter(p.address("", ""))
	if err := os.MkdirAll(p.o.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	transfer := "127.0.0.1:1\nada\n" + p.o.Folder + "\n"
	if err := os.WriteFile(filepath.Join(p.o.Folder, "transfer.info"), []byte(transfer), 0o600); err != nil {
		t.Fatal(err)
	}
	before := p.tree()
	ref := base64.RawURLEncoding.EncodeToString([]byte(p.o.Folder))
	for _, name := range []string{"acknowledge", "pause", "resume", "backup", "join", "pair", "kit/confirm", "folders/add", "folders/remove", "excludes/add",
		"excludes/remove", "restore", "restore/cancel", "restore/undo", "restore/forget", "devices/revoke", "pairing/begin", "pairing/end"} {
		resp, _ := p.ask("GET", "/api/"+name+"?path="+ref+"&pattern=x&key=settle&value=9s", `{"path":"`+ref+`","pattern":"x"}`, nil)
		if resp.StatusCode != http.StatusMethodNotAllowed && resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s", name, resp.Status)
		}
	}
	for _, name := range []string{"state", "problems", "activity", "days", "suggestions", "browse", "measure", "kit", "kit/file", "folders", "excludes/preview", "list", "versions",
		"find", "preview", "moments", "compare", "settings", "devices", "diagnostics"} {
		p.ask("GET", "/api/"+name+"?path="+ref+"&pattern=x&q=x&key=settle&value=9s&seq=1", "", nil)
	}
	if after := p.tree(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// The same by POST does change something, so the check can fail.
	if resp, text := p.ask("POST", "/api/excludes/add", `{"pattern":"x"}`, nil); resp.StatusCode != 200 || p.tree() == before {
		t.Errorf("POST: %s %s", resp.Status, text)
	}
}

func TestNoFileOfThisMachineIsServed(t *testing.T) {
	p := newPage(t)
	p.enter(p.address("", ""))
	secret := filepath.Join(p.o.Folder, "me.info")
	if err := errors.Join(os.MkdirAll(p.o.Folder, 0o700), os.WriteFile(secret, []byte("TOP SECRET"), 0o600)); err != nil {
		t.Fatal(err)
	}
	ref := base64.RawURLEncoding.EncodeToString([]byte(secret))
	up := base64.RawURLEncoding.EncodeToString([]byte("../../../../" + secret))
	for _, path := range []string{
		"/api/preview?seq=1&path=" + ref, "/api/preview?seq=1&path=" + up, "/api/preview?seq=-1&path=" + ref, "/api/preview?seq=1&path=%2e%2e",
		"/raw/" + ref, "/raw/..%2f..%2fme.info", "/raw/%2e%2e/" + url.PathEscape(secret),
		"/assets/..%2f..%2fdashboard.go", "/assets/%2e%2e/dashboard.go", "/assets/" + url.PathEscape(secret), "/assets/page.html", "/assets/en.json", "/assets/",
		secret, "/..%2f" + secret, "/api/list?path=" + up, "/api/browse?path=" + base64.RawURLEncoding.EncodeToString([]byte("../..")),
	} {
		resp, text := p.ask("GET", path, "", nil)
		if strings.Contains(text, "SECRET") || strings.Contains(text, "package dashboard") || resp.StatusCode == 200 {
			t.Errorf("%s: %s %.80s", path, resp.Status, text)
		}
	}
}

func TestPicturesCanDoNothing(t *testing.T) {
	p := newPage(t)
	p.enter(p.address("", ""))
	name := p.tickets.add("image/png", []byte("png"))
	resp, text := p.ask("GET", "/raw/"+name, "", func(r *http.Request) { r.Header.Del(keyHeader) })
	if resp.StatusCode != 200 || text != "png" || resp.Header.Get("Content-Type") != "image/png" || resp.Header.Get("Content-Security-Policy") != "default-src 'none'; sandbox" ||
		resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %q %v", resp.Status, text, resp.Header)
	}
	for range maxTickets {
		p.tickets.add("image/png", nil)
	}
	if resp, _ := p.ask("GET", "/raw/"+name, "", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("of long ago: %s", resp.Status)
	}
}

func TestDiagnosticsNameNoFile(t *testing.T) {
	p := newPage(t)
	p.enter(p.address("", ""))
	resp, text := p.ask("GET", "/api/diagnostics", "", nil)
	if resp.StatusCode != 200 || strings.Contains(text, "secret") || !strings.Contains(text, "BAD folder") {
		t.Errorf("%s %s", resp.Status, text)
	}
}
