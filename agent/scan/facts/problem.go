package facts

import (
	"errors"
	"io/fs"
)

// A Problem says of one path why it cannot be protected now, in words for a
// person. It is an error; Unwrap leads to the cause.
type Problem struct {
	Path   string // absolute, as raw bytes of the file system
	Reason string // why, one line
	Fix    string // what to do about it, one line
	Err    error  // the cause
}

// Error returns the path, the reason and the fix on one line.
func (p *Problem) Error() string { return p.Path + ": " + p.Reason + "; " + p.Fix }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Explain turns an error of a file system call on path into a Problem. An error
// that is a Problem already comes back as it is.
func Explain(path string, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	for _, e := range explanations {
		if errors.Is(err, e.err) {
			return &Problem{Path: path, Reason: e.reason, Fix: e.fix, Err: err}
		}
	}
	reason := err.Error()
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		reason = pe.Err.Error() // the path is said already
	}
	return &Problem{
		Path:   path,
		Reason: "it cannot be read: " + reason,
		Fix:    "try to open it yourself; if it is not needed, exclude it in transfer.info",
		Err:    err,
	}
}

type explanation struct {
	err         error
	reason, fix string
}

const (
	fixPermission = "give the account that Backstay runs under the right to read it, or exclude it in transfer.info"
	fixInUse      = "close the program that uses it; it is tried again by itself"
	fixDamaged    = "check the disk now and copy what is still readable"
	fixNetwork    = "connect the network drive again; it is tried again by itself"
)
