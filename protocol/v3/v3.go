// Package v3 is the codec of protocol version 3: the messages of every known
// dialect, the names inside them, and the RSA, AES and padding rules around a
// file's content. SPEC.md, Part 1, is its normative text.
//
// One invariant holds throughout: nothing is allocated, indexed or decrypted
// by a number a peer sent before that number was checked against the message
// table.
//
// The package opens no connection and no file; it works on byte slices,
// io.Reader and io.Writer, and leaves deadlines, size limits for files and the
// order of messages in a session to its callers. The cryptography is that of
// the protocol, which authenticates neither peer nor content; it must not be
// used for anything new.
//
// A server enters at [ReadRequest] and [Dialect.AppendResponse], a client at
// [Dialect.AppendRequest] and [ReadResponse]. Content passes through
// [NewEncrypter] and [NewDecrypter]; a receiver checks the packets of a file
// with [Assembly].
package v3

import (
	"errors"
	"fmt"
)

// Version is the version byte of every request and response, in every dialect.
const Version = 3

// The classes of refusal. All but the last three can come from [ReadRequest],
// [ReadResponse] and [Dialect.ParsePayload]; errors wrap exactly one of them.
var (
	// ErrVersion: a request's version byte is not [Version]. The session ends.
	ErrVersion = errors.New("wrong protocol version")
	// ErrCode: the code stands for no message in this direction and dialect.
	ErrCode = errors.New("unknown message code")
	// ErrSize: the payload's size does not fit its message.
	ErrSize = errors.New("wrong payload size")
	// ErrName: a name field holds no valid name.
	ErrName = errors.New("bad name")
	// ErrKey: an RSA or AES key is not one this protocol allows, or a wrapped
	// key does not open.
	ErrKey = errors.New("bad key")
	// ErrPacket: a file's packets contradict each other or the sizes they state.
	ErrPacket = errors.New("inconsistent file packets")
	// ErrCiphertext: a ciphertext is empty, no whole number of blocks, or its
	// padding is wrong: it is damaged or was sealed with another key.
	ErrCiphertext = errors.New("damaged ciphertext")
)

// InStep reports whether a session may go on after err of [ReadRequest]: the
// message was refused, but its end in the stream is known. The caller skips
// Request.Remaining bytes and answers [GeneralError]. It is false for nil, for
// [ErrVersion] and for errors of the underlying reader.
func InStep(err error) bool {
	return errors.Is(err, ErrCode) || errors.Is(err, ErrSize) || errors.Is(err, ErrName)
}

// A Dialect is one numbering and layout of the protocol's messages. The zero
// value is no dialect.
type Dialect uint8

// The dialects (SPEC.md, "Dialects").
const (
	Documented Dialect = 1 // requests 1100-1106, responses 2100-2107
	Field      Dialect = 2 // requests 1025-1031, responses 1600-1607
	Y2022      Dialect = 3 // requests 1100, 1101, 1103-1106, responses 2100-2104
	Y2023      Dialect = 4 // requests 1100-1106, responses 2100-2107
	Late2023   Dialect = 5 // requests 1025-1031, responses 2100-2107
)

var dialectNames = [...]string{Documented: "documented", Field: "field", Y2022: "2022", Y2023: "2023", Late2023: "late2023"}

// String returns the dialect's name as settings spell it.
func (d Dialect) String() string {
	if !d.valid() {
		return fmt.Sprintf("dialect %d", uint8(d))
	}
	return dialectNames[d]
}

func (d Dialect) valid() bool { return d >= Documented && d <= Late2023 }

// older reports whether d is one of the dialects from before packets: AES-128,
// OAEP with SHA-1, and a file message without original size and packet numbers.
func (d Dialect) older() bool { return d >= Y2022 }

// MarshalText returns the dialect's name.
func (d Dialect) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts the names that [Dialect.String] returns.
func (d *Dialect) UnmarshalText(b []byte) error {
	for known := Documented; known <= Late2023; known++ {
		if dialectNames[known] == string(b) {
			*d = known
			return nil
		}
	}
	return fmt.Errorf("unknown version 3 dialect %q: use documented, field, 2022, 2023 or late2023", b)
}

// KeySize returns the length in bytes of the AES keys a server of this dialect
// issues: 32, or 16 in the older ones.
func (d Dialect) KeySize() int {
	if d.older() {
		return 16
	}
	return 32
}

// OAEP returns the hash a server of this dialect wraps AES keys with: setting,
// or [SHA1] in the older dialects, which know no other.
func (d Dialect) OAEP(setting OAEPHash) OAEPHash {
	if d.older() {
		return SHA1
	}
	return setting
}

// A Kind is the meaning of a message, independent of its dialect. The zero
// value is no kind.
type Kind uint8

// The kinds of message. Requests go from client to server, responses back.
const (
	Register            Kind = 1  // request: a new client's name
	Registered          Kind = 2  // response: its id
	RegistrationRefused Kind = 3  // response: the name is taken or not allowed
	PublicKey           Kind = 4  // request: the client's RSA key
	AESKey              Kind = 5  // response: a session's AES key, wrapped
	Reconnect           Kind = 6  // request: a known client, its key on record
	ReconnectAccepted   Kind = 7  // response: a new AES key, wrapped
	ReconnectRefused    Kind = 8  // response: register anew
	File                Kind = 9  // request: one packet of a file, ciphertext behind it
	FileReceived        Kind = 10 // response: the server's checksum
	ChecksumValid       Kind = 11 // request: the checksum is right
	ChecksumResending   Kind = 12 // request: it is wrong, the file follows again
	ChecksumGivingUp    Kind = 13 // request: it is wrong, the file does not follow
	Acknowledged        Kind = 14 // response
	GeneralError        Kind = 15 // response
)

// String returns the kind's name as SPEC.md spells it.
func (k Kind) String() string {
	if !k.valid() {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return table[k].name
}

func (k Kind) valid() bool { return k >= Register && k <= GeneralError }

// IsRequest reports whether clients send this kind.
func (k Kind) IsRequest() bool { return k.valid() && table[k].request }

// A field is one part of a payload. Its size is fixed except for the public
// key's.
type field uint8

const (
	fieldID      field = iota // client id, 16 bytes
	fieldName                 // client or file name, 255 bytes
	fieldPublic               // RSA public key, 160 or 162 bytes
	fieldWrapped              // wrapped AES key, 128 bytes
	fieldContent              // size of this packet's ciphertext, u32
	fieldOrig                 // size of the whole plaintext, u32
	fieldPacket               // packet number from 1, u16
	fieldTotal                // number of packets, u16
	fieldCksum                // cksum of the plaintext, u32
)

var fieldSize = [...]int{
	fieldID: ClientIDSize, fieldName: NameSize, fieldPublic: PublicKeySize, fieldWrapped: WrappedKeySize,
	fieldContent: 4, fieldOrig: 4, fieldPacket: 2, fieldTotal: 2, fieldCksum: 4,
}

type layout []field

func (l layout) size() (n int) {
	for _, f := range l {
		n += fieldSize[f]
	}
	return n
}

// A row says everything that tells one kind of message from another. The
// arrays follow the order of the dialects; code 0 marks a message that a
// dialect does not have.
type row struct {
	name    string
	request bool
	codes   [5]uint16
	layouts [5]layout
	// emptyOK: the whole payload may be absent, whatever the layout says.
	emptyOK bool
}

func (r *row) code(d Dialect) uint16   { return r.codes[d-1] }
func (r *row) layout(d Dialect) layout { return r.layouts[d-1] }

func each(f ...field) [5]layout { return [5]layout{f, f, f, f, f} }

var (
	packetLayout = layout{fieldContent, fieldOrig, fieldPacket, fieldTotal, fieldName}
	nameLayout   = layout{fieldName}
	idLayout     = layout{fieldID}
	idNameLayout = layout{fieldID, fieldName}

	verdictLayouts = [5]layout{nameLayout, nameLayout, idNameLayout, nameLayout, nameLayout}
)

// table holds every message of every dialect. The columns of codes are
// Documented, Field, Y2022, Y2023, Late2023. The 2022 dialect has no general
// error of its own; its clients take any unexpected code as one, so it gets
// the number of its successors.
var table = [...]row{
	Register:            {name: "register", request: true, codes: [5]uint16{1100, 1025, 1100, 1100, 1025}, layouts: each(fieldName)},
	Registered:          {name: "registered", codes: [5]uint16{2100, 1600, 2100, 2100, 2100}, layouts: each(fieldID)},
	RegistrationRefused: {name: "registration refused", codes: [5]uint16{2101, 1601, 2101, 2101, 2101}},
	PublicKey:           {name: "public key", request: true, codes: [5]uint16{1101, 1026, 1101, 1101, 1026}, layouts: each(fieldName, fieldPublic)},
	AESKey:              {name: "AES key", codes: [5]uint16{2102, 1602, 2102, 2102, 2102}, layouts: each(fieldID, fieldWrapped)},
	Reconnect:           {name: "reconnect", request: true, codes: [5]uint16{1102, 1027, 0, 1102, 1027}, layouts: each(fieldName)},
	ReconnectAccepted:   {name: "reconnect accepted", codes: [5]uint16{2103, 1605, 0, 2105, 2105}, layouts: each(fieldID, fieldWrapped)},
	ReconnectRefused:    {name: "reconnect refused", codes: [5]uint16{2106, 1606, 0, 2106, 2106}, layouts: each(fieldID)},
	File: {name: "file", request: true, codes: [5]uint16{1103, 1028, 1103, 1103, 1028},
		layouts: [5]layout{packetLayout, packetLayout, {fieldID, fieldContent, fieldName}, {fieldContent, fieldName}, {fieldContent, fieldName}}},
	FileReceived: {name: "file received", codes: [5]uint16{2104, 1603, 2103, 2103, 2103},
		layouts: each(fieldID, fieldContent, fieldName, fieldCksum)},
	ChecksumValid:     {name: "checksum valid", request: true, codes: [5]uint16{1104, 1029, 1104, 1104, 1029}, layouts: verdictLayouts, emptyOK: true},
	ChecksumResending: {name: "checksum wrong, resending", request: true, codes: [5]uint16{1105, 1030, 1105, 1105, 1030}, layouts: verdictLayouts, emptyOK: true},
	ChecksumGivingUp:  {name: "checksum wrong, giving up", request: true, codes: [5]uint16{1106, 1031, 1106, 1106, 1031}, layouts: verdictLayouts, emptyOK: true},
	Acknowledged: {name: "acknowledged", codes: [5]uint16{2105, 1604, 2104, 2104, 2104},
		layouts: [5]layout{idLayout, idLayout, nil, idLayout, idLayout}, emptyOK: true},
	GeneralError: {name: "general error", codes: [5]uint16{2107, 1607, 2107, 2107, 2107}},
}

// Code returns the number of kind k in dialect d, or false where the dialect
// has no such message.
func (d Dialect) Code(k Kind) (code uint16, ok bool) {
	if !d.valid() || !k.valid() {
		return 0, false
	}
	code = table[k].code(d)
	return code, code != 0
}

// Kind returns the meaning of a request's or response's code in dialect d.
func (d Dialect) Kind(code uint16) (k Kind, ok bool) {
	if !d.valid() || code == 0 {
		return 0, false
	}
	for k := Register; k <= GeneralError; k++ {
		if table[k].code(d) == code {
			return k, true
		}
	}
	return 0, false
}

// Series is a server's setting for the two series of request codes, each of
// which more than one dialect uses. The wire does not tell them apart before
// the first answer is due.
type Series struct {
	S1100 Dialect // Documented (default), Y2023 or Y2022
	S1025 Dialect // Field (default) or Late2023
}

// Dialect returns the dialect whose requests the series of code belongs to,
// whether or not the dialect knows that very code, or false for a code of
// neither series.
func (s Series) Dialect(code uint16) (d Dialect, ok bool) {
	switch {
	case code >= 1100 && code <= 1106:
		if s.S1100 == 0 {
			return Documented, true
		}
		return s.S1100, true
	case code >= 1025 && code <= 1031:
		if s.S1025 == 0 {
			return Field, true
		}
		return s.S1025, true
	}
	return 0, false
}

// Validate refuses a dialect that does not use the series it is set for.
func (s Series) Validate() error {
	switch s.S1100 {
	case 0, Documented, Y2022, Y2023:
	default:
		return fmt.Errorf("version 3 requests 1100-1106 cannot be %v: use documented, 2022 or 2023", s.S1100)
	}
	switch s.S1025 {
	case 0, Field, Late2023:
	default:
		return fmt.Errorf("version 3 requests 1025-1031 cannot be %v: use field or late2023", s.S1025)
	}
	return nil
}
