package v4

import (
	"context"
	"errors"
	"strings"

	"backstay/protocol/vault"
)

// Code says what kind of error a server answers (SPEC.md, "Errors").
type Code uint16

// The codes.
const (
	CodeMalformed         Code = 1
	CodeUnsupported       Code = 2
	CodeForbidden         Code = 3
	CodeNotFound          Code = 4
	CodeConflict          Code = 5
	CodeMissingRefs       Code = 6
	CodeDigest            Code = 7
	CodeStaleMembers      Code = 8
	CodeFull              Code = 9
	CodeQuota             Code = 10
	CodeFailed            Code = 11
	CodeCorrupt           Code = 12
	CodeTooLarge          Code = 13
	CodeBusy              Code = 14
	CodeInvitationUnknown Code = 15
	CodeInvitationExpired Code = 16
	CodeInvitationUsed    Code = 17
	CodeRevoked           Code = 18
	CodeClock             Code = 19
	CodeCancelled         Code = 20
	CodeClosing           Code = 21
	CodeInternal          Code = 22
)

// One error for each code. An [Error] is the one of its code under errors.Is, and
// [AsError] finds the code of an error that wraps one.
var (
	ErrMalformed         = errors.New("message breaks the protocol")
	ErrUnsupported       = errors.New("not supported by this version")
	ErrForbidden         = errors.New("not allowed")
	ErrNotFound          = errors.New("not found on the server")
	ErrConflict          = errors.New("not the next in order")
	ErrMissingRefs       = errors.New("objects referred to are not stored")
	ErrDigest            = errors.New("state differs from the server's")
	ErrStaleMembers      = errors.New("membership log has gone on")
	ErrFull              = errors.New("no room on the server")
	ErrQuota             = errors.New("account's quota is used up")
	ErrFailed            = errors.New("server must be started again")
	ErrCorrupt           = errors.New("stored data is damaged")
	ErrTooLarge          = errors.New("larger than allowed")
	ErrBusy              = errors.New("too many requests or attempts")
	ErrInvitationUnknown = errors.New("invitation is not known")
	ErrInvitationExpired = errors.New("invitation has expired")
	ErrInvitationUsed    = errors.New("invitation was used before")
	ErrRevoked           = errors.New("device was revoked")
	ErrClock             = errors.New("server's clock is not confirmed")
	ErrCancelled         = errors.New("request was cancelled")
	ErrClosing           = errors.New("server is stopping")
	ErrInternal          = errors.New("internal error of the server")
)

// codes is the one table of codes and errors. Index 0 is no code.
var codes = [...]error{
	CodeMalformed: ErrMalformed, CodeUnsupported: ErrUnsupported, CodeForbidden: ErrForbidden,
	CodeNotFound: ErrNotFound, CodeConflict: ErrConflict, CodeMissingRefs: ErrMissingRefs,
	CodeDigest: ErrDigest, CodeStaleMembers: ErrStaleMembers, CodeFull: ErrFull,
	CodeQuota: ErrQuota, CodeFailed: ErrFailed, CodeCorrupt: ErrCorrupt,
	CodeTooLarge: ErrTooLarge, CodeBusy: ErrBusy, CodeInvitationUnknown: ErrInvitationUnknown,
	CodeInvitationExpired: ErrInvitationExpired, CodeInvitationUsed: ErrInvitationUsed,
	CodeRevoked: ErrRevoked, CodeClock: ErrClock, CodeCancelled: ErrCancelled,
	CodeClosing: ErrClosing, CodeInternal: ErrInternal,
}

// Error is an error as the other side sent it.
type Error struct {
	Code Code
	// Text is for a person; it may be empty.
	Text string
	// IDs are the objects concerned, at most MaxIDs.
	IDs []vault.ObjectID
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Unwrap().Error()
	}
	return e.Text
}

// Unwrap returns the error of the code, [ErrInternal] for an unknown one.
func (e *Error) Unwrap() error {
	if e.Code == 0 || int(e.Code) >= len(codes) {
		return ErrInternal
	}
	return codes[e.Code]
}

// CodeOf returns the code that tells err to the other side: that of the [Error] or
// of the error of this package it wraps, CodeCancelled for a cancelled context,
// else CodeInternal.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	for code, known := range codes {
		if known != nil && errors.Is(err, known) {
			return Code(code)
		}
	}
	if errors.Is(err, context.Canceled) {
		return CodeCancelled
	}
	return CodeInternal
}

// AsError returns err as it is sent: the [Error] it wraps, or one with the code of
// [CodeOf] and err's text. The text of an internal error stays here: it is for the
// log, and may name what is nobody else's.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Code: CodeOf(err)}
	if e.Code != CodeInternal {
		e.Text = err.Error()
	}
	return e
}

// maxText is how many bytes of a text are sent.
const maxText = 1024

// Append adds the error's encoding to dst: no more text and ids than one body
// holds.
func (e *Error) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.uint(1, uint64(e.Code))
	m.text(2, clip(e.Text, maxText))
	if len(e.IDs) > 0 {
		m.ids(3, e.IDs[:min(len(e.IDs), MaxIDs)])
	}
	return m.dst
}

// ParseError reads an error.
func ParseError(body []byte) (*Error, error) {
	f := parse("error", body)
	e := &Error{Code: Code(f.uintMax(1, 1<<16-1)), Text: f.text(2, 0, MaxBody)}
	if f.has(3) {
		e.IDs = f.ids(3, MaxIDs)
	}
	if f.err != nil {
		return nil, f.err
	}
	return e, nil
}

// clip returns the longest beginning of s in valid UTF-8 with at most n bytes.
func clip(s string, n int) string {
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}
