// Package rpc is a typed call between modules that reads the same whether the callee is in this process or in another.
//
// A contract package binds each method once with NewMethod. A module mounts its implementation on a Server and reaches
// others through a Conn, which holds where the callee runs: in this process (a plain call, no encoding), behind a loopback
// listener of this process (the wire placement, for tests), or at a remote address. Deadline, identity, error semantics,
// tracing and counting are the same in all three. Calls to elsewhere are bounded by a Policy: retries within a budget, a breaker
// and a bulkhead for each callee. A caller that can do with an old answer may have one where the owner allows it.
//
// It does not decide who runs where: the host does, through a Wiring. It carries no streams and no events.
package rpc

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Mark says whether a method may be called again after a failure without an answer.
type Mark int

const (
	NotRepeatable   Mark = iota // never retried
	Idempotent                  // a read, or a write that a repeat leaves as it is
	IdempotentByKey             // the request has a Key field; the same Key gives the first answer
)

func (m Mark) String() string {
	switch m {
	case Idempotent:
		return "idempotent"
	case IdempotentByKey:
		return "idempotent by key"
	}
	return "not repeatable"
}

// Method is one method of a contract, bound once at package level of api/<m>api.
type Method[Req, Res any] struct {
	name string
	mark Mark
	traits
}

// NewMethod names a method: NewMethod[ReserveRequest, Reservation]("catalog.Reserve", rpc.IdempotentByKey).
func NewMethod[Req, Res any](name string, mark Mark, ts ...Trait) *Method[Req, Res] {
	m := &Method[Req, Res]{name: name, mark: mark}
	for _, t := range ts {
		t(&m.traits)
	}
	return m
}

// Trait says more of a method than its mark.
type Trait func(*traits)

type traits struct {
	stale time.Duration // how old an answer may be in place of none; 0: none may
}

// StaleFor says that an answer up to this old is better than none, for callers that allow it with AllowStale. The method is a
// read and marked Idempotent; nothing may be charged, promised or decided by its answer.
func StaleFor(age time.Duration) Trait { return func(t *traits) { t.stale = age } }

// Call asks the callee behind c. A failure without an answer is errs.NoAnswer: it may have happened. Every error is an
// *errs.Error; what the callee wrapped stays at home. A ctx without a deadline gets the wiring's default, 2 s.
func (m *Method[Req, Res]) Call(ctx context.Context, c *Conn, r Req) (Res, error) {
	if m.stale > 0 && c != nil {
		if s := allowedStale(ctx); s != nil {
			return m.callStale(ctx, c, r, s)
		}
	}
	return m.call(ctx, c, r)
}

func (m *Method[Req, Res]) call(ctx context.Context, c *Conn, r Req) (Res, error) {
	b, err := bind(m, c)
	if err != nil {
		var none Res
		return none, err
	}
	if err := ctx.Err(); err != nil {
		var none Res
		return none, notSent(err)
	}
	if b.local != nil {
		return b.callLocal(ctx, r)
	}
	return b.callRemote(ctx, r)
}

// Handle makes f answer the method on s.
func (m *Method[Req, Res]) Handle(s *Server, f func(context.Context, Req) (Res, error)) {
	info := MethodInfo{Name: m.name, Mark: m.mark, StaleFor: m.stale, Request: reflect.TypeFor[Req](), Response: reflect.TypeFor[Res]()}
	s.add(info, handler{fn: f, http: func() http.Handler { return serveHTTP(s, m, f) }})
}

// MethodInfo describes a mounted method.
type MethodInfo struct {
	Name              string // catalog.Reserve
	Mark              Mark
	StaleFor          time.Duration // 0: an old answer is never given
	Request, Response reflect.Type
}

// Path is where the method is served: /rpc/catalog/Reserve.
func (i MethodInfo) Path() string { return path(i.Name) }

func path(method string) string { return "/rpc/" + strings.Replace(method, ".", "/", 1) }

// Server is what one module answers.
type Server struct {
	module string
	wiring *Wiring // nil for a server on its own

	mu       sync.RWMutex
	handlers map[string]handler
	methods  []MethodInfo
	mistakes []error
}

type handler struct {
	fn   any // func(context.Context, Req) (Res, error)
	http func() http.Handler
}

// NewServer is a server on its own, for tests of a contract. The host's come from a Wiring.
func NewServer(module string) *Server { return &Server{module: module} }

// Module is the name of the module that answers here.
func (s *Server) Module() string { return s.module }

// Methods lists what is mounted, in the order of mounting.
func (s *Server) Methods() []MethodInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]MethodInfo(nil), s.methods...)
}

// Check is what is wrong with what is mounted, nil if nothing.
func (s *Server) Check() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return joined(s.mistakes)
}

func (s *Server) add(info MethodInfo, h handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handlers == nil {
		s.handlers = map[string]handler{}
	}
	complain := func(format string, args ...any) { s.mistakes = append(s.mistakes, fmt.Errorf(format, args...)) }
	if module, _, ok := strings.Cut(info.Name, "."); !ok || module != s.module {
		complain("%s is mounted on the server of %s: a method is named <module>.<Method>", info.Name, s.module)
	}
	if _, twice := s.handlers[info.Name]; twice {
		complain("%s is mounted twice", info.Name)
	}
	if info.Mark == IdempotentByKey {
		if f, ok := keyField(info.Request); !ok || f.Type.Kind() != reflect.String {
			complain("%s is idempotent by key, so %s needs a string field named Key", info.Name, info.Request)
		}
	}
	if info.StaleFor > 0 && info.Mark != Idempotent {
		complain("%s gives old answers, so it must be a read, marked Idempotent", info.Name)
	}
	s.handlers[info.Name] = h
	s.methods = append(s.methods, info)
}

func keyField(t reflect.Type) (reflect.StructField, bool) {
	if t.Kind() != reflect.Struct {
		return reflect.StructField{}, false
	}
	return t.FieldByName("Key")
}

func (s *Server) handler(method string) (handler, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, ok := s.handlers[method]
	return h, ok
}

// Dialer gives a module the connections to the modules it calls.
type Dialer interface{ Conn(callee string) *Conn }
