//go:build !cgo

package systray

import (
	"context"
	"errors"

	"backstay/tray"
)

// Run needs cgo on macOS.
func Run(context.Context, <-chan tray.View, func(tray.Action)) error {
	return errors.New("this program was built without cgo, and so without a tray")
}
