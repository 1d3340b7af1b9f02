package vault

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// ID names a vault: 16 random bytes, chosen when the vault is made. It is part
// of every object's additional data, so an object opens in its own vault only.
type ID [16]byte

// NewID returns a fresh random vault id.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails: it ends the process instead
	return id
}

// DeviceID names a device of a vault. In the legacy area it is the 16-byte
// client id of protocol version 3.
type DeviceID [16]byte

// PathID names one path of one device without telling it: the first 16 bytes of
// a keyed hash, see [Keyring.Path].
type PathID [16]byte

// ObjectID is the SHA-256 of a whole sealed object (SPEC.md, "Objects"). It is
// computed without a key, so a server can check every object it is given.
type ObjectID [sha256.Size]byte

// EntryHash is the SHA-256 of a whole entry of a membership log; that of the last
// one is the log's head.
type EntryHash [sha256.Size]byte

// CommitHash is the SHA-256 of a whole commit, see [HashCommit].
type CommitHash [sha256.Size]byte

// Identify returns the id of a sealed object.
func Identify(object []byte) ObjectID { return sha256.Sum256(object) }

func (id ID) String() string        { return hex.EncodeToString(id[:]) }
func (id DeviceID) String() string  { return hex.EncodeToString(id[:]) }
func (id PathID) String() string    { return hex.EncodeToString(id[:]) }
func (id ObjectID) String() string  { return hex.EncodeToString(id[:]) }
func (h EntryHash) String() string  { return hex.EncodeToString(h[:]) }
func (h CommitHash) String() string { return hex.EncodeToString(h[:]) }
