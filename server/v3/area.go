// Package v3 is the legacy area: everything a server does for clients of protocol
// version 3. It registers them, receives their files and keeps every version
// sealed under a key of the server's own (SPEC.md, parts 1 and 2).
//
// The one invariant: a file is listed only if it arrived whole, and it is durable
// before its client is told so. An attempt that breaks off, does not decrypt or is
// found wrong by its client's checksum is never listed, and no later message can
// take back what an earlier session left.
//
// The protocol authenticates nobody and protects nothing on its way: whoever knows
// a client's name can add versions to its files. The package only makes sure that
// nothing more can be done: its clients reach no other history, no delete and no
// read. Which peers may speak version 3 at all, and how many at once, is decided
// before [Area.Serve] is called.
//
// Enter at [Open].
package v3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// Options say what the wire does not, and bound what peers may take. The zero
// value is ready for use.
type Options struct {
	// Series says which dialect each series of request codes means. Default:
	// Documented and Field.
	Series wire.Series
	// OAEP is the hash that wraps AES keys in the dialects that know two.
	// Default: SHA-256.
	OAEP wire.OAEPHash
	// OAEPByName overrides OAEP for clients registered under these names.
	OAEPByName map[string]wire.OAEPHash
	// AckResend answers "checksum wrong, resending", which one family of
	// clients expects. Default: the file is the next message either way.
	AckResend bool
	// OnlyAllowed lets only names register that Allow has admitted. Clients
	// that are registered already go on. Default: every name that is free.
	OnlyAllowed bool

	// MaxFile is the size of the largest file, in bytes, rounded up to whole
	// blocks of the cipher. Default: 4 GiB - 1, the most that the wire can say.
	MaxFile int64
	// MaxSkip is the largest payload read past, in bytes, to stay in step
	// after a request that is no valid one of this protocol; a session that
	// claims more ends. The content of a refused file is always read past.
	// Default: 16 MiB.
	MaxSkip int64
	// MaxTransfers is how many files above 256 KiB are received at a time,
	// each of which takes some 10 MiB of memory; further ones wait. Default: 4.
	MaxTransfers int
	// MaxClients is how many clients can be registered. Default: 10,000.
	MaxClients int

	// IdleTimeout is how long a peer may send or take nothing before its
	// session ends. Default: 60 s.
	IdleTimeout time.Duration
	// HeaderTimeout is how long a request may take from its first byte to its
	// content. Default: 30 s.
	HeaderTimeout time.Duration

	// Log takes client ids, and no name, content or key. Default: discarded.
	Log *slog.Logger
}

func (o *Options) setDefaults() {
	o.MaxFile = positive(o.MaxFile, 1<<32-1)
	o.MaxSkip = positive(o.MaxSkip, 16<<20)
	o.MaxTransfers = positive(o.MaxTransfers, 4)
	o.MaxClients = positive(o.MaxClients, 10_000)
	o.IdleTimeout = positive(o.IdleTimeout, 60*time.Second)
	o.HeaderTimeout = positive(o.HeaderTimeout, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func positive[T int | int64 | time.Duration](v, fallback T) T {
	if v > 0 {
		return v
	}
	return fallback
}

// Area is the legacy area of a store. All methods are safe for concurrent use.
type Area struct {
	o     Options
	store storage.Store
	keys  *vault.Keyring

	// transfers holds a token for each large file being received.
	transfers chan struct{}
	clients   atomic.Int64 // registered ones, as far as this process knows
	counters  counters

	// commits serialises the commits of one client, chosen by a random byte of
	// its id, so that sessions of one client do not conflict all the time. It
	// guards nothing: of commits that meet all the same the store refuses one.
	commits [256]sync.Mutex
}

// Open returns the legacy area that lies in the vault of keys. The caller keeps
// store open for as long as it uses the area, and closes it.
func Open(ctx context.Context, store storage.Store, keys *vault.Keyring, o Options) (*Area, error) {
	if err := o.Series.Validate(); err != nil {
		return nil, err
	}
	o.setDefaults()
	a := &Area{o: o, store: store, keys: keys, transfers: make(chan struct{}, o.MaxTransfers)}
	for _, err := range store.Items(ctx, storage.KindV3Client, storage.Key{}) {
		if err != nil {
			return nil, fmt.Errorf("count version 3 clients: %w", err)
		}
		a.clients.Add(1)
	}
	return a, nil
}

// Allow lets a client of this name register where [Options.OnlyAllowed] is set;
// durable when it returns. Allowing again changes nothing. A name that no client
// can have is storage.ErrInvalid.
func (a *Area) Allow(ctx context.Context, name string) error {
	if _, err := wire.AppendName(nil, name); err != nil {
		return fmt.Errorf("allow a client: %w: %w", storage.ErrInvalid, err)
	}
	item, err := a.seal(note{kind: storage.KindV3Allowed, name: name}, 1)
	if err == nil {
		err = a.store.Set(ctx, item)
	}
	// A conflict says that the item is there already.
	if err != nil && !errors.Is(err, storage.ErrConflict) {
		return fmt.Errorf("allow a client: %w", err)
	}
	return nil
}

// Counters count events since Open.
type Counters struct {
	Sessions      int64
	Files         int64 // received whole and durable
	Bytes         int64 // of their plaintext
	ChecksumWrong int64 // files their client then found wrong
	Refused       int64 // requests answered with an error or a refusal
}

type counters struct{ sessions, files, bytes, checksumWrong, refused atomic.Int64 }

// Counters returns the counts so far.
func (a *Area) Counters() Counters {
	c := &a.counters
	return Counters{c.sessions.Load(), c.files.Load(), c.bytes.Load(), c.checksumWrong.Load(), c.refused.Load()}
}
