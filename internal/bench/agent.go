package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// saves is how many files are saved for a latency.
	saves = 100
	// saveSize is the size of each, in bytes.
	saveSize = 10_000
	// saveLimit is how long one may take to become safe.
	saveLimit = time.Minute
	// idleFor is how long an agent with nothing to do is looked at.
	idleFor = time.Minute
	// firstPass is how long the first backup of a measured agent may take.
	firstPass = time.Hour
)

// watching is an agent that runs and has sent everything.
type watching struct {
	*service
	safe chan safe
}

// safe is a line of an agent: the file is on the server.
type safe struct {
	path string
	at   time.Time
}

// watch starts the agent of that name and waits until all is protected.
func (b *backstay) watch(ctx context.Context, name string) (*watching, error) {
	w := &watching{safe: make(chan safe, saves)}
	var err error
	w.service, err = startService(b.agent(ctx, name, "run", "--verbose"), func(line string, at time.Time) {
		if path, found := strings.CutSuffix(line, " safe"); found {
			select {
			case w.safe <- safe{path, at}:
			default: // the first pass, which nobody reads
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if err := b.protected(ctx, name, w); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	return w, nil
}

func (b *backstay) protected(ctx context.Context, name string, w *watching) error {
	ctx, cancel := context.WithTimeout(ctx, firstPass)
	defer cancel()
	for {
		// While it starts, nobody answers; what it says then is no JSON either.
		answer, err := b.agent(ctx, name, "status", "--json").Output()
		var st struct {
			State     string `json:"state"`
			FirstPass bool   `json:"first_pass"`
			Waiting   int    `json:"waiting"`
		}
		if err == nil && json.Unmarshal(answer, &st) == nil && st.State == "protected" && !st.FirstPass && st.Waiting == 0 {
			return nil
		}
		select {
		case <-w.done:
			return w.err
		case <-ctx.Done():
			return fmt.Errorf("the first pass did not end; last status %s: %w", answer, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// latencies saves files in dir, one after the other, and measures how long each
// takes from its close until the agent says that it is safe.
func latencies(ctx context.Context, w *watching, dir string) ([]time.Duration, error) {
	for len(w.safe) > 0 {
		<-w.safe
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	body := make([]byte, saveSize+longestLine)[:saveSize]
	var list []time.Duration
	for i := range saves {
		fillText(body, rng, proseText)
		// Every other save is of a file that is known.
		path := filepath.Join(dir, fmt.Sprintf("saved-%d", i/2))
		if err := os.WriteFile(path, body, 0o644); err != nil {
			return nil, err
		}
		saved := time.Now()
		limit := time.After(saveLimit)
		for done := false; !done; {
			select {
			case s := <-w.safe:
				if done = s.path == path; done {
					list = append(list, s.at.Sub(saved))
				}
			case <-w.done:
				return nil, w.err
			case <-limit:
				return nil, fmt.Errorf("%s is not safe after %v", path, saveLimit)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		// So that saves keep no step with the agent's timers.
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
	}
	return list, nil
}

// live opens Backstay in a fresh folder below work for the time of f.
func live(ctx context.Context, work, source string, t tool, f func(b *backstay) error) (err error) {
	dir, err := os.MkdirTemp(work, "live-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if source == "" {
		if source, err = smallFolder(dir, "source"); err != nil {
			return err
		}
	}
	p, err := t.open(ctx, filepath.Join(dir, own), source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return f(p.(*backstay))
}

// smallFolder makes a folder with a file in it.
func smallFolder(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(filepath.Join(path, "first"), []byte("a folder is never empty"), 0o644)
}

// benchSave measures how long a saved file takes to be durable.
func benchSave(ctx context.Context, work string, t tool) (verdicts []verdict, err error) {
	return verdicts, live(ctx, work, "", t, func(b *backstay) error {
		w, err := b.watch(ctx, "")
		if err != nil {
			return err
		}
		list, err := latencies(ctx, w, b.source)
		verdicts = latencyVerdicts("save of 10 KB until it is durable", list, 800*time.Millisecond, 1500*time.Millisecond)
		return errors.Join(err, w.stop())
	})
}

func latencyVerdicts(what string, list []time.Duration, p50, p99 time.Duration) (verdicts []verdict) {
	for _, q := range []struct {
		name string
		part float64
		goal time.Duration
	}{{"p50", 0.5, p50}, {"p99", 0.99, p99}} {
		got := quantile(list, q.part)
		verdicts = append(verdicts, verdict{"save", what + ", " + q.name, "≤ " + q.goal.String(), got.Round(time.Millisecond).String(), got <= q.goal})
	}
	return verdicts
}

// benchIdle measures an agent that watches files that nobody changes.
func benchIdle(ctx context.Context, work string, t tool, files int) (verdicts []verdict, err error) {
	folders := max(1, files/10)
	d, err := makeData("idle", filepath.Join(work, fmt.Sprintf("idle-%d", files)), tinyFiles(files, folders))
	if err != nil {
		return nil, err
	}
	return verdicts, live(ctx, work, d.root, t, func(b *backstay) error {
		begin := time.Now()
		w, err := b.watch(ctx, "")
		if err != nil {
			return err
		}
		log.Printf("%d files in %d folders: first pass in %v; now idle for %v", files, folders, time.Since(begin).Round(time.Second), idleFor)
		err = func() error {
			before, err := w.rest()
			if err != nil {
				return err
			}
			at, peak, err := memory(w.pid())
			if err != nil {
				return err
			}
			select {
			case <-time.After(idleFor):
			case <-ctx.Done():
				return ctx.Err()
			}
			after, err := cpuTime(w.pid())
			if err != nil {
				return err
			}
			end, _, err := memory(w.pid())
			log.Printf("resident %.0f MB after the first pass, %.0f MB at its peak, %.0f MB after %v", mb(at), mb(peak), mb(end), idleFor)
			what := fmt.Sprintf("%d files watched, ", files)
			spent := after - before
			verdicts = []verdict{
				{"idle", what + "resident memory", "≤ 60 MB", fmt.Sprintf("%.0f MB", mb(end)), mb(end) <= 60},
				// What 0.1 % of a core takes is not seen by any tool that shows load.
				{"idle", what + "CPU seconds a minute", "≤ 0.06 s", fmt.Sprintf("%.3f s", spent.Seconds()), spent <= idleFor/1000},
			}
			return err
		}()
		return errors.Join(err, w.stop())
	})
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }

// benchAgents measures what n idle agents, real ones, cost the server, and what
// they do to the one that saves.
func benchAgents(ctx context.Context, work string, t tool, n int) (verdicts []verdict, err error) {
	return verdicts, live(ctx, work, "", t, func(b *backstay) (err error) {
		var agents []*watching
		defer func() {
			for _, w := range agents {
				err = errors.Join(err, w.stop())
			}
		}()
		start := func(name string) error {
			w, err := b.watch(ctx, name)
			if err == nil {
				agents = append(agents, w)
			}
			return err
		}
		server := func() (int64, error) {
			if _, err := b.server.rest(); err != nil {
				return 0, err
			}
			now, _, err := memory(b.server.pid())
			return now, err
		}

		if err := start(""); err != nil {
			return err
		}
		alone, err := latencies(ctx, agents[0], b.source)
		if err != nil {
			return err
		}
		before, err := server()
		if err != nil {
			return err
		}
		for i := range n {
			name := fmt.Sprint(i + 1)
			source, err := smallFolder(b.dir, "source"+name)
			if err != nil {
				return err
			}
			if err := b.join(ctx, name, source); err != nil {
				return err
			}
			if err := start(name); err != nil {
				return err
			}
		}
		after, err := server()
		if err != nil {
			return err
		}
		among, err := latencies(ctx, agents[0], b.source)
		if err != nil {
			return err
		}
		const goal = 100 << 10
		each := float64(after-before) / float64(n)
		p99 := 2 * quantile(alone, 0.99)
		verdicts = append([]verdict{{"agents", fmt.Sprintf("server's memory for each of %d agents", n), "≤ 100 KB", fmt.Sprintf("%.0f KB", each/1024), each <= goal}},
			latencyVerdicts(fmt.Sprintf("save beside %d agents, against twice the p99 alone", n), among, p99, p99)[1])
		return nil
	})
}
