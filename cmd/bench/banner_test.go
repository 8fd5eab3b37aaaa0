package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestBanner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, split, said string
		address, file     string
		ops               []string
	}{
		{
			name: "one process",
			said: `The shop is open at http://127.0.0.1:8080 (started in 1.2 s)
  API docs    http://127.0.0.1:8080/docs
  metrics     http://127.0.0.1:9090/metrics
  stop        Ctrl-C`,
			address: "127.0.0.1:8080", ops: []string{"http://127.0.0.1:9090"},
		},
		{
			name: "split", split: "payments",
			said: `a NATS to carry events …
payments      | Process payments runs (started in 1.8 s)
payments      |   metrics     http://127.0.0.1:1/metrics
payments      |   stop        Ctrl-C
main          | Process main is the door at http://127.0.0.1:2 (started in 1.9 s)

The shop is open at http://127.0.0.1:8080, in 2 processes (started in 4.2 s)
  API docs    http://127.0.0.1:8080/docs
  who is where shop topology --live --config /tmp/x/up/payments+main/shop.yaml
  payments    http://127.0.0.1:11, calls http://127.0.0.1:12, metrics http://127.0.0.1:13/metrics
  notifications http://127.0.0.1:21, calls http://127.0.0.1:22, metrics http://127.0.0.1:23/metrics
  main        http://127.0.0.1:8080, calls http://127.0.0.1:32, metrics http://127.0.0.1:33/metrics
  stop        Ctrl-C`,
			address: "127.0.0.1:8080", file: "/tmp/x/up/payments+main/shop.yaml",
			ops: []string{"http://127.0.0.1:13", "http://127.0.0.1:23", "http://127.0.0.1:33"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &shop{kind: kind{split: c.split}}
			lines := strings.Split(c.said, "\n")
			for i, line := range lines {
				if last := s.read(line); last != (i == len(lines)-1) {
					t.Errorf("%q is the last line: %t", line, last)
				}
			}
			if s.address != c.address || s.file != c.file || !reflect.DeepEqual(s.ops, c.ops) {
				t.Errorf("read %q, %q, %q", s.address, s.file, s.ops)
			}
		})
	}
}

func TestResults(t *testing.T) {
	t.Parallel()
	r := resultsOf(`goos: linux
BenchmarkRelay-2   	   40000	    140979 ns/op	      7093 events/s
BenchmarkRelay-2   	   40000	    100979 ns/op	      9093 events/s
BenchmarkRemoteOverBare/32         	   20000	    668064 ns/op	 3.791e+03 bare-ns	         0.9959 x
PASS
`)
	if got := r.of("Relay", "events/s"); got != 9093 {
		t.Errorf("the median of two is %g", got)
	}
	if got := r.fastest("Relay"); got != 100979 {
		t.Errorf("the fastest of two took %g ns", got)
	}
	if got := r.of("RemoteOverBare/32", "x"); got != 0.9959 {
		t.Errorf("a metric of its own is %g", got)
	}
	if got := r.of("RemoteOverBare/32", "bare-ns"); got != 3791 {
		t.Errorf("a metric with an exponent is %g", got)
	}
	if got := r.of("Nothing", "x"); got != 0 {
		t.Errorf("what was not measured is %g", got)
	}
}
