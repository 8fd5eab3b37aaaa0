package host

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/gateway"
	"github.com/banyan-shop/banyan/platform/web"
)

// announce makes this process known to Consul where its own addresses are Consul's, until withdraw.
func (h *Host) announce(ctx context.Context) error {
	this := h.Plan.Processes[h.Plan.Process]
	for _, a := range []struct {
		address  string
		listener *discovery.Listener
	}{{this.HTTP, h.listener}, {this.RPC, h.rpcListener}} {
		u, err := url.Parse(a.address)
		if err != nil || u.Scheme != "consul" || a.listener == nil {
			continue
		}
		host, err := h.advertised()
		if err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(a.listener.Addr().String())
		if err != nil {
			return err
		}
		var tags []string
		if tag := u.Query().Get("tag"); tag != "" {
			tags = []string{tag}
		}
		withdraw, err := discovery.Register(ctx, discovery.RegisterOptions{
			Service: u.Host, Address: net.JoinHostPort(host, port), Tags: tags, Check: h.unready, Log: h.log,
			Consul: h.Settings.Consul.Agent, Token: h.Settings.Consul.Token.Reveal(),
		})
		if err != nil {
			return err
		}
		h.withdraw = append(h.withdraw, withdraw)
	}
	return nil
}

// advertised is the host by which others reach this process.
func (h *Host) advertised() (string, error) {
	if host := h.Settings.Consul.Advertise; host != "" {
		return host, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the name of this machine: %w: set consul.advertise", err)
	}
	return host, nil
}

// internal is what other processes may ask on the rpc listener: contracts, how we are, and what a gateway forwards when it knows no
// other address of ours.
func (h *Host) internal() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/rpc/", h.wiring.Handler())
	mux.HandleFunc("GET "+statusPath, h.status)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		server := h.web.Load()
		probe := r.URL.Path == "/readyz" || r.URL.Path == "/healthz"
		if server == nil || !probe && r.Header.Get(web.GatewayHeader) == "" {
			http.NotFound(w, r) // the public face is elsewhere
			return
		}
		server.Handler().ServeHTTP(w, r)
	})
	return mux
}

// forward sends requests to the process that runs a module, in the name of who made them.
func (h *Host) forward(module string) (http.Handler, error) {
	target, err := h.target(h.Plan.HTTP(module))
	if err != nil {
		return nil, err
	}
	return gateway.Forward(gateway.ForwardOptions{Module: module, Target: notServed{target}, Log: h.log,
		Token: func(_ context.Context, id auth.Identity) (string, error) {
			return h.tokens.IssueInternal(auth.Gateway, module, id)
		}}), nil
}

// notServed tells a request that reached nobody from one that may have happened.
type notServed struct{ target *discovery.Target }

func (n notServed) RoundTrip(r *http.Request) (*http.Response, error) {
	to := n.target.URL() // aimed at, it need not be copied; the request is the proxy's own
	r.URL.Scheme, r.URL.Host = to.Scheme, to.Host
	answer, err := n.target.RoundTrip(r)
	if err != nil && discovery.NotSent(err) && r.Context().Err() == nil {
		return nil, errs.New(errs.Unavailable, "not_served", "nobody serves this part of the shop").Because(err)
	}
	return answer, err
}
