// The tray shows the agent's state in the desktop's panel.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"backstay/agent/config"
	"backstay/agent/localapi"
	"backstay/internal/cli"
	"backstay/tray"
	"backstay/tray/systray"
)

func main() { os.Exit(cli.Run(command())) }

// The tray waits nearly always: what little it allocates is collected early.
const (
	memoryLimit = 16 << 20
	gcPercent   = 25
)

func init() {
	log.SetOutput(io.Discard) // the toolkit's
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
}

const (
	// lockFile keeps a second tray off the same state folder.
	lockFile = "tray.lock"
	// welcomedFile says that the page for setting up has been opened by itself.
	welcomedFile = "tray.welcomed"
)

func command() *cobra.Command {
	var folder, state string
	cmd := &cobra.Command{
		Use:   "tray",
		Short: "Show in the desktop's panel whether everything is protected",
		Long: `The tray shows the state of the agent that runs on the state folder, as an icon with a
menu. It waits for the agent where none runs yet, and for a panel where there is
none. It protects nothing itself: ending it ends nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if state == "" {
				state = config.DefaultState()
			}
			var err error
			if state, err = filepath.Abs(state); err != nil {
				return err
			}
			if err := systray.Host(ctx); errors.Is(err, systray.ErrNoSession) {
				return fmt.Errorf("%w, so no tray; the same is shown by: agent dashboard", err)
			}
			if err := os.MkdirAll(state, 0o700); err != nil {
				return fmt.Errorf("make the state folder: %w", err)
			}
			lock := flock.New(filepath.Join(state, lockFile))
			if ok, err := lock.TryLock(); err != nil {
				return fmt.Errorf("lock the state folder: %w", err)
			} else if !ok {
				return fmt.Errorf("another tray is running on %s", state)
			}
			p := &program{
				client: localapi.NewClient(state), notify: systray.Notify, welcomed: filepath.Join(state, welcomedFile),
				views: make(chan tray.View, 1), actions: make(chan tray.Action, 16), errOut: cmd.ErrOrStderr(),
			}
			if folder != "" {
				p.flags = append(p.flags, "--config", folder)
			}
			p.flags = append(p.flags, "--state", state)
			return errors.Join(p.run(ctx), lock.Close())
		},
	}
	cmd.Flags().StringVar(&folder, "config", "", "configuration folder, for what is started from the menu")
	cmd.Flags().StringVar(&state, "state", "", "state folder of the agent (default "+config.DefaultState()+")")
	return cmd
}
