package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"backstay/agent"
	"backstay/agent/config"
	"backstay/agent/localapi"
	"backstay/agent/service"
	"backstay/internal/cli"
)

func serviceCommand() *cobra.Command {
	var system bool
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Have the system start the agent, at login or at boot",
		Long: `Have the system run the agent: started by itself, started again after a failure.

By default it is a service of yours: it starts when you log in, ends when you log
out, and has no other rights than you. With --system it is one of the whole machine:
it starts at boot, runs as root and reads its configuration in a folder of the
system; other users may ask it for its status and nothing else.

An agent that is not set up yet waits until it is.`,
		Example: `  agent service install
  agent service status
  sudo agent service install --system`,
	}
	cmd.PersistentFlags().BoolVar(&system, "system", false, "the service of the whole machine, not yours")
	verb := func(use, short string, f func(*cobra.Command, service.Service) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			s, err := theService(cmd, system)
			if err != nil {
				return err
			}
			return serviceCode(f(cmd, s))
		}
		return c
	}
	do := func(use, short, done string, f func(service.Service, context.Context) error) *cobra.Command {
		return verb(use, short, func(cmd *cobra.Command, s service.Service) error {
			if err := f(s, cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), done)
			return nil
		})
	}
	var asJSON, untilEOF bool
	status := verb("status", "Say whether the service is installed and runs; exit code 4 if it does not", func(cmd *cobra.Command, s service.Service) error {
		return serviceStatus(cmd, s, asJSON)
	})
	jsonFlag(status, &asJSON)
	run := verb("run", "What the system starts", func(cmd *cobra.Command, s service.Service) error {
		return runService(cmd, s, untilEOF)
	})
	run.Flags().BoolVar(&untilEOF, service.UntilEOF[len("--"):], false, "end when standard input ends")
	keep := verb("keep", "Run the service, and start it again when it fails", func(cmd *cobra.Command, s service.Service) error {
		return s.Keep(cmd.Context(), slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	})
	run.Hidden, keep.Hidden = true, true
	cmd.AddCommand(
		verb("install", "Install the service and start it; what is there is mended", installService),
		verb("uninstall", "Stop the service and remove it; your files, their copies and the configuration stay", uninstallService),
		do("start", "Start the service", "started", service.Service.Start),
		do("stop", "Stop the service, until it is started or the next login or boot", "stopped; nothing is protected until it is started again", service.Service.Stop),
		do("restart", "Stop the service and start it again", "restarted", service.Service.Restart),
		status, run, keep,
	)
	return cmd
}

// theService is the service that the flags speak of. Its folders are named to it, so
// that it uses the same as the commands whatever its environment is.
func theService(cmd *cobra.Command, system bool) (service.Service, error) {
	s := service.Service{System: system}
	var err error
	if s.Executable, err = os.Executable(); err != nil {
		return s, err
	}
	if s.Config, s.State, err = folders(cmd); err != nil {
		return s, err
	}
	if system {
		folder, state := config.System()
		if !cmd.Flags().Changed("config") {
			s.Config = folder
		}
		if !cmd.Flags().Changed("state") {
			s.State = state
		}
	}
	return s, nil
}

// serviceCode gives the errors of services their exit codes.
func serviceCode(err error) error {
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		return cli.WithCode(cli.CodeUnreachable, fmt.Errorf("%w; install it with: agent service install", err))
	case errors.Is(err, service.ErrNoManager):
		return cli.WithCode(cli.CodeUnreachable, err)
	}
	return err
}

func installService(cmd *cobra.Command, s service.Service) error {
	if err := s.Install(cmd.Context()); err != nil {
		return err
	}
	st, err := s.Status(cmd.Context())
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "installed and started: %s\n", st.Where)
	fmt.Fprintf(out, "  configuration %s\n  state         %s\n", s.Config, s.State)
	flags := ""
	if s.System {
		flags = fmt.Sprintf(" --config \"%s\" --state \"%s\"", s.Config, s.State)
		fmt.Fprintf(out, "it starts with the machine. Say the folders when you ask it: agent status --state \"%s\"\n", s.State)
	} else {
		fmt.Fprintln(out, "it runs while you are logged in. "+service.Beyond())
	}
	if _, err := config.Load(s.Config); errors.Is(err, config.ErrNotSetUp) {
		fmt.Fprintf(out, "it waits until it is set up: agent join INVITATION FOLDER%s\n", flags)
	}
	return nil
}

func uninstallService(cmd *cobra.Command, s service.Service) error {
	out := cmd.OutOrStdout()
	err := s.Uninstall(cmd.Context())
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		fmt.Fprintln(out, "the service is not installed; nothing to remove")
	case err != nil:
		return err
	default:
		fmt.Fprintln(out, "removed; nothing is protected any more")
	}
	// What a package brought is the package's to remove.
	if st, err := s.Status(cmd.Context()); err == nil && st.Installed {
		until := "it does not start by itself any more"
		if st.Enabled {
			until = "it starts again at the next login until then"
		}
		fmt.Fprintf(out, "%s belongs to a package and goes with it; %s\n", st.Where, until)
	}
	fmt.Fprintf(out, "your files and their copies on the server stay; so do the configuration and keys in %s\nand the state in %s\n", s.Config, s.State)
	return nil
}

func serviceStatus(cmd *cobra.Command, s service.Service, asJSON bool) error {
	st, err := s.Status(cmd.Context())
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if asJSON {
		if err := printJSON(out, st); err != nil {
			return err
		}
	}
	if !st.Installed {
		return service.ErrNotInstalled
	}
	if !asJSON {
		fmt.Fprint(out, st.Detail)
		if st.PID != 0 {
			fmt.Fprintf(out, ", process %d", st.PID)
		}
		start := "does not start by itself"
		if st.Enabled {
			start = "starts by itself"
		}
		fmt.Fprintf(out, ", %s\n  %s\n", start, st.Where)
	}
	if !st.Running {
		return cli.WithCode(cli.CodeUnreachable, errors.New("the service does not run; start it with: agent service start"))
	}
	return nil
}

// runService runs the agent as the system's service does. Its output is kept by the
// system, so it says nothing with the name of a file.
func runService(cmd *cobra.Command, s service.Service, untilEOF bool) error {
	ctx := cmd.Context()
	if untilEOF {
		ctx = service.WithEOF(ctx, cmd.InOrStdin())
	}
	// The settings of a file that cannot be understood are the default ones; the
	// agent waits until it is mended.
	c, err := config.Load(s.Config)
	if err != nil {
		c.Settings = config.DefaultSettings()
	}
	o := agent.Options{Folder: s.Config, State: s.State, Protocol: 4, Await: true, Shared: s.System}
	var closeLog func() error
	o.Log, closeLog = openLog(cmd, c.Settings, s.State, slog.LevelWarn)
	defer closeLog()
	return service.Run(ctx, func(ctx context.Context) error {
		return withCode(mending(func() error { return agent.Run(ctx, o) }))
	})
}

// startText says how what has been set up becomes protected: by an agent that waited
// for it, or one that is still to be started.
func startText(cmd *cobra.Command, state string) string {
	if _, err := localapi.NewClient(state).Status(cmd.Context()); err == nil {
		return "the running agent protects it from now on"
	}
	return "start protecting with: agent run, or have the system do it: agent service install"
}
