// Package restore gives a device's paths back as they were at a moment, in the
// process and with the rights of who asks.
//
// The one invariant: what is given back is what the device signed, byte for byte,
// or it is an error with a name. Enter at [Query.Open], which finds a commit and
// verifies its signature, membership and time; [ReadState] compares the whole state
// with what that commit signed, [Query.Single] proves one file alone; [Run] verifies every record and every piece of
// content before it gets its name in the target, and [Check] does the same without
// writing. Nothing that a server or a record says leads outside the target or
// through a symlink in it, and nothing that stands there is replaced unless asked,
// and then it is kept under another name.
//
// A restore that was interrupted continues when it is run again into the same
// target: a file gets its name only when it is complete, so one that is there with
// the size, modification time and mode recorded is taken for done. Where a file
// system keeps times or modes badly, the content is compared.
//
// The package keeps no state between runs, chooses no names beside originals and
// asks nobody anything.
package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
)

// A Getter yields sealed objects as [vault.Fetch] says: each id once, in any order,
// with its error if it cannot be had: vault.ErrMissing, or a vault.ErrCorrupt. Any
// other error ends the restore. Several calls may run at a time.
type Getter interface {
	Get(ctx context.Context, ids []vault.ObjectID) iter.Seq2[vault.Object, error]
}

// A Source is where a history lies: a session with a server. Nothing it says is
// believed.
type Source interface {
	Getter
	// Head returns the newest commit at or before a time, or of all if that is
	// zero. It has no Commit if there is none.
	Head(ctx context.Context, device vault.DeviceID, at time.Time) (wire.Head, error)
	// Log yields the commits from first to last, or to the newest if last is 0,
	// ascending.
	Log(ctx context.Context, device vault.DeviceID, first, last uint64) iter.Seq2[wire.Head, error]
	// State yields the rows of the state at a time, ascending by path id.
	State(ctx context.Context, device vault.DeviceID, at time.Time) iter.Seq2[wire.Row, error]
}

// ErrIntegrity is the class of all errors that say that a server's answer is not
// what the device left there. They are never retried.
var ErrIntegrity = errors.New("integrity")

// Errors of the class [ErrIntegrity], one for each way to be lied to.
var (
	// ErrForeign: a commit of another device came.
	ErrForeign error = integrity("the commit is another device's")
	// ErrForged: a commit was altered, made by another, or for another vault.
	ErrForged error = integrity("the commit is not signed by the device for this vault")
	// ErrNotMember: the membership that a commit names is none of the vault's, or
	// one without the device, or the device was an intruder's.
	ErrNotMember error = integrity("the device was no member of the vault when it made the commit")
	// ErrStamp: a stamp is not for this commit, or not by the server it should be.
	ErrStamp error = integrity("the stamp is not the server's word on this commit")
	// ErrRetimed: a commit got another stamp than the one its device signed later.
	ErrRetimed error = integrity("the commit's time was changed afterwards")
	// ErrFork: a commit continues another history than the one before it.
	ErrFork error = integrity("the commit does not continue the one before")
	// ErrOrder: numbers, stamps or memberships of commits do not increase.
	ErrOrder error = integrity("the commits are not in order")
	// ErrOmitted: commits that must be there are not.
	ErrOmitted error = integrity("commits were left out")
	// ErrLater: the commit is later than asked for.
	ErrLater error = integrity("the commit is later than asked for")
	// ErrDigest: the paths and records of the state are not those signed.
	ErrDigest error = integrity("the state is not the one the device signed")
	// ErrState: the rows cannot be a state, whoever signed it.
	ErrState error = integrity("the state is not well formed")
	// ErrRecord: a record is not the one its row states, or its path cannot be one.
	ErrRecord error = integrity("the record is not the one in the state")
)

// Errors that say nothing about anybody's honesty.
var (
	// ErrNoCommit: the device had nothing backed up at that time.
	ErrNoCommit = errors.New("nothing was backed up by then")
	// ErrNotFound: the path was not there at that moment.
	ErrNotFound = errors.New("the path was not there at that time")
	// ErrNotAlone: the path is a folder, or its own record does not say what it is.
	// The whole state does.
	ErrNotAlone = errors.New("only the list of all paths says what is there")
	// ErrExists: something else has the name; it was left as it is.
	ErrExists = errors.New("something else is there and was left as it is; restore elsewhere, or overwrite, which keeps it under another name")
	// ErrBusy: another restore writes into the same target.
	ErrBusy = errors.New("another restore is writing there; wait for it, or choose another folder")
)

// integrity is an error of the class ErrIntegrity.
type integrity string

func (e integrity) Error() string      { return string(e) }
func (integrity) Is(target error) bool { return target == ErrIntegrity }

// because says that err is the reason for one of this package's errors.
func because(named, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", named, err)
}
