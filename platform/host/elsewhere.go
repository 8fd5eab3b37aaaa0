package host

import (
	"net/http"
	"net/http/httputil"
	"net/url"
)

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
