// Package web is the public HTTP face: echo with huma on it, strict requests, problem+json answers, permissions, limits,
// idempotency keys, entity tags, cursors and the OpenAPI document. It does not know what a route does: modules declare
// theirs with Get, Post … and the host decides where each is served. Nothing but this package imports echo or huma.
package web

import (
	"context"
	"net/http"
	"time"

	"github.com/banyan-shop/banyan/platform/urgency"
)

// Permission says who may use a route. There is no default: a route without one does not build.
type Permission struct{ name string }

var (
	Public   = Permission{"public"}    // anybody; a guest's token, if any, is checked by the handler in its SQL
	SignedIn = Permission{"signed_in"} // any user
)

// Scope allows users whose roles grant the permission, such as catalog:write.
func Scope(name string) Permission { return Permission{name} }

// String is public, signed_in or the scope.
func (p Permission) String() string { return p.name }

// Reply is an answer: status (0 means the route's, or 201 for a POST with a Location), headers and a JSON body.
type Reply[T any] struct {
	Status       int
	ETag         string `header:"ETag"`
	Location     string `header:"Location"`
	CacheControl string `header:"Cache-Control"` // "" is no-store, or private, no-cache beside an ETag
	Body         T
}

func (r *Reply[T]) answer() answer {
	return answer{status: r.Status, etag: r.ETag, location: r.Location, cacheControl: r.CacheControl, json: &r.Body}
}

// Raw is an answer that is not JSON.
type Raw struct {
	Status       int
	ContentType  string `header:"Content-Type"`
	CacheControl string `header:"Cache-Control"`
	ETag         string `header:"ETag"`
	Body         []byte
}

func (r *Raw) answer() answer {
	return answer{status: r.Status, etag: r.ETag, contentType: r.ContentType, cacheControl: r.CacheControl, raw: r.Body}
}

// Route describes a route for the documentation and says what its clients must send.
type Route struct {
	ID      string // operationId such as listProducts
	Summary string
	Tag     string
	// Status of success, default 200.
	Status int
	// Also are further statuses to document, and when the route answers with them: others of success, and refusals that
	// follow from no declaration.
	Also map[int]string
	// Idempotency of a POST: Keyed lets clients send Idempotency-Key, KeyRequired makes them.
	Idempotency Idempotency
	// KeyTTL is how long an answer is replayed, default 24 h; seven days where money moves.
	KeyTTL time.Duration
	// MaxBody in bytes, default 64 KiB.
	MaxBody int64
	// IgnoreToken leaves a Bearer token unread, so that an expired one does not stop a sign-in or a refresh.
	IgnoreToken bool
	// Hidden routes are served but not in the OpenAPI document.
	Hidden bool
	// Criticality says who is turned away first when there is more to do than the process can; see Overload.
	Criticality Criticality
	// Guarded routes are where passwords and tokens are guessed: while the shared limits can't be asked, nobody may try.
	Guarded bool
	// Cache lets a gateway keep the answers of a Public GET that says the same to everybody.
	Cache Cache
	// LongPoll routes may wait for something to happen. Their time says nothing about how busy the process is.
	LongPoll bool
	// Stream routes answer for as long as the client listens: events, or a WebSocket. No time limit holds for them.
	Stream bool
	// Timeout is how long a gateway waits for the answer of another process, default 35 s: a long poll takes up to 30.
	Timeout time.Duration
}

// Criticality is how much a route matters when not all can be served.
type Criticality = urgency.Criticality

// These are the ones there are.
const (
	Normal    = urgency.Normal
	Sheddable = urgency.Sheddable
	Critical  = urgency.Critical
)

// Idempotency is a POST route's use of Idempotency-Key.
type Idempotency int

const (
	Unkeyed     Idempotency = iota
	Keyed                   // platform/web stores and replays the answer; the handler calls SaveReply in its transaction
	KeyRequired             // as Keyed, 428 without one
	KeyHandled              // required and checked for form; the module stores and replays by itself, from KeyFrom(ctx)
)

// Cache says for how long, and until which facts change, the answers of a route may be told again.
type Cache struct {
	// For bounds how old a cached answer may be; 0 keeps none. Config.CacheFor bounds it further.
	For time.Duration
	// Tags are names, such as catalog, under which Server.Invalidate forgets the answers.
	Tags []string
}

// Get, Post … declare a route. In and Out are huma structs: In has path, query and header tagged fields and a Body, Out is
// Reply[T] or Raw. The path is echo-free: /v1/products/{id}.
func Get[In, Out any](r *Router, path string, p Permission, d Route, h func(context.Context, *In) (*Out, error)) {
	register(r, http.MethodGet, path, p, d, h)
}

// Post declares a POST route.
func Post[In, Out any](r *Router, path string, p Permission, d Route, h func(context.Context, *In) (*Out, error)) {
	register(r, http.MethodPost, path, p, d, h)
}

// Put declares a PUT route.
func Put[In, Out any](r *Router, path string, p Permission, d Route, h func(context.Context, *In) (*Out, error)) {
	register(r, http.MethodPut, path, p, d, h)
}

// Patch declares a PATCH route.
func Patch[In, Out any](r *Router, path string, p Permission, d Route, h func(context.Context, *In) (*Out, error)) {
	register(r, http.MethodPatch, path, p, d, h)
}

// Delete declares a DELETE route.
func Delete[In, Out any](r *Router, path string, p Permission, d Route, h func(context.Context, *In) (*Out, error)) {
	register(r, http.MethodDelete, path, p, d, h)
}

// Page is a list answer.
type Page[T any] struct {
	Data       []T    `json:"data"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// RequestID is the id of the request ctx belongs to, "" outside one.
func RequestID(ctx context.Context) string {
	if x := exchangeOf(ctx); x != nil {
		return x.id
	}
	return ""
}

// ClientIP is the address of the client as far as trusted proxies say, "" outside a request.
func ClientIP(ctx context.Context) string {
	if x := exchangeOf(ctx); x != nil {
		return x.ip
	}
	return ""
}

// Draining is closed when the server has begun to stop, so that a long poll can answer early; nil outside a request.
func Draining(ctx context.Context) <-chan struct{} {
	if x := exchangeOf(ctx); x != nil {
		return x.server.draining
	}
	return nil
}
