//go:build linux || darwin

package machine

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// networkSignals calls signal whenever the addresses may have changed, until ctx ends.
func networkSignals(ctx context.Context, signal func()) {
	socket, err := routeSocket()
	if err != nil {
		everyMinute(ctx, signal)
		return
	}
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	buf := make([]byte, os.Getpagesize())
	for {
		// ENOBUFS says that signals were lost, which is a signal.
		if _, err := socket.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			break
		}
		signal()
	}
	everyMinute(ctx, signal)
}
