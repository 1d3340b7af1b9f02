package dashboard

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/adrg/xdg"

	"backstay/agent/config"
	"backstay/agent/enrol"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// setting is a key of agent.toml.
type setting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default string `json:"default"`
}

type settingsView struct {
	Settings []setting `json:"settings"`
	File     string    `json:"file"`
}

func (d *dashboard) settings(*http.Request) (settingsView, error) {
	v := settingsView{Settings: []setting{}, File: filepath.Join(d.o.Folder, config.SettingsFile)}
	c, err := config.Load(d.o.Folder)
	if err != nil {
		return v, err
	}
	for _, s := range c.Settings.List() {
		v.Settings = append(v.Settings, setting(s))
	}
	return v, nil
}

// setSettings puts a value in force; an empty one is the default.
func (d *dashboard) setSettings(_ context.Context, in setting) (struct{}, error) {
	if err := config.Change(d.o.Folder, in.Key, strings.TrimSpace(in.Value)); err != nil {
		return struct{}{}, fault{http.StatusBadRequest, err}
	}
	return struct{}{}, nil
}

// machine is a device of the account.
type machine struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	LastSeen *time.Time `json:"last_seen"`
	LastSafe *time.Time `json:"last_safe"`
	// State is member, revoked or waiting: enrolled, and no member yet.
	State string `json:"state"`
	This  bool   `json:"this"`
}

func (d *dashboard) devices(r *http.Request) ([]machine, error) {
	reader, done, err := d.readers.use(r.Context())
	if err != nil {
		return nil, err
	}
	defer done()
	devices, err := reader.Session.Devices(r.Context())
	list := []machine{}
	for _, one := range devices {
		m := machine{ID: one.ID.String(), Name: one.Name, LastSeen: timeOrNil(one.LastSeen), LastSafe: timeOrNil(one.LastSafe), State: "waiting", This: one.ID == reader.Device.Identity.ID()}
		// Who is a member is what the log says, not the server.
		switch _, status := reader.Members.Member(one.ID); status {
		case vault.StatusLive:
			m.State = "member"
		case vault.StatusRevoked, vault.StatusVoided:
			m.State = "revoked"
		}
		list = append(list, m)
	}
	return list, err
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (d *dashboard) revoke(ctx context.Context, in struct {
	ID string `json:"id"`
}) (struct{}, error) {
	var none struct{}
	raw, err := hex.DecodeString(in.ID)
	if err != nil || len(raw) != len(vault.DeviceID{}) {
		return none, wrong("%q is no device", in.ID)
	}
	reader, done, err := d.readers.use(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	id := vault.DeviceID(raw)
	if id == reader.Device.Identity.ID() {
		return none, wrong("this machine cannot shut itself out from here; do it on another one")
	}
	if _, status := reader.Members.Member(id); status != vault.StatusLive {
		return none, wrong("it is no member of the vault")
	}
	if err := enrol.Revoke(ctx, reader.Session, reader.Device, id); err != nil {
		return none, err
	}
	d.readers.forget() // who is a member has changed, and the keys with it
	return none, nil
}

// pairing admits a further machine: one at a time.
type pairing struct {
	mu     sync.Mutex // guards the fields below
	cancel context.CancelFunc
	pairingView
}

// pairingView is how far it is.
type pairingView struct {
	// State is waiting, done, failed, or empty.
	State  string `json:"state"`
	Code   string `json:"code,omitempty"`
	Member string `json:"member,omitempty"`
	Error  string `json:"error,omitempty"`
}

// beginPairing shows a code that a further machine is to be given, as "agent pair"
// does, and waits for it. Asked again it says how far it is.
func (d *dashboard) beginPairing(ctx context.Context, in struct {
	Anew bool `json:"anew"`
}) (pairingView, error) {
	p := &d.pairing
	p.mu.Lock()
	defer p.mu.Unlock()
	if !in.Anew || p.State == "waiting" {
		return p.pairingView, nil
	}
	reader, err := d.readers.open(ctx)
	if err != nil {
		return pairingView{}, err
	}
	code := v4.NewPairingCode()
	wait, cancel := context.WithCancel(d.ctx)
	p.cancel, p.pairingView = cancel, pairingView{State: "waiting", Code: code.Text()}
	d.jobs.group.Go(func() {
		defer reader.Close()
		defer cancel()
		name, err := enrol.Admit(wait, reader.Session, reader.Device, code)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case err == nil:
			p.pairingView = pairingView{State: "done", Member: name}
			d.readers.forget()
		case wait.Err() != nil:
			p.pairingView = pairingView{}
		default:
			p.pairingView = pairingView{State: "failed", Error: d.explain(err)}
		}
	})
	return p.pairingView, nil
}

// endPairing makes the code worthless.
func (d *dashboard) endPairing(context.Context, struct{}) (struct{}, error) {
	d.pairing.mu.Lock()
	defer d.pairing.mu.Unlock()
	if d.pairing.cancel != nil {
		d.pairing.cancel()
	}
	return struct{}{}, nil
}

// diagnosticsView is a text that can be given to who helps: it names no file.
type diagnosticsView struct {
	Text string `json:"text"`
}

func (d *dashboard) diagnostics(r *http.Request) (diagnosticsView, error) {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("dashboard", "%s, %s, %s/%s", d.o.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	line("time", "%s", time.Now().Format(time.RFC3339))
	if st, err := d.agent.Status(r.Context()); err != nil {
		line("agent", "%s", d.nameless(d.explain(err)))
	} else {
		line("agent", "%s", st.Version)
		line("state", "%s", st.State)
		line("counts", "%d protected, %d bytes, %d waiting, %d excluded, %d problems", st.Protected, st.Bytes, st.Waiting, st.Excluded, st.Problems)
		if st.LastSafe != nil {
			line("last safe", "%s", st.LastSafe.Format(time.RFC3339))
		}
	}
	b.WriteByte('\n')
	for _, f := range d.o.Tools.Doctor(r.Context()) {
		mark, text := "ok ", d.nameless(f.Text)
		if !f.OK {
			mark = "BAD"
		}
		if f.Check == "folder" {
			text = map[bool]string{true: "can be read", false: "cannot be read"}[f.OK]
		}
		fmt.Fprintf(&b, "%s %-14s %s\n", mark, f.Check, text)
	}
	return diagnosticsView{b.String()}, nil
}

// nameless takes the person's own folders out of a text.
func (d *dashboard) nameless(text string) string {
	return strings.NewReplacer(d.o.Folder, "CONFIG", d.o.State, "STATE", xdg.Home, "HOME").Replace(text)
}
