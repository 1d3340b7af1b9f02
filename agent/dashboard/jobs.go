package dashboard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"backstay/agent/history"
	"backstay/agent/localapi"
	"backstay/agent/restore"
	"backstay/internal/durable"
	"backstay/protocol/vault"
)

// restoring is what is to be given back.
type restoring struct {
	Paths []ref `json:"paths"`
	// At is the moment, the zero time for now.
	At time.Time `json:"at"`
	// Over puts it in the originals' place, where what is there is kept under
	// another name. Default: beside them.
	Over bool `json:"over"`
	// Aside, with Over, also puts aside what came into a folder since.
	Aside bool `json:"aside"`
}

// job is a restore as a page shows it.
type job struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// State is running, done, failed, cancelled or undone.
	State string `json:"state"`
	Over  bool   `json:"over"`
	// At is the moment that was found; nil until it is.
	At         *time.Time `json:"at"`
	Files      int64      `json:"files"`
	TotalFiles int64      `json:"total_files"`
	Bytes      int64      `json:"bytes"`
	TotalBytes int64      `json:"total_bytes"`
	// Rate is in bytes a second, Left in seconds, -1 while nobody knows.
	Rate int64 `json:"rate"`
	Left int64 `json:"left"`
	// To is where it went, Notes what there is to know about it.
	To    []string `json:"to"`
	Notes []string `json:"notes"`
	Error string   `json:"error,omitempty"`
	// Kept counts what stood there and was kept: undo puts it back.
	Kept int `json:"kept"`
}

// jobs are the restores of this process.
type jobs struct {
	mu    sync.Mutex // guards list and what is in it
	all   []*running
	group sync.WaitGroup
}

// running is a job with what only this process needs.
type running struct {
	job
	cancel context.CancelFunc
	began  time.Time
	kept   []keptPath
}

// keptPath is something that stood where a path was restored.
type keptPath struct {
	// original is where it stood, kept where it is now.
	original, kept string
	// restored is what stands there now; nil if nothing does.
	restored os.FileInfo
}

// maxNotes bounds the notes of a job.
const maxNotes = 50

func (js *jobs) list() []job {
	js.mu.Lock()
	defer js.mu.Unlock()
	list := []job{}
	for _, r := range js.all {
		j := r.job
		j.Kept = len(r.kept)
		j.To, j.Notes = slices.Clone(j.To), slices.Clone(j.Notes)
		if j.State == "running" {
			j.Left = -1
			if s := time.Since(r.began).Seconds(); s > 0.5 && j.Bytes > 0 {
				j.Rate = int64(float64(j.Bytes) / s)
				j.Left = (j.TotalBytes - j.Bytes) / max(j.Rate, 1)
			}
		}
		list = append(list, j)
	}
	return list
}

func (js *jobs) running() bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	return slices.ContainsFunc(js.all, func(r *running) bool { return r.State == "running" })
}

// stop ends what runs and waits for it.
func (js *jobs) stop() {
	js.mu.Lock()
	for _, r := range js.all {
		r.cancel()
	}
	js.mu.Unlock()
	js.group.Wait()
}

func (js *jobs) find(id string) (*running, error) {
	i := slices.IndexFunc(js.all, func(r *running) bool { return r.ID == id })
	if i < 0 {
		return nil, wrong("there is no such restore any more")
	}
	return js.all[i], nil
}

// change changes a job under the lock.
func (js *jobs) change(f func()) {
	js.mu.Lock()
	defer js.mu.Unlock()
	f()
}

type jobID struct {
	ID string `json:"id"`
}

// restore begins to give paths back, in this process and with its rights.
func (d *dashboard) restore(_ context.Context, in restoring) (jobID, error) {
	if len(in.Paths) == 0 {
		return jobID{}, wrong("say what is to be restored")
	}
	names := make([]string, len(in.Paths))
	for i, p := range in.Paths {
		if !filepath.IsAbs(string(p)) || filepath.Dir(string(p)) == string(p) {
			return jobID{}, wrong("%q cannot be restored in or beside its place; use agent restore --to", p)
		}
		names[i] = placeOf(string(p)).Name
	}
	ctx, cancel := context.WithCancel(d.ctx)
	r := &running{cancel: cancel, began: time.Now(), job: job{ID: rand.Text(), Name: strings.Join(names, ", "), State: "running", Over: in.Over, To: []string{}, Notes: []string{}}}
	d.jobs.change(func() { d.jobs.all = append(d.jobs.all, r) })
	d.jobs.group.Go(func() {
		defer cancel()
		err := d.giveBack(ctx, r, in)
		d.jobs.change(func() {
			switch {
			case err == nil:
				r.State = "done"
			case ctx.Err() != nil:
				r.State = "cancelled"
			default:
				r.State, r.Error = "failed", d.explain(err)
			}
		})
	})
	return jobID{r.ID}, nil
}

// giveBack is the work of a job.
func (d *dashboard) giveBack(ctx context.Context, r *running, in restoring) error {
	// A session of its own: it may take hours.
	reader, err := d.readers.open(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	state, err := d.stateAt(ctx, reader, in.At)
	if err != nil {
		return err
	}
	behind, err := d.o.Tools.Behind(reader, state.Moment)
	if err != nil {
		return err
	}
	d.jobs.change(func() {
		at := state.Moment.Time.UTC()
		r.At, r.began = &at, time.Now()
		if behind != "" {
			r.note(behind)
		}
		if !state.Moment.Complete {
			r.note(noteIncomplete)
		}
		if n := state.Moment.Passed; n > 0 {
			r.note(fmt.Sprintf(notePassed, n))
		}
	})
	var later *restore.State
	if in.Over && in.Aside {
		if later, err = d.stateAt(ctx, reader, time.Time{}); err != nil {
			return err
		}
	}
	for _, p := range in.Paths {
		if err := d.giveBackOne(ctx, reader, r, in, state, later, string(p)); err != nil {
			return err
		}
	}
	return nil
}

// Notes of a restore.
const (
	noteIncomplete = "At that moment the first backup was not finished: files that had not been sent by then are missing."
	notePassed     = "This is the nearest moment that the server keeps; %d later ones are gone."
	noteFailed     = "%s was not restored: %v"
	noteRenamed    = "%s is called %s here."
	noteLost       = "%s: without %s"
	noteOutOfScope = "%d paths are as they were when they were protected last."
)

func (r *running) note(text string) {
	if len(r.Notes) < maxNotes {
		r.Notes = append(r.Notes, text)
	}
}

func (d *dashboard) giveBackOne(ctx context.Context, reader *history.Reader, r *running, in restoring, state, later *restore.State, path string) error {
	id := reader.Keys.Path(reader.Device.Identity.ID(), []byte(path))
	sel, err := state.Select(id)
	if err != nil {
		return fmt.Errorf("%s: %w", placeOf(path).Name, err)
	}
	now := time.Now()
	o := restore.Options{Keys: reader.Keys, Root: []byte(path), To: filepath.Dir(path), Name: filepath.Base(path), Overwrite: in.Over, Now: now}
	if !in.Over {
		shown := state.Moment.Time
		if !in.At.IsZero() {
			shown = in.At
		}
		o.Name += " (restored " + shown.Local().Format("2006-01-02 15.04.05") + ")"
	}
	var base job
	d.jobs.change(func() { base = r.job })
	o.Progress = func(p restore.Progress) {
		d.jobs.change(func() {
			r.Files, r.TotalFiles = base.Files+p.Files, base.TotalFiles+p.TotalFiles
			r.Bytes, r.TotalBytes = base.Bytes+p.Bytes, base.TotalBytes+p.TotalBytes
		})
	}
	report, err := restore.Run(ctx, reader.Session, sel, o)
	var kept []keptPath
	for i, name := range report.Replaced {
		k := keptPath{original: filepath.Join(o.To, report.Originals[i]), kept: filepath.Join(o.To, name)}
		if info, err := os.Lstat(k.original); err == nil {
			k.restored = info
		}
		kept = append(kept, k)
	}
	d.jobs.change(func() {
		r.kept = append(r.kept, kept...)
		r.tell(report)
		if err == nil {
			r.To = append(r.To, placeOf(filepath.Join(o.To, o.Name)).Path)
		}
	})
	if err != nil || later == nil {
		return err
	}
	return d.putAside(ctx, reader, r, state, later, id, now)
}

// tell notes what a person should know of a report.
func (r *running) tell(report restore.Report) {
	for _, f := range report.Failed {
		text, _ := localapi.Text(f.Path)
		r.note(fmt.Sprintf(noteFailed, text, f.Err))
	}
	for _, n := range report.Renamed {
		r.note(fmt.Sprintf(noteRenamed, n.Path, n.Name))
	}
	for _, l := range report.Losses {
		text, _ := localapi.Text(l.Path)
		r.note(fmt.Sprintf(noteLost, text, l.What))
	}
	if report.OutOfScope > 0 {
		r.note(fmt.Sprintf(noteOutOfScope, report.OutOfScope))
	}
}

// putAside gives what came into a folder since another name, as restore does with what
// it replaces. Folders are taken whole if they are new.
func (d *dashboard) putAside(ctx context.Context, reader *history.Reader, r *running, state, later *restore.State, id vault.PathID, now time.Time) error {
	c, err := restore.Compare(ctx, reader.Session, reader.Keys, state, later, id, later.Len())
	if err != nil {
		return err
	}
	suffix := now.Format(" (replaced 2006-01-02 15.04.05)")
	taken := ""
	for _, a := range c.Added { // ascending: a folder before what is in it
		if taken != "" && strings.HasPrefix(a.Path, taken) {
			continue
		}
		k := keptPath{original: a.Path, kept: a.Path + suffix}
		if _, err := os.Lstat(k.kept); err == nil {
			continue
		}
		switch err := os.Rename(k.original, k.kept); {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			d.jobs.change(func() { r.note(fmt.Sprintf(noteFailed, placeOf(a.Path).Path, err)) })
			continue
		}
		if a.Folder {
			taken = a.Path + string(filepath.Separator)
		}
		if err := durable.SyncDir(filepath.Dir(k.kept)); err != nil {
			return err
		}
		d.jobs.change(func() { r.kept = append(r.kept, k) })
	}
	return nil
}

// stateAt reads the verified state at a moment, the zero time for now.
func (d *dashboard) stateAt(ctx context.Context, reader *history.Reader, at time.Time) (*restore.State, error) {
	q := restore.Query{Device: reader.Device.Identity.ID(), Members: reader.Members, Pin: reader.Device.Pin}
	m, err := q.Open(ctx, reader.Session, at)
	if err != nil {
		return nil, err
	}
	return restore.ReadState(ctx, reader.Session, m)
}

func (d *dashboard) cancelJob(_ context.Context, in jobID) (struct{}, error) {
	d.jobs.mu.Lock()
	defer d.jobs.mu.Unlock()
	r, err := d.jobs.find(in.ID)
	if err == nil {
		r.cancel()
	}
	return struct{}{}, err
}

// forgetJob takes a job that is over from the list.
func (d *dashboard) forgetJob(_ context.Context, in jobID) (struct{}, error) {
	d.jobs.mu.Lock()
	defer d.jobs.mu.Unlock()
	d.jobs.all = slices.DeleteFunc(d.jobs.all, func(r *running) bool { return r.ID == in.ID && r.State != "running" })
	return struct{}{}, nil
}

// undoJob puts back what a restore kept under another name. What was restored there
// goes, as the server has it, unless it was changed since: then it is kept in turn.
func (d *dashboard) undoJob(_ context.Context, in jobID) (struct{}, error) {
	var none struct{}
	d.jobs.mu.Lock()
	defer d.jobs.mu.Unlock()
	r, err := d.jobs.find(in.ID)
	if err != nil {
		return none, err
	}
	if r.State == "running" {
		return none, wrong("it is not finished; cancel it first")
	}
	suffix := time.Now().Format(" (undone 2006-01-02 15.04.05)")
	var left []keptPath
	var errs []error
	for _, k := range slices.Backward(r.kept) {
		if err := k.back(suffix); err != nil {
			left, errs = append(left, k), append(errs, err)
		}
	}
	slices.Reverse(left)
	r.kept = left
	if len(left) > 0 {
		return none, errors.Join(errs...)
	}
	r.State = "undone"
	return none, nil
}

// back puts what was kept in its place again.
func (k keptPath) back(suffix string) error {
	if _, err := os.Lstat(k.kept); err != nil {
		return err
	}
	now, err := os.Lstat(k.original)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case k.restored != nil && now.Mode().IsRegular() && os.SameFile(now, k.restored) && now.Size() == k.restored.Size() && now.ModTime().Equal(k.restored.ModTime()):
		// Over it in one step, so that at no moment neither is there.
	default:
		if err := os.Rename(k.original, k.original+suffix); err != nil {
			return err
		}
	}
	if err := os.Rename(k.kept, k.original); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(k.original))
}
