package vault

import "errors"

// ErrCorrupt is the class of all errors that say that bytes are not what was
// sealed: [ErrMalformed], [ErrOpen] and [ErrContent] are it under errors.Is. Such
// an error is never retried and never reported as "not found".
var ErrCorrupt = errors.New("corrupt")

// Errors of this package that callers branch on.
var (
	// ErrMalformed: an object, or the plaintext of one, is not of the form that
	// SPEC.md gives it, whatever key it was sealed with.
	ErrMalformed error = corruption("malformed object")
	// ErrOpen: an object was altered, or sealed with other keys.
	ErrOpen error = corruption("object was altered or sealed with another key")
	// ErrContent: an authentic object is not the one that the record or list
	// that refers to it describes.
	ErrContent error = corruption("object is not the one referred to")

	// ErrNoKey: the keyring does not hold the key of the object's epoch.
	ErrNoKey = errors.New("no key for epoch")
	// ErrMissing: the fetcher did not yield an object that content needs.
	ErrMissing = errors.New("object is missing")
	// ErrCritical: a record carries something that a reader must understand
	// and this one does not.
	ErrCritical = errors.New("written by a newer version of Backstay; update this one")
	// ErrSeal: a sealed object did not open again. Nothing was sent; the cause
	// is memory or a processor, not the data.
	ErrSeal = errors.New("what was sealed does not open again: check this computer's memory")
)

// corruption is an error of the class ErrCorrupt.
type corruption string

func (c corruption) Error() string      { return string(c) }
func (corruption) Is(target error) bool { return target == ErrCorrupt }
