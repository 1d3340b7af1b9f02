package dashboard

import (
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	"backstay/agent/localapi"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
)

//go:embed assets
var assets embed.FS

// texts are what a person reads on the pages. Another language is another such file.
//
//go:embed assets/en.json
var texts string

var contentTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

var shell = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"text": func(key string) (string, error) {
		var all map[string]string
		if err := json.Unmarshal([]byte(texts), &all); err != nil {
			return "", err
		}
		if all[key] == "" {
			return "", fmt.Errorf("there is no text %q", key)
		}
		return all[key], nil
	},
}).ParseFS(assets, "assets/page.html"))

// maxBody bounds what a page may send.
const maxBody = 1 << 20

func isPage(name string) bool { return slices.Contains(Pages(), name) }

// handler answers the browser.
func (d *dashboard) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /enter", d.guard.enter)
	mux.HandleFunc("GET /{$}", d.guard.page(d.shell))
	for _, name := range Pages() {
		mux.HandleFunc("GET /"+name, d.guard.page(d.shell))
	}
	mux.HandleFunc("GET /assets/{name}", d.guard.page(asset))
	mux.HandleFunc("GET /raw/{ticket}", d.guard.page(d.raw))
	mux.HandleFunc("GET /api/events", d.guard.api(d.events))

	get(d, mux, "state", d.state)
	get(d, mux, "problems", func(r *http.Request) ([]localapi.Problem, error) { return d.agent.Problems(r.Context()) })
	get(d, mux, "activity", func(r *http.Request) (localapi.Activity, error) { return d.agent.Activity(r.Context()) })
	get(d, mux, "days", func(r *http.Request) ([]localapi.Day, error) { return d.agent.Days(r.Context()) })
	post(d, mux, "acknowledge", func(ctx context.Context, _ struct{}) (any, error) { return nil, d.agent.Acknowledge(ctx) })
	post(d, mux, "pause", func(ctx context.Context, in struct {
		Until time.Time `json:"until"`
	}) (any, error) {
		return nil, d.agent.Pause(ctx, in.Until)
	})
	post(d, mux, "resume", func(ctx context.Context, _ struct{}) (any, error) { return nil, d.agent.Resume(ctx) })
	post(d, mux, "backup", func(ctx context.Context, _ struct{}) (any, error) { return d.agent.Backup(ctx, nil) })

	get(d, mux, "suggestions", d.suggestions)
	get(d, mux, "browse", d.browse)
	mux.HandleFunc("GET /api/measure", d.guard.api(d.measure))
	post(d, mux, "join", d.join)
	post(d, mux, "pair", d.pair)
	get(d, mux, "kit", d.kitView)
	mux.HandleFunc("GET /api/kit/file", d.guard.api(d.kitFile))
	post(d, mux, "kit/confirm", d.confirmKit)

	get(d, mux, "folders", d.folders)
	post(d, mux, "folders/add", d.addFolder)
	post(d, mux, "folders/remove", d.removeFolder)
	post(d, mux, "excludes/add", d.addExclude)
	post(d, mux, "excludes/remove", d.removeExclude)
	mux.HandleFunc("GET /api/excludes/preview", d.guard.api(d.previewExclude))

	get(d, mux, "list", d.list)
	get(d, mux, "versions", d.versions)
	get(d, mux, "find", d.find)
	get(d, mux, "preview", d.preview)
	get(d, mux, "moments", d.moments)
	get(d, mux, "compare", d.compare)
	post(d, mux, "restore", d.restore)
	post(d, mux, "restore/cancel", d.cancelJob)
	post(d, mux, "restore/undo", d.undoJob)
	post(d, mux, "restore/forget", d.forgetJob)

	get(d, mux, "settings", d.settings)
	post(d, mux, "settings", d.setSettings)
	get(d, mux, "devices", d.devices)
	post(d, mux, "devices/revoke", d.revoke)
	post(d, mux, "pairing/begin", d.beginPairing)
	post(d, mux, "pairing/end", d.endPairing)
	get(d, mux, "diagnostics", d.diagnostics)
	return d.counted(d.guard.strict(mux))
}

// shell answers every page: what is on it, its script asks for.
func (d *dashboard) shell(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	if d.pages == nil {
		var b strings.Builder
		if err := shell.Execute(&b, map[string]any{"Texts": template.JS(texts)}); err != nil {
			d.mu.Unlock()
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		d.pages = []byte(b.String())
	}
	page := d.pages
	d.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(page)
}

func asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	kind := contentTypes[path.Ext(name)]
	data, err := fs.ReadFile(assets, path.Join("assets", path.Base(name)))
	if kind == "" || err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Write(data)
}

// A fault is an error with the status it is answered with.
type fault struct {
	status int
	error
}

func (f fault) Unwrap() error { return f.error }

// wrong says that what the page asked cannot be meant.
func wrong(format string, args ...any) error {
	return fault{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

// respond writes an answer of the interface, or an error that a person can read.
func (d *dashboard) respond(w http.ResponseWriter, r *http.Request, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(w).Encode(v) // nobody may be listening any more
		return
	}
	status := http.StatusInternalServerError
	if f, ok := errors.AsType[fault](err); ok {
		status = f.status
	} else if errors.Is(err, localsock.ErrNotRunning) {
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": d.explain(err)})
}

func (d *dashboard) explain(err error) string {
	return strings.ReplaceAll(d.o.Tools.Explain(err).Error(), "\n", "; ")
}

func get[Out any](d *dashboard, mux *http.ServeMux, name string, f func(*http.Request) (Out, error)) {
	mux.HandleFunc("GET /api/"+name, d.guard.api(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		d.respond(w, r, v, err)
	}))
}

func post[In, Out any](d *dashboard, mux *http.ServeMux, name string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST /api/"+name, d.guard.api(func(w http.ResponseWriter, r *http.Request) {
		var in In
		if kind := r.Header.Get("Content-Type"); kind != "application/json" {
			d.respond(w, r, nil, wrong("%q is no JSON", kind))
			return
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			d.respond(w, r, nil, wrong("%v", err))
			return
		}
		v, err := f(r.Context(), in)
		d.respond(w, r, v, err)
	}))
}

// A ref is a path in a request: its bytes, which need not be text.
type ref string

func (p *ref) UnmarshalText(b []byte) error {
	raw, err := base64.RawURLEncoding.DecodeString(string(b))
	*p = ref(raw)
	return err
}

func (p ref) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString([]byte(p))), nil
}

// refOf reads a path from the query of a GET.
func refOf(r *http.Request, key string) (string, error) {
	var p ref
	if err := p.UnmarshalText([]byte(r.URL.Query().Get(key))); err != nil {
		return "", wrong("%s: %v", key, err)
	}
	return string(p), nil
}

// timeOf reads a time from the query, the zero time for none.
func timeOf(r *http.Request, key string) (time.Time, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, wrong("%q is no time", text)
	}
	return t, nil
}

// State is what the pages show at a glance, in the words of every other face of the
// agent.
type state struct {
	// Setup is new, pairing (enrolled and no member yet) or done.
	Setup string `json:"setup"`
	// Agent is running, absent or mute.
	Agent    string           `json:"agent"`
	Status   *localapi.Status `json:"status"`
	State    localapi.State   `json:"state"`
	Title    string           `json:"title"`
	Sentence string           `json:"sentence"`
	// KitPending: the recovery kit is not put away; KitDue: it cannot be put off.
	KitPending bool `json:"kit_pending"`
	KitDue     bool `json:"kit_due"`
	// Jobs are what is restored.
	Jobs []job `json:"jobs"`
}

func (d *dashboard) state(r *http.Request) (state, error) {
	st, err := d.agent.Status(r.Context())
	return d.stateOf(st, err), nil
}

// stateOf puts together what there is to say at a glance.
func (d *dashboard) stateOf(st localapi.Status, err error) state {
	s := state{Setup: d.setup(), Jobs: d.jobs.list()}
	if _, since, err := enrol.PendingKit(d.o.Folder); !errors.Is(err, fs.ErrNotExist) {
		s.KitPending, s.KitDue = true, err == nil && time.Since(since) > enrol.KitGrace
	}
	switch {
	case err == nil:
		s.Agent, s.Status, s.State = "running", &st, st.State
		s.Title, s.Sentence = st.State.Title(), st.State.Sentence()
	case s.Setup != "done":
		s.Agent, s.State = "absent", localapi.NotSetUp
		s.Title, s.Sentence = s.State.Title(), s.State.Sentence()
	case errors.Is(err, localsock.ErrNotRunning):
		s.Agent, s.State = "absent", localapi.Failing
		s.Title, s.Sentence = localapi.NotRunningTitle, localapi.NotRunningSentence
	default:
		s.Agent, s.State = "mute", localapi.Failing
		s.Title, s.Sentence = localapi.NoAnswerTitle, localapi.NoAnswerSentence
	}
	return s
}

// setup says how far this machine is set up.
func (d *dashboard) setup() string {
	// It is asked often, and keys take a while to be made from their seed.
	_, err := os.Stat(filepath.Join(d.o.Folder, device.VaultFile))
	if d.ready.Load() && err == nil {
		return "done"
	}
	if _, err := config.Load(d.o.Folder); errors.Is(err, config.ErrNotSetUp) {
		return "new"
	}
	switch dev, err := device.Load(d.o.Folder); {
	case errors.Is(err, device.ErrNotEnrolled):
		return "new"
	case err == nil && dev.Vault == (vault.ID{}):
		return "pairing"
	}
	d.ready.Store(true)
	return "done"
}

const (
	// againEvery is how often it is looked whether an agent runs now, and how often
	// what the agent does not tell by itself is looked at.
	againEvery = time.Second
	beatEvery  = 15 * time.Second
)

// events sends the state each time it changes, as server-sent events.
func (d *dashboard) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := http.NewResponseController(w)
	type news struct {
		st  localapi.Status
		err error
	}
	told := make(chan news)
	go func() {
		for ctx.Err() == nil {
			for st, err := range d.agent.Watch(ctx) {
				select {
				case told <- news{st, err}:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-time.After(againEvery):
			case <-ctx.Done():
			}
		}
	}()
	tick := time.NewTicker(againEvery / 4)
	defer tick.Stop()
	last, sent := "", time.Now()
	var now news
	select {
	case now = <-told:
	case <-ctx.Done():
		return
	}
	for {
		text, err := json.Marshal(d.stateOf(now.st, now.err))
		if err != nil {
			return
		}
		switch {
		case string(text) != last:
			last, sent = string(text), time.Now()
			_, err = fmt.Fprintf(w, "data: %s\n\n", text)
		case time.Since(sent) > beatEvery:
			sent = time.Now()
			_, err = fmt.Fprint(w, ": alive\n\n")
		default:
			err = nil
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return
		}
		select {
		case now = <-told:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
