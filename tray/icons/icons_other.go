//go:build !windows && !darwin

package icons

import "embed"

//go:embed png/*-16.png png/*-22.png png/*-24.png png/*-32.png png/*-48.png png/*-64.png
var files embed.FS

const dir = "png/"

var suffixes = []string{"-16.png", "-22.png", "-24.png", "-32.png", "-48.png", "-64.png"}
