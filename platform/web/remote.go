package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
)

// A gateway in another process vouches for a request by a token in GatewayHeader: it has checked who asks and counted the
// request against the limits. An answer that bears the header says that the token was refused, or that the module is not
// here, so it is the gateway's problem and not its client's. Neither gets past a gateway.
const GatewayHeader = "Banyan-Gateway"

// WaitedHeader tells a gateway what came of the request here, see urgency.Request.Report.
const WaitedHeader = "Banyan-Waited"

var refusedMark = []string{"refused"}

// vouch takes the identity from a gateway's token. Whoever shows one is a gateway or a liar: nothing else of the request is
// believed instead.
func (x *exchange) vouch(tokens []string) error {
	answer := x.c.Response().Header()
	answer[GatewayHeader] = refusedMark
	invalid := errs.New(errs.Unauthenticated, "token_invalid", "The gateway's token is not valid.")
	if len(tokens) != 1 || x.server.config.Gateway == nil {
		return invalid
	}
	id, err := x.server.config.Gateway(x.Context(), tokens[0], x.route.module)
	if err != nil {
		return err
	}
	if x.route.remote != nil {
		return refuse(http.StatusMisdirectedRequest, "misrouted", "This part of the shop runs elsewhere.")
	}
	from := x.c.Request().Header["X-Forwarded-For"]
	if len(from) != 1 {
		return invalid.Because(errors.New("no single X-Forwarded-For comes with it"))
	}
	if _, err := netip.ParseAddr(from[0]); err != nil {
		return invalid.Because(err)
	}
	x.ip = from[0]
	x.be(id)
	x.vouched = true
	delete(answer, GatewayHeader)
	return nil
}

// be makes id the caller of the handler.
func (x *exchange) be(id auth.Identity) {
	x.identity = id
	if !id.Anonymous() {
		x.ctx.Context = auth.WithIdentity(x.ctx.Context, id)
	}
}

// forward hands the request to the handler of a module that runs elsewhere.
func (x *exchange) forward() {
	rt, r := x.route, x.c.Request()
	if !rt.IgnoreToken {
		delete(r.Header, "Authorization") // it has been read, and is nobody else's business
	}
	if up := r.Header["Upgrade"]; len(up) > 0 && !(rt.Stream && len(up) == 1 && strings.EqualFold(up[0], "websocket")) {
		delete(r.Header, "Upgrade") // h2c would be a way past this face
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil // nobody would read it
	} else if r.ContentLength > rt.MaxBody {
		x.fail(bodyTooLarge(rt.MaxBody))
		return
	} else if r.Body != nil && r.Body != http.NoBody {
		x.body = &boundedBody{ReadCloser: r.Body, limit: rt.MaxBody, left: rt.MaxBody}
		r.Body = x.body
	}
	delete(r.Header, "Expect") // the client is told to go on when its body is read
	r.Header["X-Request-Id"] = x.idHeader[:]
	ctx := x.Context()
	if !rt.Stream {
		limited, cancel := context.WithTimeout(x.ctx.Context, rt.Timeout)
		defer cancel()
		ctx = &exchangeContext{limited, x}
	}
	rt.remote.ServeHTTP(forwardWriter{x.c.Response()}, r.WithContext(ctx))
}

// forwardWriter leaves out what proxies tell of the way to the answer, such as 103: echo would take it for the answer.
type forwardWriter struct{ *echo.Response }

func (w forwardWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.Response.WriteHeader(status)
	}
}

// boundedBody is a body on its way to another process. It remembers what was wrong with it, because what the transport says
// then is not told apart from a failure of the other process.
type boundedBody struct {
	io.ReadCloser
	limit, left int64
	fault       atomic.Pointer[errs.Error]
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		e := bodyTooLarge(b.limit)
		b.fault.Store(e)
		return 0, e
	}
	b.left -= int64(n)
	if err != nil && err != io.EOF {
		b.fault.Store(errs.New(errs.Malformed, "malformed_body", "The body broke off.").Because(err))
	}
	return n, err
}

func bodyTooLarge(limit int64) *errs.Error {
	return errs.New(errs.TooLarge, "body_too_large", "The body is larger than %d bytes.", limit)
}

// Fail answers the request that ctx belongs to with the problem of err, for handlers given to Router.Remote: in the form,
// the log and the counters of all others. It must not be called once the answer has begun.
func Fail(ctx context.Context, err error) {
	x := exchangeOf(ctx)
	if x.body != nil {
		if fault := x.body.fault.Load(); fault != nil {
			err = fault
		}
	}
	x.fail(err)
}

// WithStatus is e, answered with another status than that of its kind.
func WithStatus(status int, e *errs.Error) error { return &refusal{status, e} }

// Proto is the scheme, http or https, that the client used as far as trusted proxies and gateways say; "" outside a request.
func Proto(ctx context.Context) string {
	x := exchangeOf(ctx)
	if x == nil {
		return ""
	}
	r := x.c.Request()
	if said := r.Header["X-Forwarded-Proto"]; len(said) == 1 && (said[0] == "http" || said[0] == "https") && (x.vouched || x.server.trusts(r.RemoteAddr)) {
		return said[0]
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// trusts says whether an address is that of a trusted proxy.
func (s *Server) trusts(addr string) bool {
	if len(s.trusted) == 0 {
		return false
	}
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return false
	}
	for _, p := range s.trusted {
		if p.Contains(a.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// lift takes the server's time limits off a stream.
func (x *exchange) lift() {
	c := http.NewResponseController(x.c.Response())
	// Writers that know no deadlines, such as those of tests, have none to lift.
	_ = c.SetWriteDeadline(time.Time{})
	_ = c.SetReadDeadline(time.Time{})
}
