//go:build !windows && !darwin

package icons

import "embed"

// A tray host scales one picture to what its panel needs: large enough for a screen
// with small pixels.
//
//go:embed png/*-48.png
var files embed.FS

const dir, suffix = "png/", "-48.png"
