package logging

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTerminalAndFile(t *testing.T) {
	for _, tt := range []struct {
		name           string
		level          slog.Level
		terminal, file []string
	}{
		{"quiet", slog.LevelWarn, []string{"w"}, []string{"i", "w"}},
		{"debug", slog.LevelDebug, []string{"d", "i", "w"}, []string{"d", "i", "w"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sub", "x.log")
			var terminal bytes.Buffer
			log, closer := New(&terminal, Options{Level: tt.level, File: path})
			log.Debug("d")
			log.Info("i")
			log.Warn("w")
			if err := closer.Close(); err != nil {
				t.Fatal(err)
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range []struct {
				text, pattern string
				want          []string
			}{{terminal.String(), "msg=%", tt.terminal}, {string(file), `"msg":"%"`, tt.file}} {
				if lines := strings.Count(out.text, "\n"); lines != len(out.want) {
					t.Errorf("%d lines, want %d:\n%s", lines, len(out.want), out.text)
				}
				for _, m := range out.want {
					if !strings.Contains(out.text, strings.Replace(out.pattern, "%", m, 1)) {
						t.Errorf("no message %s in\n%s", m, out.text)
					}
				}
			}
		})
	}
}
