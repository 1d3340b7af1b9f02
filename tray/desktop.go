package tray

import "strings"

// DesktopEntry is the freedesktop.org entry that starts the tray at login; it belongs
// into an autostart folder. exe is the tray's program, absolute.
func DesktopEntry(exe string) string {
	return entry("Backstay tray", "Shows whether your files are protected", quote(exe), `X-GNOME-Autostart-enabled=true
NoDisplay=true
`)
}

// MenuEntry is the entry that opens the dashboard from the desktop's menu. exe is the
// agent's program, absolute.
func MenuEntry(exe string) string {
	return entry("Backstay", "See and restore what is protected", quote(exe)+" dashboard", `Categories=System;Archiving;Utility;
Keywords=backup;restore;recovery;
`)
}

func entry(name, comment, command, more string) string {
	return "[Desktop Entry]\nType=Application\nVersion=1.0\nName=" + name + "\nComment=" + comment +
		"\nExec=" + command + "\nIcon=backstay\nTerminal=false\n" + more
}

// quote writes an argument of Exec, whose rules are twice those of a quoted string.
func quote(arg string) string {
	arg = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(arg)
	return `"` + strings.NewReplacer(`\`, `\\`, "%", "%%").Replace(arg) + `"`
}
