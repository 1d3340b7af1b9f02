// Package v4 is protocol version 4 in bytes: frames, the messages of every verb,
// errors, streams of objects, invitations, pairing, and what both sides ask of
// TLS (SPEC.md, Part 4).
//
// The one invariant: a message is taken only as a whole and in the one encoding it
// has. A reader allocates nothing by a length that it has not checked, and ignores
// nothing but keys that a later revision may add.
//
// The package opens no connection and keeps no state. Packages mux and agent/v4
// move what it encodes; a server answers it.
//
// Messages are structs with Append, which adds the encoding to a slice, and a
// Parse function. What Parse returns aliases the body only where a field is a
// slice of bytes.
package v4

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// Version is the version byte of every frame, Revision that of SPEC.md, Part 4.
const (
	Version  = 4
	Revision = 1
)

// DefaultPort is the port a server listens on if nothing else is said.
const DefaultPort = 1256

// Sizes and limits of frames (SPEC.md, "Frames"), in bytes.
const (
	HeaderSize = 12
	// MaxBody bounds a frame's body.
	MaxBody = 256 << 10
	// MaxBodyUnknown bounds it until the server knows the client.
	MaxBodyUnknown = 16 << 10
	// AnswerCredit is the credit that every answer begins with.
	AnswerCredit = 1 << 20
	// MaxCredit bounds the credit of one direction of a stream.
	MaxCredit = 1<<31 - 1
)

// Limits of requests (SPEC.md, "Verbs").
const (
	// MaxIDs is how many object ids one HAVE or GET names, and an error.
	MaxIDs = 4096
	// MaxPutObjects and MaxPutBytes bound the objects of one PUT. Bytes are those
	// of the objects, without the lengths before them; they bound COMMIT as well.
	MaxPutObjects = 4096
	MaxPutBytes   = 8 << 20
	// MaxCommitObjects is how many objects one COMMIT carries.
	MaxCommitObjects = 16_384
	// MaxMailboxMessage bounds a message of pairing, in bytes.
	MaxMailboxMessage = 4096
	// MaxRows and MaxDevices are how many rows or devices one body holds.
	MaxRows    = 1024
	MaxDevices = 256
)

// Type is what a frame is: a verb, in requests and answers alike, or one of the
// types that serve the session.
type Type uint8

// The types of frames. Those from TypeEnroll on are verbs.
const (
	TypeWindow Type = 1
	TypeHello  Type = 2
	TypeGoAway Type = 3
	TypeCancel Type = 4

	TypeEnroll  Type = 16
	TypeHave    Type = 17
	TypePut     Type = 18
	TypeCommit  Type = 19
	TypeHead    Type = 20
	TypeLog     Type = 21
	TypeList    Type = 22
	TypeHistory Type = 23
	TypeGet     Type = 24
	TypeProve   Type = 25
	TypeMembers Type = 26
	TypeMailbox Type = 27
	TypeDevices Type = 28
	TypePing    Type = 29
)

// Verb says whether frames of the type are requests and answers; of a verb that
// this revision does not know, too.
func (t Type) Verb() bool { return t >= TypeEnroll }

// CarriesObjects says whether objects follow the message of a request.
func (t Type) CarriesObjects() bool { return t == TypePut || t == TypeCommit }

var typeNames = map[Type]string{
	TypeWindow: "WINDOW", TypeHello: "HELLO", TypeGoAway: "GOAWAY", TypeCancel: "CANCEL",
	TypeEnroll: "ENROLL", TypeHave: "HAVE", TypePut: "PUT", TypeCommit: "COMMIT",
	TypeHead: "HEAD", TypeLog: "LOG", TypeList: "LIST", TypeHistory: "HISTORY",
	TypeGet: "GET", TypeProve: "PROVE", TypeMembers: "MEMBERS", TypeMailbox: "MAILBOX",
	TypeDevices: "DEVICES", TypePing: "PING",
}

func (t Type) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return "type " + strconv.Itoa(int(t))
}

// Flags of a frame.
type Flags uint16

// The flags.
const (
	// FlagEnd is on the last frame of a direction of a stream.
	FlagEnd Flags = 1 << 0
	// FlagData says that the body is a piece of a stream of objects.
	FlagData Flags = 1 << 1
	// FlagError says that the body is an [Error].
	FlagError Flags = 1 << 2

	flagsKnown = FlagEnd | FlagData | FlagError
)

// Header is what a frame begins with.
type Header struct {
	Type   Type
	Flags  Flags
	Stream uint32
	// Length is that of the body, in bytes.
	Length uint32
}

// Has says whether all of the flags are set.
func (h Header) Has(f Flags) bool { return h.Flags&f == f }

// Append adds the header's encoding to dst.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, Version, byte(h.Type))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(h.Flags))
	dst = binary.LittleEndian.AppendUint32(dst, h.Stream)
	return binary.LittleEndian.AppendUint32(dst, h.Length)
}

// ParseHeader reads the header of a frame whose body may have up to limit bytes.
// Errors: [ErrUnsupported] for another version, [ErrMalformed] for unknown flags,
// [ErrTooLarge].
func ParseHeader(b [HeaderSize]byte, limit int) (Header, error) {
	h := Header{
		Type:   Type(b[1]),
		Flags:  Flags(binary.LittleEndian.Uint16(b[2:])),
		Stream: binary.LittleEndian.Uint32(b[4:]),
		Length: binary.LittleEndian.Uint32(b[8:]),
	}
	switch {
	case b[0] != Version:
		return Header{}, fmt.Errorf("%w: frame of version %d", ErrUnsupported, b[0])
	case h.Flags&^flagsKnown != 0:
		return Header{}, fmt.Errorf("%w: frame with flags %#x", ErrMalformed, uint16(h.Flags))
	case int64(h.Length) > int64(limit):
		return Header{}, fmt.Errorf("%w: frame of %d bytes, the limit is %d", ErrTooLarge, h.Length, limit)
	}
	return h, nil
}

// AppendWindow adds the body of a WINDOW frame to dst: n bytes of credit more.
func AppendWindow(dst []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(dst, n) }

// ParseWindow reads the body of a WINDOW frame, which grants something.
func ParseWindow(body []byte) (uint32, error) {
	if len(body) != 4 || binary.LittleEndian.Uint32(body) == 0 {
		return 0, fmt.Errorf("%w: WINDOW of %x", ErrMalformed, body)
	}
	return binary.LittleEndian.Uint32(body), nil
}
