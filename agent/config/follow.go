package config

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long the files must rest before they are read again: an editor
// writes them in more than one step.
const quiet = 100 * time.Millisecond

// Follow calls changed after each change of a configuration file in folder, or of one
// of the others named, until ctx ends; then it returns nil. It watches the folder, not the files, which editors
// replace. An error says why the folder cannot be watched.
func Follow(ctx context.Context, folder string, changed func(), others ...string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("follow the configuration: %w", err)
	}
	defer w.Close()
	if err := w.Add(folder); err != nil {
		return fmt.Errorf("follow the configuration: %w", err)
	}
	files := []string{TransferFile, PortFile, SettingsFile}
	var rest <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			if name := filepath.Base(e.Name); slices.Contains(files, name) || slices.Contains(others, name) {
				rest = time.After(quiet)
			}
		case <-w.Errors:
			// Whatever was lost may have been about one of the files.
			rest = time.After(quiet)
		case <-rest:
			rest = nil
			changed()
		}
	}
}
