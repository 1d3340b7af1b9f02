package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"backstay/internal/cli"
	"backstay/internal/logging"
	"backstay/server"
)

func runCommand() *cobra.Command {
	var listen, v3, oaep, series, metrics string
	var ackResend, debug, verbose bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve, in the foreground, until Ctrl-C or SIGTERM",
		Long: `Serve, in the foreground, until Ctrl-C or SIGTERM. Sessions in progress may finish
for a few seconds; what was acknowledged is durable whenever and however the
program ends.

Protocol version 3 has no cryptography worth the name, so by default only
programs on this machine may speak it. With --v3 on everybody may, and only names
admitted with "server v3 allow NAME" register.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := dataFolder(cmd)
			if err != nil {
				return err
			}
			config, err := server.LoadConfig(server.ConfigFolder())
			if err != nil {
				return err
			}
			changed := cmd.Flags().Changed
			for _, f := range []struct {
				name  string
				apply func() error
			}{
				{"listen", func() error { config.Listen = listen; return nil }},
				{"v3", func() error { config.V3 = server.V3Mode(v3); return nil }},
				{"v3-oaep", func() error { return config.V3OAEP.UnmarshalText([]byte(oaep)) }},
				{"v3-1100", func() error { return config.V31100.UnmarshalText([]byte(series)) }},
				{"v3-ack-resend", func() error { config.V3AckResend = ackResend; return nil }},
				{"metrics", func() error { config.Metrics = metrics; return nil }},
			} {
				if changed(f.name) {
					if err := f.apply(); err != nil {
						return cli.Usage("--%s: %w", f.name, err)
					}
				}
			}
			if err := config.Validate(); err != nil {
				return cli.Usage("%w", err)
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelInfo
			}
			if debug {
				level = slog.LevelDebug
			}
			file := config.LogFile
			switch file {
			case "":
				file = filepath.Join(data, "server.log")
			case "off":
				file = ""
			}
			log, closeLog := logging.New(cmd.ErrOrStderr(), logging.Options{Level: level, File: file})
			defer closeLog.Close()
			return serve(cmd, server.Options{Data: data, Config: config, Log: log})
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "", "address to listen on (default \":1256\", or the port of port.info)")
	f.StringVar(&v3, "v3", "", "who may speak protocol version 3: off, loopback or on (default loopback)")
	f.StringVar(&oaep, "v3-oaep", "", "hash that wraps keys for version 3 clients: sha256 or sha1 (default sha256)")
	f.StringVar(&series, "v3-1100", "", "what the codes from 1100 on mean: documented, 2023 or 2022 (default documented)")
	f.BoolVar(&ackResend, "v3-ack-resend", false, "acknowledge \"checksum wrong, resending\", as some version 3 clients expect")
	f.StringVar(&metrics, "metrics", "", "loopback address of /metrics and /healthz, or off (default 127.0.0.1:1257)")
	f.BoolVar(&debug, "debug", false, "log everything")
	f.BoolVar(&verbose, "verbose", false, "log sessions and statistics")
	return cmd
}

func serve(cmd *cobra.Command, o server.Options) (err error) {
	ctx := cmd.Context()
	s, err := server.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	go func() {
		if addr := s.Addr(ctx); addr != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "listening on %s, data in %s\n", addr, o.Data)
		}
	}()
	if err := s.Run(ctx); err != nil {
		return err
	}
	st, err := s.Stats(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "stopped: %d devices, %d files, %d versions, %s stored\n", st.Devices, st.Files, st.Versions, cli.Bytes(st.BytesStored))
	return nil
}
