package host

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	"github.com/banyan-shop/banyan/platform/discovery"
)

// announce makes this process known to Consul where its own addresses are Consul's, until withdraw.
func (h *Host) announce(ctx context.Context) error {
	this := h.Plan.Processes[h.Plan.Process]
	for _, a := range []struct {
		address  string
		listener net.Listener
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
			Service: u.Host, Address: net.JoinHostPort(host, port), Tags: tags, Check: h.Ready, Log: h.log,
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

// internal is what other processes may ask on the rpc listener.
func (h *Host) internal() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/rpc/", h.wiring.Handler())
	mux.HandleFunc("GET "+statusPath, h.status)
	return mux
}

// forward sends requests to the process that runs a module.
func (h *Host) forward(module string) http.Handler {
	to, _ := url.Parse(h.Plan.HTTP(module))
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() }}
}
