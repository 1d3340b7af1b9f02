// Package systray puts the tray's views on the screen and tells what is chosen. It is
// the only package that knows the toolkit; on macOS it needs cgo.
//
// Enter at [Host], which says whether there is a tray to be shown in, then [Run].
// [Notify] shows notifications.
package systray

import "errors"

// Errors of Host.
var (
	// ErrNoSession: nobody is logged in to a desktop here.
	ErrNoSession = errors.New("there is no desktop session here")
	// ErrNoHost: the desktop shows no tray icons now. It may later.
	ErrNoHost = errors.New("this desktop shows no tray icons")
)
