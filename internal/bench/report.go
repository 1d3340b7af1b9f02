package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is everything that was measured. Durations are in nanoseconds.
type report struct {
	Time  time.Time
	Scale float64
	Runs  int
	Tools map[string]string
	// Restored says where restores went: memory or the disk.
	Restored string    `json:",omitempty"`
	Results  []*result `json:",omitempty"`
	Verdicts []verdict
}

// verdict is a goal held against what was measured.
type verdict struct {
	Data, What string
	Goal       string
	Got        string
	Reached    bool
}

// The goals. Ratios are to the best of the peers in the same run.
const (
	goalFirst     = 0.8
	goalUnchanged = 0.5
	goalChanged   = 0.5
	goalBig       = 0.9
	goalRestore   = 0.9
	goalOne       = 250 * time.Millisecond
	goalStored    = 1.05
	goalGrowth    = 24.0 / 20 // of what was appended
	goalClient    = 150e6
	goalServer    = 60e6
)

var goalRatio = map[operation]float64{
	opFirst: goalFirst, opUnchanged: goalUnchanged, opChanged: goalChanged, opBig: goalBig, opRestore: goalRestore,
}

const own = "backstay"

// judge holds the results against the goals.
func judge(results []*result) []verdict {
	var list []verdict
	say := func(data, what string, got, goal float64, format string) {
		list = append(list, verdict{data, what, "≤ " + fmt.Sprintf(format, goal), fmt.Sprintf(format, got), got <= goal})
	}
	ratio := func(r *result, what string, goal float64, of func(*result) float64) {
		best, found := bestPeer(results, r, of)
		if found {
			say(r.Data, string(r.Operation)+", "+what, of(r)/best, goal, "%.2f×")
		}
	}
	var client, server int64
	for _, r := range results {
		if r.Peer != own {
			continue
		}
		for _, c := range r.Costs {
			client, server = max(client, c.ClientPeak), max(server, c.ServerPeak)
		}
		if goal, ok := goalRatio[r.Operation]; ok {
			ratio(r, "CPU", goal, cpu)
			ratio(r, "wall", goal, wall)
		}
		switch r.Operation {
		case opFirst:
			ratio(r, "stored", goalStored, stored)
		case opBig:
			before := find(results, r.Data, opFirst, own)
			say(r.Data, "growth by what was appended", (stored(r)-stored(before))/(2*appended), goalGrowth, "%.2f×")
		case opOne:
			say(r.Data, string(r.Operation)+", wall", wall(r), goalOne.Seconds(), "%.2f s")
		}
	}
	if client > 0 {
		say("all", "peak memory, agent", float64(client)/1e6, goalClient/1e6, "%.0f MB")
		say("all", "peak memory, server", float64(server)/1e6, goalServer/1e6, "%.0f MB")
	}
	return list
}

func find(results []*result, data string, op operation, peer string) *result {
	for _, r := range results {
		if r.Data == data && r.Operation == op && r.Peer == peer {
			return r
		}
	}
	return &result{}
}

// bestPeer is the least that another program took for what r is.
func bestPeer(results []*result, r *result, of func(*result) float64) (best float64, found bool) {
	for _, other := range results {
		if other.Data == r.Data && other.Operation == r.Operation && other.Peer != own {
			if v := of(other); !found || v < best {
				best, found = v, true
			}
		}
	}
	return best, found
}

// The least of all runs is compared: what disturbs a run only ever adds.
func cpu(r *result) float64    { return quantile(seconds(r, cost.cpu), 0) }
func wall(r *result) float64   { return quantile(seconds(r, cost.wall), 0) }
func stored(r *result) float64 { return float64(quantile(r.Stored, 0)) }

func (c cost) cpu() time.Duration  { return c.CPU }
func (c cost) wall() time.Duration { return c.Wall }

func seconds(r *result, of func(cost) time.Duration) []float64 {
	list := make([]float64, len(r.Costs))
	for i, c := range r.Costs {
		list[i] = of(c).Seconds()
	}
	return list
}

// markdown writes the report as tables.
func (rep *report) markdown(w io.Writer) error {
	var b strings.Builder
	if len(rep.Results) > 0 {
		fmt.Fprintf(&b, "Scale %v, runs %d, restores to %s. CPU seconds of client and server, then wall seconds", rep.Scale, rep.Runs, rep.Restored)
		if rep.Runs > 1 {
			b.WriteString("; the least of all runs (and the median)")
		}
		b.WriteString(".\n\n")
	}
	names := []string{own}
	for _, r := range rep.Results {
		if !slices.Contains(names, r.Peer) {
			names = append(names, r.Peer)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rep.Tools)) {
		fmt.Fprintf(&b, "* %s: %s\n", name, rep.Tools[name])
	}
	b.WriteString("\n")

	table(&b, append(append([]string{"operation"}, names...), "CPU, ratio to the best peer", "wall, ratio"), rep.rows(names))
	table(&b, append([]string{"stored MB after"}, names...), rep.each(names, []operation{opFirst, opBig}, func(r *result) string {
		return fmt.Sprintf("%.1f", stored(r)/1e6)
	}))
	table(&b, append([]string{"peak MB, client / server"}, names...), rep.each(names, []operation{opFirst, opUnchanged, opChanged, opBig, opRestore}, peaks))

	var rows [][]string
	for _, v := range rep.Verdicts {
		word := "**missed**"
		if v.Reached {
			word = "reached"
		}
		rows = append(rows, []string{v.Data, v.What, v.Goal, v.Got, word})
	}
	table(&b, []string{"data", "goal", "must", "got", ""}, rows)
	_, err := io.WriteString(w, b.String())
	return err
}

// rows are the operations with the cost of each program.
func (rep *report) rows(names []string) [][]string {
	rows := rep.each(names, []operation{opFirst, opUnchanged, opChanged, opBig, opRestore, opOne}, func(r *result) string {
		return figure(seconds(r, cost.cpu)) + " · " + figure(seconds(r, cost.wall))
	})
	i := 0
	rep.lines([]operation{opFirst, opUnchanged, opChanged, opBig, opRestore, opOne}, func(data string, op operation) {
		for _, of := range []func(*result) float64{cpu, wall} {
			cell := "–"
			if mine := find(rep.Results, data, op, own); len(mine.Costs) > 0 {
				if best, found := bestPeer(rep.Results, mine, of); found {
					cell = fmt.Sprintf("%.2f", of(mine)/best)
				}
			}
			rows[i] = append(rows[i], cell)
		}
		i++
	})
	return rows
}

// lines calls f for every data set and operation that was measured.
func (rep *report) lines(ops []operation, f func(data string, op operation)) {
	for _, set := range dataSets {
		for _, op := range ops {
			if slices.ContainsFunc(rep.Results, func(r *result) bool { return r.Data == set.name && r.Operation == op }) {
				f(set.name, op)
			}
		}
	}
}

// each is a line for every data set and operation, with a cell for every program.
func (rep *report) each(names []string, ops []operation, cell func(*result) string) [][]string {
	var rows [][]string
	rep.lines(ops, func(data string, op operation) {
		row := []string{string(op) + " " + data}
		for _, name := range names {
			r := find(rep.Results, data, op, name)
			if len(r.Costs) == 0 {
				row = append(row, "–")
				continue
			}
			row = append(row, cell(r))
		}
		rows = append(rows, row)
	})
	return rows
}

// figure is the least value and, of more than one, the median.
func figure(values []float64) string {
	s := fmt.Sprintf("%.2f", quantile(values, 0))
	if len(values) > 1 {
		s += fmt.Sprintf(" (%.2f)", median(values))
	}
	return s
}

func peaks(r *result) string {
	var client, server int64
	for _, c := range r.Costs {
		client, server = max(client, c.ClientPeak), max(server, c.ServerPeak)
	}
	if server == 0 {
		return fmt.Sprintf("%.0f", float64(client)/1e6)
	}
	return fmt.Sprintf("%.0f / %.0f", float64(client)/1e6, float64(server)/1e6)
}

func table(b *strings.Builder, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}
