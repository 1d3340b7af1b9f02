package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/adrg/xdg"

	"backstay/internal/settings"
	"backstay/protocol/info"
	wire "backstay/protocol/v3"
)

// V3Mode says which peers may speak protocol version 3.
type V3Mode string

// The values of the setting v3.
const (
	// V3Off: nobody.
	V3Off V3Mode = "off"
	// V3Loopback: programs on this machine only, which is the default.
	V3Loopback V3Mode = "loopback"
	// V3On: everybody, but only names that the administrator has allowed
	// register.
	V3On V3Mode = "on"
)

// Config is the content of server.toml; every key may be left out. [DefaultConfig]
// states the defaults.
type Config struct {
	// Listen is the TCP address of the one port. Empty: every address of the
	// machine, at the port of port.info, else 1256.
	Listen string `toml:"listen"`
	// V3 is off, loopback or on.
	V3 V3Mode `toml:"v3"`
	// V3OAEP is the hash that wraps the AES key for version 3 clients, sha256
	// or sha1, and V3OAEPByName the exceptions by client name. The wire does
	// not tell which one a client expects.
	V3OAEP       wire.OAEPHash            `toml:"v3_oaep"`
	V3OAEPByName map[string]wire.OAEPHash `toml:"v3_oaep_by_name"`
	// V31100 says which dialect the codes from 1100 on mean: documented, 2023
	// or 2022; V31025 those from 1025 on: field or late2023.
	V31100 wire.Dialect `toml:"v3_1100"`
	V31025 wire.Dialect `toml:"v3_1025"`
	// V3AckResend answers "checksum wrong, resending", as one family expects.
	V3AckResend bool `toml:"v3_ack_resend"`
	// Metrics is the loopback address of /metrics and /healthz; off for none.
	// The default is 127.0.0.1:1257 if that port is free, else none.
	Metrics string `toml:"metrics"`
	// LogFile is the path of the rotating log; the default is server.log in
	// the data folder, off for none.
	LogFile string `toml:"log_file"`
	// MaxSessions bounds the sessions at once, MaxPerAddress those of one
	// remote address.
	MaxSessions   int `toml:"max_sessions"`
	MaxPerAddress int `toml:"max_sessions_per_address"`
	// IdleSeconds ends a session whose peer sends or takes nothing for so long.
	IdleSeconds int `toml:"idle_seconds"`
}

// DefaultConfig returns the settings in force where server.toml says nothing.
func DefaultConfig() Config {
	return Config{
		V3:            V3Loopback,
		V3OAEP:        wire.SHA256,
		V31100:        wire.Documented,
		V31025:        wire.Field,
		MaxSessions:   1024,
		MaxPerAddress: 256,
		IdleSeconds:   60,
	}
}

// defaultMetrics is where metrics are served if nobody says otherwise and nobody
// else has the port.
const defaultMetrics = "127.0.0.1:1257"

// ConfigFolder is where server.toml and port.info are looked for: the working
// folder if it holds one of them, else the system's place for settings.
func ConfigFolder() string {
	for _, name := range []string{"server.toml", "port.info"} {
		if _, err := os.Stat(name); err == nil {
			return "."
		}
	}
	return filepath.Join(xdg.ConfigHome, "backstay")
}

// DefaultData is the data folder where --data does not name one.
func DefaultData() string {
	return filepath.Join(xdg.DataHome, "backstay", "server")
}

// LoadConfig reads server.toml and port.info of a folder. Errors name the file,
// and the line where there is one.
func LoadConfig(folder string) (Config, error) {
	c := DefaultConfig()
	if err := settings.Load(filepath.Join(folder, "server.toml"), &c); err != nil {
		return c, err
	}
	if c.Listen == "" {
		port, err := portInfo(filepath.Join(folder, "port.info"))
		if err != nil {
			return c, err
		}
		c.Listen = ":" + strconv.Itoa(int(port))
	}
	return c, nil
}

func portInfo(path string) (uint16, error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return info.DefaultPort, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the port: %w", err)
	}
	port, err := info.ParsePort(data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return port, nil
}

// Validate checks what the types do not, naming the key.
func (c Config) Validate() error {
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen = %q: %w; write host:port or :port", c.Listen, err)
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("listen = %q: the port must be a number from 0 (any free one) to 65535", c.Listen)
	}
	switch c.V3 {
	case V3Off, V3Loopback, V3On:
	default:
		return fmt.Errorf("v3 = %q: must be off, loopback or on", c.V3)
	}
	if err := c.series().Validate(); err != nil {
		return err
	}
	if c.Metrics != "" && c.Metrics != "off" {
		host, _, err := net.SplitHostPort(c.Metrics)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("metrics = %q: must be a loopback address with a port, as 127.0.0.1:1257, or off", c.Metrics)
		}
	}
	for key, n := range map[string]int{"max_sessions": c.MaxSessions, "max_sessions_per_address": c.MaxPerAddress, "idle_seconds": c.IdleSeconds} {
		if n < 1 {
			return fmt.Errorf("%s = %d: must be at least 1", key, n)
		}
	}
	return nil
}

func (c Config) idle() time.Duration { return time.Duration(c.IdleSeconds) * time.Second }

func (c Config) series() wire.Series { return wire.Series{S1100: c.V31100, S1025: c.V31025} }
