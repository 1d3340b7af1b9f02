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
	// ErrConflict: another commit or item took the sequence number or revision.
	ErrConflict = errors.New("conflicts with what is stored")
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
	// already stored is no error and costs nothing. Refs must be live in the
	// same vault or stand earlier in the same call: else ErrMissingRef. Objects
	// that do not parse: ErrInvalid.
	//
	// The ids are returned in order: they are computed here, once, from the
	// bytes that are stored.
	Put(ctx context.Context, v vault.ID, objects ...[]byte) ([]vault.ObjectID, error)
	// Has says for each id whether it is stored in the vault. It is a hint:
	// Commit checks again.
	Has(ctx context.Context, v vault.ID, ids []vault.ObjectID) ([]bool, error)
	// Get yields the objects in the order in which they lie in storage, each
	// once whatever the order or repetitions in ids. Every object's bytes are
	// checked against its id. An object that is missing (ErrNotFound) or
	// damaged (ErrCorrupt) is yielded with its ID set, no Data and the error,
	// and the iteration goes on; an error with a zero Object ends it. Data is
	// valid until the next step.
	Get(ctx context.Context, v vault.ID, ids []vault.ObjectID) iter.Seq2[Object, error]
}

// Object is a sealed object and its id.
type Object struct {
	ID   vault.ObjectID
	Data []byte
}

// Commit is an atomic step of one device's history.
type Commit struct {
	Vault  vault.ID
	Device vault.DeviceID
	// Seq is one more than the device's head, 1 for the first.
	Seq uint64
	// Objects are stored first, as by Put, but only if the commit is.
	Objects [][]byte
	// Records are the record objects of this commit, stored before or among
	// Objects; each header names this Device and Seq.
	Records []vault.ObjectID
	// Body is kept verbatim for readers of the log; at most MaxBody bytes. The
	// store does not look into it.
	Body []byte
}

// Check returns ErrInvalid for what no store takes, whatever it holds: a body or
// a batch beyond its bound, a record named twice.
func (c Commit) Check() error {
	switch {
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

// MaxBody bounds a commit's or item's body, in bytes.
const MaxBody = 1 << 20

// MaxRecords bounds the records of one commit.
const MaxRecords = 16384

// MaxDelete bounds the objects of one Delete.
const MaxDelete = 65536

// Head is the newest commit of a device.
type Head struct {
	Seq  uint64
	Time time.Time
	Body []byte
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

// Log is the history of devices. All methods are safe for concurrent use.
type Log interface {
	// Commit appends to a device's history and returns the stamp time when
	// objects, records and body are durable together. Stamp times increase
	// strictly over all commits of a store, whatever the clock does. Errors:
	// ErrConflict when Seq is not the next, ErrMissingRef, ErrInvalid.
	Commit(ctx context.Context, c Commit) (time.Time, error)
	// Head returns the newest commit of a device; the zero Head if it has none.
	Head(ctx context.Context, v vault.ID, d vault.DeviceID) (Head, error)
	// Versions yields every record of a path, newest first.
	Versions(ctx context.Context, v vault.ID, d vault.DeviceID, p vault.PathID) iter.Seq2[Version, error]
	// Children yields, ordered by path id, the newest record at or before the
	// given time of every path whose newest record has this parent; the zero
	// time means now.
	Children(ctx context.Context, v vault.ID, d vault.DeviceID, parent vault.PathID, at time.Time) iter.Seq2[Version, error]
}

// Kind separates the items of a registry by purpose.
type Kind uint8

// Kinds in use. Values are written out because they stand in stored items.
const (
	// KindV3Client: a client of protocol version 3, keyed by its client id.
	KindV3Client Kind = 1
	// KindV3Name: the client id a version 3 name belongs to, keyed by a keyed
	// hash of the name.
	KindV3Name Kind = 2
	// KindV3Allowed: a name that the administrator lets register.
	KindV3Allowed Kind = 3
)

// Key names an item within its kind.
type Key [32]byte

// Item is a small durable statement: an account, a device, a client. Bodies are
// sealed by whoever sets them; the store keeps them verbatim.
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
	// Items yields every current item of a kind, ordered by key.
	Items(ctx context.Context, k Kind) iter.Seq2[Item, error]
}

// Store is all of it, as the server opens it.
type Store interface {
	Objects
	Log
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
