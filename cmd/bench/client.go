package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// client is one keep-alive connection that asks and waits, one request at a time. It shares the machine with what it measures,
// so it does the least that HTTP/1.1 allows: no pool, no header map, one write and usually one read a request.
type client struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
	out     []byte
	body    []byte
	refused int // answers that the shop had too much to do
	poorer  int // pages that lacked a part, or had an old one
}

// timeout bounds one request: a shop that hangs must not hang the bench.
const timeout = 60 * time.Second

// do sends a request and reads the whole answer. headers are lines that end in \r\n. The body is valid until the next call.
func (c *client) do(method, target, headers, body string) (status int, answer []byte, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.address); err != nil {
			return 0, nil, err
		}
		c.in = bufio.NewReaderSize(c.conn, 32<<10)
	}
	b := append(c.out[:0], method...)
	b = append(append(append(b, ' '), target...), " HTTP/1.1\r\nHost: shop\r\n"...)
	b = append(b, headers...)
	if body != "" {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n"...)
	}
	c.out = append(append(b, "\r\n"...), body...)
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	status, answer, err = c.read()
	if err != nil {
		err = fmt.Errorf("%s %s: %w", method, target, err)
	}
	return status, answer, err
}

func (c *client) read() (status int, body []byte, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 {
		return 0, nil, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("status line %q", line)
	}
	length, chunked := 0, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, nil, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	c.body = c.body[:0]
	if !chunked {
		return status, c.body, c.take(length)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return 0, nil, err
		}
		if err := c.take(int(n)); err != nil {
			return 0, nil, err
		}
		if _, err := c.in.Discard(2); err != nil {
			return 0, nil, err
		}
		if n == 0 {
			return status, c.body, nil
		}
	}
}

// take appends n bytes to the body.
func (c *client) take(n int) error {
	at := len(c.body)
	c.body = slices.Grow(c.body, n)[:at+n]
	_, err := io.ReadFull(c.in, c.body[at:])
	return err
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// want does a request and makes any other status an error that shows the answer. A shop that says it has too much to do, as it may on
// a machine that others use too, or that leaves out a part of a page for the same reason, is asked again: the time counts, and so do such
// answers.
func (c *client) want(status int, method, target, headers, body string) ([]byte, error) {
	for tries := 0; ; tries++ {
		got, answer, err := c.do(method, target, headers, body)
		if err != nil {
			return nil, err
		}
		poorer := bytes.Contains(answer, []byte(`"unavailable":["`)) || bytes.Contains(answer, []byte(`"stale":["`))
		switch {
		case got == status && !poorer:
			return answer, nil
		case tries == 100:
			return nil, fmt.Errorf("%s %s answered %d still: %.2000s\nto %.2000s", method, target, got, answer, body)
		case got == status:
			c.poorer++
		case got == http.StatusServiceUnavailable && field(answer, "code") == "overloaded":
			c.refused++
		default:
			return nil, fmt.Errorf("%s %s answered %d, not %d: %.2000s\nto %.2000s", method, target, got, status, answer, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// field is the text of the first "name":"…" of a JSON answer whose values need no unescaping.
func field(answer []byte, name string) string {
	_, rest, ok := bytes.Cut(answer, []byte(`"`+name+`":"`))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}

// worker is one client under way.
type worker struct {
	client
	rng *rand.Rand
	id  int // from 0
	n   int // number of its next operation
}

func newWorker(address string, id int) *worker {
	return &worker{client: client{address: address}, id: id, rng: rand.New(rand.NewPCG(uint64(id), 1))}
}

// operation is one go at a path: a request, or all requests of a checkout.
type operation func(*worker) error

// load is what a number of clients saw.
type load struct {
	Clients int           `json:"clients"`
	Count   int           `json:"operations"`
	Rate    float64       `json:"per_second"` // with the time to drain
	P50     time.Duration `json:"p50_ns"`
	P95     time.Duration `json:"p95_ns"`
	P99     time.Duration `json:"p99_ns"`
	Drain   time.Duration `json:"drain_ns,omitempty"`
	Refused int           `json:"refused,omitempty"` // answers of too much to do
	Poorer  int           `json:"poorer,omitempty"`  // pages that lacked a part, or had an old one

	all    []time.Duration // what each took, sorted
	window time.Duration
}

// add takes another turn of the same load in.
func (l *load) add(m load) {
	l.Clients, l.window, l.Drain = m.Clients, l.window+m.window, l.Drain+m.Drain
	l.Refused += m.Refused
	l.Poorer += m.Poorer
	l.all = append(l.all, m.all...)
	slices.Sort(l.all)
	l.Count = len(l.all)
	l.Rate = float64(l.Count) / (l.window + l.Drain).Seconds()
	at := func(part float64) time.Duration {
		if l.Count == 0 {
			return 0
		}
		return l.all[min(l.Count-1, int(part*float64(l.Count)))]
	}
	l.P50, l.P95, l.P99 = at(0.50), at(0.95), at(0.99)
}

// pressure says how to load.
type pressure struct {
	address string
	clients int
	warm    time.Duration
	measure time.Duration
	first   int          // each worker's number of its first operation
	began   func() error // called when the measured time begins
	drained func() error // waits for work that is left behind; its time counts
}

// drive runs op in a loop on each of p.clients for as long as p says. The first error ends it.
func drive(ctx context.Context, p pressure, op operation) (load, error) {
	workers := make([]*worker, p.clients)
	took := make([][]time.Duration, p.clients)
	for i := range workers {
		workers[i] = newWorker(p.address, i)
		workers[i].n = p.first
		defer workers[i].close()
	}
	var (
		measuring, over atomic.Bool
		group           sync.WaitGroup
		once            sync.Once
		failure         error
	)
	fail := func(err error) {
		once.Do(func() { failure = err })
		over.Store(true)
	}
	for i, w := range workers {
		took[i] = make([]time.Duration, 0, 64<<10)
		group.Go(func() {
			for !over.Load() {
				began := time.Now()
				if err := op(w); err != nil {
					fail(err)
					return
				}
				w.n++
				if measuring.Load() && !over.Load() {
					took[i] = append(took[i], time.Since(began))
				}
			}
		})
	}
	sleep(ctx, p.warm, &over)
	var begun error
	if p.began != nil {
		begun = p.began()
	}
	began := time.Now()
	measuring.Store(true)
	sleep(ctx, p.measure, &over)
	over.Store(true)
	window := time.Since(began)
	group.Wait()
	if failure == nil {
		failure = begun
	}
	if failure == nil {
		failure = ctx.Err()
	}
	if failure != nil {
		return load{}, failure
	}
	turn := load{Clients: p.clients, window: window, all: slices.Concat(took...)}
	for _, w := range workers {
		turn.Refused += w.refused
		turn.Poorer += w.poorer
	}
	if p.drained != nil {
		after := time.Now()
		if err := p.drained(); err != nil {
			return load{}, err
		}
		turn.Drain = time.Since(after)
	}
	var l load
	l.add(turn)
	return l, nil
}

// sleep waits for d, but ends soon after over or ctx does.
func sleep(ctx context.Context, d time.Duration, over *atomic.Bool) {
	end := time.Now().Add(d)
	for !over.Load() && ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, 50*time.Millisecond)):
		}
	}
}
