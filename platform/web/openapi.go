package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const schemaPrefix = "#/components/schemas/"

// configuration is huma's: our description, our strict JSON, none of its own routes and links.
func (a *app) configuration() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Banyan",
				Version: "v1",
				Description: "Refusals and failures are application/problem+json; each code has a page at /problems/{code}. " +
					"Money is in minor units of its currency. Objects may gain fields and enums may gain values.",
			},
			Servers: []*huma.Server{{URL: "/"}},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry(schemaPrefix, a.nameOfSchema),
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer", Description: "An access token, or an API key."}},
			},
		},
		Formats: map[string]huma.Format{jsonType: strict, "json": strict},
	}
}

// describe is a route as huma documents it.
func describe(rt *route, raw bool) huma.Operation {
	op := huma.Operation{
		OperationID: rt.ID, Method: rt.method, Path: rt.path, Summary: rt.Summary, Hidden: rt.Hidden,
		DefaultStatus: rt.Status, MaxBodyBytes: -1, BodyReadTimeout: -1,
		SkipValidateBody: rt.body == rawBody, // it is the handler's as it came: huma would take JSON for a text that is not one
		Extensions:       map[string]any{"x-permission": rt.permission.name, "x-module": rt.module},
	}
	if rt.Tag != "" {
		op.Tags = []string{rt.Tag}
	} else if rt.module != "" {
		op.Tags = []string{rt.module}
	}
	bearer := map[string][]string{"bearer": {}}
	if rt.permission == Public {
		op.Security = []map[string][]string{{}, bearer} // a token is welcome, not needed
	} else {
		op.Security = []map[string][]string{bearer}
	}
	if rt.Idempotency != Unkeyed {
		most := maxKey
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Required: rt.Idempotency != Keyed,
			Description: "A key of your own making, such as a random UUID. The same key with the same body gives the first answer again.",
			Schema:      &huma.Schema{Type: huma.TypeString, MaxLength: &most},
		})
	}
	if raw {
		status := rt.Status
		if status == 0 {
			status = http.StatusOK
		}
		op.Responses = map[string]*huma.Response{fmt.Sprint(status): {
			Description: http.StatusText(status),
			Content:     map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
		}}
	}
	return op
}

// nameOfSchema names a schema by its module and type, since two contracts may both have an Address: OrdersAddress. A generic
// one comes after its argument: OrdersOrderPage. A body without a type of its own is named by its operation:
// AddLineRequest. Should two types still meet in one name, the later one gets a number.
func (a *app) nameOfSchema(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := ""
	switch {
	case t.Name() != "":
		name = typeName(t.PkgPath() + "." + t.Name())
	case hint == a.declaring.in+"Body" || hint == a.declaring.ID+"Request":
		name = title(a.declaring.ID) + "Request"
	default:
		name = title(a.declaring.module) + title(hint)
	}
	if t.Kind() != reflect.Struct {
		return name // huma names only structs
	}
	for n := 2; ; n++ {
		if other, ok := a.schemas[name]; !ok || other == t {
			a.schemas[name] = t
			return name
		}
		name = strings.TrimRight(name, "0123456789") + strconv.Itoa(n)
	}
}

func typeName(full string) string {
	name, args, generic := strings.Cut(full, "[")
	dot := strings.LastIndexByte(name, '.')
	base := title(name[dot+1:])
	if dot > 0 {
		pkg := path.Base(name[:dot])
		switch {
		case strings.HasSuffix(pkg, "api"):
			pkg = strings.TrimSuffix(pkg, "api")
		case strings.Contains(name, "/platform/"):
			pkg = "" // Page, Amount, Problem: the same everywhere
		}
		if !strings.HasPrefix(strings.ToLower(base), strings.TrimSuffix(pkg, "s")) {
			base = title(pkg) + base
		}
	}
	if !generic {
		return base
	}
	var b strings.Builder
	for arg := range strings.SplitSeq(strings.TrimSuffix(args, "]"), ",") {
		b.WriteString(typeName(strings.TrimLeft(arg, "[]*")))
	}
	return b.String() + base
}

func title(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// OpenAPI is the document of all declared routes, the same bytes for the same routes.
func OpenAPI(r *Router) (yaml, jsonDoc []byte, err error) {
	doc := published(r.app.api.OpenAPI())
	if jsonDoc, err = json.MarshalIndent(doc, "", "  "); err != nil {
		return nil, nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	if yaml, err = doc.YAML(); err != nil {
		return nil, nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	return yaml, append(jsonDoc, '\n'), nil
}

// published is the document for clients. Requests are closed, but answers may gain fields: their schemas say so, or
// generated clients would refuse the next release.
func published(doc *huma.OpenAPI) *huma.OpenAPI {
	all := doc.Components.Schemas.Map()
	asked := map[string]bool{}
	var walk func(s *huma.Schema)
	walk = func(s *huma.Schema) {
		if s == nil {
			return
		}
		if name, ok := strings.CutPrefix(s.Ref, schemaPrefix); ok && !asked[name] {
			asked[name] = true
			walk(all[name])
		}
		walk(s.Items)
		for _, p := range s.Properties {
			walk(p)
		}
		if p, ok := s.AdditionalProperties.(*huma.Schema); ok {
			walk(p)
		}
	}
	for _, item := range doc.Paths {
		for _, op := range [...]*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, media := range op.RequestBody.Content {
				walk(media.Schema)
			}
		}
	}
	open := make(map[string]*huma.Schema, len(all))
	for name, s := range all {
		if closed, ok := s.AdditionalProperties.(bool); ok && !closed && !asked[name] {
			c := *s // requests are validated by the original, whatever is registered later
			c.AdditionalProperties = nil
			s = &c
		}
		open[name] = s
	}
	d, c := *doc, *doc.Components
	c.Schemas = publishedSchemas{doc.Components.Schemas, open}
	c.Responses = problemResponses()
	d.Components = &c
	d.Paths = make(map[string]*huma.PathItem, len(doc.Paths))
	for path, item := range doc.Paths {
		i := *item
		for _, op := range [...]**huma.Operation{&i.Get, &i.Post, &i.Put, &i.Patch, &i.Delete} {
			if *op != nil {
				*op = publishedOperation(*op)
			}
		}
		d.Paths[path] = &i
	}
	return &d
}

// problems of statuses that many routes answer with, each described once.
var statusProblems = map[int]struct{ name, description string }{
	400: {"Malformed", "The request can't be read"},
	401: {"Unauthenticated", "No access token, or one that is not valid any more"},
	402: {"Declined", "The payment was declined"},
	403: {"Forbidden", "The caller lacks the permission"},
	404: {"NotFound", "Nothing is there, or it belongs to somebody else"},
	409: {"Conflict", "The state does not allow it now; the code says why"},
	412: {"PreconditionFailed", "If-Match names a version that is no longer the current one"},
	413: {"TooLarge", "The body is larger than the route takes"},
	415: {"UnsupportedMediaType", "The body is not JSON in UTF-8"},
	422: {"Invalid", "A value, a field or a parameter is not one that the route takes; errors points at it"},
	428: {"PreconditionRequired", "If-Match or Idempotency-Key is missing"},
	429: {"RateLimited", "Too many requests: wait as long as Retry-After says"},
}

const responsePrefix = "#/components/responses/"

func problemResponses() map[string]*huma.Response {
	content := map[string]*huma.MediaType{problemType: {Schema: &huma.Schema{Ref: schemaPrefix + "Problem"}}}
	all := map[string]*huma.Response{"Failure": {Description: "A failure of ours: nothing, or not all, was done", Content: content}}
	for _, p := range statusProblems {
		all[p.name] = &huma.Response{Description: p.description, Content: content}
	}
	return all
}

// headerWords describe what the types of answers can't.
var headerWords = map[string]string{
	"ETag": "The version, for If-Match and If-None-Match", "Location": "Where the new object is",
}

// parameterWords describe parameters that mean the same everywhere.
var parameterWords = map[string]string{
	"limit": "Rows a page", "cursor": "The next_cursor of the page before", "sort": "The order; a minus turns it round",
	"If-Match": "The ETag of the version to change", "X-Cart-Token": "The token of a guest's cart", "X-Order-Token": "The token of a guest's order",
}

// publishedOperation says of one operation what follows from its declaration: who may call it, and what it is refused with.
func publishedOperation(op *huma.Operation) *huma.Operation {
	o, rt := *op, op.Metadata["route"].(*route)
	if p := rt.permission; p == SignedIn {
		o.Description = "For whoever is signed in."
	} else if p != Public {
		o.Description = "Needs the permission `" + p.name + "`."
	}
	mutates, conditional, path := rt.method != http.MethodGet, false, false
	o.Parameters = slices.Clone(op.Parameters)
	for i, p := range o.Parameters {
		conditional = conditional || mutates && p.Name == "If-Match"
		path = path || p.In == "path"
		if words, ok := parameterWords[p.Name]; ok && p.Description == "" {
			described := *p
			described.Description = words
			o.Parameters[i] = &described
		}
	}
	o.Responses = map[string]*huma.Response{"default": {Ref: responsePrefix + "Failure"}}
	var success huma.Response
	for status, r := range op.Responses {
		if status == "default" {
			continue
		}
		success = *r
		success.Headers = map[string]*huma.Param{}
		for name, words := range headerWords {
			if h, ok := r.Headers[name]; ok && status[:2] == "20" && status != "204" && (name != "Location" || status != "200") {
				described := *h
				described.Description = words
				success.Headers[name] = &described
			}
		}
		if status == "204" {
			success.Content = nil
		}
		one := success
		o.Responses[status] = &one
	}
	refused := map[int]bool{
		400: true, 422: true, 429: true, 401: rt.permission != Public || !rt.IgnoreToken, 403: rt.permission != Public && rt.permission != SignedIn,
		404: path, 409: mutates && path || rt.Idempotency != Unkeyed, 412: conditional, 413: rt.body != noBody, 415: rt.body == jsonBody,
		428: conditional || rt.Idempotency > Keyed,
	}
	for status, may := range refused {
		if may {
			o.Responses[strconv.Itoa(status)] = &huma.Response{Ref: responsePrefix + statusProblems[status].name}
		}
	}
	for status, when := range rt.Also {
		also := success
		if p, ok := statusProblems[status]; ok {
			also = huma.Response{Content: problemResponses()[p.name].Content}
		}
		also.Description = when
		o.Responses[strconv.Itoa(status)] = &also
	}
	return &o
}

type publishedSchemas struct {
	huma.Registry
	schemas map[string]*huma.Schema
}

func (p publishedSchemas) MarshalJSON() ([]byte, error) { return json.Marshal(p.schemas) }

// document is the OpenAPI document in both spellings.
type document struct{ yaml, json []byte }

//go:embed viewer
var viewer embed.FS

// viewerPolicy lets the viewer run its own files and nothing else. It sets style attributes and inline images.
const viewerPolicy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

func (s *Server) documentRoutes() {
	serve := func(contentType string, pick func(document) []byte) func(*exchange) {
		return func(x *exchange) {
			doc, err := s.openapi()
			if err != nil {
				x.fail(err)
				return
			}
			x.write(http.StatusOK, contentType, pick(doc))
		}
	}
	s.own("/openapi.json", serve(jsonType, func(d document) []byte { return d.json }))
	s.own("/openapi.yaml", serve("application/yaml", func(d document) []byte { return d.yaml }))
	file := func(name string) func(*exchange) {
		return func(x *exchange) {
			b, err := viewer.ReadFile("viewer/" + name)
			if err != nil {
				x.fail(notFound())
				return
			}
			h := x.c.Response().Header()
			h.Set("Content-Security-Policy", viewerPolicy)
			h.Set("Cache-Control", "no-cache")
			x.write(http.StatusOK, mediaTypes[path.Ext(name)], b)
		}
	}
	s.own("/docs", file("index.html"))
	for _, name := range [...]string{"swagger-ui.css", "swagger-ui-bundle.js", "viewer.js", "favicon.png", "LICENSE", "NOTICE"} {
		s.own("/docs/"+name, file(name))
	}
}

var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".png": "image/png", "": "text/plain; charset=utf-8",
}
