package v3

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Sizes on the wire, in bytes.
const (
	RequestHeaderSize  = 23
	ResponseHeaderSize = 7
	ClientIDSize       = 16
	NameSize           = 255
	PublicKeySize      = 160 // with a one-byte public exponent
	WideKeySize        = 162 // with the exponent 65537
	WrappedKeySize     = 128

	// maxPayload is the longest payload, a file's ciphertext apart.
	maxPayload = NameSize + WideKeySize
)

// A ClientID names a client to its server. The zero id is that of a client
// which has none yet.
type ClientID [ClientIDSize]byte

// NewClientID returns a random version 4 UUID. Its first two bytes are never
// 16 03: a server that speaks TLS on the same port takes those for a TLS
// record.
func NewClientID() ClientID {
	for {
		var id ClientID
		rand.Read(id[:])
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if id[0] != 0x16 || id[1] != 0x03 {
			return id
		}
	}
}

// ParseClientID reads the text form of an id, 32 hex digits.
func ParseClientID(s string) (ClientID, error) {
	var id ClientID
	if len(s) != hex.EncodedLen(len(id)) {
		return ClientID{}, fmt.Errorf("client id has %d characters, not 32", len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ClientID{}, fmt.Errorf("client id: %w", err)
	}
	return id, nil
}

// String returns the id as 32 lower-case hex digits.
func (id ClientID) String() string { return hex.EncodeToString(id[:]) }

// A RequestHeader precedes every request's payload.
type RequestHeader struct {
	ClientID    ClientID
	Version     uint8
	Code        uint16
	PayloadSize uint32
}

// Append appends the header's 23 bytes to b.
func (h RequestHeader) Append(b []byte) []byte {
	b = append(b, h.ClientID[:]...)
	return ResponseHeader{h.Version, h.Code, h.PayloadSize}.Append(b)
}

// ParseRequestHeader decodes exactly 23 bytes; any other number is [ErrSize].
// It judges neither version nor code.
func ParseRequestHeader(b []byte) (RequestHeader, error) {
	if len(b) != RequestHeaderSize {
		return RequestHeader{}, fmt.Errorf("request header of %d bytes: %w", len(b), ErrSize)
	}
	h, err := ParseResponseHeader(b[ClientIDSize:])
	return RequestHeader{ClientID(b[:ClientIDSize]), h.Version, h.Code, h.PayloadSize}, err
}

// A ResponseHeader precedes every response's payload.
type ResponseHeader struct {
	Version     uint8
	Code        uint16
	PayloadSize uint32
}

// Append appends the header's 7 bytes to b.
func (h ResponseHeader) Append(b []byte) []byte {
	b = append(b, h.Version)
	b = binary.LittleEndian.AppendUint16(b, h.Code)
	return binary.LittleEndian.AppendUint32(b, h.PayloadSize)
}

// ParseResponseHeader decodes exactly 7 bytes; any other number is [ErrSize].
// It judges neither version nor code.
func ParseResponseHeader(b []byte) (ResponseHeader, error) {
	if len(b) != ResponseHeaderSize {
		return ResponseHeader{}, fmt.Errorf("response header of %d bytes: %w", len(b), ErrSize)
	}
	return ResponseHeader{b[0], binary.LittleEndian.Uint16(b[1:]), binary.LittleEndian.Uint32(b[3:])}, nil
}

// A Message is the payload of any kind; which fields it uses depends on Kind
// and, where noted, on the dialect. The others are zero.
type Message struct {
	Kind Kind

	// ClientID stands in Registered, AESKey, ReconnectAccepted,
	// ReconnectRefused, FileReceived and Acknowledged; with Y2022 also in File
	// and the three checksum kinds, but not in Acknowledged. It is not the id
	// of the request header.
	ClientID ClientID

	// Name is the client's in Register, PublicKey and Reconnect, the file's in
	// File, FileReceived and the three checksum kinds. In the last three it is
	// empty where the payload is absent: the last file of the session is meant.
	Name string

	// PublicKey is the key field of PublicKey, 160 or 162 bytes, for
	// [ParsePublicKey]. After decoding it is a part of the decoded slice.
	PublicKey []byte

	// WrappedKey is the AES key of AESKey and ReconnectAccepted, for
	// [PrivateKey.Unwrap]: 128 bytes. After decoding it is a part of the
	// decoded slice.
	WrappedKey []byte

	// ContentSize is the number of ciphertext bytes: in File those of this
	// packet, in FileReceived those of the whole file.
	ContentSize uint32

	// OrigSize is the plaintext size of the whole file in File, and Packet
	// counts from 1 to Total. The older dialects have none of the three; there
	// OrigSize is 0 and both others are 1.
	OrigSize      uint32
	Packet, Total uint16

	// Cksum is the checksum of the plaintext in FileReceived.
	Cksum uint32
}

// AppendPayload appends the payload of m in dialect d to b: of a file the
// fixed part, behind which the caller sends m.ContentSize bytes of ciphertext.
// A checksum kind with neither name nor id has no payload. Errors are
// [ErrCode], [ErrName] or [ErrKey]; b is returned unchanged then.
func (d Dialect) AppendPayload(b []byte, m Message) ([]byte, error) {
	if _, ok := d.Code(m.Kind); !ok {
		return b, fmt.Errorf("%v in dialect %v: %w", m.Kind, d, ErrCode)
	}
	r := &table[m.Kind]
	if r.emptyOK && r.request && m.Name == "" && m.ClientID == (ClientID{}) {
		return b, nil
	}
	start := b
	for _, f := range r.layout(d) {
		switch f {
		case fieldID:
			b = append(b, m.ClientID[:]...)
		case fieldName:
			var err error
			if b, err = AppendName(b, m.Name); err != nil {
				return start, fmt.Errorf("%v: %w", m.Kind, err)
			}
		case fieldPublic:
			if n := len(m.PublicKey); n != PublicKeySize && n != WideKeySize {
				return start, fmt.Errorf("%v of %d bytes: %w", m.Kind, n, ErrKey)
			}
			b = append(b, m.PublicKey...)
		case fieldWrapped:
			if n := len(m.WrappedKey); n != WrappedKeySize {
				return start, fmt.Errorf("%v of %d bytes: %w", m.Kind, n, ErrKey)
			}
			b = append(b, m.WrappedKey...)
		case fieldContent:
			b = binary.LittleEndian.AppendUint32(b, m.ContentSize)
		case fieldOrig:
			b = binary.LittleEndian.AppendUint32(b, m.OrigSize)
		case fieldPacket:
			b = binary.LittleEndian.AppendUint16(b, m.Packet)
		case fieldTotal:
			b = binary.LittleEndian.AppendUint16(b, m.Total)
		case fieldCksum:
			b = binary.LittleEndian.AppendUint32(b, m.Cksum)
		}
	}
	return b, nil
}

// AppendRequest appends header and payload of a request to b, so that both can
// leave in one write. Of a file it appends the fixed part, and the header
// already counts the m.ContentSize bytes of ciphertext that the caller sends
// next. Errors are those of [Dialect.AppendPayload], [ErrCode] for a response
// kind, and [ErrSize] for a file whose payload passes 4 GiB.
func (d Dialect) AppendRequest(b []byte, id ClientID, m Message) ([]byte, error) {
	if !m.Kind.IsRequest() {
		return b, fmt.Errorf("%v is no request: %w", m.Kind, ErrCode)
	}
	return d.appendMessage(b, id[:], m)
}

// AppendResponse appends header and payload of a response to b. Errors are
// those of [Dialect.AppendPayload], and [ErrCode] for a request kind.
func (d Dialect) AppendResponse(b []byte, m Message) ([]byte, error) {
	if m.Kind.IsRequest() {
		return b, fmt.Errorf("%v is no response: %w", m.Kind, ErrCode)
	}
	return d.appendMessage(b, nil, m)
}

func (d Dialect) appendMessage(b, id []byte, m Message) ([]byte, error) {
	start := len(b)
	code, _ := d.Code(m.Kind)
	b = append(b, id...)
	sizeAt := len(b) + 3
	b = ResponseHeader{Version: Version, Code: code}.Append(b)
	payload := len(b)
	b, err := d.AppendPayload(b, m)
	if err != nil {
		return b[:start], err
	}
	size := uint64(len(b) - payload)
	if m.Kind == File {
		size += uint64(m.ContentSize)
	}
	if size > 1<<32-1 {
		return b[:start], fmt.Errorf("file payload of %d bytes: %w", size, ErrSize)
	}
	binary.LittleEndian.PutUint32(b[sizeAt:], uint32(size))
	return b, nil
}

// ParsePayload decodes the payload of a message of kind k; of a file its fixed
// part. The payload must have exactly the message's size; a public key may be
// 160 or 162 bytes long, and the payload of the checksum kinds and of
// Acknowledged may be absent, that of Acknowledged in any dialect an id.
//
// The returned message aliases payload. Errors are [ErrCode], [ErrSize] and
// [ErrName]; after [ErrName] every field but Name is filled.
func (d Dialect) ParsePayload(k Kind, payload []byte) (Message, error) {
	m := Message{Kind: k}
	if _, ok := d.Code(k); !ok {
		return m, fmt.Errorf("%v in dialect %v: %w", k, d, ErrCode)
	}
	if len(payload) > maxPayload || !d.payloadFits(k, uint32(len(payload))) {
		return m, fmt.Errorf("%v with %d bytes: %w", k, len(payload), ErrSize)
	}
	if k == File {
		m.Packet, m.Total = 1, 1
	}
	if len(payload) == 0 {
		return m, nil
	}
	l := table[k].layout(d)
	if k == Acknowledged {
		l = idLayout
	}
	var nameErr error
	b := payload
	for _, f := range l {
		n := fieldSize[f]
		if f == fieldPublic {
			n = len(b)
		}
		part := b[:n:n]
		b = b[n:]
		switch f {
		case fieldID:
			m.ClientID = ClientID(part)
		case fieldName:
			m.Name, nameErr = ParseName(part)
		case fieldPublic:
			m.PublicKey = part
		case fieldWrapped:
			m.WrappedKey = part
		case fieldContent:
			m.ContentSize = binary.LittleEndian.Uint32(part)
		case fieldOrig:
			m.OrigSize = binary.LittleEndian.Uint32(part)
		case fieldPacket:
			m.Packet = binary.LittleEndian.Uint16(part)
		case fieldTotal:
			m.Total = binary.LittleEndian.Uint16(part)
		case fieldCksum:
			m.Cksum = binary.LittleEndian.Uint32(part)
		}
	}
	if nameErr != nil {
		return m, fmt.Errorf("%v: %w", k, nameErr)
	}
	return m, nil
}

// payloadFits reports whether a payload of n bytes, of a file its fixed part,
// can be one of kind k. It accepts nothing above maxPayload.
func (d Dialect) payloadFits(k Kind, n uint32) bool {
	r := &table[k]
	size := uint32(r.layout(d).size())
	switch {
	case n == size, n == 0 && r.emptyOK:
		return true
	case k == PublicKey:
		return n == size-PublicKeySize+WideKeySize
	case k == Acknowledged:
		return n == ClientIDSize
	}
	return false
}
