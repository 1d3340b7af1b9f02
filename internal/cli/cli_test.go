package cli

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/spf13/cobra"
)

func TestNameCannotForgeALine(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/home/ada/Büro/a b.txt", "/home/ada/Büro/a b.txt"},
		{"a\nb safe", `"a\nb safe"`},
		{"a\x1b[2J", `"a\x1b[2J"`},
		{"caf\xe9", `"caf\xe9"`},
	} {
		if got := Name(tt.path); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.path, got, tt.want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_550_000: "1.6 MB", 3e9: "3.0 GB", 1 << 62: "4611.7 PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestRunCodes(t *testing.T) {
	plain := errors.New("it broke\nin two lines")
	for _, tt := range []struct {
		name string
		args []string
		err  error
		want int
		text string
	}{
		{"done", []string{"do"}, nil, CodeDone, ""},
		{"failed", []string{"do"}, plain, CodeFailed, "prog: it broke; in two lines\n"},
		{"marked, and wrapped again", []string{"do"}, fmt.Errorf("more: %w", WithCode(CodeIntegrity, plain)), CodeIntegrity, "prog: more: it broke; in two lines\n"},
		{"unknown verb", []string{"undo"}, nil, CodeUsage, "prog: unknown command \"undo\"; see 'prog --help'\n"},
		{"unknown verb in a group", []string{"group", "undo"}, nil, CodeUsage, "prog: unknown command \"undo\"; see 'prog group --help'\n"},
		{"unknown flag", []string{"do", "--x"}, nil, CodeUsage, "prog: unknown flag: --x; see 'prog do --help'\n"},
		{"too many arguments", []string{"do", "it"}, nil, CodeUsage, "prog: unknown command \"it\" for \"prog do\"; see 'prog do --help'\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := &cobra.Command{Use: "prog"}
			group := &cobra.Command{Use: "group"}
			group.AddCommand(&cobra.Command{Use: "member", RunE: func(*cobra.Command, []string) error { return nil }})
			root.AddCommand(group, &cobra.Command{Use: "do", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return tt.err }})
			var stderr bytes.Buffer
			root.SetErr(&stderr)
			root.SetArgs(tt.args)
			if got := Run(root); got != tt.want || stderr.String() != tt.text {
				t.Errorf("exit %d, want %d; printed %q, want %q", got, tt.want, stderr.String(), tt.text)
			}
		})
	}
}
