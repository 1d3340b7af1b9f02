// The server keeps what agents and version 3 clients send, and answers what its
// administrator asks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"backstay/internal/cli"
	"backstay/internal/localsock"
	"backstay/protocol/vault"
	"backstay/server"
	"backstay/server/admin"
	"backstay/server/storage"
	"backstay/server/storage/disk"
)

func main() { os.Exit(cli.Run(command())) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "server",
		Short: "Keep backups of desktops",
		Long: `The server keeps what the agents on desktops send: sealed, deduplicated, every
version. Programs that speak protocol version 3 are served too.

  server run                  serve, in the foreground
  server invite               invite a computer to keep its backups here
  server devices              which computers do, and when they were safe last
  server stats                what is stored
  server v3 files             what version 3 clients have sent
  server v3 get ADA notes.txt -o notes.txt

Settings are read from server.toml and port.info of the working folder if it
holds one of them, else of the user's configuration folder.`,
	}
	root.PersistentFlags().String("data", "", "data folder (default "+server.DefaultData()+")")
	root.AddCommand(runCommand(), inviteCommand(), devicesCommand(), accountsCommand(), statsCommand(), clockCommand(), v3Command())
	return root
}

func dataFolder(cmd *cobra.Command) (string, error) {
	data, err := cmd.Flags().GetString("data")
	if err != nil {
		return "", err
	}
	if data == "" {
		data = server.DefaultData()
	}
	return filepath.Abs(data)
}

// withService calls f with the server that runs on the data folder or, where none
// runs, with the folder's store itself.
func withService(cmd *cobra.Command, f func(context.Context, admin.Service) error) error {
	data, err := dataFolder(cmd)
	if err != nil {
		return err
	}
	if _, err := os.Stat(data); err != nil {
		return cli.WithCode(cli.CodeUnreachable, fmt.Errorf("there is no data folder %s; name the server's with --data", data))
	}
	for tries := 0; ; tries++ {
		err = f(cmd.Context(), admin.NewClient(data))
		if errors.Is(err, localsock.ErrNotRunning) {
			err = withStopped(cmd.Context(), data, f)
		}
		// A server that is starting or ending holds the store and answers
		// nobody.
		if !errors.Is(err, disk.ErrLocked) || tries == lockedTries {
			return withCode(err)
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(lockedWait):
		}
	}
}

// How often and how long to wait for a server that is starting or ending.
const (
	lockedTries = 20
	lockedWait  = 250 * time.Millisecond
)

func withStopped(ctx context.Context, data string, f func(context.Context, admin.Service) error) (err error) {
	config, err := server.LoadConfig(server.ConfigFolder())
	if err != nil {
		return err
	}
	s, err := server.Open(ctx, server.Options{Data: data, Config: config})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(ctx, s)
}

// withCode gives damage its own exit code.
func withCode(err error) error {
	if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, vault.ErrCorrupt) {
		return cli.WithCode(cli.CodeIntegrity, err)
	}
	return err
}

// memoryLimit makes the collector work harder near the server's promised bound
// rather than let the heap double.
const memoryLimit = 40 << 20

func init() { debug.SetMemoryLimit(memoryLimit) }
