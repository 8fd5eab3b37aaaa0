package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// agent is a Consul agent's HTTP API, of which a few calls are all we need.
type agent struct {
	base  url.URL
	token string
	http  *http.Client
}

func newAgent(address, token string) (*agent, error) {
	if address == "" {
		address = os.Getenv("CONSUL_HTTP_ADDR")
	}
	if address == "" {
		address = "127.0.0.1:8500"
	}
	if token == "" {
		token = os.Getenv("CONSUL_HTTP_TOKEN")
	}
	full := address
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("consul agent %q: write host:port, http://host:port or https://host:port", address)
	}
	return &agent{base: url.URL{Scheme: u.Scheme, Host: u.Host}, token: token, http: &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 2 * time.Second,
	}}}, nil
}

// refused is an answer of Consul that is no success.
type refused struct {
	status int
	text   string
}

func (r *refused) Error() string { return fmt.Sprintf("consul answered %d: %s", r.status, r.text) }

// call sends in as JSON, if it is not nil, and reads the answer into out, if that is not nil.
func (a *agent) call(ctx context.Context, method, path string, query url.Values, in, out any) (http.Header, error) {
	u := a.base
	u.Path, u.RawQuery = path, query.Encode()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if a.token != "" {
		req.Header.Set("X-Consul-Token", a.token)
	}
	res, err := a.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask consul: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		return nil, &refused{res.StatusCode, strings.TrimSpace(string(text))}
	}
	if out != nil {
		if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(out); err != nil {
			return nil, fmt.Errorf("read consul's answer to %s: %w", path, err)
		}
	}
	return res.Header, nil
}

func (a *agent) close() { a.http.CloseIdleConnections() }

// watchTime is how long Consul may hold a question back until something changes. Shorter than its default of 5 min, so that a
// connection that died unnoticed is found out.
const watchTime = time.Minute

// consulSource watches the passing instances of a service.
type consulSource struct {
	*agent
	service, tag string
	index        uint64 // of the last answer; the next one differs
}

func (c *consulSource) find(ctx context.Context) ([]endpoint, error) {
	// Any server may answer, not only the leader: a list a moment old is worth more than none while they elect one.
	q := url.Values{"passing": {"1"}, "stale": {""}}
	if c.tag != "" {
		q.Set("tag", c.tag)
	}
	if c.index > 0 {
		q.Set("index", strconv.FormatUint(c.index, 10))
		q.Set("wait", watchTime.String())
	}
	// Consul adds up to a sixteenth of its own, so that watchers do not come back all at once.
	ctx, cancel := context.WithTimeout(ctx, watchTime+watchTime/16+5*time.Second)
	defer cancel()
	var answer []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
			Weights struct{ Passing int }
		}
	}
	header, err := c.call(ctx, http.MethodGet, "/v1/health/service/"+c.service, q, nil, &answer)
	if err != nil {
		c.index = 0 // the next question is answered at once
		return nil, err
	}
	index, err := strconv.ParseUint(header.Get("X-Consul-Index"), 10, 64)
	if err != nil || index < c.index {
		index = 0 // its state was restored from elsewhere: the old index would wait for what never comes
	}
	c.index = index
	var list []endpoint
	for _, e := range answer {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		list = append(list, endpoint{address: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)), server: c.service, weight: max(1, e.Service.Weights.Passing)})
	}
	if len(list) == 0 {
		return nil, errors.New("consul knows no passing instance of " + c.service)
	}
	return list, nil
}

// pause bounds how often changes are taken, when they follow each other closely or an agent does not hold questions back.
func (c *consulSource) pause() time.Duration { return 100 * time.Millisecond }
