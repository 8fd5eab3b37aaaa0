package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/web"
)

// raw sends text as it is and reads one answer.
func raw(t *testing.T, addr, text string) (status int, body string, left string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	fatal(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, text)
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil) //nolint:bodyclose // the connection is closed as a whole
	if err != nil {
		return 0, "", ""
	}
	b, _ := io.ReadAll(r.Body)
	if r.Close {
		rest, _ := io.ReadAll(in)
		left = string(rest)
	}
	return r.StatusCode, string(b), left
}

// paths are about two hundred ways to write what may be the way to a thing, or past a guard.
func paths() []string {
	var all []string
	for _, s := range []string{"%2f", "%2F", "%5c", "%5C", "%09", "%0a", "%0d", "%00", "%20", "%2e", "%2E", "%2e%2e", "%2e%2e%2f", "..%2f", "%3b", "%3B", ";", ";a=b", "%25", "%252f", "%25%32%66",
		"%252e%252e", "%c0%af", "%c0%2e", "%e0%80%af", "%ef%bc%8f", "%u002f", "%", "%2", "%zz", "\\", "..", ".", "//", "/./", "/../", "..;", "..;/", "/..;/", "%7f", "%ff", "é", "%C3%A9", "~", "!", "'", "@", ":", "+", ",", "*", "$", "&", "="} {
		all = append(all, "/v1/things/"+s, "/v1/things/a"+s+"b", "/v1"+s+"/things/a", "/v1/things"+s+"a")
	}
	return append(all, "/v1/things/a/", "/v1/things/a?", "/v1/things/a?sort=x", "/v1/things/a?sort=%zz", "/v1/things/a?sort=a;b", "/v1/things/a?sort=a&sort=b", "/v1/things/a?none=b", "/v1/things/a?sort=%ff",
		"/v1/things/a#x", "//v1/things/a", "/V1/things/a", "/v1/Things/a", "/v1/things", "/v1/things/", "/v1/things/a/b", "/v1/things/"+strings.Repeat("x", 30), "/v1/things/none",
		"/", "*", "", "v1/things/a", "http://evil/v1/things/a", "http://evil:80/v1/me", "/v1/me", "/v1/admin", "/v1/admin/", "/v1/admin;", "/v1/admin%2f", "/v1/./admin", "/v1/who/../admin", "/v1/who%2f..%2fadmin", "/v1/who/%2e%2e/admin")
}

// TestPathsMeanTheSameInOneProcessAndThroughTheGateway compares a face with the module in it to the gateway before it.
func TestPathsMeanTheSameInOneProcessAndThroughTheGateway(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *change) { c.inner = func(w *web.Config) { w.Limit = web.Limit{} } })
	all := paths()
	if len(all) < 200 {
		t.Fatalf("only %d paths", len(all))
	}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
		for _, p := range all {
			text := method + " " + p + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\nX-Request-Id: same\r\n\r\n"
			before := b.count()
			status, body, _ := raw(t, b.gateway, text)
			reached := b.count() - before
			wantStatus, want, _ := raw(t, b.module, text)
			if status != wantStatus || body != want {
				t.Errorf("%s %s: %d %s\nin one process: %d %s", method, p, status, body, wantStatus, want)
			}
			if strings.Contains(body, `"User"`) {
				t.Errorf("%s %s: past the guard: %s", method, p, body)
			}
			if reached == 0 {
				continue
			}
			b.mu.Lock()
			for _, r := range b.seen[before : before+reached] {
				if strings.ContainsAny(r.URL.Path, "\\;%\x00\t\n\r") || strings.Contains(r.URL.Path, "//") || strings.Contains(r.URL.Path, "/.") && method == "GET" && strings.Contains(r.URL.Path, "/./") {
					t.Errorf("%s %s reaches the module as %q", method, p, r.URL.Path)
				}
			}
			b.mu.Unlock()
		}
	}
}

func TestRequestsThatAreTwoAreNone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	smuggled := "GET /v1/admin HTTP/1.1\r\nHost: x\r\nX-Smuggled: 1\r\n\r\n"
	head := "POST /v1/things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	for name, text := range map[string]string{
		"two lengths":                     head + "Content-Length: 0\r\nContent-Length: 52\r\n\r\n" + smuggled,
		"two lengths in one":              head + "Content-Length: 0, 52\r\n\r\n" + smuggled,
		"a signed length":                 head + "Content-Length: +0\r\n\r\n" + smuggled,
		"a negative length":               head + "Content-Length: -1\r\n\r\n" + smuggled,
		"a hexadecimal length":            head + "Content-Length: 0x0\r\n\r\n" + smuggled,
		"a length and chunks":             head + "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks and a length":             head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks twice":                    head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks and identity":             head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled,
		"gzip and chunks":                 head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"other chunks":                    head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks with a tab":               head + "Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks behind a space":           head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks on a folded line":         head + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks in capitals":              head + "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks with a line feed alone":   head + "Transfer-Encoding: chunked\r\n\r\n0\n\n" + smuggled,
		"a chunk size with a sign":        head + "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + smuggled,
		"a chunk extension with a feed":   head + "Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n" + smuggled,
		"chunks in HTTP/1.0":              strings.Replace(head, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + smuggled,
		"a GET with a body":               "GET /v1/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 52\r\n\r\n" + smuggled,
		"two hosts":                       "GET /v1/who HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n" + smuggled,
		"no host":                         "GET /v1/who HTTP/1.1\r\nConnection: close\r\n\r\n" + smuggled,
		"a header with a carriage return": "GET /v1/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: a\rX-User-Id: 1\r\n\r\n" + smuggled,
		"a header with no name":           "GET /v1/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n: a\r\n\r\n" + smuggled,
		"a space before a header":         "GET /v1/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n X-User-Id: 1\r\n\r\n" + smuggled,
		"a line feed in the path":         "GET /v1/who\nX: y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + smuggled,
		"trailers that name somebody":     head + "Trailer: Banyan-Gateway, X-User-Id\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nBanyan-Gateway: x\r\nX-User-Id: usr_evil\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			id = strings.ReplaceAll(strings.ReplaceAll(id, "/", "-"), ",", "")
			_, _, left := raw(t, b.gateway, strings.Replace(text, "\r\n", "\r\nX-Request-Id: "+id+"\r\n", 1))
			if left != "" {
				t.Errorf("a second answer: %q", left)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			mine := 0
			for _, r := range b.seen {
				if r.Header.Get("X-Request-Id") == id {
					mine++
				}
			}
			if mine > 1 {
				t.Errorf("%d requests reached the module", mine)
			}
			for _, r := range b.seen { // a request that was refused may arrive later than its answer
				if r.URL.Path == "/v1/admin" || r.Header.Get("X-Smuggled") != "" || r.Header.Get("X-User-Id") != "" || r.Trailer.Get("X-User-Id") != "" {
					t.Errorf("it reached the module: %s %v", r.URL, r.Header)
				}
			}
		})
	}
}

func TestHeadersHaveALimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	many := func(n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, "X-H%d: a\r\n", i)
		}
		return s.String()
	}
	for name, c := range map[string]struct {
		headers string
		status  int
	}{
		"some":  {many(50), 200},
		"many":  {many(150), 431},
		"large": {"X: " + strings.Repeat("a", 32<<10) + "\r\n", 431},
	} {
		if status, body, _ := raw(t, b.gateway, "GET /v1/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+c.headers+"\r\n"); status != c.status {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
