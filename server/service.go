package server

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"slices"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/accounts"
	"backstay/server/admin"
	"backstay/server/storage"
	"backstay/server/v3"
)

var _ admin.Service = (*Server)(nil)

// Stats counts what is stored and who is connected.
func (s *Server) Stats(ctx context.Context) (admin.Stats, error) {
	stored, err := s.store.Stats(ctx)
	if err != nil {
		return admin.Stats{}, err
	}
	st := admin.Stats{
		Accounts:     int64(len(s.accounts.Accounts())),
		Devices:      int64(len(s.accounts.Devices(""))),
		Files:        stored.Paths,
		Versions:     stored.Versions,
		Objects:      stored.Objects,
		BytesLogical: stored.BytesObjects,
		BytesStored:  stored.BytesStored,
		Sessions:     s.sessions.now.Load(),
	}
	for _, err := range s.store.Devices(ctx, s.vault) {
		if err != nil {
			return admin.Stats{}, err
		}
		st.Devices++
	}
	if err := s.clock.Trusted(); err != nil {
		st.ClockProblem = err.Error()
	}
	return st, nil
}

// Invite makes an invitation.
func (s *Server) Invite(ctx context.Context, o admin.InviteOptions) (admin.Invitation, error) {
	addresses := []string{o.Address}
	if o.Address == "" {
		var err error
		if addresses, err = s.addresses(); err != nil {
			return admin.Invitation{}, err
		}
	}
	// Before it is stored: what cannot be written as text is no invitation.
	i := wire.Invitation{Addresses: addresses, Pin: wire.PinOf(s.key.Public().(ed25519.PublicKey)), Account: "a"}
	if _, err := i.Text(); err != nil {
		return admin.Invitation{}, fmt.Errorf("address %q is not host:port, or too long: %w", o.Address, storage.ErrInvalid)
	}
	made, err := s.accounts.Invite(ctx, o.Account, o.TTL)
	if err != nil {
		return admin.Invitation{}, err
	}
	made.Addresses, made.Pin = i.Addresses, i.Pin
	text, err := made.Text()
	if err != nil {
		return admin.Invitation{}, err
	}
	return admin.Invitation{Invitation: text, Expires: made.Expires, Account: made.Account}, nil
}

// addresses returns where agents can reach the server, best first: where it listens,
// or, if that is everywhere, what this machine is called from elsewhere.
func (s *Server) addresses() ([]string, error) {
	listen := s.o.Config.Listen
	select {
	case <-s.listening:
		listen = s.addr.String()
	default:
	}
	name, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return nil, fmt.Errorf("nobody knows yet where the server will listen: start it first, or say where with --address: %w", storage.ErrInvalid)
	}
	if ip := net.ParseIP(name); name != "" && (ip == nil || !ip.IsUnspecified()) {
		return []string{listen}, nil
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this machine's addresses: %w; say one with --address", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	hosts := hostsOf(interfaces, hostname)
	for i := range hosts {
		hosts[i] = net.JoinHostPort(hosts[i], port)
	}
	return hosts, nil
}

// maxHosts bounds how many addresses an invitation tries.
const maxHosts = 6

// hostsOf returns the addresses that others can reach a machine at, IPv4 first, and
// its name; its loopback address if there are none.
func hostsOf(interfaces []net.Addr, hostname string) []string {
	var ips []net.IP
	for _, a := range interfaces {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			ips = append(ips, n.IP)
		}
	}
	if len(ips) == 0 {
		return []string{"127.0.0.1"}
	}
	isV6 := func(ip net.IP) int {
		if ip.To4() == nil {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(ips, func(a, b net.IP) int { return cmp.Compare(isV6(a), isV6(b)) })
	var hosts []string
	for _, ip := range ips[:min(len(ips), maxHosts-1)] {
		hosts = append(hosts, ip.String())
	}
	if hostname != "" && hostname != "localhost" {
		hosts = append(hosts, hostname)
	}
	return hosts
}

// Devices lists the enrolled devices.
func (s *Server) Devices(ctx context.Context) ([]admin.Device, error) {
	list := []admin.Device{}
	heads := map[string]map[vault.DeviceID]storage.DeviceHead{} // by account
	for _, d := range s.accounts.Devices("") {
		v := s.accounts.Vault(d.Account)
		if _, ok := heads[d.Account]; !ok && v != nil {
			heads[d.Account] = map[vault.DeviceID]storage.DeviceHead{}
			for h, err := range s.store.Devices(ctx, *v) {
				if err != nil {
					return nil, err
				}
				heads[d.Account][h.Device] = h
			}
		}
		device := admin.Device{ID: d.ID.String(), Name: d.Name, Account: d.Account}
		if seen := d.LastSeen(); !seen.IsZero() {
			device.LastSeen = &seen
		}
		if h := heads[d.Account][d.ID]; h.Seq != 0 {
			device.LastSafe = &h.Time
		}
		if v != nil {
			m, err := s.accounts.Members(ctx, *v)
			if err != nil {
				return nil, err
			}
			device.Revoked = accounts.Ended(m.Now(), d.ID)
		}
		list = append(list, device)
	}
	return list, nil
}

// Accounts lists the accounts.
func (s *Server) Accounts(context.Context) ([]admin.Account, error) {
	list := []admin.Account{}
	for _, a := range s.accounts.Accounts() {
		account := admin.Account{Name: a.Name, Created: a.Created, Devices: a.Devices}
		if a.Vault != nil {
			account.Vault = a.Vault.String()
		}
		list = append(list, account)
	}
	return list, nil
}

// ConfirmClock believes the system's clock, however far it leapt.
func (s *Server) ConfirmClock(context.Context) (time.Time, error) {
	if err := s.clock.confirm(); err != nil {
		return time.Time{}, err
	}
	s.log.Info("clock confirmed")
	return time.Now(), nil
}

// V3Files lists what version 3 clients have sent.
func (s *Server) V3Files(ctx context.Context) iter.Seq2[v3.File, error] { return s.legacy.Files(ctx) }

// V3Get writes the newest version of a version 3 client's file.
func (s *Server) V3Get(ctx context.Context, client, file string, w io.Writer) error {
	return s.legacy.Get(ctx, client, file, w)
}

// V3Allow lets a version 3 client of this name register.
func (s *Server) V3Allow(ctx context.Context, name string) error { return s.legacy.Allow(ctx, name) }
