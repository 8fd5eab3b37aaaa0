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
	Out       string        `json:"module_out,omitempty"`
	Split     []figure      `json:"split,omitempty"`
	Memory    [3]int64      `json:"split_resident_bytes"` // of one process, one out, all out, without PostgreSQL
	Parts     []part        `json:"parts,omitempty"`
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

	Old    *load         `json:"older,omitempty"` // the same by an older shop, in turns
	OldCPU time.Duration `json:"older_shop_cpu_ns,omitempty"`

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
	fmt.Fprintf(w, "%s; load before %s; %.0f s each\n", r.Machine, r.Load, r.Seconds)
	for _, part := range []func(io.Writer) error{r.tableOne, r.tableOld, r.tableSplit, r.tableParts} {
		if err := part(w); err != nil {
			return err
		}
	}
	if len(r.Complaint) > 0 {
		fmt.Fprintln(w, "\n"+strings.Join(r.Complaint, "\n"))
	}
	return nil
}

func columns(w io.Writer, names ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(names, "\t"))
	return t
}

func (r *report) tableOne(w io.Writer) error {
	if len(r.Rows) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nONE PROCESS beside the raw limit of its database; rate limits in force: %s\n", r.Limits)
	t := columns(w, "PATH", "CLIENTS", "PER SECOND", "P50 ms", "P95 ms", "P99 ms", "QUERIES", "SHOP CPU ms", "PG CPU ms", "RAW PG CPU ms", "RAW/s", "OF RAW")
	for _, v := range r.Rows {
		rate, p50 := fmt.Sprintf("%.0f", v.Rate), milli(v.P50)
		if v.judgeRate && v.wantRate > 0 {
			rate = against(rate, fmt.Sprintf("≥ %.0f", v.wantRate), v.Rate >= v.wantRate)
		}
		if v.judgeMedian && v.wantMedian > 0 {
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
	fmt.Fprintln(w, "CPU is processor time for one operation, of the shop, of PostgreSQL and of PostgreSQL under pgbench: it says what a quiet machine would do.")
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
	return nil
}

func (r *report) tableOld(w io.Writer) error {
	if len(r.Rows) == 0 || r.Rows[0].Old == nil {
		return nil
	}
	fmt.Fprintln(w, "\nONE PROCESS beside an older shop, in turns")
	t := columns(w, "PATH", "CLIENTS", "PER SECOND", "OLDER", "RATIO", "P50 ms", "OLDER", "P99 ms", "OLDER", "SHOP CPU ms", "OLDER")
	for _, v := range r.Rows {
		o := v.Old
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\n", v.title, v.Clients, v.Rate, o.Rate, v.Rate/o.Rate,
			milli(v.P50), milli(o.P50), milli(v.P99), milli(o.P99), each(v.ShopCPU, float64(v.Count)), each(v.OldCPU, float64(o.Count)))
	}
	return t.Flush()
}

func (r *report) tableSplit(w io.Writer) error {
	if len(r.Split) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nSPLIT: one process, one module out (%s) and all out, each behind its gateway, in turns\n", r.Out)
	t := columns(w, "PATH", "CLIENTS", "WHAT", "ONE", "ONE OUT", "RATIO", "ALL OUT", "RATIO")
	for _, f := range r.Split {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s", f.Path, f.Clients, f.What, digits(f.Values[0]))
		for i := 1; i < len(f.Values); i++ {
			fmt.Fprintf(t, "\t%s\t%s", digits(f.Values[i]), f.Verdicts[i-1])
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Memory[0] > 0 {
		fmt.Fprintf(w, "resident memory without PostgreSQL: %d, %d and %d MB\n", r.Memory[0]>>20, r.Memory[1]>>20, r.Memory[2]>>20)
	}
	return nil
}

// against says how a value stands to that of one process.
func (t target) against(value, one float64) string {
	if t.differences {
		return against(fmt.Sprintf("%+.1f", value-one), "no more", value-one <= t.bound)
	}
	if one == 0 {
		return "-"
	}
	ratio := value / one
	text := fmt.Sprintf("%.2f", ratio)
	switch {
	case t.bound == 0:
		return text
	case t.more:
		return against(text, fmt.Sprintf("≥ %g", t.bound), ratio >= t.bound)
	}
	return against(text, fmt.Sprintf("≤ %g", t.bound), ratio <= t.bound)
}

func (r *report) tableParts(w io.Writer) error {
	if len(r.Parts) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nPARTS by themselves, and what each is compared with in the same run")
	t := columns(w, "WHAT", "FIGURE", "BESIDE", "", "JUDGED")
	for _, p := range r.Parts {
		beside := "-"
		if p.Of != "" {
			beside = digits(p.Beside)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.Title, strings.TrimSpace(digits(p.Value)+" "+p.Unit), beside, p.Of, against(digits(p.Judged), p.Want, p.Met))
	}
	return t.Flush()
}

// digits are as many as matter.
func digits(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }
