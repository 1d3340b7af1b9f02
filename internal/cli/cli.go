// Package cli is what the command lines of all programs share: exit codes, signals,
// and the way an error reaches a person. Each main maps errors to codes here, once.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes that scripts rely on.
const (
	CodeDone        = 0
	CodeFailed      = 1
	CodeUsage       = 2
	CodeUnprotected = 3 // done, but some files are not protected
	CodeUnreachable = 4 // not set up, or the other side cannot be reached
	CodeIntegrity   = 5 // what came back is not what was sent
)

// codeError carries the exit code an error ends the program with.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// WithCode marks err with the exit code that the program is to end with.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codeError{code, err}
}

// Usage is an error in how a command was called.
func Usage(format string, args ...any) error {
	return WithCode(CodeUsage, fmt.Errorf(format, args...))
}

// patience is how soon after the first signal another one kills. Before, it is the
// same wish once more: whoever ends a process group may reach a process twice.
const patience = 3 * time.Second

// Run executes root with the process's arguments and returns the exit code; --version
// prints [Version]. The context of every command ends at SIGINT and SIGTERM; a second signal, later,
// kills. An error is printed as one line on stderr.
func Run(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(patience, stop) })

	root.Version = Version()
	root.SilenceUsage = true
	root.SilenceErrors = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usage("%w; see '%s --help'", err, cmd.CommandPath())
	})
	requireKnownVerbs(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return CodeDone
	}
	fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", root.Name(), oneLine(err))
	if coded, ok := errors.AsType[*codeError](err); ok {
		return coded.code
	}
	if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
		return CodeUsage
	}
	return CodeFailed
}

// requireKnownVerbs makes a group of commands refuse a verb it does not know;
// cobra alone prints the help and ends with success.
func requireKnownVerbs(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		requireKnownVerbs(sub)
	}
	if cmd.Args != nil {
		args := cmd.Args
		cmd.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return Usage("%w; see '%s --help'", err, cmd.CommandPath())
			}
			return nil
		}
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return Usage("unknown command %q; see '%s --help'", args[0], cmd.CommandPath())
		}
		return cmd.Help()
	}
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// IsTerminal says whether w is a terminal, where a person looks and a progress
// bar makes sense.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Bytes writes a size for a person.
func Bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < 4 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[prefix])
}

// Name writes a path for a person: as it is if it prints, else quoted, so that a
// name cannot forge a line or move the cursor.
func Name(path string) string {
	if !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}
