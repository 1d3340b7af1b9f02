package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backstay/agent/capture"
	"backstay/agent/catalog"
	"backstay/agent/scan/facts"
	"backstay/agent/v3"
	wire "backstay/protocol/v3"
)

// answerTimeout is how long a server may take for an answer. A silent one is asked
// in both numberings, so it is found out in twice this time.
const answerTimeout = 30 * time.Second

// sender sends files over one session at a time. It is used by one goroutine.
type sender struct {
	a       *agent
	session *v3.Session
	// known says whether the destination has a file as it is now, so that it
	// need not be sent. Default: everything is sent.
	known func(context.Context, string, facts.Facts) (bool, error)
	// address is the server of the session; family the numbering it spoke.
	address string
	family  wire.Dialect
}

// connect begins a session unless there is one with the server of the
// configuration. Errors wrap ErrUnreachable.
func (s *sender) connect(ctx context.Context) error {
	a := s.a
	address := a.config().Address
	if s.session != nil && s.address == address {
		return nil
	}
	s.hangUp()
	if s.address != address {
		s.address, s.family = address, 0
	}
	a.mu.Lock()
	name, id := a.id.name, a.id.id
	a.mu.Unlock()
	session, err := v3.Dial(ctx, v3.Options{
		Address: address, Name: name, Identity: id, Family: s.family, AnswerTimeout: answerTimeout, Dial: a.line.Dial, Log: a.log,
		Save: func(id v3.Identity) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.id.save(id)
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	s.session, s.family = session, session.Family()
	a.tell(Event{Kind: Connected, Text: address})
	return nil
}

// hangUp ends the session; the next connect begins another.
func (s *sender) hangUp() {
	if s.session != nil {
		s.session.Close()
		s.session = nil
	}
}

// outcome is what became of sending one file.
type outcome int

const (
	// safe: acknowledged, or there is nothing to send any more.
	safe outcome = iota
	// restless: the file changes faster than it can be read.
	restless
	// failed: this file cannot be sent; the problem is reported.
	failed
	// offline: the session is over; the file is to be sent again.
	offline
)

// deliver sends one file and notes what became of it. With fuzzy, a file that
// changes while it is read is sent all the same, and is never called clean. The
// error, of the context or the catalog, ends the agent.
func (s *sender) deliver(ctx context.Context, it item, fuzzy bool) (outcome, error) {
	a := s.a
	names, err := a.cat.NamesV3(ctx, it.root, []string{it.path})
	if err != nil {
		return failed, err
	}
	src := &source{root: it.root, path: it.path, fuzzy: fuzzy, hold: func() error { return nil }, sent: func(n int64) { a.tell(Event{Kind: Sent, Path: it.path, Size: n}) }}
	if a.hold != nil {
		src.hold = func() error { return a.hold(ctx) }
	}
	if err := src.open(); err != nil {
		if errors.Is(err, capture.ErrVanished) || errors.Is(err, capture.ErrNotRegular) {
			// The next scan says what that means.
			a.solve(it.path)
			return safe, nil
		}
		a.report(facts.Explain(it.path, err), true)
		return failed, nil
	}
	defer src.close()
	if s.known != nil {
		// It may have been queued again while it was being sent.
		if known, err := s.known(ctx, it.path, src.facts); known || err != nil {
			return safe, err
		}
	}
	_, err = s.session.Send(ctx, names[0], src)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return offline, context.Cause(ctx)
	case errors.Is(err, v3.ErrTorn):
		if errors.Is(err, capture.ErrVanished) {
			a.solve(it.path)
			return safe, nil
		}
		if read := src.failure; read != nil {
			a.report(facts.Explain(it.path, read), true)
			return failed, nil
		}
		return restless, nil
	case errors.Is(err, v3.ErrRefused), errors.Is(err, v3.ErrChecksum), errors.Is(err, v3.ErrTooLarge), errors.Is(err, wire.ErrName):
		a.report(sendProblem(it.path, err), true)
		return failed, nil
	default:
		s.hangUp()
		a.log.Debug("session lost", "err", err)
		return offline, nil
	}
	if err := a.acknowledged(ctx, catalog.Version{Path: it.path, Facts: src.facts, Fuzzy: src.torn}); err != nil {
		return failed, err
	}
	a.tell(Event{Kind: Safe, Path: it.path, Size: src.facts.Size})
	if src.torn {
		a.report(restlessProblem(it.path), true)
		return restless, nil
	}
	a.solve(it.path)
	return safe, nil
}

// restlessProblem is that of a file whose copy may mix two states of it.
func restlessProblem(path string) *facts.Problem {
	return &facts.Problem{
		Path: path, Reason: "it changes all the time, so the copy on the server may mix two states of it",
		Fix: "it is read again at growing intervals; for a clean copy close the program that writes it", Err: capture.ErrTorn,
	}
}

// sendProblem explains why the server did not take a file.
func sendProblem(path string, err error) *facts.Problem {
	p := &facts.Problem{Path: path, Err: err, Fix: "it is tried again every 15 minutes; ask the server's administrator, whose log says more"}
	switch {
	case errors.Is(err, v3.ErrTooLarge):
		p.Reason = "it is larger than the 4 GiB that protocol version 3 can carry"
		p.Fix = "exclude it in transfer.info, or keep a copy elsewhere"
	case errors.Is(err, v3.ErrChecksum):
		p.Reason = "the server's copy differed from what was sent, three times"
		p.Fix = "it is tried again every 15 minutes; check the network and the server's disk"
	default:
		p.Reason = "the server refused it: " + err.Error()
	}
	return p
}

// source is a file as v3.Session.Send reads it.
type source struct {
	root, path string
	// fuzzy: a torn read is good enough; torn says that it was one.
	fuzzy, torn bool
	// hold waits, before every read, until anything may be sent.
	hold func() error
	// sent is told of every read, and of what a Rewind takes back.
	sent func(n int64)

	file  *capture.File
	facts facts.Facts
	read  int64
	// failure is why a read failed, if not because the file changed.
	failure error
}

func (s *source) open() error {
	f, err := capture.Open(s.root, s.path)
	if err == nil && f.Unsettled() > 0 {
		// Once: a file that is written all the time is torn all the same.
		wait := f.Unsettled()
		f.Close()
		time.Sleep(wait)
		f, err = capture.Open(s.root, s.path)
	}
	if err != nil {
		return err
	}
	s.file, s.facts, s.torn, s.read, s.failure = f, f.Facts(), false, 0, nil
	return nil
}

func (s *source) close() { s.file.Close() }

// Size implements v3.Source.
func (s *source) Size() int64 { return s.facts.Size }

// Read implements v3.Source.
func (s *source) Read(p []byte) (int, error) {
	if err := s.hold(); err != nil {
		return 0, err
	}
	n, err := s.file.Read(p)
	s.read += int64(n)
	if n > 0 {
		s.sent(int64(n))
	}
	return n, err
}

// Check implements v3.Source.
func (s *source) Check() error {
	err := s.file.Check()
	if p, ok := errors.AsType[*facts.Problem](err); ok {
		s.failure = p
		return err
	}
	s.torn = err != nil
	if s.fuzzy {
		return nil
	}
	return err
}

// Rewind implements v3.Source.
func (s *source) Rewind() error {
	s.sent(-s.read)
	s.close()
	return s.open()
}
