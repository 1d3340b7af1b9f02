package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// peakEvery is how often a program's peak memory is read: what it took in its
	// last moments can be missed.
	peakEvery = 10 * time.Millisecond
	// patience is how long a server may take to start, to rest or to end.
	patience = 30 * time.Second
	// mostOutput is how much of what a program said an error repeats, in bytes.
	mostOutput = 4000
)

// cost is what one operation took.
type cost struct {
	Wall time.Duration
	// CPU is user and system time of the client, its children and the server.
	CPU time.Duration
	// ClientPeak and ServerPeak are the most resident memory in bytes; the
	// server's is zero where it is the client's child.
	ClientPeak, ServerPeak int64
}

// measure runs client to its end. server may be nil; what it still does when the
// client has ended is part of the cost.
func measure(client *exec.Cmd, server *service) (cost, error) {
	var c cost
	var out bytes.Buffer
	client.Stdout, client.Stderr = &out, &out
	flush() // what was written before is not to be paid for now
	var before time.Duration
	if server != nil {
		if err := server.alive(); err != nil {
			return c, err
		}
		if err := resetPeak(server.pid()); err != nil {
			return c, err
		}
		var err error
		if before, err = cpuTime(server.pid()); err != nil {
			return c, err
		}
	}
	begin := time.Now()
	if err := client.Start(); err != nil {
		return c, err
	}
	ended := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- watchPeak(client.Process.Pid, ended) }()
	err := client.Wait()
	c.Wall = time.Since(begin)
	close(ended)
	c.ClientPeak = <-peak
	if err != nil {
		return c, commandError(client, err, out.Bytes())
	}
	c.CPU = client.ProcessState.UserTime() + client.ProcessState.SystemTime()
	if server == nil {
		return c, nil
	}
	after, err := server.rest()
	if err != nil {
		return c, err
	}
	c.CPU += after - before
	_, c.ServerPeak, err = memory(server.pid())
	return c, err
}

func watchPeak(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(peakEvery)
	defer tick.Stop()
	for {
		if _, p, err := memory(pid); err == nil {
			peak = max(peak, p)
		}
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
	}
}

// output runs a command that is not measured.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &all
	if err := cmd.Run(); err != nil {
		return nil, commandError(cmd, err, append(out.Bytes(), all.Bytes()...))
	}
	return out.Bytes(), nil
}

func commandError(cmd *exec.Cmd, err error, output []byte) error {
	return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, output[max(0, len(output)-mostOutput):])
}

// service is a program that runs until it is stopped.
type service struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and err says how
	err  error
}

// alive is an error if the program has ended.
func (s *service) alive() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// startService starts a program. line, if not nil, is called in another goroutine
// with each line of its standard output and error, and when it was read.
func startService(cmd *exec.Cmd, line func(string, time.Time)) (*service, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &service{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		var said []byte
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if line != nil {
				line(lines.Text(), time.Now())
			}
			said = append(append(said, lines.Bytes()...), '\n')
			said = said[max(0, len(said)-mostOutput):]
		}
		err := cmd.Wait()
		if err == nil {
			err = errors.New("ended")
		}
		s.err = commandError(cmd, err, said)
	}()
	return s, nil
}

func (s *service) pid() int { return s.cmd.Process.Pid }

// stop ends the program and waits for it.
func (s *service) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		<-s.done
		return nil // it had ended before
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(patience):
		s.cmd.Process.Kill()
		<-s.done
		return fmt.Errorf("%s did not end in %v", s.cmd.Path, patience)
	}
}

// rest waits until the program does nothing and returns the CPU time it has taken.
func (s *service) rest() (time.Duration, error) {
	const pause, still = 50 * time.Millisecond, 500 * time.Microsecond
	last, err := cpuTime(s.pid())
	for begin := time.Now(); err == nil && time.Since(begin) < patience; {
		time.Sleep(pause)
		var now time.Duration
		if now, err = cpuTime(s.pid()); now-last < still {
			return now, err
		}
		last = now
	}
	return last, err
}

// reachable waits until something listens on address.
func (s *service) reachable(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freeAddress returns a loopback address that nothing listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
