package v3

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"backstay/protocol/cbor"
	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// A note is the sealed body of a registry item. The fields that its kind has no
// use for are zero.
type note struct {
	kind storage.Kind
	id   wire.ClientID
	name string
	// publicKey is the key field as the client sent it; empty until then.
	publicKey []byte
}

// Keys of a note's map. All four always stand there.
const (
	noteKind      = 0
	noteID        = 1
	noteName      = 2
	notePublicKey = 3
)

// key names the note's item. A name shows only as a keyed hash; it shares the key
// with paths, whose device is never zero.
func (a *Area) key(n note) (k storage.Key) {
	if n.kind == storage.KindV3Client {
		copy(k[:], n.id[:])
		return k
	}
	h := a.keys.Path(vault.DeviceID{}, []byte(n.name))
	copy(k[:], h[:])
	return k
}

func (a *Area) seal(n note, rev uint64) (storage.Item, error) {
	body, _, err := a.keys.Seal(nil, vault.Header{Type: vault.TypeNote}, n.encode())
	return storage.Item{Kind: n.kind, Key: a.key(n), Rev: rev, Body: body}, err
}

func (n note) encode() []byte {
	b := cbor.AppendMap(nil, 4)
	b = cbor.AppendUint(cbor.AppendInt(b, noteKind), uint64(n.kind))
	b = cbor.AppendBytes(cbor.AppendInt(b, noteID), n.id[:])
	b = cbor.AppendBytes(cbor.AppendInt(b, noteName), []byte(n.name))
	return cbor.AppendBytes(cbor.AppendInt(b, notePublicKey), n.publicKey)
}

// open returns the note of an item. One that is not what was sealed for that kind
// and key is storage.ErrCorrupt.
func (a *Area) open(it storage.Item) (note, error) {
	plain, h, err := a.keys.Open(nil, it.Body)
	if err != nil {
		return note{}, damage(err)
	}
	n, err := decodeNote(plain)
	if err == nil && (h.Type != vault.TypeNote || n.kind != it.Kind || a.key(n) != it.Key) {
		err = errors.New("it belongs elsewhere")
	}
	if err != nil {
		return note{}, fmt.Errorf("registry item: %w: %w", storage.ErrCorrupt, err)
	}
	return n, nil
}

// decodeNote is the inverse of encode and accepts nothing else.
func decodeNote(b []byte) (n note, err error) {
	v, err := cbor.Parse(b)
	if err != nil {
		return n, err
	}
	size, pairs, err := v.Map()
	if err != nil {
		return n, err
	}
	if size != 4 {
		return n, fmt.Errorf("%d fields", size)
	}
	for k, v := range pairs {
		var b []byte
		switch k {
		case noteKind:
			var kind uint64
			kind, err = v.Uint()
			n.kind = storage.Kind(kind)
			if kind > 0xff {
				err = fmt.Errorf("kind %d", kind)
			}
		case noteID:
			if b, err = v.Bytes(); err == nil && len(b) != len(n.id) {
				err = fmt.Errorf("client id of %d bytes", len(b))
			}
			copy(n.id[:], b)
		case noteName:
			b, err = v.Bytes()
			n.name = string(b)
		case notePublicKey:
			b, err = v.Bytes()
			n.publicKey = bytes.Clone(b)
		default:
			err = fmt.Errorf("unknown field %d", k)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// lookup returns what the registry holds at the place of n, and its revision.
func (a *Area) lookup(ctx context.Context, n note) (note, uint64, error) {
	it, err := a.store.Lookup(ctx, n.kind, a.key(n))
	if err != nil {
		return note{}, 0, err
	}
	n, err = a.open(it)
	return n, it.Rev, err
}

// clientByID returns a registered client and its revision, or storage.ErrNotFound.
func (a *Area) clientByID(ctx context.Context, id wire.ClientID) (note, uint64, error) {
	return a.lookup(ctx, note{kind: storage.KindV3Client, id: id})
}

// clientByName is clientByID for the name a client registered.
func (a *Area) clientByName(ctx context.Context, name string) (note, uint64, error) {
	n, _, err := a.lookup(ctx, note{kind: storage.KindV3Name, name: name})
	if err != nil {
		return note{}, 0, err
	}
	return a.clientByID(ctx, n.id)
}

// Reasons to refuse a registration.
var (
	errTaken      = errors.New("the name is registered already")
	errNotAllowed = errors.New("the name is not allowed to register")
	errClients    = errors.New("too many clients are registered")
)

// register gives a free name a new client id: both items are set or none, so of
// two clients that register a name at the same time one is refused.
func (a *Area) register(ctx context.Context, name string) (note, error) {
	if a.o.OnlyAllowed {
		_, _, err := a.lookup(ctx, note{kind: storage.KindV3Allowed, name: name})
		if errors.Is(err, storage.ErrNotFound) {
			return note{}, errNotAllowed
		}
		if err != nil {
			return note{}, err
		}
	}
	if a.clients.Load() >= int64(a.o.MaxClients) {
		return note{}, errClients
	}
	client := note{kind: storage.KindV3Client, id: wire.NewClientID(), name: name}
	byID, err := a.seal(client, 1)
	if err != nil {
		return note{}, err
	}
	byName, err := a.seal(note{kind: storage.KindV3Name, id: client.id, name: name}, 1)
	if err != nil {
		return note{}, err
	}
	switch err := a.store.Set(ctx, byName, byID); {
	case errors.Is(err, storage.ErrConflict):
		return note{}, errTaken
	case err != nil:
		return note{}, err
	}
	a.clients.Add(1)
	return client, nil
}

// setPublicKey records a client's key. The newest wins: some clients make one for
// every session, and the protocol gives no means to tell them from an impostor.
func (a *Area) setPublicKey(ctx context.Context, n note, rev uint64, key []byte) (note, error) {
	for {
		if bytes.Equal(n.publicKey, key) {
			return n, nil
		}
		n.publicKey = bytes.Clone(key)
		it, err := a.seal(n, rev+1)
		if err == nil {
			err = a.store.Set(ctx, it)
		}
		if !errors.Is(err, storage.ErrConflict) {
			return n, err
		}
		// Another session of this client was faster.
		if n, rev, err = a.clientByID(ctx, n.id); err != nil {
			return n, err
		}
	}
}
