package web

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/errs"
)

// served is what one server knows of a declared route.
type served struct {
	*route
	killed atomic.Bool
	group  *group // nil when nobody is turned away
	pace   *pace
}

// errKilled is told to everybody who asks for a route that is switched off.
var errKilled = errs.New(errs.Unavailable, "switched_off", "This part of the shop is switched off for now.")

// Kill switches exactly these routes off, and all others on: each is an operation id such as listReviews, or a method and
// a pattern such as GET /v1/products/{id}/reviews. With a name that no route has, nothing changes.
func (s *Server) Kill(routes []string) error {
	var names []string
	for _, sv := range s.served {
		names = append(names, sv.ID, sv.method+" "+sv.path)
	}
	var bad []error
	for _, name := range routes {
		if !slices.Contains(names, name) {
			bad = append(bad, fmt.Errorf("there is no route %q%s", name, config.DidYouMean(name, names)))
		}
	}
	if len(bad) > 0 {
		return errors.Join(bad...)
	}
	for _, sv := range s.served {
		sv.killed.Store(slices.Contains(routes, sv.ID) || slices.Contains(routes, sv.method+" "+sv.path))
	}
	return nil
}
