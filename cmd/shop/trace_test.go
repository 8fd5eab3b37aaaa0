package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/platform/events/natsembed"
)

// TestACheckoutIsOneTrace runs every module and the gateway as real processes, which tell a collector of what they do. All that an
// order sets off, in ten processes and on the way of its event, is one tree of spans; a line of any log leads to it; and each
// process shows the metrics of its own modules.
func TestACheckoutIsOneTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("ten processes")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "shop")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	spans := collect(t)
	p := startProcesses(t, binary, map[string]any{
		"trace": map[string]any{"to": spans.url, "ratio": 0}, // of what nobody asks for, no trace; whoever calls with one decides
	})

	placed, lost := traceID(1), traceID(2)
	p.order(t, "tok_approve", placed)
	p.order(t, "tok_timeout", lost)

	want := map[string][]string{} // process: what it must tell of the order
	for _, m := range modules {
		want[m.Name] = []string{"sql"}
	}
	delete(want, "users")      // a guest buys
	delete(want, "storefront") // and looks at nothing
	want["gateway"] = []string{"POST /v1/checkouts"}
	want["orders"] = append(want["orders"], "POST /v1/checkouts")
	for _, hearer := range []string{"shipping", "notifications", "reviews"} {
		want[hearer] = append(want[hearer], "hear orders.order_placed.v1")
	}
	spans.until(t, placed, func(tree spanTree) string {
		for process, names := range want {
			for _, name := range names {
				if !slices.ContainsFunc(tree, func(s spanOf) bool { return s.process == process && s.Name == name }) {
					return "no " + name + " of " + process
				}
			}
		}
		return tree.broken()
	})
	tree := spans.of(placed)
	for _, s := range tree {
		parent, _ := tree.span(s.ParentSpanId)
		switch s.Kind {
		case otlp.Span_SPAN_KIND_SERVER:
			if called := strings.Contains(s.Name, "."); called && (parent.Name != s.Name || parent.process == s.process || parent.Kind != otlp.Span_SPAN_KIND_CLIENT) {
				t.Errorf("%s of %s is told as the child of %s of %s, want of the call", s.Name, s.process, parent.Name, parent.process)
			}
		case otlp.Span_SPAN_KIND_CLIENT:
			if s.Name == "sql" && parent.process != s.process {
				t.Errorf("a statement of %s is told as the child of %s of %s", s.process, parent.Name, parent.process)
			}
		}
		if s.process == "gateway" && s.Name == "sql" {
			t.Error("the gateway has asked a database")
		}
	}
	for _, process := range []string{"cart", "catalog", "payments"} {
		if !slices.ContainsFunc(tree, func(s spanOf) bool { return s.process == process && s.Kind == otlp.Span_SPAN_KIND_SERVER }) {
			t.Errorf("nobody has called %s", process)
		}
	}
	if t.Failed() {
		t.Logf("the trace:\n%s", tree)
	} else {
		t.Logf("%d spans in one tree", len(tree))
	}

	// The bank's answer to the other order was lost. The process of payments says so, and its line names the order's trace.
	line := p.logged(t, "payments", "provider did not answer")
	if line["trace_id"] != lost || line["span_id"] == nil {
		t.Errorf("payments has logged %v, want the trace %s", line, lost)
	}
	id := line["span_id"]
	spans.until(t, lost, func(tree spanTree) string {
		if !slices.ContainsFunc(tree, func(s spanOf) bool { return s.process == "payments" && fmt.Sprintf("%x", s.SpanId) == id }) {
			return fmt.Sprintf("no span %s of payments", id)
		}
		return tree.broken()
	})
	for name := range p.addresses {
		p.measured(t, name)
	}
}

// traceID is a trace that a customer's own tracing has begun.
func traceID(n int) string { return fmt.Sprintf("%032x", 0xc0ffee00+n) }

const customersSpan = "00000000000000aa"

// processes are a shop's, each a real one.
type processes struct {
	addresses map[string]upProcess
	logs      map[string]*processLog
	front     string
}

// processLog is what a process says.
type processLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *processLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *processLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startProcesses runs each module in a process of its own, with a gateway in front, on databases and a broker of the test's, and
// ends them with it.
func startProcesses(t *testing.T, binary string, more map[string]any) *processes {
	t.Helper()
	p := &processes{addresses: lay(t, "split"), logs: map[string]*processLog{}}
	bus, err := natsembed.Start(natsembed.Options{Dir: inMemory(t), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Stop)
	dir := t.TempDir()
	settings := map[string]any{
		"mode": "development", "secret": worldSecret, "bus": bus.URL(), "processes": p.addresses, "data_dir": dir,
		"log": map[string]any{"format": "json"}, "drain": map[string]any{"delay": "1ms"}, "pool": map[string]any{"max": 3},
		"catalog": map[string]any{"demo_products": 30}, "events": map[string]any{"poll": "50ms"},
	}
	for key, value := range more {
		settings[key] = value
	}
	text, err := yaml.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "shop.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var running []*exec.Cmd
	t.Cleanup(func() {
		for _, c := range running {
			_ = c.Process.Signal(syscall.SIGTERM)
		}
		late := time.AfterFunc(patience, func() {
			for _, c := range running {
				_ = c.Process.Kill()
			}
		})
		defer late.Stop()
		for _, c := range running {
			if err := c.Wait(); err != nil {
				t.Errorf("%s: %v", c.Args[len(c.Args)-1], err)
			}
		}
		if t.Failed() {
			for name, l := range p.logs {
				t.Logf("%s says:\n%s", name, l)
			}
		}
	})
	for name, address := range p.addresses {
		if address.Gateway {
			p.front = address.HTTP
		}
		p.logs[name] = &processLog{}
		c := exec.Command(binary, "serve", "--config", file, "--process", name)
		c.Dir, c.Stdout, c.Stderr = dir, p.logs[name], p.logs[name]
		c.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "SHOP_") || strings.HasPrefix(kv, "OTEL_") }),
			"OTEL_BSP_SCHEDULE_DELAY=50") // milliseconds until spans are sent
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	for name, address := range p.addresses {
		err := until(ctx, name+" to be ready", func() (bool, error) { return answers(ctx, address.HTTP+"/readyz"), nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// order is a guest's, in the trace.
func (p *processes) order(t *testing.T, card, trace string) {
	t.Helper()
	const home = `{"name": "Eve", "line1": "Main 1", "city": "Berlin", "postcode": "10115", "country": "DE"}`
	s := &shopper{t: t, url: p.front}
	var cart struct{ ID, Token string }
	s.do("POST", "/v1/carts", `{"currency": "EUR"}`, nil).into(t, &cart)
	mine := http.Header{"X-Cart-Token": {cart.Token}}
	s.do("POST", "/v1/carts/"+cart.ID+"/items", `{"sku": "DEMO-0003-SND", "quantity": 1}`, mine).into(t, &struct{}{})
	var quotes struct {
		Data []struct {
			ID    string
			Total json.RawMessage
		}
	}
	s.do("POST", "/v1/carts/"+cart.ID+"/shipping-quotes", `{"address": `+home+`}`, mine).into(t, &quotes)
	mine.Set("Idempotency-Key", trace)
	mine.Set("Traceparent", "00-"+trace+"-"+customersSpan+"-01")
	body := fmt.Sprintf(`{"cart_id": %q, "email": "eve@example.com", "shipping_address": %s, "shipping_option": %q, "expected_total": %s, "payment": {"provider": "simulator", "token": %q}}`,
		cart.ID, home, quotes.Data[0].ID, quotes.Data[0].Total, card)
	var checkout struct{ State string }
	s.do("POST", "/v1/checkouts", body, mine).into(t, &checkout)
	if checkout.State != "placed" {
		t.Fatalf("the checkout is %s", checkout.State)
	}
}

// logged is the first line of a process with the message.
func (p *processes) logged(t *testing.T, process, message string) map[string]any {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(p.logs[process].String()))
	for lines.Scan() {
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == message {
			return line
		}
	}
	t.Fatalf("%s has not logged %q", process, message)
	return nil
}

// measured looks for what the dashboards show of each process and module.
func (p *processes) measured(t *testing.T, process string) {
	t.Helper()
	var want []string
	for _, m := range ranBy(topology{processes: p.addresses}, process) {
		if m == "storefront" {
			continue // has no database
		}
		for _, name := range []string{"events_outbox_unsent", "events_outbox_oldest_seconds", "events_retry_waiting", "events_retry_parked", "pg_queries_total", "pg_connections", "pg_waits_total"} {
			want = append(want, `banyan_`+name+`{.*module="`+m+`"`)
		}
	}
	want = append(want, `banyan_ready 1`, `go_goroutines `, `process_resident_memory_bytes `, `banyan_events_carrier_connected 1`)
	switch process {
	case "gateway":
		want = append(want, `banyan_http_total{method="POST",module="orders",outcome="2xx",route="/v1/checkouts"} 2`, `banyan_http_seconds_count{method="POST",module="orders",route="/v1/checkouts"} 2`)
	case "orders":
		want = append(want, `banyan_forwarded_total{method="POST",module="orders",outcome="2xx",route="/v1/checkouts"} 2`, `banyan_rpc_calls_total{caller="orders",method="payments\.[A-Za-z]+",place="remote"} [1-9]`, `banyan_rpc_seconds_count{caller="orders",method="cart\.`,
			`banyan_rpc_breaker_state{callee="payments"} 0`, `banyan_orders_overdue_seconds{saga="checkout"}`)
	case "shipping":
		want = append(want, `banyan_events_deliveries_total{consumer="record-order",module="shipping",outcome="handled"} 2`, `banyan_events_lag_seconds_count{consumer="record-order",module="shipping"} 2`)
	}
	s := &shopper{t: t, url: "http://" + p.addresses[process].OpsListen}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var missing []string
	err := until(ctx, "the metrics of "+process, func() (bool, error) { // gauges from the database come within their poll
		text := s.do("GET", "/metrics", "", nil).body
		missing = slices.DeleteFunc(slices.Clone(want), func(w string) bool { return regexp.MustCompile(`(?m)^` + w).Match(text) })
		return len(missing) == 0, nil
	})
	if err != nil {
		t.Errorf("%v: no %s", err, strings.Join(missing, "\nno "))
	}
}

// spanOf is a span and which process told of it.
type spanOf struct {
	process string
	*otlp.Span
}

// received are the spans that a collector got, by trace.
type received struct {
	url   string
	mu    sync.Mutex
	spans map[string]spanTree
}

// collect is a collector that speaks OTLP over HTTP, as Jaeger does.
func collect(t *testing.T) *received {
	t.Helper()
	got := &received{spans: map[string]spanTree{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &req); err != nil {
			t.Errorf("not OTLP: %v", err)
		}
		got.mu.Lock()
		defer got.mu.Unlock()
		for _, from := range req.ResourceSpans {
			process := ""
			for _, a := range from.Resource.Attributes {
				if a.Key == "service.instance.id" {
					process = a.Value.GetStringValue()
				}
			}
			for _, scope := range from.ScopeSpans {
				for _, s := range scope.Spans {
					trace := fmt.Sprintf("%x", s.TraceId)
					got.spans[trace] = append(got.spans[trace], spanOf{process, s})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	got.url = server.URL
	return got
}

func (r *received) of(trace string) spanTree {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans[trace])
}

// until waits until nothing is missing of a trace: the spans of a process come in their own time.
func (r *received) until(t *testing.T, trace string, missing func(spanTree) string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	why := ""
	err := until(ctx, "the trace", func() (bool, error) {
		why = missing(r.of(trace))
		return why == "", nil
	})
	if err != nil {
		t.Fatalf("%v: %s:\n%s", err, why, r.of(trace))
	}
}

// spanTree is the spans of a trace.
type spanTree []spanOf

func (all spanTree) span(id []byte) (spanOf, bool) {
	i := slices.IndexFunc(all, func(s spanOf) bool { return bytes.Equal(s.SpanId, id) })
	if i < 0 {
		return spanOf{Span: &otlp.Span{}}, false
	}
	return all[i], true
}

// broken says which span hangs in the air: each but the gateway's, which the customer's own is above, has its parent here.
func (all spanTree) broken() string {
	for _, s := range all {
		_, ok := all.span(s.ParentSpanId)
		top := fmt.Sprintf("%x", s.ParentSpanId) == customersSpan
		if !ok && !top || top && s.process != "gateway" {
			return fmt.Sprintf("%s of %s has no parent", s.Name, s.process)
		}
	}
	return ""
}

func (all spanTree) String() string {
	var b strings.Builder
	var tell func(parent, indent string)
	tell = func(parent, indent string) {
		under := slices.Collect(func(yield func(spanOf) bool) {
			for _, s := range all {
				if fmt.Sprintf("%x", s.ParentSpanId) == parent && !yield(s) {
					return
				}
			}
		})
		slices.SortFunc(under, func(x, y spanOf) int { return cmp.Compare(x.StartTimeUnixNano, y.StartTimeUnixNano) })
		for _, s := range under {
			fmt.Fprintf(&b, "%s%s: %s (%s)\n", indent, s.process, s.Name, strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"))
			tell(fmt.Sprintf("%x", s.SpanId), indent+"  ")
		}
	}
	tell(customersSpan, "")
	return b.String()
}
