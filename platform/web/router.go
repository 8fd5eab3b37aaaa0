package web

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/banyan-shop/banyan/platform/pg"
)

// Router collects the routes of a module. Routes are declared without building the module, so handlers are method values of
// a possibly nil *Module and must not be called while declaring.
type Router struct {
	app    *app
	module string
	keys   *keyStore
	remote http.Handler
}

// app is what all routers of one server share.
type app struct {
	api       huma.API
	routes    []*route
	declaring *route // for names of schemas
	ids       map[string]string
	schemas   map[string]reflect.Type
	problems  map[string]Problem
}

// NewRouter is an empty router: give it to NewServer, or to OpenAPI for the document alone.
func NewRouter() *Router {
	a := &app{declaring: &route{}, ids: map[string]string{}, schemas: map[string]reflect.Type{}, problems: map[string]Problem{}}
	for _, p := range platformProblems {
		a.problems[p.Code] = p
	}
	a.api = huma.NewAPI(a.configuration(), collector{})
	return &Router{app: a}
}

// Module is the router for one module's routes. db keeps its idempotency keys; nil for a module without a schema.
func (r *Router) Module(name string, db *pg.DB) *Router {
	m := &Router{app: r.app, module: name}
	if db != nil {
		m.keys = newKeyStore(db)
	}
	return m
}

// Remote is the router for the routes of a module that runs elsewhere: h forwards to it (gateway.Forward does). Declared
// permissions and limits hold here already; the other process checks everything but the rate again. h gets the request
// with the identity in its context, a body that keeps to the route's size, and no credentials of the client; it reports
// what goes wrong with Fail.
func (r *Router) Remote(name string, h http.Handler) *Router {
	return &Router{app: r.app, module: name, remote: h}
}

// Tag describes a tag of routes for readers of the OpenAPI document.
func (r *Router) Tag(name, description string) {
	doc := r.app.api.OpenAPI()
	doc.Tags = append(doc.Tags, &huma.Tag{Name: name, Description: description})
}

// RouteInfo is a declared route.
type RouteInfo struct{ Module, Method, Path, ID, Permission string }

// Routes lists what was declared, in order.
func (r *Router) Routes() []RouteInfo {
	infos := make([]RouteInfo, len(r.app.routes))
	for i, rt := range r.app.routes {
		infos[i] = RouteInfo{rt.module, rt.method, rt.path, rt.ID, rt.permission.name}
	}
	return infos
}

// route is one declared route.
type route struct {
	Route
	module, method, path string
	permission           Permission
	keys                 *keyStore
	remote               http.Handler
	serve                func(huma.Context) // parses, validates, then calls the handler
	queries              map[string]bool    // known query parameters, and whether one may repeat
	deepQueries          []string           // prefixes such as "filter["
	body                 bodyKind
	in                   string // the name of the In type
}

type bodyKind int

const (
	noBody bodyKind = iota
	jsonBody
	rawBody
)

// answerer is *Reply[T] or *Raw.
type answerer interface{ answer() answer }

const (
	defaultMaxBody = 64 << 10
	defaultTimeout = 35 * time.Second
)

func register[In, Out any](r *Router, method, path string, p Permission, d Route, h func(context.Context, *In) (*Out, error)) {
	name := method + " " + path
	if p.name == "" {
		panic("web: " + name + ": say who may use it: web.Public, web.SignedIn or web.Scope(\"…\")")
	}
	if _, ok := any((*Out)(nil)).(answerer); !ok {
		panic(fmt.Sprintf("web: %s: the handler answers with *web.Reply[T] or *web.Raw, not %T", name, (*Out)(nil)))
	}
	if d.Idempotency != Unkeyed && method != http.MethodPost {
		panic("web: " + name + ": only a POST takes an Idempotency-Key")
	}
	if d.ID == "" {
		panic("web: " + name + ": give it an ID, such as listProducts")
	}
	if other, ok := r.app.ids[d.ID]; ok {
		panic("web: " + name + ": the ID " + d.ID + " is already that of " + other)
	}
	r.app.ids[d.ID] = name
	if d.Cache.For > 0 && (method != http.MethodGet || p != Public) {
		panic("web: " + name + ": only a Public GET has an answer for everybody, so only that may be cached")
	}
	if d.MaxBody == 0 {
		d.MaxBody = defaultMaxBody
	}
	if d.Timeout == 0 {
		d.Timeout = defaultTimeout
	}
	rt := &route{Route: d, module: r.module, method: method, path: path, permission: p, keys: r.keys, remote: r.remote,
		body: bodyOf(reflect.TypeFor[In]()), in: reflect.TypeFor[In]().Name()}
	r.app.declaring = rt
	if rt.keys == nil && rt.remote == nil && (d.Idempotency == Keyed || d.Idempotency == KeyRequired) {
		rt.keys = noKeys // declared for the document alone
	}
	op := describe(rt, reflect.TypeFor[Out]() == reflect.TypeFor[Raw]())
	op.Metadata = map[string]any{"route": rt}
	huma.Register(r.app.api, op, func(ctx context.Context, in *In) (*Out, error) {
		x := exchangeOf(ctx)
		x.handle(ctx, func() (answer, error) {
			out, err := h(ctx, in)
			if err != nil || out == nil {
				return answer{status: http.StatusNoContent}, err
			}
			return any(out).(answerer).answer(), nil
		})
		// Now, while the raw body that an answer may quote is still in huma's hands. The exchange writes the answer itself:
		// huma would negotiate, transform and reflect for what is always JSON.
		x.finish()
		return nil, nil
	})
	r.app.routes = append(r.app.routes, rt)
}

func bodyOf(in reflect.Type) bodyKind {
	if _, ok := in.FieldByName("Body"); ok {
		return jsonBody
	}
	if _, ok := in.FieldByName("RawBody"); ok {
		return rawBody
	}
	return noBody
}

// collector is the adapter huma registers into: it keeps the handlers until a server serves them.
type collector struct{}

func (collector) Handle(op *huma.Operation, h func(huma.Context)) {
	rt := op.Metadata["route"].(*route)
	rt.serve = h
	rt.queries = map[string]bool{}
	for _, p := range op.Parameters {
		switch {
		case p.In != "query":
		case p.Style == "deepObject":
			rt.deepQueries = append(rt.deepQueries, p.Name+"[")
		default:
			rt.queries[p.Name] = p.Explode != nil && *p.Explode
		}
	}
}

func (collector) ServeHTTP(http.ResponseWriter, *http.Request) {
	panic("web: the collector serves nothing")
}

// echoPath is the path in echo's spelling: {id} becomes :id.
func echoPath(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}
