package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"backstay/agent/conditions"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"transfer.info": "# mine\r\nbackup.example\r\nada\r\nnotes.bin\r\n!*.tmp\r\n/srv/../srv/photos/\r\nnotes.bin",
		"port.info":     "4321",
		"agent.toml":    "settle = '2s'\n",
	})
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "notes.bin"), filepath.Clean("/srv/photos")}
	if c.Address != "backup.example:4321" || c.Name != "ada" || !slices.Equal(c.Roots, want) || !slices.Equal(c.Excludes, []string{"*.tmp"}) {
		t.Fatalf("got %+v", c)
	}
	if c.Settings.Settle != Duration(2*time.Second) || c.Settings.Rescan != DefaultSettings().Rescan {
		t.Fatalf("settings %+v", c.Settings)
	}
}

func TestLoadRefuses(t *testing.T) {
	const good = "127.0.0.1:1256\nada\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"port out of range", map[string]string{"transfer.info": "h:70000\nada\n"}, "transfer.info line 1"},
		{"no name", map[string]string{"transfer.info": "h:1\n"}, "transfer.info line 2"},
		{"bad port.info that is needed", map[string]string{"transfer.info": "h\nada\n", "port.info": "x"}, "port.info line 1"},
		{"unknown key", map[string]string{"transfer.info": good, "agent.toml": "a = 1\n"}, "agent.toml:1: unknown key"},
		{"no span", map[string]string{"transfer.info": good, "agent.toml": "\nsettle = 'soon'\n"}, "agent.toml:2: "},
		{"no choice", map[string]string{"transfer.info": good, "agent.toml": "on_battery = 'stop'\n"}, "agent.toml: on_battery"},
		{"no percent", map[string]string{"transfer.info": good, "agent.toml": "battery_floor = 101\n"}, "agent.toml: battery_floor"},
		{"no window", map[string]string{"transfer.info": good, "agent.toml": "windows = [\n'22:00-06:00',\n'at night']\n"}, "agent.toml:3: "},
		{"no rate", map[string]string{"transfer.info": good, "agent.toml": "upload_limit = 'fast'\n"}, "agent.toml:1: "},
		{"negative rate", map[string]string{"transfer.info": good, "agent.toml": "upload_limit = -1\n"}, "agent.toml: upload_limit"},
		{"rate in bits", map[string]string{"transfer.info": good, "agent.toml": "upload_limit = '5Mb'\n"}, "agent.toml:1: "},
		{"rate too low", map[string]string{"transfer.info": good, "agent.toml": "download_limit = '1kB/s'\n"}, "agent.toml: upload_limit and download_limit"},
		{"out of range", map[string]string{"transfer.info": good, "agent.toml": "poll = '1ms'\n"}, "agent.toml: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.files)
			_, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %q, want one line with the folder and %q", err, tt.want)
			}
		})
	}
}

func TestLoadIgnoresPortInfoThatIsNotNeeded(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"transfer.info": "127.0.0.1:1256\nada\n", "port.info": "x"})
	if _, err := Load(dir); err != nil {
		t.Fatal(err)
	}
}

func TestLoadNotSetUp(t *testing.T) {
	if _, err := Load(t.TempDir()); !errors.Is(err, ErrNotSetUp) {
		t.Fatalf("got %v, want ErrNotSetUp", err)
	}
}

func TestLoadSending(t *testing.T) {
	for _, tt := range []struct {
		name, toml string
		want       Sending
	}{
		{"nothing", "", DefaultSettings().Sending},
		{"everything", `on_battery = "pause"
battery_floor = 0
on_metered = "continue"
upload_limit = "1.5 MB/s"
download_limit = 200000
windows = ["22:00-06:00"]
`, Sending{
			Policy:      conditions.Policy{OnBattery: conditions.Pause, OnMetered: conditions.Continue, Windows: []conditions.Window{window(t, "22:00-06:00")}},
			UploadLimit: 1_500_000, DownloadLimit: 200_000,
		}},
		{"no limit", "upload_limit = 0\ndownload_limit = '0'\n", DefaultSettings().Sending},
		{"units", "upload_limit = '64KiB'\ndownload_limit = '2 MiB/s'\n", Sending{Policy: conditions.Default(), UploadLimit: 65536, DownloadLimit: 2 << 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"transfer.info": "127.0.0.1:1256\nada\n", "agent.toml": tt.toml})
			c, err := Load(dir)
			if err != nil || !reflect.DeepEqual(c.Settings.Sending, tt.want) {
				t.Fatalf("got %+v, %v\nwant %+v", c.Settings.Sending, err, tt.want)
			}
		})
	}
}

func window(t *testing.T, text string) conditions.Window {
	var w conditions.Window
	if err := w.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return w
}
