package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"
)

// operation is what is measured on every data set.
type operation string

const (
	opFirst     operation = "first backup"
	opUnchanged operation = "nothing changed"
	opChanged   operation = "1 % changed"
	opBig       operation = "byte inserted, 10 MiB appended to each"
	opRestore   operation = "full restore"
	opOne       operation = "one small file back"
)

// result is one operation of one peer on one data set, all runs.
type result struct {
	Data      string
	Operation operation
	Peer      string
	Costs     []cost
	// Stored is what the store took after each run's operation, in bytes. It is
	// read after the first backup and after the change of big files.
	Stored []int64 `json:",omitempty"`
}

// comparison runs the operations.
type comparison struct {
	work  string
	tools []tool
	// runs is how often everything is done.
	runs    int
	results []*result
	// onDisk: something was restored to the disk, for want of memory.
	onDisk bool
}

// data measures all peers on one data set. Each operation is done by all before the
// next, each time another one first, so that the machine's moods strike all alike.
func (c *comparison) data(ctx context.Context, d *data) error {
	for run := range c.runs {
		if err := c.run(ctx, d, run); err != nil {
			return fmt.Errorf("data set %s, run %d: %w", d.name, run+1, err)
		}
	}
	return nil
}

func (c *comparison) run(ctx context.Context, d *data, run int) (err error) {
	dir, err := os.MkdirTemp(c.work, "run-")
	if err != nil {
		return err
	}
	var peers []peer
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.close())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	for _, t := range c.tools {
		p, err := t.open(ctx, filepath.Join(dir, t.name), d.root)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		peers = append(peers, p)
	}
	turn := run
	each := func(op operation, do func(p peer) (cost, error)) error {
		turn++
		for k := range peers {
			i := (turn + k) % len(peers)
			spent, err := do(peers[i])
			if err != nil {
				return fmt.Errorf("%s, %s: %w", c.tools[i].name, op, err)
			}
			log.Printf("run %d, %s, %s, %s: %.2f s CPU, %.2f s", run+1, d.name, op, c.tools[i].name, spent.CPU.Seconds(), spent.Wall.Seconds())
			r := c.result(d.name, op, c.tools[i].name)
			r.Costs = append(r.Costs, spent)
			if op == opFirst || op == opBig {
				stored, err := peers[i].stored(ctx)
				if err != nil {
					return fmt.Errorf("%s: %w", c.tools[i].name, err)
				}
				r.Stored = append(r.Stored, stored)
			}
		}
		return nil
	}
	backup := func(p peer) (cost, error) {
		if err := d.warm(); err != nil {
			return cost{}, err
		}
		return p.backup(ctx)
	}

	if err := each(opFirst, backup); err != nil {
		return err
	}
	if err := each(opUnchanged, backup); err != nil {
		return err
	}
	if err := d.change(uint64(run) + 1); err != nil {
		return err
	}
	change := opChanged
	if d.files[0].big {
		change = opBig
	}
	if err := each(change, backup); err != nil {
		return err
	}
	if err := each(opRestore, func(p peer) (cost, error) { return c.restore(ctx, p, d, d.root) }); err != nil {
		return err
	}
	if !d.files[0].big {
		one := filepath.Join(d.root, d.files[len(d.files)/2].path)
		if err := each(opOne, func(p peer) (cost, error) { return c.restore(ctx, p, d, one) }); err != nil {
			return err
		}
	}
	return d.restore()
}

// restore restores a path into a fresh folder and holds what came back against it.
func (c *comparison) restore(ctx context.Context, p peer, d *data, path string) (spent cost, err error) {
	parent, free := memoryFolder()
	if free < 2*d.bytes+1<<30 {
		parent, c.onDisk = c.work, true
	}
	to, err := os.MkdirTemp(parent, "backstay-bench-")
	if err != nil {
		return spent, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	got, spent, err := p.restore(ctx, path, filepath.Join(to, "out"))
	if err != nil {
		return spent, err
	}
	return spent, same(path, got)
}

func (c *comparison) result(data string, op operation, peer string) *result {
	for _, r := range c.results {
		if r.Data == data && r.Operation == op && r.Peer == peer {
			return r
		}
	}
	r := &result{Data: data, Operation: op, Peer: peer}
	c.results = append(c.results, r)
	return r
}

// same says how the tree got differs from want: names, types, permissions, times of
// change and contents. The times of the top folder do not count.
func same(want, got string) error {
	count := func(root string) (n int, err error) {
		err = filepath.WalkDir(root, func(string, fs.DirEntry, error) error { n++; return nil })
		return n, err
	}
	found := 0
	buf := [2][]byte{make([]byte, 64<<10), make([]byte, 64<<10)}
	err := filepath.WalkDir(want, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		found++
		rel, err := filepath.Rel(want, path)
		if err != nil {
			return err
		}
		other := filepath.Join(got, rel)
		a, err := entry.Info()
		if err != nil {
			return err
		}
		b, err := os.Lstat(other)
		if err != nil {
			return err
		}
		if a.Mode() != b.Mode() && rel != "." {
			return fmt.Errorf("%s came back with mode %v, not %v", rel, b.Mode(), a.Mode())
		}
		if !a.ModTime().Equal(b.ModTime()) && (rel != "." || !a.IsDir()) {
			return fmt.Errorf("%s came back with time %v, not %v", rel, b.ModTime().Format(time.RFC3339Nano), a.ModTime().Format(time.RFC3339Nano))
		}
		if !a.Mode().IsRegular() {
			return nil
		}
		return sameContent(path, other, buf)
	})
	if err != nil {
		return err
	}
	n, err := count(got)
	if err == nil && n != found {
		err = fmt.Errorf("%d entries came back, not %d", n, found)
	}
	return err
}

func sameContent(want, got string, buf [2][]byte) error {
	var files [2]*os.File
	for i, path := range []string{want, got} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	for {
		var n [2]int
		for i, f := range files {
			var err error
			if n[i], err = io.ReadFull(f, buf[i]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return err
			}
		}
		if !bytes.Equal(buf[0][:n[0]], buf[1][:n[1]]) {
			return fmt.Errorf("%s came back with other content", want)
		}
		if n[0] < len(buf[0]) {
			return nil
		}
	}
}
