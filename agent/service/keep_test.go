package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A program that Keep starts is this one, which then does what agentEnv says.
const agentEnv = "BACKSTAY_TEST_AGENT"

func TestMain(m *testing.M) {
	switch os.Getenv(agentEnv) {
	case "until eof":
		_, err := io.Copy(io.Discard, os.Stdin)
		if err != nil || os.Args[len(os.Args)-1] != UntilEOF {
			os.Exit(7)
		}
		os.Exit(0)
	case "fail":
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func TestKeepWaitsLongerAndLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := errors.New("it failed")
		// How long each run takes before it ends as the last says.
		runs := []time.Duration{0, 0, 0, 0, time.Minute, calm, 0, time.Hour}
		var starts []time.Duration
		began := time.Now()
		err := keep(t.Context(), slog.New(slog.DiscardHandler), func(context.Context) error {
			starts = append(starts, time.Since(began))
			time.Sleep(runs[len(starts)-1])
			if len(starts) == len(runs) {
				return nil
			}
			return failed
		})
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Duration
		at := time.Duration(0)
		for i, wait := range []time.Duration{0, 5 * time.Second, 30 * time.Second, time.Minute, time.Minute, time.Minute, 5 * time.Second, 30 * time.Second} {
			at += wait
			want = append(want, at)
			at += runs[i]
		}
		if !slices.Equal(starts, want) {
			t.Errorf("started at %v, want %v", starts, want)
		}
	})
}

func TestKeepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		runs := 0
		err := keep(ctx, slog.New(slog.DiscardHandler), func(context.Context) error {
			runs++
			return errors.New("it failed")
		})
		if err != nil || runs != 3 {
			t.Errorf("%d runs, %v", runs, err)
		}
	})
}

// The agent ends when its keeper asks it to, and because its keeper has gone: its
// standard input ends in both cases.
func TestRunOnce(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, agent string
		fails       bool
	}{
		{"asked to end", "until eof", false},
		{"fails", "fail", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(agentEnv, tt.agent)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if !tt.fails {
				cancel()
			}
			if err := (Service{Executable: self}).runOnce(ctx); (err != nil) != tt.fails {
				t.Error(err)
			}
		})
	}
}

func TestWithEOF(t *testing.T) {
	r, w := io.Pipe()
	ctx := WithEOF(t.Context(), r)
	if _, err := io.WriteString(w, "anything"); err != nil || ctx.Err() != nil {
		t.Fatalf("ended early: %v, %v", err, ctx.Err())
	}
	w.Close()
	<-ctx.Done()
}
