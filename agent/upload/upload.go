// Package upload turns paths that have changed into commits that a server of
// protocol 4 has acknowledged: capture, seal, send, commit, note.
//
// The one invariant: the catalog is told of a commit only after the server's stamp
// for it has been verified, and a commit names only objects whose PUT has been
// acknowledged. Losing the session or the process at any point loses nothing but
// work, and little of that: objects that arrived are not sent again.
//
// It does not decide what has changed, and does not keep a queue: items come from
// the caller and go back to it. Enter at [Open], which brings the catalog and the
// server in line, then [Uploader.Run].
package upload

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"backstay/agent/catalog"
	"backstay/agent/scan/facts"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// Errors that callers branch on, beside those of the session.
var (
	// ErrTwoCopies: somebody else commits with this device's keys while it runs,
	// which can only be a copy of it. Going on would mix two histories.
	ErrTwoCopies = errors.New("another copy of this device is at work: its keys are used on two machines")
	// ErrServer: the server's answer does not verify. It is not the server that
	// was trusted, or is not well.
	ErrServer = errors.New("the server's answer does not verify")
	// ErrStale: the membership log has grown, or the server's state is not what
	// the catalog says; open the uploader again.
	ErrStale = errors.New("the server's state has changed")
)

// Session is what is needed of a session with the server; agent/v4's is one.
type Session interface {
	Source
	Have(ctx context.Context, ids []vault.ObjectID) ([]bool, error)
	Put(ctx context.Context, objects ...[]byte) error
	Commit(ctx context.Context, commit []byte, objects [][]byte) (stamp []byte, err error)
}

// Options say for whom, what with and where to.
type Options struct {
	Keys     *vault.Keyring
	Identity *vault.Identity
	Session  Session
	Catalog  *catalog.Destination
	// Members is the verified membership head that commits name, Retention what
	// the server states, Pin its key.
	Members   vault.EntryHash
	Retention vault.Retention
	Pin       v4.Pin
	// Roots returns the lines of transfer.info in force, resolved.
	Roots func() []string
	// Sent is told of bytes that were read of a path, one call at a time for
	// one path; negative where they are taken back. Default: nobody.
	Sent func(path string, n int64)
	// Hold is waited for before a batch of objects or a commit is sent; it returns
	// when that may be, or the cause of its context's end. What is under way is
	// not stopped. Default: it may be at once.
	Hold func(context.Context) error
	// LastSent is the commit that was sent last by an earlier uploader of this
	// process, zero for the first one.
	LastSent vault.CommitHash
	// Compare compares the whole state with the server's even where the newest
	// commits agree: after the server has refused a commit's digest.
	Compare bool
	// Log takes file names at debug level only. Default: discarded.
	Log *slog.Logger
}

// Item is a path that is to be brought up to date on the server.
type Item struct {
	Root, Path string
	// Op is OpPut for what is there, OpDelete for what is gone, OpOutOfScope
	// for what is no longer to be protected.
	Op vault.Op
	// Fuzzy: the file would not rest; a copy that may mix two states of it is
	// better than none.
	Fuzzy bool
}

// Outcome is what became of an item.
type Outcome int

// The outcomes.
const (
	// Safe: committed and acknowledged, or nothing there was left to say.
	Safe Outcome = iota + 1
	// Restless: the file changes faster than it can be read.
	Restless
	// Failed: it cannot be read; Problem says why.
	Failed
	// Again: the session ended or the server lacks an object; the item has to
	// be given once more.
	Again
)

// Result is what became of an item.
type Result struct {
	Item
	Outcome Outcome
	// Facts are those of the capture, for Safe.
	Facts facts.Facts
	// Torn: what is safe may mix two states of the file.
	Torn bool
	// Problem says why it Failed, or what of the metadata of what is Safe could
	// not be read.
	Problem *facts.Problem
}

// Uploader uploads over one session. It is used once.
type Uploader struct {
	o      Options
	device vault.DeviceID
	put    *putter
	// cutters are cut.Cutters: making one expands its keys.
	cutters sync.Pool
	// large bounds the files read at once that are more than smallFile long.
	large chan struct{}

	history  catalog.History
	lastSent vault.CommitHash
	// passes says with which commit the first pass over a root was complete.
	passes map[string]uint64
	// nameless are records in the server's state that could not be opened.
	nameless map[vault.PathID]v4.Row
	// outOfScope: the state may hold paths that are out of scope.
	outOfScope bool

	mu   sync.Mutex // guards what follows
	busy int        // items being captured
	open int        // items taken and not reported
	// completed are roots whose first pass is over when all open items are
	// committed.
	completed map[string]bool
	// passed are the roots of passes.
	passed map[string]bool
	wake   chan struct{}
}

const (
	// workers is how many paths are captured at once: small ones wait for the
	// system more than for a core.
	workers = 6
	// smallFile is the size up to which files are captured all at once; of
	// larger ones only largeFiles, which bounds the memory in use.
	smallFile  = 1 << 20
	largeFiles = 1
	// readyPaths is how many captured paths may wait while a commit is under way,
	// at 5 KiB each at most: capturing goes on meanwhile.
	readyPaths = 4096
)

// Complete says that the first pass over a root is over with the items that Run has
// taken: there is nothing else in scope to send. The commit that brings the last of
// them states it.
func (u *Uploader) Complete(root string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.passed[root] {
		u.completed[root] = true
		u.wakeUp()
	}
}

// wakeUp makes the committer look whether there is a pass to state. The caller
// holds mu.
func (u *Uploader) wakeUp() {
	if u.open > 0 || len(u.completed) == 0 {
		return
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// Seq is the sequence number of the newest acknowledged commit. It must not be
// called while Run is running.
func (u *Uploader) Seq() uint64 { return u.history.Seq }

// Idle says that every item that was taken is reported, and every pass stated.
func (u *Uploader) Idle() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.open == 0 && len(u.completed) == 0
}

// LastSent is the hash of the commit that was sent last. It must not be called
// while Run is running.
func (u *Uploader) LastSent() vault.CommitHash { return u.lastSent }

// Run takes items from next until it returns false, and tells done what became of
// each, one call at a time. next blocks until there is an item or its context
// ends. Run returns nil when next has returned false and every item is done. Any
// other end is an error: the session's, ErrTwoCopies, ErrServer, ErrStale, the
// catalog's, or ctx's; then every item that was taken and is not done was given
// back as Again.
func (u *Uploader) Run(ctx context.Context, next func(context.Context) (Item, bool), done func(Result)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var telling sync.Mutex
	report := func(r Result) {
		telling.Lock()
		done(r)
		telling.Unlock()
		u.mu.Lock()
		u.open--
		u.wakeUp()
		u.mu.Unlock()
	}
	ready := make(chan *ready, readyPaths)
	var group, capturing sync.WaitGroup
	for range workers {
		capturing.Go(func() {
			// What is given back at the end may be next at once.
			for ctx.Err() == nil {
				it, ok := next(ctx)
				if !ok {
					return
				}
				u.begin()
				r, result := u.capture(ctx, it)
				if r == nil {
					u.end()
					if result.Outcome == 0 {
						result.Outcome = Again
					}
					report(result)
					continue
				}
				u.name(r)
				r.stated = u.stated(&r.rec)
				ready <- r // the committer takes until the channel is closed
				u.end()
			}
		})
	}
	group.Go(func() {
		capturing.Wait()
		close(ready)
	})
	err := u.commits(ctx, ready, report)
	if err != nil {
		cancel(err)
		for r := range ready {
			report(Result{Item: r.item, Outcome: Again})
		}
	}
	group.Wait()
	u.put.close(err)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return u.put.note(ctx)
}

func (u *Uploader) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy++
	u.open++
}

func (u *Uploader) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy--
}

func (u *Uploader) idle() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.busy == 0
}

// ready is a path that is captured and waits for its commit.
type ready struct {
	item Item
	// path and parent are the ids of the path and of the folder that it is in.
	path, parent vault.PathID

	rec vault.Record
	// stated is the keyed hash of what rec states.
	stated vault.Hash
	facts  facts.Facts
	torn   bool
	// partial says what of the metadata could not be read.
	partial *facts.Problem
	// needs are the batches of objects that have to be acknowledged first.
	needs []*batch
}

// size is about what the record takes in a commit.
func (r *ready) size() int {
	n := 256 + len(r.rec.Name) + len(r.rec.Content.Inline) + 56*len(r.rec.Content.Entries) + len(r.rec.Target) + len(r.rec.Security) + 16*len(r.rec.Holes)
	for _, x := range r.rec.Xattrs {
		n += len(x.Name) + len(x.Value) + 8
	}
	return n
}

// id is the path id of a path.
func (u *Uploader) id(path string) vault.PathID { return u.o.Keys.Path(u.device, []byte(path)) }

// stated is a keyed hash of everything that a record states: records that state the
// same have the same, others another.
func (u *Uploader) stated(r *vault.Record) vault.Hash {
	plain := r.Append(nil)
	for _, id := range r.Content.Refs() {
		plain = append(plain, id[:]...)
	}
	return u.o.Keys.Hash(plain)
}

// name sets the ids of a path that waits for its commit.
func (u *Uploader) name(r *ready) { r.path, r.parent = u.id(r.item.Path), u.id(dir(r.item.Path)) }

// clock is the device's clock as commits state it.
func clock() time.Time { return time.Now() }
