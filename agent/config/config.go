// Package config reads what a person tells the agent: transfer.info, port.info and
// agent.toml of one folder (SPEC.md, "Files beside the programs").
//
// The one invariant: a file that cannot be understood never takes the place of
// settings in force. [Load] fails with one line naming file and line, and whoever
// follows changes keeps what it had.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/adrg/xdg"

	"backstay/internal/settings"
	"backstay/protocol/info"
)

// ErrNotSetUp says that there is no transfer.info: nobody has told the agent yet
// where to send what.
var ErrNotSetUp = errors.New("not set up")

// Names of the files in the config folder.
const (
	TransferFile = "transfer.info"
	PortFile     = "port.info"
	SettingsFile = "agent.toml"
)

// Config is one consistent reading of the folder.
type Config struct {
	// Address is the server's host:port, Name this machine's name there.
	Address string
	Name    string
	// Roots are the folders and files to protect: absolute, clean, in the
	// order of transfer.info, without repetitions.
	Roots []string
	// Excludes are gitignore patterns, in order, without the leading "!".
	Excludes []string
	Settings Settings
}

// Settings is the content of agent.toml. Every key may be left out; the value of
// [DefaultSettings] is in force then.
type Settings struct {
	// Settle is how long a file must be quiet before it is captured.
	Settle Duration `toml:"settle"`
	// Rescan is how often everything is compared with the disk, besides at
	// start and whenever change hints may have been lost.
	Rescan Duration `toml:"rescan"`
	// Poll is how often folders that cannot be watched are looked at.
	Poll Duration `toml:"poll"`
	// LogFile is the path of the rotating log; the default is agent.log in
	// the state folder, off for none.
	LogFile string `toml:"log_file"`
}

// DefaultSettings returns what is in force where agent.toml says nothing.
func DefaultSettings() Settings {
	return Settings{Settle: Duration(500 * time.Millisecond), Rescan: Duration(4 * time.Hour), Poll: Duration(30 * time.Second)}
}

// Duration is a time.Duration written as in "30s" or "4h".
type Duration time.Duration

// UnmarshalText reads the form that time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no span of time; write it as 500ms, 30s or 4h", b)
	}
	*d = Duration(v)
	return nil
}

// Folder returns the config folder: the one named, else the working folder if it
// holds a transfer.info, else the system's place for settings.
func Folder(named string) (string, error) {
	if named == "" {
		if _, err := os.Stat(TransferFile); err == nil {
			named = "."
		} else {
			named = filepath.Join(xdg.ConfigHome, "backstay")
		}
	}
	return filepath.Abs(named)
}

// DefaultState is the state folder where --state does not name one.
func DefaultState() string { return filepath.Join(xdg.StateHome, "backstay") }

// Load reads the folder. Errors name the file and the line; ErrNotSetUp is wrapped
// where transfer.info is missing. Roots need not exist.
func Load(folder string) (Config, error) {
	c := Config{Settings: DefaultSettings()}
	path := filepath.Join(folder, TransferFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%w: there is no %s; write one: line 1 the server as host:port, line 2 a name for this machine, then one folder a line", ErrNotSetUp, path)
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	transfer, err := info.ParseTransfer(data)
	if err != nil {
		return c, in(folder, err)
	}
	port, err := loadPort(folder)
	if err != nil && transfer.Port() == 0 {
		return c, err
	}
	c.Address = transfer.Address(port)
	c.Name = transfer.Name()
	c.Excludes = transfer.Excludes()
	seen := map[string]bool{}
	for _, p := range transfer.Paths() {
		if !filepath.IsAbs(p) {
			p = filepath.Join(folder, p)
		}
		if p = filepath.Clean(p); !seen[p] {
			seen[p] = true
			c.Roots = append(c.Roots, p)
		}
	}
	path = filepath.Join(folder, SettingsFile)
	if err := settings.Load(path, &c.Settings); err != nil {
		return c, err
	}
	return c, c.Settings.check(path)
}

// check refuses what would do harm.
func (s Settings) check(path string) error {
	if s.Settle < 0 || s.Rescan < Duration(time.Minute) || s.Poll < Duration(time.Second) {
		return fmt.Errorf("%s: settle must not be negative, rescan at least 1m, poll at least 1s", path)
	}
	return nil
}

// loadPort returns the port of port.info, 0 where there is none.
func loadPort(folder string) (uint16, error) {
	data, err := os.ReadFile(filepath.Join(folder, PortFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the port: %w", err)
	}
	port, err := info.ParsePort(data)
	return port, in(folder, err)
}

// in says in which folder a file stands that an error names.
func in(folder string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s%c%w", folder, filepath.Separator, err)
}
