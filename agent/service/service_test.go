package service

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What the library does for ever is not waited for as long.
func TestBounded(t *testing.T) {
	failed := errors.New("it failed")
	for _, tt := range []struct {
		name        string
		takes, gone time.Duration // until the call ends, and its context
		err, want   error
		waits       time.Duration
	}{
		{"done", time.Second, time.Hour, nil, nil, time.Second},
		{"failed", time.Second, time.Hour, failed, failed, time.Second},
		{"for ever", 24 * time.Hour, time.Hour, nil, errTooLong, patience},
		{"nobody waits for it", 24 * time.Hour, time.Second, nil, context.DeadlineExceeded, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tt.gone)
				defer cancel()
				began := time.Now()
				err := bounded(ctx, func() error {
					time.Sleep(tt.takes)
					return tt.err
				})
				// A bubble ends with all that is in it.
				defer time.Sleep(tt.takes)
				if waited := time.Since(began); !errors.Is(err, tt.want) || waited != tt.waits {
					t.Errorf("%v after %v, want %v after %v", err, waited, tt.want, tt.waits)
				}
			})
		})
	}
}
