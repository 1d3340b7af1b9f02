//go:build windows || darwin

package systray

import (
	"context"

	"github.com/gen2brain/beeep"

	"backstay/tray"
)

func init() { beeep.AppName = "Backstay" }

// Host says whether there is something that shows tray icons: there is.
func Host(context.Context) error { return nil }

// Notify shows a notification.
func Notify(_ context.Context, n tray.Notice) error {
	if n.Urgent {
		return beeep.Alert(n.Title, n.Text, "")
	}
	return beeep.Notify(n.Title, n.Text, "")
}
