package v3

import (
	"errors"
	"fmt"
	"io"
)

// A Request is what a server reads.
type Request struct {
	Header  RequestHeader
	Dialect Dialect // 0 where the code belongs to no series
	Message Message // Kind is 0 where the code is unknown

	// Remaining is the number of bytes of this request still in the reader: a
	// file's ciphertext, or what a refused request carries. The caller reads or
	// skips exactly these before the next request.
	Remaining int64
}

// ReadRequest reads the next request from r, in whatever pieces r delivers it:
// all of it, but of a file only what precedes the ciphertext. It never reads
// past the request and never holds more than a few hundred bytes.
//
// The error is io.EOF where r ends before the first byte, io.ErrUnexpectedEOF
// where it ends inside the request, [ErrVersion], and, with [InStep] true,
// [ErrCode], [ErrSize] or [ErrName]. With those four Header and Remaining are
// valid, Remaining as far as the header's payload size can be believed, and
// Dialect and Message.Kind where the code was known.
func ReadRequest(r io.Reader, s Series) (Request, error) {
	var q Request
	var hdr [RequestHeaderSize]byte
	if _, err := io.ReadFull(r, hdr[:]); err != nil {
		return q, err
	}
	h, err := ParseRequestHeader(hdr[:])
	if err != nil {
		return q, err
	}
	q.Header = h
	q.Remaining = int64(h.PayloadSize)
	if h.Version != Version {
		return q, fmt.Errorf("request with version %d: %w", h.Version, ErrVersion)
	}
	var ok bool
	if q.Dialect, ok = s.Dialect(h.Code); !ok {
		return q, fmt.Errorf("request %d: %w", h.Code, ErrCode)
	}
	k, ok := q.Dialect.Kind(h.Code)
	if !ok {
		return q, fmt.Errorf("request %d in dialect %v: %w", h.Code, q.Dialect, ErrCode)
	}
	q.Message.Kind = k

	fixed := h.PayloadSize
	if k == File {
		fixed = min(fixed, uint32(table[File].layout(q.Dialect).size()))
	}
	if !q.Dialect.payloadFits(k, fixed) {
		return q, fmt.Errorf("%v with %d bytes: %w", k, h.PayloadSize, ErrSize)
	}
	payload := make([]byte, fixed)
	if err := readPayload(r, payload); err != nil {
		return q, err
	}
	q.Remaining -= int64(fixed)
	q.Message, err = q.Dialect.ParsePayload(k, payload)
	if k == File {
		following, sizeErr := q.Dialect.ciphertextFollowing(q.Message, uint32(q.Remaining))
		q.Remaining = int64(following)
		if err == nil {
			err = sizeErr
		}
	}
	return q, err
}

// ciphertextFollowing returns how many bytes follow a file's fixed part when
// the header counts rest of them. Some 2022 clients leave the ciphertext out
// of the payload size; as no ciphertext is empty, that case is unambiguous.
func (d Dialect) ciphertextFollowing(m Message, rest uint32) (uint32, error) {
	if rest == m.ContentSize || d == Y2022 && rest == 0 {
		return m.ContentSize, nil
	}
	return rest, fmt.Errorf("file with %d bytes behind a content size of %d: %w", rest, m.ContentSize, ErrSize)
}

// A Response is what a client reads.
type Response struct {
	Header  ResponseHeader
	Message Message // Kind is 0 where the code is unknown in the dialect
}

// ReadResponse reads the next response of dialect d from r and does not insist
// on its version byte.
//
// The error is io.EOF where r ends before the first byte, io.ErrUnexpectedEOF
// where it ends inside the response, [ErrCode] for a code that d does not
// have, such as one of the other family, [ErrSize] or [ErrName]. With the last
// three Header is valid; after [ErrCode] and [ErrSize] the payload is still
// unread, so that the session cannot go on.
func ReadResponse(r io.Reader, d Dialect) (Response, error) {
	var p Response
	var hdr [ResponseHeaderSize]byte
	if _, err := io.ReadFull(r, hdr[:]); err != nil {
		return p, err
	}
	h, err := ParseResponseHeader(hdr[:])
	if err != nil {
		return p, err
	}
	p.Header = h
	k, ok := d.Kind(h.Code)
	if !ok || k.IsRequest() {
		return p, fmt.Errorf("response %d in dialect %v: %w", h.Code, d, ErrCode)
	}
	p.Message.Kind = k
	if !d.payloadFits(k, h.PayloadSize) {
		return p, fmt.Errorf("%v with %d bytes: %w", k, h.PayloadSize, ErrSize)
	}
	payload := make([]byte, h.PayloadSize)
	if err := readPayload(r, payload); err != nil {
		return p, err
	}
	p.Message, err = d.ParsePayload(k, payload)
	return p, err
}

// readPayload fills b; an end of the stream is always unexpected here.
func readPayload(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
