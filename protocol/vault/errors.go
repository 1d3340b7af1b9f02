package vault

import "errors"

// ErrCorrupt is the class of all errors that say that bytes are not what was
// sealed or signed: [ErrMalformed], [ErrOpen], [ErrContent], [ErrSignature] and
// [ErrMember] are it under errors.Is. Such an error is never retried and never
// reported as "not found".
var ErrCorrupt = errors.New("corrupt")

// Errors of this package that callers branch on.
var (
	// ErrMalformed: an object, or the plaintext of one, is not of the form that
	// SPEC.md gives it, whatever key it was sealed with.
	ErrMalformed error = corruption("malformed")
	// ErrOpen: an object was altered, or sealed with other keys.
	ErrOpen error = corruption("object was altered or sealed with another key")
	// ErrContent: an authentic object is not the one that the record or list
	// that refers to it describes.
	ErrContent error = corruption("object is not the one referred to")

	// ErrSignature: what is signed was altered, or signed by another.
	ErrSignature error = corruption("signature does not verify")
	// ErrMember: an entry of a membership log breaks its rules, whoever signed
	// it. The text says which.
	ErrMember error = corruption("membership entry refused")

	// ErrNotNext: an entry is not the one that follows the head of the log. It
	// may have been right when it was made: read the log and decide anew.
	ErrNotNext = errors.New("membership entry is not the next")
	// ErrPhraseChecksum: all 24 words are in the list, but they are not a
	// phrase that was ever given out.
	ErrPhraseChecksum = errors.New("the words do not belong together: one is wrong, or two changed places; compare them with your copy")
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
