//go:build !linux && !windows && !(darwin && cgo)

package watcher

import (
	"errors"
	"os"
)

// noWatches is the backend of builds that cannot hear of changes. The BSDs could by kqueue, which opens every single file.
type noWatches struct{}

var errNoWatches = errors.New("this build does not hear of changes from the system (on macOS: it was made without cgo, so it has " +
	"no FSEvents); use a build made for this system")

func newBackend() backend { return noWatches{} }

func (noWatches) watch(*os.File, bool, *queue) (int, error) { return 0, errNoWatches }
func (noWatches) unwatch(int, *queue)                       {}
func (noWatches) recursive() bool                           { return false }
func (noWatches) close()                                    {}
