package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent"
	"backstay/agent/config"
	"backstay/agent/enrol"
	"backstay/internal/cli"
	"backstay/internal/durable"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server"
	"backstay/server/admin"
)

func tryCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "try DIR",
		Short: "See it work: a private server and an agent on one folder, in one process",
		Long: `Run a private server and an agent on one folder, in one process, on this machine's
own loopback. Every file is named as it becomes safe; save one and watch it land.
Ctrl-C ends it and says what was stored and where. Nothing is left behind unless
--keep is given.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if info, err := os.Stat(dir); err != nil {
				return err
			} else if !info.IsDir() {
				return cli.Usage("%s is no folder", dir)
			}
			return try(cmd.Context(), cmd.OutOrStdout(), dir, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep what was stored")
	return cmd
}

func try(ctx context.Context, out io.Writer, dir string, keep bool) (err error) {
	base, err := os.MkdirTemp("", "backstay-try-")
	if err != nil {
		return err
	}
	if !keep {
		defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	}
	data, folder := filepath.Join(base, "server"), filepath.Join(base, "agent")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	c := server.DefaultConfig()
	c.Listen, c.Metrics = "127.0.0.1:0", "off"
	s, err := server.Open(ctx, server.Options{Data: data, Config: c})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan error, 1)
	// The server outlives the agent, so that what the agent is sending at the
	// end is acknowledged.
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	go func() {
		err := s.Run(serverCtx)
		cancel(err)
		served <- err
	}()
	addr := s.Addr(ctx)
	if addr == nil {
		return context.Cause(ctx)
	}
	if err := durable.WriteFile(filepath.Join(folder, config.TransferFile), transferInfo(addr.String(), dir, base), 0o600); err != nil {
		return err
	}
	state := filepath.Join(base, "state")
	if err := joinTried(ctx, s, folder, addr.String(), dir, filepath.Join(base, "kit")); err != nil {
		return err
	}
	fmt.Fprintf(out, "protecting %s\nserver on %s, data in %s\n", dir, addr, data)
	live := &lines{out: out, safe: true, name: func(path string) string { return cli.Name(within(dir, path)) }}
	err = agent.Run(ctx, agent.Options{Folder: folder, Protocol: 4, State: state, Events: live.event})
	stopServer()
	if err = errors.Join(err, <-served); err != nil {
		return err
	}
	st, err := s.Stats(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	where := "it is removed now; --keep would have kept it"
	if keep {
		where = fmt.Sprintf("run the server again with: server run --data %s --listen %s; and look with: agent ls --config %s --state %s", data, addr, folder, state)
	}
	fmt.Fprintf(out, "stored %d paths in %d versions, %s in %s; %s\n", st.Files, st.Versions, cli.Bytes(st.BytesStored), data, where)
	return nil
}

// joinTried makes the agent of folder a device of the private server, in its own way:
// with an invitation.
func joinTried(ctx context.Context, s *server.Server, folder, address, dir, kitFile string) error {
	made, err := s.Invite(ctx, admin.InviteOptions{Account: "try", TTL: time.Hour, Address: address})
	if err != nil {
		return err
	}
	invitation, err := v4.ParseInvitation(made.Invitation)
	if err != nil {
		return err
	}
	_, err = enrol.Join(ctx, enrol.Joining{
		Folder: folder, Invitation: invitation, Name: "try", Paths: []string{dir},
		Keep: func(kit vault.Kit) error { return durable.WriteFile(kitFile, kit.Bytes(), 0o600) },
	})
	return err
}

// transferInfo protects dir, apart from what try itself writes below it.
func transferInfo(server, dir, own string) []byte {
	text := server + "\ntry\n" + dir + "\n"
	if rel, err := filepath.Rel(dir, own); err == nil && filepath.IsLocal(rel) {
		text += "!/" + filepath.ToSlash(rel) + "/\n"
	}
	return []byte(text)
}

// within shortens a path below dir.
func within(dir, path string) string {
	if rel, ok := strings.CutPrefix(path, dir+string(filepath.Separator)); ok {
		return rel
	}
	return path
}
