package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report is all that a run has measured.
type report struct {
	Machine   string        `json:"machine"`
	Load      string        `json:"load_before"` // of others on the machine
	Limits    string        `json:"rate_limits"`
	Seconds   float64       `json:"seconds_each"`
	Cold      time.Duration `json:"cold_start_ns"` // from an empty directory to the first answer
	Warm      time.Duration `json:"warm_start_ns"`
	Resident  int64         `json:"resident_bytes"` // of the shop alone, after all
	Rows      []row         `json:"rows"`
	Scripts   []*script     `json:"scripts"`
	Hello     []load        `json:"echo_hello"`
	SelectKey []rawRate     `json:"pgbench_select_by_key"`
	Complaint []string      `json:"complaints,omitempty"`
}

// row is one path at one number of clients.
type row struct {
	Path string `json:"path"`
	load
	Queries float64 `json:"queries_per_operation"`
	Raw     float64 `json:"raw_per_second,omitempty"`
	Ratio   float64 `json:"of_raw,omitempty"`

	ShopCPU     time.Duration `json:"shop_cpu_ns"` // of all operations
	DatabaseCPU time.Duration `json:"database_cpu_ns"`
	RawCPU      float64       `json:"raw_database_cpu_ms,omitempty"` // of one

	title                  string
	wantRate, wantRatio    float64
	wantMedian             time.Duration
	judgeRate, judgeMedian bool
}

type rawRate struct {
	Clients int     `json:"clients"`
	Rate    float64 `json:"per_second"`
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func milli(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

// against says how a value stands to what we want of it.
func against(value, want string, met bool) string {
	if met {
		return value + " ok (" + want + ")"
	}
	return value + " MISSED (" + want + ")"
}

func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%s; load before %s; %.0f s each; rate limits in force: %s\n\n", r.Machine, r.Load, r.Seconds, r.Limits)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PATH\tCLIENTS\tPER SECOND\tP50 ms\tP95 ms\tP99 ms\tQUERIES\tSHOP CPU ms\tPG CPU ms\tRAW PG CPU ms\tRAW/s\tOF RAW")
	for _, v := range r.Rows {
		rate, p50 := fmt.Sprintf("%.0f", v.Rate), milli(v.P50)
		if v.judgeRate {
			rate = against(rate, fmt.Sprintf("≥ %.0f", v.wantRate), v.Rate >= v.wantRate)
		}
		if v.judgeMedian {
			p50 = against(p50, "≤ "+milli(v.wantMedian), v.P50 <= v.wantMedian)
		}
		raw, ratio, rawCPU := "-", "-", "-"
		if v.RawCPU > 0 {
			rawCPU = fmt.Sprintf("%.2f", v.RawCPU)
		}
		if v.Raw > 0 {
			raw = fmt.Sprintf("%.0f", v.Raw)
			ratio = against(fmt.Sprintf("%.2f", v.Ratio), fmt.Sprintf("≥ %.2f", v.wantRatio), v.Ratio >= v.wantRatio)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%.1f\t%s\t%s\t%s\t%s\t%s\n",
			v.title, v.Clients, rate, p50, milli(v.P95), milli(v.P99), v.Queries,
			each(v.ShopCPU, float64(v.Count)), each(v.DatabaseCPU, float64(v.Count)), rawCPU, raw, ratio)
	}
	for _, l := range r.Hello {
		fmt.Fprintf(t, "echo, bare hello\t%d\t%.0f\t%s\t%s\t%s\t\t\t\n", l.Clients, l.Rate, milli(l.P50), milli(l.P95), milli(l.P99))
	}
	for _, l := range r.SelectKey {
		fmt.Fprintf(t, "pgbench, select by key\t%d\t%.0f\t\t\t\t\t\t\n", l.Clients, l.Rate)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nCPU is processor time for one operation, of the shop, of PostgreSQL and of PostgreSQL under pgbench: it says what a quiet machine would do.")
	fmt.Fprintf(w, "start to first answer: cold, with initdb and demo data, %s s; warm %s s\n",
		against(seconds(r.Cold), "≤ 10", r.Cold <= 10*time.Second), against(seconds(r.Warm), "≤ 2", r.Warm <= 2*time.Second))
	if r.Resident > 0 {
		fmt.Fprintf(w, "resident memory of the shop after the bench: %s MB\n",
			against(fmt.Sprint(r.Resident>>20), "≤ 120", r.Resident <= 120<<20))
	}
	for _, s := range r.Scripts {
		fmt.Fprintf(w, "raw %s: %d statements, %d transactions with BEGIN and COMMIT; leaves %.1f rows (the shop %.1f)\n", s.Path, s.Statements, s.Transactions, s.Rows, s.RowsOfShop)
		for _, n := range s.Notes {
			fmt.Fprintf(w, "  %s\n", n)
		}
	}
	if len(r.Complaint) > 0 {
		fmt.Fprintln(w, strings.Join(r.Complaint, "\n"))
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }
