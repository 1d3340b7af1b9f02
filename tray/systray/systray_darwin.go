//go:build cgo

package systray

import "fyne.io/systray"

func escape(label string) string { return label }

// setIcon sets a template, which takes the menu bar's colour.
func setIcon(data []byte) { systray.SetTemplateIcon(data, data) }
