package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"backstay/agent/catalog"
	"backstay/agent/device"
	"backstay/agent/localapi"
	"backstay/agent/scan/facts"
	"backstay/agent/upload"
	client "backstay/agent/v4"
	"backstay/internal/backoff"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// alarmRollback is the kind of alarm that a server's loss of commits raises.
const alarmRollback = "rollback"

// link is a session of protocol 4, with what was learned in it.
type link struct {
	device  *device.Device
	session *client.Session
	members *vault.Members
	keys    *vault.Keyring
}

// connectV4 begins a session and brings the membership log up to date. Errors wrap
// ErrUnreachable unless nothing can be done but by a person.
func (a *agent) connectV4(ctx context.Context, dest *catalog.Destination) (_ *link, err error) {
	a.mu.Lock()
	d := a.device
	a.mu.Unlock()
	session, err := client.Dial(ctx, client.Options{Address: a.config().Address, Pin: d.Pin, Key: d.Identity.TLS(), Log: a.log})
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer func() {
		if err != nil {
			session.Close()
		}
	}()
	a.compareClocks(session.Hello().Clock)
	l := &link{device: d, session: session, members: vault.NewMembers(d.Vault)}
	kept, err := dest.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, entry := range kept {
		if err := l.members.Append(entry); err != nil {
			return nil, fmt.Errorf("the membership log in the catalog: %w", err)
		}
	}
	first := l.members.Len()
	entries, err := session.Members(ctx, first)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	for _, entry := range entries {
		if err := l.members.Append(entry); err != nil {
			return nil, fmt.Errorf("the server's membership log does not verify, it may have been tampered with: %w", err)
		}
	}
	if l.keys, err = l.members.Unlock(d.Identity, d.Genesis); err != nil {
		return nil, err
	}
	return l, dest.AddMembers(ctx, first, entries)
}

// upload sends what is in the queue in commits, and waits longer and longer while
// the server is away.
func (w *work) upload(ctx context.Context) error {
	dest, _, err := w.destination(ctx)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	var (
		wait    backoff.Backoff
		online  = true
		last    vault.CommitHash
		compare bool
	)
	for ctx.Err() == nil {
		l, err := w.connectV4(ctx, dest)
		if err == nil {
			online = true
			w.state("", localapi.Problem{})
			w.tell(Event{Kind: Connected, Text: w.config().Address})
			began := time.Now()
			last, err = w.session(ctx, l, dest, last, compare)
			l.session.Close()
			if time.Since(began) > time.Minute {
				wait.Reset()
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, upload.ErrStale):
			// Whatever it was, comparing everything finds it.
			compare = errors.Is(err, v4.ErrDigest)
			w.log.Info("the server's state has changed; comparing", "err", err)
		case errors.Is(err, catalog.ErrCorrupt):
			return err
		}
		delay := wait.Next()
		if err != nil && !errors.Is(err, upload.ErrStale) {
			if fatal(err) {
				delay = retrySend
			}
			w.state(err.Error(), failure(err))
			if online {
				online = false
				w.tell(Event{Kind: Offline, Text: err.Error()})
			}
		}
		w.log.Info("offline", "retry_in", delay.Round(time.Millisecond).String(), "err", err)
		select {
		case <-ctx.Done():
		case <-w.redial:
			wait.Reset()
		case <-time.After(delay):
		}
		// Another vault has a part of the catalog of its own.
		if dest, _, err = w.destination(ctx); err != nil {
			return unlessEnded(ctx, err)
		}
	}
	return nil
}

// fatal says that going on would do harm, or cannot work: a person has to act.
func fatal(err error) bool {
	return errors.Is(err, upload.ErrTwoCopies) || errors.Is(err, upload.ErrServer) || errors.Is(err, v4.ErrRevoked) || errors.Is(err, v4.ErrPin)
}

// failure says what a person has to do about an error; nothing if it may pass by
// itself.
func failure(err error) localapi.Problem {
	const again = "; what waits is then sent by itself"
	p := localapi.Problem{Reason: err.Error()}
	switch {
	case fatal(err):
		p.Fix = "agent doctor"
	case errors.Is(err, v4.ErrFull):
		p.Reason, p.Fix = "the server has no room: "+p.Reason, "make room on the server's disk, or ask its administrator to"+again
	case errors.Is(err, v4.ErrQuota):
		p.Reason, p.Fix = "the server has no room: "+p.Reason, "ask the server's administrator for a larger quota, or protect less"+again
	case errors.Is(err, v4.ErrClock):
		p.Fix = "ask the server's administrator to look at its clock, and at: server clock confirm"
	case errors.Is(err, v4.ErrFailed):
		p.Fix = "ask the server's administrator to look at its log and to start it again"
	default:
		return localapi.Problem{}
	}
	return p
}

// session uploads until the session ends, and returns the commit that was sent
// last.
func (w *work) session(ctx context.Context, l *link, dest *catalog.Destination, last vault.CommitHash, compare bool) (vault.CommitHash, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go w.keepAlive(ctx, cancel, l.session)
	go func() {
		select {
		case <-w.redial:
			cancel(errRedial)
		case <-ctx.Done():
		}
	}()
	u, finding, err := w.open(ctx, l, dest, last, compare)
	if err != nil {
		return last, err
	}
	switch finding {
	case upload.RolledBack:
		if err := w.alarm(ctx, dest, alarmRollback, rollbackText); err != nil {
			return last, err
		}
		fallthrough
	case upload.Adopted:
		for _, r := range w.rootsNow() {
			w.Rescan(r.path, "the server's state was adopted")
		}
	}
	w.mu.Lock()
	w.uploader = u
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.uploader = nil
		w.mu.Unlock()
	}()
	err = u.Run(ctx, w.nextItem, w.result)
	return u.LastSent(), err
}

// rollbackText says what a server's loss of commits means.
const rollbackText = "the server has lost backups that it had acknowledged; everything that is missing is sent again. " +
	"Find out why: an older copy of its disk was put back, or somebody tampers with it. \"agent problems --acknowledge\" ends this alarm"

// open begins uploading over a session.
func (a *agent) open(ctx context.Context, l *link, dest *catalog.Destination, last vault.CommitHash, compare bool) (*upload.Uploader, upload.Finding, error) {
	return upload.Open(ctx, upload.Options{
		Keys: l.keys, Identity: l.device.Identity, Session: l.session, Catalog: dest,
		Members: l.members.Head(), Retention: l.session.Hello().Retention, Pin: l.device.Pin,
		Roots: func() []string {
			var roots []string
			for _, r := range a.rootsNow() {
				roots = append(roots, r.path)
			}
			return roots
		},
		Sent:     func(path string, n int64) { a.tell(Event{Kind: Sent, Path: path, Size: n}) },
		LastSent: last, Compare: compare, Log: a.log,
	})
}

// unlisted puts what lies below no line of transfer.info any more into a queue, to
// be said out of scope: it is not deleted, and not kept up to date any more.
func (a *agent) unlisted(ctx context.Context, dest *catalog.Destination, q *queue) error {
	if a.o.Protocol != 4 {
		return nil
	}
	roots := a.rootsNow()
	listed := func(path string) bool {
		return slices.ContainsFunc(roots, func(r root) bool { return below(r.path, path) })
	}
	before, err := a.cat.Roots(ctx)
	if err != nil {
		return err
	}
	for _, old := range before {
		if listed(old) {
			continue
		}
		left := false
		for v, err := range dest.Versions(ctx, old) {
			if err != nil {
				return err
			}
			if v.State == catalog.Present && !listed(v.Path) {
				left = true
				q.add(item{root: old, path: v.Path, op: vault.OpOutOfScope})
			}
		}
		if !left {
			if err := a.cat.ForgetRoot(ctx, old); err != nil {
				return err
			}
		}
	}
	return nil
}

// errRedial ends a session because another server is to be spoken to.
var errRedial = fmt.Errorf("%w: the server to speak to has changed", client.ErrLost)

// pingEvery keeps a session from being taken for dead, and finds out that it is: a
// server closes one after 5 minutes of silence.
const pingEvery = time.Minute

// keepAlive pings until ctx ends, and cancels when the session is over.
func (a *agent) keepAlive(ctx context.Context, cancel context.CancelCauseFunc, s *client.Session) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.Done():
			cancel(s.Err())
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			ping, stop := context.WithTimeout(ctx, answerTimeout)
			clock, err := s.Ping(ping)
			stop()
			if err != nil {
				cancel(fmt.Errorf("%w: it does not answer: %w", client.ErrLost, err))
				return
			}
			a.compareClocks(clock)
		}
	}
}

// compareClocks notes whether this machine's clock and the server's agree.
func (a *agent) compareClocks(server time.Time) {
	apart := client.CompareClocks(time.Now(), server)
	a.mu.Lock()
	before := a.clocks
	a.clocks = apart
	a.mu.Unlock()
	switch {
	case apart != nil && before == nil:
		a.tell(Event{Kind: Notice, Text: apart.Error() + "; " + clocksFix})
	case apart == nil && before != nil:
		a.tell(Event{Kind: Notice, Text: "this machine's clock and the server's agree again"})
	}
}

// clocksFix is what to do about clocks that disagree.
const clocksFix = "set the one that is wrong; backups go on meanwhile, and the times of versions, which --at means, are the server's"

// alarm keeps and tells what a person has to take note of.
func (a *agent) alarm(ctx context.Context, dest *catalog.Destination, kind, text string) error {
	a.log.Error("alarm", "kind", kind)
	a.tell(Event{Kind: Notice, Text: "ALARM: " + text})
	return dest.RaiseAlarm(ctx, catalog.Alarm{Kind: kind, At: time.Now(), Text: text})
}

// nextItem waits for the first item of the queue.
func (w *work) nextItem(ctx context.Context) (upload.Item, bool) {
	for {
		if !w.unpaused(ctx) {
			return upload.Item{}, false
		}
		w.begin()
		it, ok, more := w.queue.take()
		if ok {
			w.mu.Lock()
			w.sending++
			fuzzy := w.torn[it.path] >= fuzzyAfter
			w.mu.Unlock()
			w.changed.ring()
			return upload.Item{Root: it.root, Path: it.path, Op: it.op, Fuzzy: fuzzy}, true
		}
		w.end()
		w.drained()
		select {
		case <-more:
		case <-ctx.Done():
			return upload.Item{}, false
		}
	}
}

// drained states the first passes that are over: nothing is left but what is being
// sent.
func (w *work) drained() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, root := range w.queue.again() {
		w.rescans[root] = "more changes than were kept"
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	if w.uploader == nil || w.busy > w.sending || len(w.rescans) > 0 || w.settling.Waiting() > 0 {
		return
	}
	for root := range w.scanned {
		w.uploader.Complete(root)
	}
	if w.sending == 0 && w.queue.len() == 0 && w.uploader.Idle() {
		clear(w.refused)
		w.failing = localapi.Problem{}
	}
}

// result notes what became of an item.
func (w *work) result(r upload.Result) {
	w.settle(r, func(again bool) {
		w.do(func() {
			if again {
				w.torn[r.Path]++
				w.touch(r.Root, r.Path)
			} else {
				delete(w.torn, r.Path)
			}
		})
	})
	if r.Outcome == upload.Again {
		w.queue.add(item{root: r.Root, path: r.Path, op: r.Op})
	}
	w.queue.done(r.Path)
	w.mu.Lock()
	w.sending--
	if r.Outcome == upload.Again {
		w.refused[r.Path] = true
	} else if delete(w.refused, r.Path); len(w.refused) == 0 {
		w.failing = localapi.Problem{}
	}
	if r.Outcome == upload.Safe && r.Facts.Type == facts.Regular {
		w.safeFiles++
		w.safeBytes += r.Facts.Size
	}
	w.mu.Unlock()
	w.end()
}

// settle tells of an item's result; rest says whether the path has come to rest.
func (a *agent) settle(r upload.Result, rest func(again bool)) {
	switch r.Outcome {
	case upload.Safe:
		if r.Op != vault.OpPut {
			a.solve(r.Path)
			rest(false)
			return
		}
		// Of folders nobody wants to be told.
		if t := r.Facts.Type; t != 0 && t != facts.Directory {
			a.tell(Event{Kind: Safe, Path: r.Path, Size: r.Facts.Size})
		}
		if r.Torn {
			a.report(restlessProblem(r.Path), true)
		} else if r.Problem != nil {
			a.report(r.Problem, true)
		} else {
			// That a folder's own record is safe says nothing of what a scan
			// found wrong with what is in it.
			a.mu.Lock()
			p := a.problems[r.Path]
			a.mu.Unlock()
			if p.sending || r.Facts.Type != facts.Directory {
				a.solve(r.Path)
			}
		}
		rest(r.Torn)
	case upload.Restless:
		rest(true)
	case upload.Failed:
		a.report(r.Problem, true)
		rest(false)
	}
}
