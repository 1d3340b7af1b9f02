// Package storage says what a server needs of the place where everything sealed
// lies, and what every such place promises.
//
// The one invariant: what a method has acknowledged by returning nil survives the
// loss of the process and of power. Bytes are durable before they are indexed and
// indexed before they are acknowledged; an object is found only by the SHA-256 of
// its bytes, so damage is an error and never other content.
//
// A store knows no key and no name: it sees sealed objects, their clear headers,
// and opaque ids. Implementations are in the subpackages disk and memory; all of
// them pass the one contract suite in storagetest, plain and under faults.
package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"backstay/protocol/vault"
)

// Errors that callers branch on. A store wraps them with the ids concerned.
var (
	// ErrNotFound: no such object, item or version in this vault.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt: stored bytes are not what was stored. Never retried, never
	// reported as not found.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrInvalid: the caller's object or commit is malformed or too large.
	ErrInvalid = errors.New("invalid")
	// ErrMissingRef: an object or commit refers to an object that is not live
	// in the same vault.
	ErrMissingRef = errors.New("refers to an object that is not stored")
	// ErrConflict: the device's head or the item's revision is not the one that
	// the caller builds on.
	ErrConflict = errors.New("conflicts with what is stored")
	// ErrDigest: the device's state after the commit would not be the one that
	// the commit states.
	ErrDigest = errors.New("the state is not the one that the commit states")
	// ErrReferenced: an object that is still referred to cannot be deleted.
	ErrReferenced = errors.New("still referred to")
	// ErrFull: the disk or the quota is full. Reads go on; nothing stored is
	// harmed; the call may be repeated when there is room.
	ErrFull = errors.New("no space left for new data")
	// ErrFailed: the store met an I/O error after which it cannot know what is
	// durable. It acknowledges nothing more until it is opened again.
	ErrFailed = errors.New("the store has failed and must be opened again")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// Objects stores sealed objects under the SHA-256 of their bytes. All methods
// are safe for concurrent use.
type Objects interface {
	// Put stores objects of one vault and returns when all of them are durable,
	// or an error and then any subset may be stored. The caller keeps the
	// slices and must not change them until Put returns. Storing what is
	// already stored is no error and costs nothing; what was found damaged is
	// stored anew. Refs must be live in the same vault, that is stored and not
	// found damaged, or stand earlier in the same call: else ErrMissingRef. A
	// record whose operation is not a put may refer to what was found damaged: it
	// says something of it and does not rest on it. Objects that do not parse:
	// ErrInvalid.
	//
	// The ids are returned in order: they are computed here, once, from the
	// bytes that are stored.
	Put(ctx context.Context, v vault.ID, objects ...[]byte) ([]vault.ObjectID, error)
	// Has says for each id whether it is live in the vault. It is a hint: Commit
	// checks again, and it reads no object.
	Has(ctx context.Context, v vault.ID, ids []vault.ObjectID) ([]bool, error)
	// Get yields the objects in the order in which they lie in storage, each
	// once whatever the order or repetitions in ids. Every object's bytes are
	// checked against its id. An object that is missing (ErrNotFound) or
	// damaged (ErrCorrupt) is yielded with its ID set, no Data and the error,
	// and the iteration goes on; an error with a zero vault.Object ends it. Data is
	// valid until the next step.
	//
	// What was found damaged is remembered when the iteration has ended: until it
	// is stored again it is not live, and Get says ErrCorrupt of it unless its
	// bytes can be read after all.
	Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[vault.Object, error]
}

// Commit is an atomic step of one device's history.
type Commit struct {
	Vault  vault.ID
	Device vault.DeviceID
	// After is the sequence number of the device's head, which this commit
	// follows; 0 for the first.
	After uint64
	// Seq is greater than After, and one more unless the device makes good what
	// a store has lost (SPEC.md 2.17, key 13). Below 2^63 - 1.
	Seq uint64
	// Objects are stored first, as by Put, but only if the commit is.
	Objects [][]byte
	// Records are the record objects of this commit, stored before or among
	// Objects; each header names this Device and Seq, and no two the same path.
	Records []vault.ObjectID
	// Digest is the SHA-256 of the device's state digest after this commit
	// (SPEC.md 2.18), which the store compares with its own; nil: not compared.
	Digest *[32]byte
	// Body is kept verbatim for readers of the log; at most MaxBody bytes. The
	// store does not look into it.
	Body []byte
	// Stamp, if not nil, makes the statement that is kept with the commit, at
	// most MaxStamp bytes, once its time is fixed and nothing else can refuse
	// it. It is called on the store's writer: it must be quick and not call the
	// store.
	Stamp func(at time.Time) []byte
}

// Check returns ErrInvalid for what no store takes, whatever it holds: a number
// that cannot follow, a body or a batch beyond its bound, a record named twice.
func (c Commit) Check() error {
	switch {
	case c.Seq <= c.After || c.Seq >= math.MaxInt64:
		return fmt.Errorf("commit %d cannot follow %d: %w", c.Seq, c.After, ErrInvalid)
	case len(c.Body) > MaxBody:
		return fmt.Errorf("commit %d: body of %d bytes, at most %d: %w", c.Seq, len(c.Body), MaxBody, ErrInvalid)
	case len(c.Records) > MaxRecords:
		return fmt.Errorf("commit %d: %d records, at most %d: %w", c.Seq, len(c.Records), MaxRecords, ErrInvalid)
	}
	seen := make(map[vault.ObjectID]struct{}, len(c.Records))
	for _, id := range c.Records {
		if _, ok := seen[id]; ok {
			return fmt.Errorf("commit %d: record %v named twice: %w", c.Seq, id, ErrInvalid)
		}
		seen[id] = struct{}{}
	}
	return nil
}

// MakeStamp calls Stamp; ErrInvalid when what it returns is too long.
func (c Commit) MakeStamp(at time.Time) ([]byte, error) {
	if c.Stamp == nil {
		return nil, nil
	}
	stamp := c.Stamp(at)
	if len(stamp) > MaxStamp {
		return nil, fmt.Errorf("commit %d: stamp of %d bytes, at most %d: %w", c.Seq, len(stamp), MaxStamp, ErrInvalid)
	}
	return stamp, nil
}

// MaxBody bounds a commit's or item's body, in bytes.
const MaxBody = 1 << 20

// MaxStamp bounds a commit's stamp, in bytes.
const MaxStamp = 256

// MaxRecords bounds the records of one commit.
const MaxRecords = 16384

// MaxDelete bounds the objects of one Delete.
const MaxDelete = 65536

// Head is a commit as readers of the log see it.
type Head struct {
	Seq   uint64
	Time  time.Time // stamp time
	Body  []byte
	Stamp []byte // what Commit.Stamp made
}

// DeviceHead says how far a device's history goes.
type DeviceHead struct {
	Device vault.DeviceID
	Seq    uint64
	Time   time.Time // stamp time of commit Seq
}

// Version is one record as the index knows it.
type Version struct {
	Path   vault.PathID
	Parent vault.PathID
	Op     vault.Op
	Seq    uint64
	// Time is the commit's stamp time.
	Time   time.Time
	Record vault.ObjectID
}

// Judges says that a record with this operation is a statement about another
// record of its path and leaves the device's state as it is.
func Judges(op vault.Op) bool { return op == vault.OpValid || op == vault.OpVoid }

// InState says whether a path is in the device's state (SPEC.md 2.18) when its
// newest record that judges no other has this operation.
func InState(op vault.Op) bool { return op == vault.OpPut || op == vault.OpOutOfScope }

// Log is the sequence of commits of each device. All methods are safe for
// concurrent use.
type Log interface {
	// Commit appends to a device's history and returns the stamp time, and what
	// c.Stamp made of it, when objects, records and body are durable together.
	// Stamp times increase strictly over all commits of a store, whatever the
	// clock does. Errors: ErrConflict when After is not the device's head,
	// ErrMissingRef, ErrInvalid, ErrDigest; then nothing of it is stored.
	Commit(ctx context.Context, c Commit) (time.Time, []byte, error)
	// Head returns the newest commit of a device; the zero Head if it has none.
	Head(ctx context.Context, v vault.ID, d vault.DeviceID) (Head, error)
	// CommitAt returns the newest commit at or before a time; the zero Head if
	// there is none.
	CommitAt(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time) (Head, error)
	// Commits yields the commits numbered first to last, ascending; numbers may
	// leap. One of which no whole copy is left (ErrCorrupt) is yielded with its Seq
	// and Time, and the iteration goes on; an error with a zero Head ends it.
	Commits(ctx context.Context, v vault.ID, d vault.DeviceID, first, last uint64) iter.Seq2[Head, error]
	// Devices yields the devices that have committed to a vault, ascending by id.
	Devices(ctx context.Context, v vault.ID) iter.Seq2[DeviceHead, error]
}

// History is what the commits of a device say of its paths. All methods are safe
// for concurrent use. An iteration shows one moment, however long its caller
// takes, and ends with its first error.
type History interface {
	// Records yields the records of one commit in its order. No such commit:
	// ErrNotFound.
	Records(ctx context.Context, v vault.ID, d vault.DeviceID, seq uint64) iter.Seq2[Version, error]
	// Versions yields every record of a path, newest first.
	Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[Version, error]
	// Children yields, ascending by path id, the newest record at or before the
	// given time of every path whose newest record has this parent; the zero
	// time means now.
	Children(ctx context.Context, v vault.ID, d vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[Version, error]
	// State yields, ascending by path id, the records that make up the device's
	// state (SPEC.md 2.18) as of the given time; the zero time means now.
	State(ctx context.Context, v vault.ID, d vault.DeviceID, at time.Time) iter.Seq2[Version, error]
}

// Kind separates the items of a registry by purpose.
type Kind uint8

// Kinds in use. Values are written out because they stand in stored items. Keys
// shorter than a Key are padded with zeros behind.
const (
	// KindV3Client: a client of protocol version 3, keyed by its client id.
	KindV3Client Kind = 1
	// KindV3Name: the client id a version 3 name belongs to, keyed by a keyed
	// hash of the name.
	KindV3Name Kind = 2
	// KindV3Allowed: a name that the administrator lets register.
	KindV3Allowed Kind = 3
	// KindAccount: an account, keyed by the SHA-256 of its name.
	KindAccount Kind = 4
	// KindDevice: an enrolled device, keyed by its device id.
	KindDevice Kind = 5
	// KindInvitation: an invitation, keyed by its public key.
	KindInvitation Kind = 6
	// KindMember: an entry of a vault's membership log, keyed by the vault's id
	// and, in the last eight bytes, the entry's number, big-endian: so the
	// entries of one vault are neighbours and in order. Set once.
	KindMember Kind = 7
	// KindRoot: the vault of a recovery phrase, keyed by the root's tls public
	// key.
	KindRoot Kind = 8
)

// Key names an item within its kind.
type Key [32]byte

// Item is a small durable statement: an account, a device, a client. The store
// keeps bodies verbatim.
type Item struct {
	Kind Kind
	Key  Key
	// Rev counts the settings of this item from 1.
	Rev  uint64
	Body []byte
}

// CheckItems returns ErrInvalid for items that no store takes together: a body
// beyond MaxBody, a key twice.
func CheckItems(items []Item) error {
	type name struct {
		kind Kind
		key  Key
	}
	seen := make(map[name]struct{}, len(items))
	for _, it := range items {
		n := name{it.Kind, it.Key}
		if _, ok := seen[n]; ok {
			return fmt.Errorf("item of kind %d set twice: %w", it.Kind, ErrInvalid)
		}
		if len(it.Body) > MaxBody {
			return fmt.Errorf("item of kind %d: body of %d bytes, at most %d: %w", it.Kind, len(it.Body), MaxBody, ErrInvalid)
		}
		seen[n] = struct{}{}
	}
	return nil
}

// Registry keeps items that must survive but are no history. All methods are
// safe for concurrent use.
type Registry interface {
	// Set stores all items or none, durable when it returns. Each item's Rev
	// must be one more than the stored one's, 1 for a new item: else
	// ErrConflict and nothing is set, so of two callers that read the same
	// state one wins.
	Set(ctx context.Context, items ...Item) error
	// Lookup returns the current item or ErrNotFound.
	Lookup(ctx context.Context, k Kind, key Key) (Item, error)
	// Items yields the current items of a kind from a key on, ascending by key;
	// from the zero Key on: all.
	Items(ctx context.Context, k Kind, from Key) iter.Seq2[Item, error]
}

// Store is all of it, as the server opens it.
type Store interface {
	Objects
	Log
	History
	Registry
	// Stats counts what is stored.
	Stats(ctx context.Context) (Stats, error)
	// Close waits for calls in progress and releases the store. Later calls
	// return ErrClosed.
	Close() error
}

// Stats is a count over a whole store.
type Stats struct {
	Vaults  int64
	Devices int64
	Paths   int64 // distinct (vault, device, path)
	// Versions counts records with the operation put.
	Versions int64
	Objects  int64
	// BytesObjects is the size of the live objects, BytesStored what packs and
	// index take on the disk.
	BytesObjects int64
	BytesStored  int64
}

// Deleter removes objects. It is apart from [Store] so that a session, which
// holds a Store, cannot delete by type; garbage collection alone holds a Deleter.
type Deleter interface {
	// Delete removes objects of a vault from the index and frees the packs
	// that hold nothing else. An object that a commit or a live object outside
	// this call refers to stays: ErrReferenced, and nothing of this call is
	// deleted. Ids that are not stored are passed over. More than MaxDelete ids:
	// ErrInvalid.
	Delete(ctx context.Context, v vault.ID, ids ...vault.ObjectID) error
}
