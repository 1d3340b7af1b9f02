// Command bench measures Backstay, real programs over loopback, against restic and
// borg, on data that it makes: a source tree, a home folder, two big files and many
// tiny ones. From the module's folder:
//
//	go run ./internal/bench -scale 0.1 -n 3     all data sets and programs, a tenth of the size
//	go run ./internal/bench -data A -peers restic
//	go run ./internal/bench -save               a saved file until it is durable
//	go run ./internal/bench -idle 300000        an agent with nothing to do
//	go run ./internal/bench -agents 50          many agents on one server; of fewer
//	                                            the server's garbage hides the memory
//
// The one invariant: what is compared was done in the same run, on the same data, in
// turns, and every restore is held against the original. CPU time is that of client
// and server together, and what a server still does after the client has ended
// counts. Data are made from a fixed seed and kept in the work folder.
//
// It installs nothing: a program that is not here is left out, and the report says so.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	scale        float64
	runs         int
	data, peers  string
	work, json   string
	save         bool
	idle, agents int
}

func main() {
	log.SetFlags(log.Ltime)
	var o options
	flag.Float64Var(&o.scale, "scale", 0.1, "how much of each data set: 1 is 79,000, 4,500, 2 and 100,000 files, 5 GB")
	flag.IntVar(&o.runs, "n", 1, "how often to do everything")
	flag.StringVar(&o.data, "data", "A,B,C,D", "data sets: A source tree, B home, C two big files, D tiny files")
	flag.StringVar(&o.peers, "peers", "restic,borg", "whom to compare with")
	flag.StringVar(&o.work, "work", filepath.Join(os.TempDir(), "backstay-bench"), "folder for data, which are kept, and stores, which are not")
	flag.StringVar(&o.json, "json", "", "write everything that was measured to this file, too")
	flag.BoolVar(&o.save, "save", false, "measure only how long a saved file takes to be durable")
	flag.IntVar(&o.idle, "idle", 0, "measure only an agent that watches so many files, in a tenth as many folders")
	flag.IntVar(&o.agents, "agents", 0, "measure only what so many agents cost a server; each is a process of its own")
	flag.Parse()
	if flag.NArg() > 0 || o.scale <= 0 || o.runs < 1 || o.idle < 0 || o.agents < 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if _, err := cpuTime(os.Getpid()); err != nil {
		return err
	}
	work, err := filepath.Abs(o.work)
	if err != nil {
		return err
	}
	bin := filepath.Join(work, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	ours, err := build(ctx, bin)
	if err != nil {
		return err
	}
	rep := &report{Time: time.Now(), Scale: o.scale, Runs: o.runs, Tools: map[string]string{ours.name: ours.what}}
	switch {
	case o.save:
		rep.Verdicts, err = benchSave(ctx, work, ours)
	case o.idle > 0:
		rep.Verdicts, err = benchIdle(ctx, work, ours, o.idle)
	case o.agents > 0:
		rep.Verdicts, err = benchAgents(ctx, work, ours, o.agents)
	default:
		err = compare(ctx, o, work, ours, rep)
	}
	if err != nil {
		return err
	}
	if o.json != "" {
		text, err := json.MarshalIndent(rep, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return rep.markdown(os.Stdout)
}

// compare measures all programs on all data sets that were asked for.
func compare(ctx context.Context, o options, work string, ours tool, rep *report) error {
	c := &comparison{work: work, tools: []tool{ours}, runs: o.runs}
	find := map[string]func(context.Context) (tool, error){"restic": findRestic, "borg": findBorg}
	for name := range strings.SplitSeq(o.peers, ",") {
		if name == "" {
			continue
		}
		if find[name] == nil {
			return fmt.Errorf("-peers: %q is not restic or borg", name)
		}
		t, err := find[name](ctx)
		if err != nil {
			log.Print(err)
			rep.Tools[name] = "not compared with: " + err.Error()
			continue
		}
		c.tools = append(c.tools, t)
		rep.Tools[name] = t.what
	}
	wanted := strings.Split(o.data, ",")
	for _, set := range dataSets {
		i := slices.Index(wanted, set.name)
		if i < 0 {
			continue
		}
		wanted = slices.Delete(wanted, i, i+1)
		d, err := makeData(set.name, filepath.Join(work, fmt.Sprintf("%s-%v", set.name, o.scale)), set.plan(o.scale))
		if err != nil {
			return fmt.Errorf("data set %s: %w", set.name, err)
		}
		log.Printf("%s, %s: %d files, %.0f MB", set.name, set.what, len(d.files), mb(d.bytes))
		if err := c.data(ctx, d); err != nil {
			return err
		}
	}
	if len(wanted) > 0 {
		return errors.New("-data: there is no data set " + strings.Join(wanted, ", "))
	}
	rep.Restored = "memory"
	if c.onDisk {
		rep.Restored = "the disk"
	}
	rep.Results, rep.Verdicts = c.results, judge(c.results)
	return nil
}
