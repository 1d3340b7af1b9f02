package systray

import (
	"strings"

	"fyne.io/systray"
)

// escape makes an ampersand an ampersand: alone it marks the key of an entry.
func escape(label string) string { return strings.ReplaceAll(label, "&", "&&") }

func setIcon(data []byte) { systray.SetIcon(data) }
