package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
	"unicode"

	"backstay/internal/durable"
	"backstay/internal/settings"
)

// A Setting is a key of agent.toml as a person sees it.
type Setting struct {
	Key string
	// Value is in force, Default where the file says nothing. Both are as they are
	// written there, without quotes.
	Value, Default string
}

// List returns what is in force for every key that is a single value, in the order of
// [Settings].
func (s Settings) List() []Setting {
	var list []Setting
	now, unset := reflect.ValueOf(s), reflect.ValueOf(DefaultSettings())
	for _, f := range reflect.VisibleFields(now.Type()) {
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		value, ok := textOf(now.FieldByIndex(f.Index))
		was, _ := textOf(unset.FieldByIndex(f.Index))
		if ok && key != "" {
			list = append(list, Setting{key, value, was})
		}
	}
	return list
}

// textOf writes a value as in agent.toml, if it is a single one.
func textOf(v reflect.Value) (string, bool) {
	if d, ok := v.Interface().(Duration); ok {
		text := time.Duration(d).String()
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(text, zero) {
				text = text[:len(text)-2]
			}
		}
		return text, true
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return fmt.Sprint(v.Interface()), true
	}
	return "", false
}

// bare says whether values of a key stand without quotes.
func bare(key string) (is, known bool) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Settings]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("toml"), ","); name == key {
			if reflect.PointerTo(f.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
				return false, true
			}
			switch f.Type.Kind() {
			case reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
				return true, true
			}
			return false, true
		}
	}
	return false, false
}

// Change sets a key of agent.toml, or with an empty value leaves it out. Everything
// else in the file stays. A value that cannot be put in force is an error and changes
// nothing; the running agent follows.
func Change(folder, key, value string) error {
	path := filepath.Join(folder, SettingsFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	plain, known := bare(key)
	switch {
	case !known:
		return fmt.Errorf("%s: there is no key %q", path, key)
	case strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("%s: %q is no value", path, value)
	case value != "" && !plain:
		value = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
	}
	changed := edit(string(data), key, value)
	s := DefaultSettings()
	if err := settings.Decode(path, []byte(changed), &s); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return durable.WriteFile(path, []byte(changed), 0o600)
}

// edit replaces, adds or removes the line of a key that stands in no table.
func edit(text, key, value string) string {
	var out strings.Builder
	done, inTable := value == "", false
	put := func() {
		if !done {
			fmt.Fprintf(&out, "%s = %s\n", key, value)
			done = true
		}
	}
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		name, _, isKey := strings.Cut(trimmed, "=")
		switch {
		case !inTable && strings.HasPrefix(trimmed, "["):
			inTable = true
			put()
		case !inTable && isKey && strings.Trim(strings.TrimSpace(name), `"'`) == key:
			put()
			continue
		}
		out.WriteString(line)
		if !strings.HasSuffix(line, "\n") {
			out.WriteByte('\n')
		}
	}
	put()
	return out.String()
}
