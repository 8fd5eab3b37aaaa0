package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// part is a benchmark that stands beside the code it measures.
type part struct {
	Title  string  `json:"what"`
	Unit   string  `json:"unit"`
	Value  float64 `json:"value"`
	Beside float64 `json:"beside,omitempty"` // what it is compared with
	Of     string  `json:"beside_what,omitempty"`
	Judged float64 `json:"judged"` // the quotient, the difference or the value itself
	Want   string  `json:"wanted"`
	Met    bool    `json:"met"`
}

// suite is a go test -bench of one package.
type suite struct {
	pkg, bench, time string
	count            int
	read             func(results) []part
}

// results are what a suite printed: benchmark and unit, and the value of each of its runs.
type results map[[2]string][]float64

// of is the median of a benchmark's runs.
func (r results) of(name, unit string) float64 {
	all := slices.Sorted(slices.Values(r[[2]string{name, unit}]))
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

// fastest is the least time of a benchmark's runs, for what is over in a moment: whatever else the machine does only adds to it.
func (r results) fastest(name string) float64 {
	if all := r[[2]string{name, "ns/op"}]; len(all) > 0 {
		return slices.Min(all)
	}
	return 0
}

func atMost(v, bound float64) (want string, met bool) {
	return fmt.Sprintf("≤ %g", bound), v <= bound
}

func atLeast(v, bound float64) (want string, met bool) {
	return fmt.Sprintf("≥ %g", bound), v >= bound
}

func judge(p part, of func(v, bound float64) (string, bool), bound float64) part {
	p.Want, p.Met = of(p.Judged, bound)
	return p
}

var suites = []suite{
	{pkg: "platform/rpc", bench: "^Benchmark(PlainCall|LocalCall)$", time: "0.3s", count: 5, read: func(r results) []part {
		plain, local := r.fastest("PlainCall"), r.fastest("LocalCall")
		plainAllocs, localAllocs := r.of("PlainCall", "allocs/op"), r.of("LocalCall", "allocs/op")
		return []part{
			judge(part{Title: "contract call in one process", Unit: "ns", Value: local, Beside: plain, Of: "plain interface call", Judged: local - plain}, atMost, 300),
			judge(part{Title: "  allocations", Unit: "", Value: localAllocs, Beside: plainAllocs, Of: "plain interface call", Judged: localAllocs - plainAllocs}, atMost, 2),
		}
	}},
	{pkg: "platform/rpc", bench: "^BenchmarkRemoteOverBare$", time: "20000x", count: 1, read: func(r results) (all []part) {
		for _, clients := range []string{"1", "32"} {
			name := "RemoteOverBare/" + clients
			all = append(all, judge(part{
				Title: "contract call across processes, " + clients + " clients", Unit: "µs", Value: r.of(name, "remote-ns") / 1000,
				Beside: r.of(name, "bare-ns") / 1000, Of: "bare net/http POST", Judged: r.of(name, "x"),
			}, atMost, 1.25))
		}
		return all
	}},
	{pkg: "platform/gateway", bench: "^BenchmarkForward$", time: "30000x", count: 1, read: func(r results) []part {
		return []part{judge(part{
			Title: "gateway with JWT and limits, 32 clients", Unit: "/s", Value: r.of("Forward", "gateway-req/s"),
			Beside: r.of("Forward", "bare-req/s"), Of: "bare ReverseProxy", Judged: r.of("Forward", "x"),
		}, atLeast, 0.9)}
	}},
	{pkg: "platform/events", bench: "^BenchmarkRelay$", time: "40000x", count: 2, read: func(r results) []part {
		v := r.of("Relay", "events/s")
		return []part{judge(part{Title: "outbox relay in one process", Unit: "/s", Value: v, Judged: v}, atLeast, 20000)}
	}},
	{pkg: "platform/events/jetstream", bench: "^BenchmarkRelay$", time: "20000x", count: 2, read: func(r results) []part {
		v := r.of("Relay", "events/s")
		return []part{judge(part{Title: "outbox relay through NATS", Unit: "/s", Value: v, Judged: v}, atLeast, 5000)}
	}},
	{pkg: "platform/events/jetstream", bench: "^BenchmarkLatency$", time: "500x", count: 1, read: func(r results) []part {
		v := r.of("Latency", "p50-µs") / 1000
		return []part{judge(part{Title: "event, commit to effect elsewhere, idle, p50", Unit: "ms", Value: v, Judged: v}, atMost, 5)}
	}},
}

var (
	resultLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)
	metricText = regexp.MustCompile(`([0-9.e+-]+) (\S+)`)
)

// parts runs the benchmarks of what the split shop stands on.
func (b *bench) parts(ctx context.Context) error {
	for _, s := range suites {
		b.say("go test -bench '%s' ./%s", s.bench, s.pkg)
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", s.bench, "-benchtime", s.time, "-count", strconv.Itoa(s.count),
			"-benchmem", "-timeout", "3m", "github.com/banyan-shop/banyan/"+s.pkg)
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		err := cmd.Run()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		found := resultsOf(out.String())
		if err == nil && len(found) == 0 {
			err = errors.New("it printed no result")
		}
		if err != nil {
			b.complain("%s in %s is not measured: %v\n%.2000s%.2000s", s.bench, s.pkg, err, out.Bytes(), complaints.Bytes())
			continue
		}
		for _, p := range s.read(found) {
			if p.Value == 0 && p.Unit != "" {
				b.complain("%s is not measured: go test -bench '%s' ./%s printed no such figure", strings.TrimSpace(p.Title), s.bench, s.pkg)
				continue
			}
			b.report.Parts = append(b.report.Parts, p)
		}
	}
	return nil
}

func resultsOf(text string) results {
	r := results{}
	for _, line := range resultLine.FindAllStringSubmatch(text, -1) {
		for _, m := range metricText.FindAllStringSubmatch(strings.ReplaceAll(line[2], "\t", " "), -1) {
			if v, err := strconv.ParseFloat(m[1], 64); err == nil {
				key := [2]string{line[1], m[2]}
				r[key] = append(r[key], v)
			}
		}
	}
	return r
}
