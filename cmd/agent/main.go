// The agent watches folders and keeps a second copy of them on a server.
package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"backstay/agent"
	"backstay/agent/catalog"
	"backstay/agent/config"
	"backstay/internal/cli"
	"backstay/internal/logging"
	"backstay/protocol/v4"
)

func main() { os.Exit(cli.Run(command())) }

// memoryLimit makes the collector work harder near the agent's promised bound
// rather than let the heap double.
const memoryLimit = 100 << 20

func init() { debug.SetMemoryLimit(memoryLimit) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "agent",
		Short: "Keep a second copy of your folders, seconds after every change",
		Long: `The agent watches the folders listed in transfer.info and sends what changes to a
server that keeps every version.

The configuration folder is the one given with --config, else the working folder
if it holds a transfer.info, else the user's own. transfer.info: line 1 the server
as host:port, line 2 a name for this machine, then one folder or file a line;
lines that start with # are comments, with ! exclude patterns.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files are not
protected, 4 not set up or the server cannot be reached, 5 what came back is not
what was sent.`,
		Example: `  agent try ~/Documents                      see it work: a private server and an agent in one
  agent join INVITATION ~/Documents          enrol at a server, say what to protect
  agent run                                  protect it, in the foreground
  agent status                               is everything protected?
  agent restore ~/Documents --at 2h          get it back as it was two hours ago
  agent recover --phrase-file KIT --to DIR   get everything back on an empty machine`,
	}
	f := root.PersistentFlags()
	f.String("config", "", "configuration folder")
	f.String("state", "", "state folder (default "+config.DefaultState()+")")
	cobra.EnableCommandSorting = false
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Set up:", []*cobra.Command{tryCommand(), joinCommand(), folderCommand(), pairCommand(), devicesCommand()}},
		{"Protect:", []*cobra.Command{runCommand(), backupCommand(), statusCommand(), problemsCommand(), pauseCommand(), resumeCommand(), serviceCommand(), doctorCommand()}},
		{"Look and get back:", []*cobra.Command{lsCommand(), historyCommand(), findCommand(), restoreCommand(), recoverCommand(), verifyCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	return root
}

// protocolFlag is --protocol. Version 3 is never chosen silently: its cryptography
// is broken, so a person says that it is wanted.
func protocolFlag(cmd *cobra.Command) *int {
	return cmd.Flags().Int("protocol", 4, "protocol to speak with the server: 4, or 3 for an old server, which keeps no secrets from the network")
}

func checkProtocol(version int) error {
	if version != 3 && version != 4 {
		return cli.Usage("protocol %d is not spoken: say 4, or 3 for an old server", version)
	}
	return nil
}

// options reads the flags every command has. The closer is the log's.
func options(cmd *cobra.Command, protocol int, level slog.Level) (agent.Options, func() error, error) {
	o := agent.Options{Protocol: protocol}
	var err error
	if o.Folder, o.State, err = folders(cmd); err != nil {
		return o, nil, err
	}
	c, err := config.Load(o.Folder)
	if err != nil {
		return o, nil, withCode(err)
	}
	var closeLog func() error
	o.Log, closeLog = openLog(cmd, c.Settings, o.State, level)
	return o, closeLog, nil
}

// openLog opens the log that the settings name. The closer is the log's.
func openLog(cmd *cobra.Command, s config.Settings, state string, level slog.Level) (*slog.Logger, func() error) {
	file := s.LogFile
	switch file {
	case "":
		file = filepath.Join(state, "agent.log")
	case "off":
		file = ""
	}
	log, closer := logging.New(cmd.ErrOrStderr(), logging.Options{Level: level, File: file})
	return log, closer.Close
}

// mending calls f again, once, if the catalog turns out to be damaged while it is in
// use: the next time it is opened it is made anew from what the server holds.
func mending(f func() error) error {
	err := f()
	if errors.Is(err, catalog.ErrCorrupt) {
		err = f()
	}
	return err
}

// withCode gives the agent's errors their exit codes.
func withCode(err error) error {
	switch {
	case errors.Is(err, config.ErrNotSetUp), errors.Is(err, agent.ErrUnreachable) && !errors.Is(err, v4.ErrPin):
		return cli.WithCode(cli.CodeUnreachable, err)
	case errors.Is(err, agent.ErrOutOfScope):
		return cli.WithCode(cli.CodeUsage, err)
	}
	return reachCode(err)
}
