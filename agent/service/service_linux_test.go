package service

import (
	"os"
	"path/filepath"
	"testing"

	kardianos "github.com/kardianos/service"
)

// The library writes what Unit says, whatever is in it, and where systemd looks, also
// where none runs.
func TestLibraryWritesTheUnit(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	// Without systemctl nothing but the file is written.
	t.Setenv("PATH", home)
	for _, tt := range texts {
		if tt.kind != Systemd || tt.s.System {
			continue
		}
		s := tt.s
		s.State += "/{{end}}{{ .x | y }} {{"
		text, err := Unit(Systemd, s)
		if err != nil {
			t.Fatal(err)
		}
		file, err := s.file()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Dir(file)); err != nil {
			t.Fatal(err)
		}
		if err := s.call(t.Context(), text, kardianos.Service.Install); err == nil {
			t.Error("it was enabled without systemctl")
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != string(text) {
			t.Errorf("%s: %v, wrote:\n%s\nwant:\n%s", tt.name, err, got, text)
		}
	}
}
