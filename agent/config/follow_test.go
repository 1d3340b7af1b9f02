package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"transfer.info": "127.0.0.1:1256\nada\n"})
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- Follow(ctx, dir, func() { changes <- struct{}{} }) }()
	await := func(step func()) {
		t.Helper()
		// Repeated: the first may come before the folder is watched.
		for range 600 {
			step()
			select {
			case <-changes:
				return
			case <-time.After(quiet * 2):
			}
		}
		t.Fatal("the change was not noticed")
	}
	await(func() { write(t, dir, map[string]string{"transfer.info": "127.0.0.1:1256\neve\n"}) })
	await(func() { // as editors do it
		write(t, dir, map[string]string{"new": "127.0.0.1:1256\nbob\n"})
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "transfer.info")); err != nil {
			t.Fatal(err)
		}
	})
	await(func() { write(t, dir, map[string]string{"agent.toml": "settle = '1s'\n"}) })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestFollowSaysWhyNot(t *testing.T) {
	if err := Follow(t.Context(), filepath.Join(t.TempDir(), "none"), func() {}); err == nil {
		t.Fatal("follows a folder that is not there")
	}
}
