// Package logging sets up the one structured log of a program: text for a person
// on the terminal and, where a file is named, JSON lines in a file that rotates.
package logging

import (
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/term"
	"gopkg.in/natefinch/lumberjack.v2"
)

// Options say what is logged and where.
type Options struct {
	// Level is the least level shown on the terminal. The default is Warn:
	// what runs well says nothing.
	Level slog.Level
	// File is the path of the rotating log; none where it is empty. It takes
	// Info and above, Debug too where Level asks for it.
	File string
}

// The rotating log's bounds: at most about 50 MB on the disk.
const (
	maxLogMB    = 10
	maxLogFiles = 4
)

// New returns a logger and a closer for its file. Writes go to terminal at once.
func New(terminal io.Writer, o Options) (*slog.Logger, io.Closer) {
	handler := slog.Handler(slog.NewTextHandler(terminal, &slog.HandlerOptions{Level: o.Level, ReplaceAttr: shortTime(terminal)}))
	if o.File == "" {
		return slog.New(handler), io.NopCloser(nil)
	}
	file := &lumberjack.Logger{Filename: o.File, MaxSize: maxLogMB, MaxBackups: maxLogFiles, Compress: true}
	fileLevel := min(o.Level, slog.LevelInfo)
	return slog.New(slog.NewMultiHandler(handler, slog.NewJSONHandler(file, &slog.HandlerOptions{Level: fileLevel}))), file
}

// shortTime shortens the time to what a person at a terminal needs; a log that is
// redirected keeps the full time.
func shortTime(w io.Writer) func([]string, slog.Attr) slog.Attr {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.String(a.Key, a.Value.Time().Format(time.TimeOnly))
		}
		return a
	}
}
