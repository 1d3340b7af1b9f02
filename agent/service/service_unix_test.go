//go:build linux || darwin

package service

import (
	"context"
	"errors"
	"testing"
)

// Run ends when the agent does, with what it says, and has it end with ctx.
func TestRun(t *testing.T) {
	failed := errors.New("it failed")
	for _, tt := range []struct {
		name string
		ask  bool // it to end
		ends error
	}{
		{"asked to end", true, nil},
		{"asked to end, and fails in it", true, failed},
		{"ends by itself", false, nil},
		{"fails", false, failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := false
			err := Run(ctx, func(ctx context.Context) error {
				if tt.ask {
					cancel()
					<-ctx.Done()
				}
				ended = true
				return tt.ends
			})
			if !ended || !errors.Is(err, tt.ends) {
				t.Errorf("ended %v, %v", ended, err)
			}
		})
	}
}
