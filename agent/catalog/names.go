package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"path/filepath"
	"strconv"
	"strings"

	"zombiezen.com/go/sqlite"
)

// NamesV3 returns the names under which files go to a server of protocol 3, in
// the order of paths, which must be root or lie below it. A path keeps the name it
// was first given, whatever root it is asked for with later; a new name is on
// disk when NamesV3 returns.
//
// A name is unique among all paths, also where upper and lower case are the same,
// has at most 250 bytes of A–Z a–z 0–9 . _ - and space, and can be a file name on
// every system. It is the base name of the root and the path below it, joined by
// underscores; a root that is a file is known by its base name as it is. Where
// that is no such name or is taken, characters are replaced and a short hash of
// the path is put in front of the extension.
func (c *Catalog) NamesV3(ctx context.Context, root string, paths []string) ([]string, error) {
	names := make([]string, len(paths))
	err := c.update(ctx, func(conn *sqlite.Conn) error {
		for i, path := range paths {
			name, err := nameV3(conn, root, path)
			if err != nil {
				return fmt.Errorf("%q: %w", path, err)
			}
			names[i] = name
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("name for protocol 3: %w", err)
	}
	return names, nil
}

func nameV3(conn *sqlite.Conn, root, path string) (name string, err error) {
	find := conn.Prep("SELECT name FROM v3_name WHERE path = ?")
	find.BindBytes(1, []byte(path))
	err = rows(find, func() error {
		name = find.ColumnText(0)
		return nil
	})
	if err != nil || name != "" {
		return name, err
	}
	for candidate := range candidatesV3(root, path) {
		if ok, err := takeName(conn, path, candidate); ok || err != nil {
			return candidate, err
		}
	}
	return "", nil // not reached: there is always another candidate
}

// takeName gives name to path and reports whether it was free.
func takeName(conn *sqlite.Conn, path, name string) (bool, error) {
	insert := conn.Prep("INSERT INTO v3_name (path, name) VALUES (?, ?) ON CONFLICT DO NOTHING")
	insert.BindBytes(1, []byte(path))
	insert.BindText(2, name)
	err := exec(insert)
	return conn.Changes() == 1, err
}

const (
	// maxNameV3 leaves room in the 255 bytes of the protocol and of most file
	// systems for the suffix of a temporary file.
	maxNameV3 = 250
	// maxExtension is beyond every extension a program looks for.
	maxExtension = 16
	// hashDigits tells some millions of paths apart.
	hashDigits = 12
)

// candidatesV3 yields names for path, best first, without end.
func candidatesV3(root, path string) iter.Seq[string] {
	plain := plainV3(root, path)
	name := cleanV3(plain)
	return func(yield func(string) bool) {
		if name == plain && !yield(name) {
			return
		}
		stem, ext := splitExtension(name)
		stem = stem[:min(len(stem), maxNameV3-hashDigits-1-len(ext))]
		for n := 0; ; n++ {
			hashed := path
			if n > 0 {
				hashed += "\x00" + strconv.Itoa(n) // no path holds a NUL
			}
			sum := sha256.Sum256([]byte(hashed))
			if !yield(stem + "-" + hex.EncodeToString(sum[:])[:hashDigits] + ext) {
				return
			}
		}
	}
}

// plainV3 is the name a path would have if every name were allowed.
func plainV3(root, path string) string {
	const sep = string(filepath.Separator)
	base := filepath.Base(root)
	if base == sep { // the root of a file system
		base = strings.TrimSuffix(filepath.VolumeName(root), ":")
	}
	rel, _ := strings.CutPrefix(path, strings.TrimSuffix(root, sep))
	rel = strings.TrimPrefix(rel, sep)
	if rel == "" {
		return base
	}
	if base != "" {
		base += "_"
	}
	return base + strings.ReplaceAll(rel, sep, "_")
}

// cleanV3 replaces what may not stand in a name.
func cleanV3(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < 0x80 && (isAlphanumeric(byte(r)) || strings.ContainsRune("._- ", r)) {
			return r
		}
		return '_'
	}, name)
	if name == "" || strings.ContainsRune(". ", rune(name[0])) {
		name = "_" + name[min(1, len(name)):]
	}
	if len(name) > maxNameV3 {
		stem, ext := splitExtension(name)
		name = stem[:maxNameV3-len(ext)] + ext
	}
	if strings.ContainsRune(". ", rune(name[len(name)-1])) {
		name = name[:len(name)-1] + "_"
	}
	if reserved(name) {
		name = "_" + name
	}
	return name
}

// reserved reports whether Windows takes the name for a device.
func reserved(name string) bool {
	device, _, _ := strings.Cut(strings.ToUpper(name), ".")
	device = strings.TrimRight(device, " ")
	switch device {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(device) == 4 && (device[:3] == "COM" || device[:3] == "LPT") && device[3] >= '0' && device[3] <= '9'
}

// splitExtension splits off an extension worth keeping, with its dot.
func splitExtension(name string) (stem, ext string) {
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || dot == len(name)-1 || len(name)-dot-1 > maxExtension {
		return name, ""
	}
	for i := dot + 1; i < len(name); i++ {
		if !isAlphanumeric(name[i]) {
			return name, ""
		}
	}
	return name[:dot], name[dot:]
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
