package icons

import "embed"

//go:embed template/*.png
var files embed.FS

const dir, suffix = "template/", ".png"
