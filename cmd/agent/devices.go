package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"backstay/agent/config"
	"backstay/agent/device"
	"backstay/agent/enrol"
	client "backstay/agent/v4"
	"backstay/internal/cli"
	"backstay/protocol/v4"
	"backstay/protocol/vault"
)

// listedDevice is what "devices --json" prints.
type listedDevice struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Account  string     `json:"account"`
	LastSeen *time.Time `json:"last_seen"`
	LastSafe *time.Time `json:"last_safe"`
	Revoked  bool       `json:"revoked"`
	// Member: it can open the vault. This: it is the machine asked.
	Member bool `json:"member"`
	This   bool `json:"this"`
}

func devicesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the machines of the account",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := reader(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			devices, err := r.Session.Devices(cmd.Context())
			if err != nil {
				return reachCode(err)
			}
			list := []listedDevice{}
			for _, d := range devices {
				// Who is a member is what the log says, not the server.
				_, status := r.Members.Member(d.ID)
				list = append(list, listedDevice{
					ID: d.ID.String(), Name: d.Name, Account: r.Session.Hello().Account, LastSeen: timeOrNil(d.LastSeen), LastSafe: timeOrNil(d.LastSafe),
					Revoked: status == vault.StatusRevoked || status == vault.StatusVoided, Member: status == vault.StatusLive, This: d.ID == r.Device.Identity.ID(),
				})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			for _, d := range list {
				mark := ""
				switch {
				case d.This:
					mark = "  (this machine)"
				case d.Revoked:
					mark = "  (revoked)"
				case !d.Member:
					mark = "  (not a member yet: agent pair)"
				}
				safe := "never"
				if d.LastSafe != nil {
					safe = d.LastSafe.Local().Format(time.DateTime)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %-20s last safe %s%s\n", d.ID, cli.Name(d.Name), safe, mark)
			}
			return nil
		},
	}
	cmd.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(&cobra.Command{
		Use:   "revoke ID",
		Short: "Shut a machine out: the server refuses it at once, and it cannot open what is stored from now on",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := hex.DecodeString(args[0])
			if err != nil || len(raw) != len(vault.DeviceID{}) {
				return cli.Usage("%q is no device id; see: agent devices", args[0])
			}
			r, err := reader(cmd)
			if err != nil {
				return err
			}
			defer r.Close()
			id := vault.DeviceID(raw)
			m, status := r.Members.Member(id)
			if status != vault.StatusLive {
				return fmt.Errorf("%s is no member of the vault; see: agent devices", args[0])
			}
			if err := enrol.Revoke(cmd.Context(), r.Session, r.Device, id); err != nil {
				return reachCode(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), listedDevice{
					ID: id.String(), Name: m.Name, Account: r.Session.Hello().Account, Revoked: true, This: id == r.Device.Identity.ID(),
				})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is shut out; what it has already read it has. Change passwords that were in its files\n", cli.Name(m.Name))
			return nil
		},
	})
	return cmd
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// paired is what "pair --json" prints: the code, and then who used it.
type paired struct {
	Code   string `json:"code,omitempty"`
	Member string `json:"member,omitempty"`
}

func pairCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pair [CODE]",
		Short: "Let a further machine read and write the vault: here, then with the code there",
		Long: `Make a further machine of the account a member of the vault. On a machine that is a
member, "agent pair" shows a code and waits. On the new one, which has joined with an
invitation of its own, "agent pair CODE" ends both. A code is good once, for ten minutes.`,
		Example: `  agent pair
  agent pair ABCD-EFGH-...`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				r, err := reader(cmd)
				if err != nil {
					return err
				}
				defer r.Close()
				code := v4.NewPairingCode()
				if asJSON {
					err = printJSON(cmd.OutOrStdout(), paired{Code: code.Text()})
				} else {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "on the other machine run:\n  agent pair %s\n", code.Text())
				}
				if err != nil {
					return err
				}
				name, err := enrol.Admit(cmd.Context(), r.Session, r.Device, code)
				if err != nil {
					return reachCode(err)
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), paired{Member: name})
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is a member now\n", cli.Name(name))
				return nil
			}
			code, err := v4.ParsePairingCode(args[0])
			if err != nil {
				return cli.Usage("%w", err)
			}
			folder, state, err := folders(cmd)
			if err != nil {
				return err
			}
			c, err := config.Load(folder)
			if err != nil {
				return reachCode(err)
			}
			d, err := device.Load(folder)
			if err != nil {
				return reachCode(err)
			}
			if d.Vault != (vault.ID{}) {
				return errors.New("this machine is a member already; to admit another, run \"agent pair\" without a code")
			}
			s, err := client.Dial(cmd.Context(), client.Options{Address: c.Address, Pin: d.Pin, Key: d.Identity.TLS(), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return reachCode(err)
			}
			defer s.Close()
			if err := enrol.Pair(cmd.Context(), s, folder, &d, code); err != nil {
				return reachCode(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), paired{Member: d.Name})
			}
			fmt.Fprintln(cmd.OutOrStdout(), "this machine is a member now; "+startText(cmd, state))
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
