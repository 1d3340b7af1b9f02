// Package settings reads the programs' TOML files. A key that is unknown or of
// the wrong type is an error that names file and line: a setting that is silently
// not in force is worse than a program that does not start.
package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxSize bounds a settings file, in bytes.
const maxSize = 1 << 20

// Load reads the TOML file at path into v, a pointer to a struct that holds the
// defaults. A file that does not exist changes nothing and is no error.
func Load(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	return Decode(path, data, v)
}

// Decode reads the content of the TOML file at path, as Load does.
func Decode(path string, data []byte, v any) error {
	if len(data) > maxSize {
		return fmt.Errorf("%s: larger than %d bytes; it is no settings file", path, maxSize)
	}
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(v)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := unknown.Errors[0]
		row, _ := first.Position()
		return fmt.Errorf("%s:%d: unknown key %q; remove it or correct its name", path, row, strings.Join(first.Key(), "."))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := bad.Position()
		return fmt.Errorf("%s:%d: %s", path, row, bad.Error())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
