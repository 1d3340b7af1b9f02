package icons

import "embed"

//go:embed ico/*.ico
var files embed.FS

const dir, suffix = "ico/", ".ico"
